"""`session-ledger hold`: legal holds, which forbid erasures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from session_ledger.cli.options import DEFAULT_TENANT, AsJson, CommandId, TakeOver, Tenant, Url

if TYPE_CHECKING:
    from session_ledger.domain.results import Recorded

app = typer.Typer(no_args_is_help=True, help="Set and lift legal holds: what they are on can not be erased.")

Matter = Annotated[str, typer.Option(metavar="NAME", help="What it is for; several matters may hold the same.")]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why; it is recorded in the clear, so it names no person.")]
By = Annotated[
    str | None,
    typer.Option("--by", metavar="NAME", show_default=False, help="Who asks for it. Default: the system's user."),
]
OfUser = Annotated[
    str | None,
    typer.Option("--user", "-U", metavar="NAME", show_default=False, help="Of this user. Default: all of the tenant."),
]
OfSession = Annotated[
    str | None, typer.Option(metavar="SESSION", show_default=False, help="Only this session of the user.")
]


@app.command("set")
def set_hold(
    matter: Matter,
    reason: Reason,
    user: OfUser = None,
    session: OfSession = None,
    by: By = None,
    tenant: Tenant = DEFAULT_TENANT,
    command_id: CommandId = None,
    url: Url = None,
    take_over: TakeOver = False,
    as_json: AsJson = False,
) -> None:
    """Forbid the erasure of a tenant's, a user's or a session's content until the hold is lifted."""
    from session_ledger.cli.opening import open_ledger
    from session_ledger.cli.who import who

    _check(user, session)
    with open_ledger(url, take_over) as ledger:
        result = ledger.set_legal_hold(
            tenant, user, session, matter=matter, requested_by=who(by), reason=reason, command_id=command_id
        )
    _answer(result, f"held for {matter}", tenant, user, session, as_json)


@app.command("lift")
def lift_hold(
    matter: Matter,
    reason: Reason,
    user: OfUser = None,
    session: OfSession = None,
    by: By = None,
    tenant: Tenant = DEFAULT_TENANT,
    command_id: CommandId = None,
    url: Url = None,
    take_over: TakeOver = False,
    as_json: AsJson = False,
) -> None:
    """Lift the hold of that matter on the same scope; holds of other matters stay."""
    from session_ledger.cli.opening import open_ledger
    from session_ledger.cli.who import who

    _check(user, session)
    with open_ledger(url, take_over) as ledger:
        result = ledger.lift_legal_hold(
            tenant, user, session, matter=matter, requested_by=who(by), reason=reason, command_id=command_id
        )
    _answer(result, f"no longer held for {matter}", tenant, user, session, as_json)


@app.command("list")
def list_holds(
    tenant: Annotated[
        str | None, typer.Option("--tenant", "-t", metavar="NAME", show_default=False, help="Default: all tenants.")
    ] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Show the legal holds that are set."""
    from session_ledger.cli.opening import open_views
    from session_ledger.cli.output import say, table, write_json

    with open_views(url) as views:
        found = views.legal_holds(tenant)
    if as_json:
        write_json({"holds": found})
    elif not found:
        say("no legal hold is set")
    else:
        rows = [(h.tenant, h.user, h.session_id, h.matter, h.set_at, h.requested_by, h.reason) for h in found]
        table(("tenant", "user", "session", "matter", "set (UTC)", "by", "reason"), rows)


def _check(user: str | None, session: str | None) -> None:
    from session_ledger.domain.errors import InvalidInput

    if session is not None and user is None:
        raise InvalidInput("--session", "given without --user", "needs the user whose session it is")


def _answer(result: Recorded, did: str, tenant: str, user: str | None, session: str | None, as_json: bool) -> None:
    from session_ledger.cli.answering import answer

    scope = f"tenant {tenant}" if user is None else f"user {user}" if session is None else f"session {session}"
    answer(result, f"{scope}: {did}", as_json)
