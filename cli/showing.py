"""Sessions, messages, agents and quotas as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC

from session_ledger.cli.answering import computed_of
from session_ledger.cli.output import clean, duration, fields, json_line, moment, say, table, warn, write_json
from session_ledger.consumers.records import AgentView, ErrorView, MessageView, Page, SessionView
from session_ledger.domain.results import QuotaStatus


def show_sessions(page: Page[SessionView], as_json: bool) -> None:
    """A page of sessions."""
    if as_json:
        write_json({"sessions": page.items, "next": page.next})
        return
    rows = [
        (s.session_id, s.user, status_of(s), s.messages, moment(s.last_active_at, seconds=False), s.title or s.kind)
        for s in page.items
    ]
    if not rows:
        say("no sessions; --status any looks at those that are over, too")
        return
    table(("session", "user", "status", "msgs>", "active (UTC)", "title or kind"), rows)
    _more(page.next)


def status_of(session: SessionView) -> str:
    """live, timed out (and not recorded as expired yet), ended, expired, evicted or imported."""
    return "timed out" if session.timed_out else session.status


def show_session(session: SessionView, errors: Sequence[ErrorView], as_json: bool) -> None:
    """All about one session."""
    if as_json:
        write_json({"session": session, "errors": errors})
        return
    pairs: list[tuple[str, object]] = [
        ("session", session.session_id),
        ("tenant, user", f"{session.tenant}, {session.user}"),
        ("status", status_of(session)),
        ("title", session.title),
        ("kind, channel", f"{session.kind}, {session.channel}{f', {session.domain}' if session.domain else ''}"),
        ("created (UTC)", session.occurred_at or session.created_at),
        ("recorded (UTC)", session.created_at),
        ("last active (UTC)", session.last_active_at),
        ("times out (UTC)", session.due_at if session.status == "live" else None),
        ("idle timeout", session.idle_timeout),
        ("ended (UTC)", session.end_occurred_at or session.ended_at),
        ("end", ", by ".join(filter(None, (session.end_reason, session.ended_by)))),
        ("note", session.note),
        ("replaced by", session.replaced_by),
        ("erased (UTC)", session.erased_at),
        ("messages", session.messages),
        ("tokens in, out", f"{session.tokens_in:,}, {session.tokens_out:,}"),
        ("agents held", session.agents),
        ("ip address", session.ip_address),
        ("metadata", json_line(session.metadata) if session.metadata else None),
        ("context", json_line(session.context) if session.context is not None else None),
        ("stands at", f"partition {session.partition}, position {session.position}, version {session.version}"),
    ]
    fields([pair for pair in pairs if pair[1] not in (None, "", ())])
    if session.unreadable:
        warn(f"some of it could not be opened: {clean(session.unreadable)}")
    if errors:
        say()
        rows = [(e.recorded_at, e.severity, e.component, e.error_type, e.message or e.unreadable) for e in errors]
        table(("failed at (UTC)", "severity", "component", "type", "message"), rows)


def show_history(messages: Sequence[MessageView], total: int, as_json: bool) -> None:
    """Messages in order."""
    for message in messages:
        if as_json:
            write_json(message)
            continue
        when = (message.occurred_at or message.recorded_at).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
        details = [
            message.model,
            None if message.tokens_in is None else f"{message.tokens_in:,} tokens in",
            None if message.tokens_out is None else f"{message.tokens_out:,} tokens out",
            None if message.latency_ms is None else f"{message.latency_ms:,} ms",
        ]
        note = ", ".join(clean(detail) for detail in details if detail)
        say(f"{message.number}. {clean(message.role)}  {when}{f'  ({note})' if note else ''}")
        if message.content is None:
            say(f"   [not readable: {clean(message.unreadable)}]")
        for line in (message.content or "").splitlines():
            say(f"   {clean(line)}")
        if message.parts:
            say(f"   parts: {clean(json_line(message.parts))}")
    if not as_json and (left := total - (messages[-1].number if messages else 0)) > 0:
        warn(f"{left:,} more: --after {messages[-1].number if messages else 0}")


def show_agents(page: Page[AgentView], as_json: bool) -> None:
    """A page of agent instances."""
    if as_json:
        write_json({"agents": page.items, "next": page.next})
        return
    if not page.items:
        say("no agents; register one: session-ledger agents register TYPE")
        return
    rows = [(a.agent_id, a.agent_type, a.status, a.leases, a.partition, a.capabilities) for a in page.items]
    table(("agent", "type", "status", "leases>", "partition>", "capabilities"), rows)
    held = [(a.agent_id, a.held_by, a.held_since) for a in page.items if a.held_by]
    if held:
        say()
        table(("held agent", "by session", "since (UTC)"), held)
    _more(page.next)


def show_quotas(quotas: Sequence[QuotaStatus]) -> None:
    """Quotas as they stand."""
    if not quotas:
        say("no quota is set for this user, the user's plan or the tenant")
        return
    rows = [
        (
            q.resource,
            q.used,
            q.limit,
            f"{q.percentage:.1f} %",
            q.remaining,
            duration(q.period_ms / 1000),
            q.source,
            computed_of(q)["resets_at"],
        )
        for q in quotas
    ]
    headings = ("resource", "used>", "limit>", "share>", "left>", "period>", "set by", "resets at (UTC)")
    table(headings, rows)


def _more(cursor: str | None) -> None:
    if cursor is not None:
        warn(f"there are more: --after {cursor}")
