"""`session-ledger erase`: content destroyed for good, and receipts of it; `verify-receipt` checks one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from session_ledger.cli.options import DEFAULT_TENANT, AsJson, CommandId, TakeOver, Tenant, Url, User

if TYPE_CHECKING:
    from session_ledger.consumers.eraser import Progress
    from session_ledger.domain.results import Recorded
    from session_ledger.ledger.ledger import Ledger

app = typer.Typer(
    no_args_is_help=True, help="Erase what was said in a session, by a user or in a tenant; ask for receipts."
)

By = Annotated[
    str | None,
    typer.Option("--by", metavar="NAME", show_default=False, help="Who asks for it. Default: the system's user."),
]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why; it is recorded in the clear, so it names no person.")]


@app.command()
def session(
    session: Annotated[str, typer.Argument(metavar="SESSION")],
    user: User,
    reason: Reason,
    by: By = None,
    tenant: Tenant = DEFAULT_TENANT,
    command_id: CommandId = None,
    url: Url = None,
    take_over: TakeOver = False,
    as_json: AsJson = False,
) -> None:
    """Erase a session: it is ended if it lives, and its data keys are destroyed. It can not be undone."""

    def erase(ledger: Ledger, who: str) -> Recorded:
        return ledger.erase_session(tenant, user, session, requested_by=who, reason=reason, command_id=command_id)

    _erase(erase, by, url, take_over, as_json)


@app.command()
def user(
    user: User,
    reason: Reason,
    by: By = None,
    tenant: Tenant = DEFAULT_TENANT,
    command_id: CommandId = None,
    url: Url = None,
    take_over: TakeOver = False,
    as_json: AsJson = False,
) -> None:
    """Erase a user: every session so far, and the account. Who comes back comes as new. It can not be undone."""

    def erase(ledger: Ledger, who: str) -> Recorded:
        return ledger.erase_user(tenant, user, requested_by=who, reason=reason, command_id=command_id)

    _erase(erase, by, url, take_over, as_json)


@app.command()
def tenant(
    tenant: Annotated[str, typer.Argument(metavar="TENANT")],
    reason: Reason,
    by: By = None,
    command_id: CommandId = None,
    url: Url = None,
    take_over: TakeOver = False,
    as_json: AsJson = False,
) -> None:
    """Erase a tenant: it takes no command any more, and every user of it is erased. It can not be undone."""
    _assert_known(tenant, url)

    def erase(ledger: Ledger, who: str) -> Recorded:
        return ledger.erase_tenant(tenant, requested_by=who, reason=reason, command_id=command_id)

    _erase(erase, by, url, take_over, as_json)


def _assert_known(tenant: str, url: str | None) -> None:
    """Raise InvalidInput for a tenant of which nothing is recorded: a mistyped one would be closed for ever."""
    from session_ledger.cli.opening import open_views
    from session_ledger.domain.control import DEFAULTS
    from session_ledger.domain.errors import InvalidInput

    with open_views(url) as views:
        known = (
            views.tenant_sessions(tenant, status=None, limit=1).items
            or views.user_quotas(tenant, limit=1, fresh=False).items
            or views.agents(tenant, retired=True, limit=1, fresh=False).items
            or views.authentication_failures(tenant, None, limit=1, fresh=False)
            or views.limits(tenant, fresh=False)[0] != DEFAULTS
        )
    if not known:
        raise InvalidInput("TENANT", f"{tenant[:60]!r}", "must be one that the ledger has recorded something of")


def _erase(
    erase: Callable[[Ledger, str], Recorded], by: str | None, url: str | None, take_over: bool, as_json: bool
) -> None:
    from session_ledger.cli.opening import open_ledger, settings, url_of
    from session_ledger.cli.who import who
    from session_ledger.consumers.erasing import open_eraser

    with open_ledger(url, take_over) as ledger:
        recorded = erase(ledger, who(by))
        with open_eraser(url_of(url), settings(), ledger) as eraser:
            eraser.step()
            shown = eraser.progress(recorded.partition, recorded.position) if recorded.position else None
            obstacles = eraser.obstacles
    if obstacles and shown is None and recorded.position:
        raise obstacles[0]
    _show(
        [] if shown is None else [shown], as_json, nothing="that was erased before: see `session-ledger erase status`"
    )


@app.command()
def status(
    everything: Annotated[bool, typer.Option("--all", help="Also those that are complete.")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Take every erasure as far as it goes now, and show which stores have not confirmed yet.

    Exit code 1 while one is not complete.
    """
    from session_ledger.cli.opening import open_ledger, settings, url_of
    from session_ledger.cli.output import clean, warn
    from session_ledger.consumers.erasing import open_eraser

    with open_ledger(url) as ledger, open_eraser(url_of(url), settings(), ledger) as eraser:
        unfinished = eraser.step()
        shown = eraser.all_progress() if everything else unfinished
        obstacles, empty = eraser.obstacles, eraser.store.empty()
    if obstacles and not unfinished:
        raise obstacles[0]
    for obstacle in obstacles:
        warn(f"session-ledger: erasures wait: {clean(obstacle)}")
    _show(shown, as_json, nothing="nothing was erased" if empty else "every erasure is complete")
    raise typer.Exit(1 if unfinished else 0)


@app.command()
def receipt(
    erasure: Annotated[str, typer.Argument(metavar="ERASURE", help="Its id, as `erase` and `erase status --all` say.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", show_default=False, help="Default: stdout.")] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Write the signed receipt of an erasure that is complete.

    Exit code 1 where it is not complete yet.
    """
    from session_ledger.cli.opening import settings, url_of
    from session_ledger.cli.output import say, write_file, write_json
    from session_ledger.consumers.erasing import open_eraser
    from session_ledger.domain.errors import ErasureNotComplete, InvalidInput
    from session_ledger.domain.ids import parse_id

    with open_eraser(url_of(url), settings()) as eraser:
        found = eraser.find(parse_id(erasure, "ERASURE"))
        if found is None and eraser.obstacles:
            raise eraser.obstacles[0]
        if found is None:
            raise InvalidInput("ERASURE", "an id that is no erasure's", "must be one that `erase status --all` shows")
        if found.receipt is None:
            waits = "; ".join(f"{store}: {what}" for store, what in sorted(eraser.waits_for(found).items()))
            raise ErasureNotComplete(
                f"the erasure {erasure} is not complete, so it has no receipt yet; waiting: {waits}"
            )
    if out is not None:
        write_file(out, found.receipt)
    if as_json:
        write_json({"erasure": erasure, "receipt": found.receipt, "file": None if out is None else str(out)})
    elif out is None:
        typer.echo(found.receipt, nl=False)
    else:
        say(f"written to {out}")


def verify_receipt(
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    key: Annotated[str, typer.Option(metavar="KEY", help="The ledger's public key, as `keys verifier` printed it.")],
    as_json: AsJson = False,
) -> None:
    """Check a receipt of an erasure, offline: that this key has signed it, and that it was not changed since.

    Exit code 1 where it does not hold.
    """
    from session_ledger.cli.checked_note import check_note
    from session_ledger.consumers.erasure_receipt import TITLE

    check_note(file, key, TITLE, "the receipt of an erasure", as_json)


def _show(shown: list[Progress], as_json: bool, *, nothing: str) -> None:
    from session_ledger.cli.output import clean, say, write_json
    from session_ledger.consumers.erasure_receipt import none_found
    from session_ledger.domain.ids import format_id

    if as_json:
        write_json({"erasures": [_document(one) for one in shown]})
        return
    if not shown:
        say(nothing)
    for one in shown:
        erasure = one.erasure
        whose = f"tenant {erasure.tenant}" + (f", user {erasure.user}" if erasure.user else "")
        if erasure.session_id is not None:
            whose += f", session {format_id(erasure.session_id)}"
        say(f"erasure {format_id(erasure.event_id)}: {clean(whose)}")
        where = "the control log" if erasure.partition < 0 else f"partition {erasure.partition}"
        say(f"  recorded in {where}, position {erasure.position}, for {clean(erasure.requested_by)}")
        if erasure.destroyed_at is not None:
            gone = "its data keys are destroyed: what they sealed can not be opened any more"
            say(f"  {gone if erasure.keys else none_found(erasure)}")
        for store, (detail, _) in sorted(one.confirmed.items()):
            say(f"  {store}: confirmed, {detail}")
        for store, detail in sorted(one.waiting.items()):
            say(f"  {store}: waiting, {detail}")
        for user in one.held:
            say(f"  user {clean(user)}: kept, a legal hold forbids it")
        if erasure.completed_at is None:
            say("  not complete yet: `session-ledger erase status` goes on with it")
        else:
            say(f"  complete; `session-ledger erase receipt {format_id(erasure.event_id)}` writes the signed receipt")


def _document(one: Progress) -> dict[str, object]:
    from session_ledger.consumers.records import as_datetime, as_datetime_or_none
    from session_ledger.domain.ids import format_id

    erasure = one.erasure
    return {
        "erasure": format_id(erasure.event_id),
        "partition": erasure.partition,
        "position": erasure.position,
        "tenant": erasure.tenant,
        "user": erasure.user or None,
        "session_id": None if erasure.session_id is None else format_id(erasure.session_id),
        "requested_by": erasure.requested_by,
        "reason": erasure.reason,
        "recorded_at": as_datetime(erasure.recorded_at),
        "keys_destroyed": erasure.keys,
        "destroyed_at": as_datetime_or_none(erasure.destroyed_at),
        "completed_at": as_datetime_or_none(erasure.completed_at),
        "confirmed": {store: detail for store, (detail, _) in one.confirmed.items()},
        "waiting": one.waiting,
        "held": one.held,
    }
