"""`session-ledger auth`: access tokens of sessions, and failed attempts to authenticate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from session_ledger.domain.results import AccessTokenSet

app = typer.Typer(no_args_is_help=True, help="Issue, rotate and check access tokens; record and list failed attempts.")

SessionId = Annotated[str, typer.Argument(metavar="SESSION", help="The session's id.")]
Ttl = Annotated[
    str | None,
    typer.Option(metavar="TIME", show_default=False, help="Such as 8h. Default: as long as the session may live."),
]


@app.command()
def issue(
    session: SessionId,
    user: User,
    ttl: Ttl = None,
    tenant: Tenant = DEFAULT_TENANT,
    url: Url = None,
    take_over: TakeOver = False,
    as_json: AsJson = False,
) -> None:
    """Make an access token for a live session, and show it this once: the ledger keeps only its SHA-256."""
    from session_ledger.cli.opening import open_ledger
    from session_ledger.cli.values import seconds_of
    from session_ledger.security.tokens import new_access_token

    token = new_access_token()
    with open_ledger(url, take_over) as ledger:
        result = ledger.issue_access_token(tenant, user, session, token, ttl_s=seconds_of(ttl, "--ttl"))
    _show(token, result, as_json)


@app.command()
def rotate(
    session: SessionId,
    user: User,
    ttl: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            show_default=False,
            help="Such as 8h. Default: as long as the session may live, whatever the replaced one had.",
        ),
    ] = None,
    grace: Annotated[
        str, typer.Option(metavar="TIME", help="How long the replaced one still opens it; 1h at most.")
    ] = "0",
    tenant: Tenant = DEFAULT_TENANT,
    url: Url = None,
    take_over: TakeOver = False,
    as_json: AsJson = False,
) -> None:
    """Replace the access token of a live session by a new one, and show that this once."""
    from session_ledger.cli.opening import open_ledger
    from session_ledger.cli.values import seconds_of
    from session_ledger.security.tokens import new_access_token

    token, lives_s, grace_s = new_access_token(), seconds_of(ttl, "--ttl"), seconds_of(grace, "--grace") or 0
    with open_ledger(url, take_over) as ledger:
        result = ledger.rotate_access_token(tenant, user, session, token, ttl_s=lives_s, grace_s=grace_s)
    _show(token, result, as_json)


def _show(token: str, result: AccessTokenSet, as_json: bool) -> None:
    from session_ledger.cli.answering import document_of
    from session_ledger.cli.output import say, warn, write_json
    from session_ledger.consumers.records import as_datetime

    expires_at = as_datetime(result.expires_at)
    if as_json:
        write_json(document_of(result) | {"token": token, "expires_at": expires_at})
        return
    say(token)
    warn(f"opens session {result.session_id} until {expires_at:%Y-%m-%d %H:%M:%S} UTC; it is shown this once")


@app.command()
def check(
    session: SessionId,
    user: User,
    ip_address: Annotated[
        str | None, typer.Option(metavar="ADDRESS", show_default=False, help="From where; sealed.")
    ] = None,
    tenant: Tenant = DEFAULT_TENANT,
    url: Url = None,
    take_over: TakeOver = False,
    as_json: AsJson = False,
) -> None:
    """Say whether a token, read from standard input, opens the session; that it does not is recorded."""
    import sys

    from session_ledger.cli.answering import document_of
    from session_ledger.cli.opening import open_ledger
    from session_ledger.cli.output import say, write_json
    from session_ledger.consumers.records import as_datetime

    token = sys.stdin.readline().strip()
    with open_ledger(url, take_over) as ledger:
        result = ledger.authenticate(tenant, user, session, token, ip_address=ip_address)
    expires_at = as_datetime(result.expires_at)
    if as_json:
        write_json(document_of(result) | {"expires_at": expires_at})
        return
    say(f"the token opens session {result.session_id} of {user} until {expires_at:%Y-%m-%d %H:%M:%S} UTC")


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
    """List failed attempts of a tenant or user, newest first. For which session each was: --json."""
    from session_ledger.cli.opening import open_views
    from session_ledger.cli.output import moment, say, table, write_json

    with open_views(url) as views:
        found = views.authentication_failures(tenant, user, limit=limit)
    if as_json:
        write_json({"authentication_failures": found})
        return
    if not found:
        say("none is recorded")
        return
    facts = ("method", "reason", "ip address")
    rows = [
        (
            moment(f.recorded_at, seconds=False), f.method, f.reason,
            f.ip_address or (f.unreadable or "").partition(":")[0], f.attempts, f.user,
        )
        for f in found
    ]  # fmt: skip
    table(("at (UTC)", *facts, "tries>", "user"), rows, keep=facts)
