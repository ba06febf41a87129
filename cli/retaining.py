"""`session-ledger retention`: how long content is kept, and the sweep that erases what is older."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from session_ledger.cli.options import DEFAULT_TENANT, AsJson, CommandId, TakeOver, Tenant, Url

if TYPE_CHECKING:
    from session_ledger.consumers.retention import Due

app = typer.Typer(no_args_is_help=True, help="Set how long content is kept, and erase what is older.")

_KEPT = "After a session's end, such as 90d. Default: 30 days."


@app.command("set")
def set_retention(
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; it is recorded in the clear.")],
    after: Annotated[str | None, typer.Option(metavar="TIME", show_default=False, help=_KEPT)] = None,
    sensitive: Annotated[
        str | None,
        typer.Option(metavar="TIME", show_default=False, help="The same, of sensitive sessions. Default: 7 days."),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option("--by", metavar="NAME", show_default=False, help="Who sets it. Default: the system's user."),
    ] = None,
    tenant: Tenant = DEFAULT_TENANT,
    command_id: CommandId = None,
    url: Url = None,
    take_over: TakeOver = False,
    as_json: AsJson = False,
) -> None:
    """Set how long a tenant's content is kept, as a whole: what is not named has the built-in time."""
    from session_ledger.cli.answering import answer
    from session_ledger.cli.opening import open_ledger
    from session_ledger.cli.values import seconds_of
    from session_ledger.cli.who import who

    kept, kept_sensitive = seconds_of(after, "--after"), seconds_of(sensitive, "--sensitive")
    with open_ledger(url, take_over, create=True) as ledger:
        result = ledger.set_retention(
            tenant,
            retention_s=kept,
            sensitive_retention_s=kept_sensitive,
            requested_by=who(by),
            reason=reason,
            command_id=command_id,
        )
    told = f"{after or 'the built-in 30 days'}, of sensitive sessions {sensitive or 'the built-in 7 days'}"
    answer(result, f"tenant {tenant}: content is kept for {told} after a session's end", as_json)


@app.command()
def sweep(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be erased.")] = False,
    tenant: Annotated[
        str | None, typer.Option("--tenant", "-t", metavar="NAME", show_default=False, help="Default: all tenants.")
    ] = None,
    url: Url = None,
    take_over: TakeOver = False,
    as_json: AsJson = False,
) -> None:
    """Erase the content of sessions that was kept for as long as it is to be. It can not be undone.

    A sweep that was stopped is gone on with by the next. What a legal hold keeps is passed over.
    """
    from session_ledger.cli.erasing_shown import WHO_ELSE, why_not
    from session_ledger.cli.opening import open_ledger, open_views, settings, url_of
    from session_ledger.cli.output import clean, say, warn, write_json
    from session_ledger.consumers.erasing import open_eraser
    from session_ledger.consumers.retention import Swept, due
    from session_ledger.consumers.retention import sweep as sweep_due
    from session_ledger.domain.errors import SessionLedgerError
    from session_ledger.ledger.clocks import machine_clock_us

    found: list[Due] = []
    why: str | None = None
    if dry_run:
        with open_views(url) as views:
            found = list(due(views, machine_clock_us(), tenant))
        swept = Swept(0, sum(session.held for session in found))
    else:
        with open_ledger(url, take_over) as ledger, open_views(url) as views:
            swept = sweep_due(ledger, views, machine_clock_us(), tenant, found.append)
            try:
                with open_eraser(url_of(url), settings(), ledger) as eraser:
                    eraser.step()
                    for obstacle in eraser.obstacles:
                        warn(f"session-ledger: erasures wait: {clean(obstacle)}")
            except (SessionLedgerError, OSError) as error:
                if not swept.erased:
                    raise
                why = why_not(error)
    if as_json:
        told = {"erased": swept.erased, "held": swept.held, "dry_run": dry_run, "sessions": found}
        write_json(told | {"not_carried_out": why})
        return
    _show(found)
    if dry_run:
        say(f"{len(found) - swept.held} sessions would be erased, {swept.held} are kept by a legal hold")
    else:
        say(f"{swept.erased} sessions erased, {swept.held} kept by a legal hold")
    if why is not None:
        say(f"their erasure is recorded, and this process can not carry it out: {why}")
        say(WHO_ELSE)


def _show(found: list[Due]) -> None:
    from session_ledger.cli.output import duration, table

    if found:
        rows = [
            (
                s.tenant,
                s.user,
                s.session_id,
                s.kind,
                s.ended_at,
                duration(s.retention.total_seconds()),
                "held" if s.held else "",
            )
            for s in found
        ]
        table(("tenant", "user", "session", "kind", "ended (UTC)", "kept for>", ""), rows)
