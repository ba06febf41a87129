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
    from session_ledger.cli.known import assert_user_known

    assert_user_known(url, tenant, user)

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
    from session_ledger.cli.known import assert_tenant_known

    assert_tenant_known(url, tenant)

    def erase(ledger: Ledger, who: str) -> Recorded:
        return ledger.erase_tenant(tenant, requested_by=who, reason=reason, command_id=command_id)

    _erase(erase, by, url, take_over, as_json)


def _erase(
    erase: Callable[[Ledger, str], Recorded], by: str | None, url: str | None, take_over: bool, as_json: bool
) -> None:
    """Record it, which can not be undone, and carry it out as far as this process can; the rest is its owner's."""
    from session_ledger.cli.erasing_shown import show_recorded, why_not
    from session_ledger.cli.opening import open_ledger, settings, url_of
    from session_ledger.cli.who import who
    from session_ledger.consumers.erasing import open_eraser
    from session_ledger.domain.errors import LogUnavailable, SessionLedgerError

    shown: Progress | None = None
    why: str | None = None
    with open_ledger(url, take_over) as ledger:
        recorded = erase(ledger, who(by))
        try:
            with open_eraser(url_of(url), settings(), ledger) as eraser:
                eraser.step()
                shown = eraser.progress(recorded.partition, recorded.position)
                if eraser.store.position(recorded.partition) < recorded.position:
                    raise next(iter(eraser.obstacles), LogUnavailable("the log does not show it yet"))
        except (SessionLedgerError, OSError) as error:
            why = why_not(error)
    show_recorded(recorded, shown, why, as_json)


@app.command()
def status(
    everything: Annotated[bool, typer.Option("--all", help="Also those that are complete.")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Take every erasure as far as it goes now, and show which stores have not confirmed yet.

    Exit code 1 while one is not complete.
    """
    from session_ledger.cli.erasing_shown import document, show
    from session_ledger.cli.opening import open_ledger, settings, url_of
    from session_ledger.cli.output import clean, warn, write_json
    from session_ledger.consumers.erasing import open_eraser

    with open_ledger(url) as ledger, open_eraser(url_of(url), settings(), ledger) as eraser:
        unfinished = eraser.step()
        shown = eraser.all_progress() if everything else unfinished
        obstacles, empty = eraser.obstacles, eraser.store.empty()
    if obstacles and not unfinished:
        raise obstacles[0]
    for obstacle in obstacles:
        warn(f"session-ledger: erasures wait: {clean(obstacle)}")
    if as_json:
        write_json({"erasures": [document(one) for one in shown]})
    else:
        show(shown, nothing="nothing was erased" if empty else "every erasure is complete")
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
