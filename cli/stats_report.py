"""The summary of a ledger, as `stats` and `demo` print it."""

from __future__ import annotations

import dataclasses

from session_ledger.cli.output import fields, say, table
from session_ledger.consumers.records import Stats


def document_of(stats: Stats) -> dict[str, object]:
    """The summary for machines; endings as a list, since JSON's keys are texts."""
    found: dict[str, object] = {field.name: getattr(stats, field.name) for field in dataclasses.fields(stats)}
    found["by_reason"] = [
        {"status": status, "reason": reason, "sessions": count} for (status, reason), count in stats.by_reason.items()
    ]
    return found


def show_stats(stats: Stats) -> None:
    """The summary for people."""
    by_status = ", ".join(f"{count:,} {status}" for status, count in stats.by_status.items())
    refused = ", ".join(f"{count:,} of {name}" for name, count in stats.refusals_by_resource.items())
    fields(
        [
            ("sessions", f"{stats.sessions:,}{f' ({by_status})' if by_status else ''}"),
            ("messages", stats.messages),
            ("tokens in, out", f"{stats.tokens_in:,}, {stats.tokens_out:,}"),
            ("errors reported", stats.errors),
            ("quota refusals", f"{stats.refusals:,}{f' ({refused})' if refused else ''}"),
            ("agent leases", stats.leases),
            ("failed authentications", stats.authentication_failures),
        ]
    )
    if stats.by_reason:
        say()
        over = sum(stats.by_reason.values())
        rows = [
            (status, reason, count, f"{100 * count / over:.1f} %")
            for (status, reason), count in stats.by_reason.items()
        ]
        table(("sessions that are over", "reason", "sessions>", "share>"), rows)
    if stats.busiest:
        say()
        busy = [
            (u.tenant, u.user, u.sessions, u.messages, u.tokens_in + u.tokens_out, u.refusals) for u in stats.busiest
        ]
        table(("tenant", "busiest users", "sessions>", "messages>", "tokens>", "refusals>"), busy)
    if stats.agents:
        say()
        states = ("free", "held", "retired")
        kinds = [(name, *(count.get(state, 0) for state in states)) for name, count in sorted(stats.agents.items())]
        table(("agent type", "free>", "held>", "retired>"), kinds)
