"""`session-ledger monitor`: how the live sessions are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from session_ledger.cli.options import AsJson, Url

if TYPE_CHECKING:
    from session_ledger.projections.analytics.monitor import Limits, Monitored
    from session_ledger.projections.analytics.snapshots import Snapshot


def monitor(
    once: Annotated[bool, typer.Option("--once", help="Look once and leave (the only way so far).")] = False,
    tenant: Annotated[
        str | None, typer.Option("--tenant", "-t", metavar="NAME", show_default=False, help="Default: all tenants.")
    ] = None,
    errors: Annotated[int, typer.Option(metavar="N", min=0, help="More errors in a session are an alert.")] = 5,
    error_rate: Annotated[float, typer.Option(metavar="RATE", min=0, help="Errors a message that are fine.")] = 0.1,
    latency: Annotated[str, typer.Option(metavar="TIME", help="A mean latency that is fine.")] = "5s",
    age: Annotated[str, typer.Option(metavar="TIME", help="An age that is fine.")] = "24h",
    most: Annotated[int, typer.Option("--limit", "-n", min=0, max=1000, help="How many of the worst.")] = 20,
    record: Annotated[
        bool, typer.Option("--record", help="Record an AlertRaised for each alert that is not recorded yet.")
    ] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Show the health of the live sessions in the newest snapshot, the worst first. Exit code 1 when it finds alerts.

    What it finds itself are live sessions with too many errors. Alerts on record are those of every kind and time that
    the ledger holds: `session-ledger sql "SELECT * FROM alerts"`.

    Health is 100, less 30 for an error rate over the limit, 20 for a mean latency, 10 for an age; over 70 is healthy.
    """
    from datetime import UTC, datetime

    from session_ledger.cli.opening import settings, url_of
    from session_ledger.cli.output import write_json
    from session_ledger.cli.values import seconds_of
    from session_ledger.consumers.analytics import open_snapshot
    from session_ledger.domain.errors import InvalidInput
    from session_ledger.projections.analytics.monitor import Limits, read_monitor

    if not once:
        raise InvalidInput("--once", "not given", "must be given: this version looks once")
    place = url_of(url)
    limits = Limits(
        error_rate_max=error_rate,
        latency_ms_max=(seconds_of(latency, "--latency") or 0) * 1000,
        age_s_max=seconds_of(age, "--age") or 0,
        errors_max=errors,
    )
    with open_snapshot(place, settings=settings()) as snapshot:
        found = read_monitor(snapshot.connection, datetime.now(UTC), tenant=tenant, limits=limits, most=most)
        recorded = _record(place, found, snapshot, limits) if record else None
        if as_json:
            document = {"as_of": snapshot.published_at, "positions": snapshot.positions, "recorded": recorded}
            write_json({**document, "limits": limits, "fleet": found})
        else:
            _show(found, snapshot, recorded)
    raise typer.Exit(1 if found.alerts else 0)


def _record(url: str, found: Monitored, snapshot: Snapshot, limits: Limits) -> int:
    """Record the alerts that the snapshot does not hold yet; how many."""
    from session_ledger.cli.opening import settings
    from session_ledger.ledger.ledger import Ledger

    known = {
        str(row[0])
        for row in snapshot.connection.execute(
            "SELECT session_id::VARCHAR FROM alerts WHERE kind = 'errors' AND session_id IS NOT NULL"
        ).fetchall()
    }
    new = [session for session in found.alerts if session.session_id not in known]
    if new:
        with Ledger.open(url, settings=settings()) as ledger:
            for session in new:
                ledger.raise_alert(
                    session.tenant,
                    session.user,
                    kind="errors",
                    severity="critical",
                    session_id=session.session_id,
                    value=session.errors,
                    threshold=limits.errors_max,
                )
    return len(new)


def _show(found: Monitored, snapshot: Snapshot, recorded: int | None) -> None:
    from session_ledger.cli.output import clean, fields, say, table

    channels = ", ".join(f"{count:,} {name}" for name, count in found.by_channel.items())
    kinds = ", ".join(f"{count:,} {clean(kind)}" for kind, count in found.alerts_on_record.items())
    fields(
        [
            ("as of", f"{snapshot.published_at:%Y-%m-%d %H:%M:%S} UTC, {snapshot.age_s:.0f} s ago"),
            ("live sessions", f"{found.live:,}{f' ({channels})' if channels else ''}"),
            ("unhealthy", found.unhealthy),
            ("messages", found.messages),
            ("errors", found.errors),
            ("mean latency", "-" if found.latency_ms is None else f"{found.latency_ms:,.0f} ms"),
            (
                "alerts of this check",
                f"{len(found.alerts):,}{'' if recorded is None else f' ({recorded:,} recorded now)'}",
            ),
            ("alerts on record", f"{sum(found.alerts_on_record.values()):,}{f' ({kinds})' if kinds else ''}"),
        ]
    )
    for title, sessions in (("alerts: too many errors", found.alerts), ("the worst", found.worst)):
        if sessions:
            say()
            say(title)
            rows = [
                (s.session_id, s.tenant, s.user, s.health, s.errors, s.messages,
                 None if s.latency_ms is None else round(s.latency_ms), s.last_error)
                for s in sessions
            ]  # fmt: skip
            columns = ("session", "tenant", "user", "health>", "errors>", "messages>", "latency ms>", "last error")
            table(columns, rows)
