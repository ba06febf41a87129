"""`session-ledger auth`: failed attempts to authenticate as a user."""

from __future__ import annotations

from typing import Annotated

import typer

from session_ledger.cli.options import (
    DEFAULT_TENANT,
    AnyUser,
    AsJson,
    CommandId,
    Limit,
    OccurredAt,
    TakeOver,
    Tenant,
    Url,
    User,
)

app = typer.Typer(no_args_is_help=True, help="Record and list failed attempts to authenticate.")


@app.command()
def failed(
    user: User,
    method: Annotated[str, typer.Option(metavar="WORD", help="access_token, password, api_key, or another.")],
    reason: Annotated[str, typer.Option(metavar="WORD", help="bad_credential, expired, unknown_user, or another.")],
    session: Annotated[
        str | None, typer.Option(metavar="SESSION", show_default=False, help="For which session.")
    ] = None,
    ip_address: Annotated[
        str | None, typer.Option(metavar="ADDRESS", show_default=False, help="From where; sealed.")
    ] = None,
    tenant: Tenant = DEFAULT_TENANT,
    occurred_at: OccurredAt = None,
    command_id: CommandId = None,
    url: Url = None,
    take_over: TakeOver = False,
    as_json: AsJson = False,
) -> None:
    """Record a failed attempt to authenticate as this user."""
    from session_ledger.cli.answering import answer
    from session_ledger.cli.opening import open_ledger
    from session_ledger.cli.values import time_of

    with open_ledger(url, take_over) as ledger:
        result = ledger.report_authentication_failure(
            tenant,
            user,
            method=method,
            reason=reason,
            session_id=session,
            ip_address=ip_address,
            occurred_at=time_of(occurred_at),
            command_id=command_id,
        )
    answer(result, f"failed authentication as {user} recorded", as_json)


@app.command("list")
def list_failures(
    user: AnyUser = None, tenant: Tenant = DEFAULT_TENANT, limit: Limit = 50, url: Url = None, as_json: AsJson = False
) -> None:
    """List failed attempts of a tenant or user, newest first."""
    from session_ledger.cli.opening import open_views
    from session_ledger.cli.output import say, table, write_json

    with open_views(url) as views:
        found = views.authentication_failures(tenant, user, limit=limit)
    if as_json:
        write_json({"authentication_failures": found})
        return
    if not found:
        say("none is recorded")
        return
    rows = [(f.recorded_at, f.user, f.method, f.reason, f.ip_address or f.unreadable, f.session_id) for f in found]
    table(("at (UTC)", "user", "method", "reason", "ip address", "session"), rows)
