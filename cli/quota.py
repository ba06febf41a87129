"""`session-ledger quota`: sliding windows of a user's resources."""

from __future__ import annotations

from typing import Annotated

import typer

from session_ledger.cli.options import DEFAULT_TENANT, AsJson, CommandId, TakeOver, Tenant, Url, User

app = typer.Typer(no_args_is_help=True, help="Set, consume, check, release and report quotas.")

_NEGATIVE = {"ignore_unknown_options": True}  # -3 is no option but an amount, which is then told to be none

Resource = Annotated[str, typer.Argument(metavar="RESOURCE", help="api_calls, tokens, storage_mb, or another.")]
Amount = Annotated[str, typer.Argument(metavar="AMOUNT", help="0 or more, at most six decimals.")]


@app.command("set", context_settings=_NEGATIVE)
def set_quota(
    resource: Resource,
    limit: Annotated[
        str, typer.Argument(metavar="LIMIT", help="The most in any window; `none` removes the user's own quota.")
    ],
    user: User,
    period: Annotated[
        str, typer.Option(metavar="TIME", help="The window's length: seconds, or with a unit as in 30s, 15m, 8h, 7d.")
    ] = "24h",
    tenant: Tenant = DEFAULT_TENANT,
    command_id: CommandId = None,
    url: Url = None,
    take_over: TakeOver = False,
    as_json: AsJson = False,
) -> None:
    """Set a user's own quota; it goes before the plan's and the tenant's."""
    from session_ledger.cli.answering import answer
    from session_ledger.cli.opening import open_ledger
    from session_ledger.cli.output import duration
    from session_ledger.cli.values import seconds_of

    seconds = seconds_of(period, "--period")
    assert seconds is not None
    own = None if limit == "none" else limit
    with open_ledger(url, take_over, create=True) as ledger:
        result = ledger.set_quota(tenant, user, resource, own, seconds, command_id=command_id)
    did = (
        f"quota of {resource} removed"
        if own is None
        else f"quota of {resource} set to {limit} in any {duration(seconds)}"
    )
    answer(result, f"{user}: {did}", as_json)


@app.command(context_settings=_NEGATIVE)
def consume(
    resource: Resource,
    user: User,
    amount: Amount = "1",
    reserve: Annotated[bool, typer.Option("--reserve", help="Keep it open: `release` can give it back.")] = False,
    session: Annotated[str | None, typer.Option(metavar="SESSION", show_default=False, help="On whose behalf.")] = None,
    tenant: Tenant = DEFAULT_TENANT,
    command_id: CommandId = None,
    url: Url = None,
    take_over: TakeOver = False,
    as_json: AsJson = False,
) -> None:
    """Consume an amount; exit code 1 when it does not fit into the window."""
    from session_ledger.cli.answering import answer
    from session_ledger.cli.opening import open_ledger
    from session_ledger.cli.output import shown

    with open_ledger(url, take_over) as ledger:
        result = ledger.consume_quota(
            tenant, user, resource, amount, reserve=reserve, session_id=session, command_id=command_id
        )
    sentence = f"{resource}: {shown(result.used)} of {shown(result.limit)} used, {shown(result.remaining)} left"
    if result.reservation_id is not None:
        sentence += f"; reservation {result.reservation_id}"
    answer(result, sentence, as_json)


@app.command(context_settings=_NEGATIVE)
def check(
    resource: Resource,
    user: User,
    amount: Amount = "1",
    tenant: Tenant = DEFAULT_TENANT,
    url: Url = None,
    take_over: TakeOver = False,
    as_json: AsJson = False,
) -> None:
    """Say whether an amount would fit now (exit code 1: no); records nothing."""
    from session_ledger.cli.answering import answer
    from session_ledger.cli.opening import open_ledger
    from session_ledger.cli.output import shown

    with open_ledger(url, take_over) as ledger:
        result = ledger.check_quota(tenant, user, resource, amount)
    sentence = f"{resource}: {amount} {'fits' if result.allowed else 'does not fit'}, "
    sentence += f"{shown(result.used)} of {shown(result.limit)} used"
    if not result.allowed and result.retry_after_ms is not None:
        sentence += f"; it fits in {result.retry_after_ms / 1000:.1f} s"
    answer(result, sentence, as_json)
    raise typer.Exit(0 if result.allowed else 1)


@app.command(context_settings=_NEGATIVE)
def release(
    reservation: Annotated[str, typer.Argument(metavar="RESERVATION", help="What `consume --reserve` answered.")],
    user: User,
    amount: Annotated[
        str | None, typer.Argument(metavar="AMOUNT", show_default=False, help="The unused part. Default: all of it.")
    ] = None,
    tenant: Tenant = DEFAULT_TENANT,
    command_id: CommandId = None,
    url: Url = None,
    take_over: TakeOver = False,
    as_json: AsJson = False,
) -> None:
    """Settle a reservation and give back what was not used of it."""
    from session_ledger.cli.answering import answer
    from session_ledger.cli.opening import open_ledger

    with open_ledger(url, take_over) as ledger:
        result = ledger.release_quota(tenant, user, reservation, amount, command_id=command_id)
    answer(result, f"{result.amount} of {result.resource} given back", as_json)


@app.command()
def report(
    user: Annotated[
        str | None,
        typer.Option("--user", "-U", metavar="NAME", show_default=False, help="Default: sums over all users."),
    ] = None,
    tenant: Tenant = DEFAULT_TENANT,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Report quotas as they stand now: of a user, or the sums of the tenant's users."""
    from session_ledger.cli.answering import document_of
    from session_ledger.cli.opening import open_views
    from session_ledger.cli.output import duration, say, table, write_json
    from session_ledger.cli.showing import show_quotas

    with open_views(url) as views:
        if user is not None:
            found = views.quotas(tenant, user)
            if as_json:
                write_json(document_of(found))
            else:
                show_quotas(found.quotas)
            return
        sums = views.tenant_quotas(tenant)
    if as_json:
        write_json({"tenant": tenant, "quotas": [{**_fields(quota), "percentage": quota.percentage} for quota in sums]})
        return
    if not sums:
        say("no user of this tenant has a quota that was used")
        return
    rows = [
        (q.resource, duration(q.period_ms / 1000), q.users, q.used, q.limit, f"{q.percentage:.1f} %", q.refusals)
        for q in sums
    ]
    table(("resource", "period>", "users>", "used>", "limits>", "share>", "refusals>"), rows)


def _fields(record: object) -> dict[str, object]:
    import dataclasses

    assert dataclasses.is_dataclass(record)
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
