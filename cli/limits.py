"""`session-ledger limits`: what a tenant, one of its plans or a user may have."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from session_ledger.cli.options import DEFAULT_TENANT, AnyUser, AsJson, CommandId, TakeOver, Tenant, Url

if TYPE_CHECKING:
    from session_ledger.domain.account import Account
    from session_ledger.domain.control import Limits, TenantSettings

app = typer.Typer(no_args_is_help=True, help="Set and show limits of a tenant, of its plans and of its users.")


@app.command("set")
def set_limits(
    tenant: Tenant = DEFAULT_TENANT,
    plan: Annotated[
        str | None,
        typer.Option(metavar="NAME", show_default=False, help="Of this plan; with --user: the plan the user is on."),
    ] = None,
    user: AnyUser = None,
    max_sessions: Annotated[
        int | None, typer.Option(metavar="N", min=1, show_default=False, help="Live at once.")
    ] = None,
    policy: Annotated[
        str | None, typer.Option(metavar="WORD", show_default=False, help="At the limit: evict or refuse.")
    ] = None,
    idle_timeout: Annotated[
        str | None, typer.Option(metavar="TIME", show_default=False, help="Without activity, such as 30m.")
    ] = None,
    website_idle_timeout: Annotated[
        str | None, typer.Option(metavar="TIME", show_default=False, help="The same, of website sessions.")
    ] = None,
    ttl: Annotated[
        str | None, typer.Option(metavar="TIME", show_default=False, help="The longest that a session may live.")
    ] = None,
    sensitive_ttl: Annotated[
        str | None, typer.Option(metavar="TIME", show_default=False, help="The same, of sensitive sessions.")
    ] = None,
    alert_threshold: Annotated[
        int | None, typer.Option(metavar="PERCENT", show_default=False, help="Usage from which a fact is recorded.")
    ] = None,
    quota: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RESOURCE=LIMIT/PERIOD", show_default=False, help="A default quota, such as tokens=1000/24h."
        ),
    ] = None,
    command_id: CommandId = None,
    url: Url = None,
    take_over: TakeOver = False,
    as_json: AsJson = False,
) -> None:
    """Set the limits of a tenant, of a plan or of a user, as a whole: what is not named is not set there."""
    from session_ledger.cli.answering import answer
    from session_ledger.cli.opening import open_ledger
    from session_ledger.cli.values import quotas_of, seconds_of
    from session_ledger.domain.errors import InvalidInput

    if user is not None and any((idle_timeout, website_idle_timeout, ttl, sensitive_ttl, alert_threshold, quota)):
        seen = "options of a tenant or plan"
        raise InvalidInput("--user", seen, "goes with --max-sessions, --policy and --plan; quotas: `quota set`")
    seconds = {
        "idle_timeout_s": seconds_of(idle_timeout, "--idle-timeout"),
        "website_idle_timeout_s": seconds_of(website_idle_timeout, "--website-idle-timeout"),
        "ttl_s": seconds_of(ttl, "--ttl"),
        "sensitive_ttl_s": seconds_of(sensitive_ttl, "--sensitive-ttl"),
    }
    quotas = quotas_of(quota)
    given: dict[str, object] = {
        "--max-sessions": max_sessions,
        "--policy": policy,
        "--idle-timeout": idle_timeout,
        "--website-idle-timeout": website_idle_timeout,
        "--ttl": ttl,
        "--sensitive-ttl": sensitive_ttl,
        "--alert-threshold": alert_threshold,
        "--quota": quota,
    }
    if user is not None:
        given = {"--plan": plan, "--max-sessions": max_sessions, "--policy": policy}
    unset = [option for option, value in given.items() if not value]
    if len(unset) == len(given):
        raise InvalidInput("limits", "no option that sets one", f"name one or more of {', '.join(given)}")
    with open_ledger(url, take_over, create=True) as ledger:
        if user is not None:
            result = ledger.set_user_limits(
                tenant, user, max_sessions=max_sessions, limit_policy=policy, plan=plan, command_id=command_id
            )
        else:
            result = ledger.set_limits(
                tenant,
                plan=plan,
                max_sessions=max_sessions,
                limit_policy=policy,
                alert_threshold_percent=alert_threshold,
                quotas=dict(quotas),
                command_id=command_id,
                **seconds,
            )
    of = f"user {user}" if user is not None else f"plan {plan}" if plan is not None else f"tenant {tenant}"
    rest = f"; as a whole: {', '.join(unset)} {'are' if len(unset) > 1 else 'is'} not set there (any more)"
    answer(result, f"limits of {of} set{rest if unset else ''}", as_json)


@app.command()
def show(user: AnyUser = None, tenant: Tenant = DEFAULT_TENANT, url: Url = None, as_json: AsJson = False) -> None:
    """Show what is set for a tenant and its plans, and what counts (for a user, where one is named)."""
    from session_ledger.cli.opening import open_views
    from session_ledger.cli.output import duration, fields, say, table, write_json

    with open_views(url) as views:
        settings, account = views.limits(tenant, user)
    counting = _counting(settings, account)
    if as_json:
        document: dict[str, object] = {"tenant": tenant, "own": _shown(settings.own), "counting": counting}
        document["plans"] = {name: _shown(limits) for name, limits in settings.plans.items()}
        if user is not None:
            own = {"max_sessions": account.max_sessions, "limit_policy": account.limit_policy, "plan": account.plan}
            document["user"] = {"name": user, "own": own}
        write_json(document)
        return
    of = f"user {user}{f' on plan {account.plan}' if account.plan else ''}" if user is not None else f"tenant {tenant}"
    fields([("counting for", of), *map(_pair, counting.items())])
    sets = [("tenant", settings.own), *((f"plan {name}", limits) for name, limits in sorted(settings.plans.items()))]
    single = [(of, name, value) for of, one in sets for name, value in _own(one)]
    if single:
        say()
        table(("set for", "limit", "value"), single)
    quotas = [(of, name, limit, duration(ms / 1000)) for of, one in sets for name, (limit, ms) in one.quotas.items()]
    if quotas:
        say()
        table(("default quota of", "resource", "limit>", "period>"), quotas)


def _own(limits: Limits) -> list[tuple[str, object]]:
    """What is set there, quotas apart, by the names of the options."""
    from session_ledger.cli.output import duration

    found: list[tuple[str, object]] = []
    for field in dataclasses.fields(limits):
        name, value = field.name, getattr(limits, field.name)
        if name == "quotas" or value is None:
            continue
        shown = duration(value / 1000) if name.endswith("_ms") else f"{value} %" if name.endswith("percent") else value
        found.append((name.removesuffix("_ms").removesuffix("_percent").replace("_", " "), shown))
    return found


def _pair(item: tuple[str, object]) -> tuple[str, object]:
    """Name and value for people; what ends in `_s` is a duration in seconds."""
    from session_ledger.cli.output import duration

    name, value = item
    if name.endswith("_s") and isinstance(value, float):
        return name.removesuffix("_s").replace("_", " "), duration(value)
    return name.replace("_", " "), f"{value} %" if name.endswith("percent") else value


def _counting(settings: TenantSettings, account: Account) -> dict[str, object]:
    """What a decision about the account would apply; durations in seconds."""
    return {
        "max_sessions": settings.max_sessions(account),
        "limit_policy": settings.limit_policy(account),
        "idle_timeout_s": settings.idle_timeout_ms(account, "standard") / 1000,
        "website_idle_timeout_s": settings.idle_timeout_ms(account, "website") / 1000,
        "ttl_s": settings.ttl_ms(account, "standard") / 1000,
        "sensitive_ttl_s": settings.ttl_ms(account, "sensitive") / 1000,
        "alert_threshold_percent": settings.alert_threshold_percent(account),
    }


def _shown(limits: Limits) -> dict[str, object]:
    found: dict[str, object] = {f.name: getattr(limits, f.name) for f in dataclasses.fields(limits)}
    found["quotas"] = {name: {"limit": limit, "period_ms": ms} for name, (limit, ms) in limits.quotas.items()}
    return found
