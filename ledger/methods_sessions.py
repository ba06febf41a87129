"""The facade's commands about sessions."""

from __future__ import annotations

from collections.abc import Mapping

from session_ledger.domain import commands as c
from session_ledger.domain import results as r
from session_ledger.domain.ids import parse_id
from session_ledger.domain.values import time_us
from session_ledger.ledger.methods import Commands, Id, Time, optional_id, optional_ms, optional_us


class SessionMethods(Commands):
    """Create, update, end; messages, errors, imported history."""

    def create_session(
        self,
        tenant: str,
        user: str,
        *,
        title: str | None = None,
        context: c.Json = None,
        metadata: Mapping[str, str] | None = None,
        kind: str = "standard",
        channel: str = "text",
        domain: str | None = None,
        ip_address: str | None = None,
        idle_timeout_s: float | None = None,
        ttl_s: float | None = None,
        reuse: bool = False,
        occurred_at: Time = None,
        command_id: Id | None = None,
    ) -> r.SessionStarted:
        """Begin a session. `reuse`: answer with the user's most recently active live session, if there is one.

        Raises SessionLimitReached where the user's policy is to refuse; by default the least recently active session
        is evicted (`evicted` of the result names it).
        """
        command = c.CreateSession(
            tenant=tenant,
            user=user,
            title=title,
            context=context,
            metadata={} if metadata is None else metadata,
            kind=kind,
            channel=channel,
            domain=domain,
            ip_address=ip_address,
            idle_timeout_ms=optional_ms(idle_timeout_s, "idle_timeout_s"),
            ttl_ms=optional_ms(ttl_s, "ttl_s"),
            reuse=reuse,
            occurred_at=optional_us(occurred_at),
            command_id=optional_id(command_id, "command_id"),
        )
        return self._run(command, r.SessionStarted)

    def update_session(
        self,
        tenant: str,
        user: str,
        session_id: Id,
        *,
        title: str | None = None,
        context: c.Json = None,
        metadata: Mapping[str, str] | None = None,
        occurred_at: Time = None,
        command_id: Id | None = None,
    ) -> r.SessionChanged:
        """Change title, context or metadata (the whole of it); None leaves it as it is.

        Raises SessionNotFound, SessionNotActive.
        """
        command = c.UpdateSession(
            tenant=tenant,
            user=user,
            session_id=parse_id(session_id, "session_id"),
            title=title,
            context=context,
            metadata=metadata,
            occurred_at=optional_us(occurred_at),
            command_id=optional_id(command_id, "command_id"),
        )
        return self._run(command, r.SessionChanged)

    def add_message(
        self,
        tenant: str,
        user: str,
        session_id: Id,
        *,
        role: str,
        content: str,
        parts: c.Json = None,
        model: str | None = None,
        tokens_in: int | None = None,
        tokens_out: int | None = None,
        latency_ms: int | None = None,
        audio_url: str | None = None,
        audio_duration_ms: int | None = None,
        metadata: Mapping[str, str] | None = None,
        agent_id: Id | None = None,
        tokens_cached: int | None = None,
        tokens_reasoning: int | None = None,
        topic: str | None = None,
        shared_source: str | None = None,
        occurred_at: Time = None,
        command_id: Id | None = None,
    ) -> r.MessageRecorded:
        """Add a message to a live session. Raises SessionNotFound, SessionNotActive.

        `agent_id`: the instance that wrote it. `tokens_cached` are a part of `tokens_in`, `tokens_reasoning` of
        `tokens_out`. `topic` stays readable; None: by the metadata's "topic" where that is allow-listed, else by the
        configured taxonomy. `shared_source` says that the content was taken from something that all of the tenant's
        users share (a knowledge base), so that leakage checks do not take it for one user's own.
        """
        command = c.AddMessage(
            tenant=tenant,
            user=user,
            session_id=parse_id(session_id, "session_id"),
            role=role,
            content=content,
            parts=parts,
            model=model,
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            latency_ms=latency_ms,
            audio_url=audio_url,
            audio_duration_ms=audio_duration_ms,
            metadata={} if metadata is None else metadata,
            agent_id=None if agent_id is None else parse_id(agent_id, "agent_id"),
            tokens_cached=tokens_cached,
            tokens_reasoning=tokens_reasoning,
            topic=topic,
            shared_source=shared_source,
            occurred_at=None if occurred_at is None else time_us(occurred_at, "occurred_at"),
            command_id=None if command_id is None else parse_id(command_id, "command_id"),
        )
        return self._run(command, r.MessageRecorded)

    def end_session(
        self,
        tenant: str,
        user: str,
        session_id: Id,
        *,
        reason: str = "user",
        ended_by: str = "user",
        note: str | None = None,
        occurred_at: Time = None,
        command_id: Id | None = None,
    ) -> r.SessionChanged:
        """End a live session and release the agents that it holds. Raises SessionNotFound, SessionNotActive."""
        command = c.EndSession(
            tenant=tenant,
            user=user,
            session_id=parse_id(session_id, "session_id"),
            reason=reason,
            ended_by=ended_by,
            note=note,
            occurred_at=optional_us(occurred_at),
            command_id=optional_id(command_id, "command_id"),
        )
        return self._run(command, r.SessionChanged)

    def report_error(
        self,
        tenant: str,
        user: str,
        session_id: Id,
        *,
        component: str,
        error_type: str,
        message: str | None = None,
        severity: str = "error",
        agent_id: Id | None = None,
        occurred_at: Time = None,
        command_id: Id | None = None,
    ) -> r.SessionChanged:
        """Record that something failed while a session was served. Raises SessionNotFound, SessionNotActive."""
        command = c.ReportError(
            tenant=tenant,
            user=user,
            session_id=parse_id(session_id, "session_id"),
            component=component,
            error_type=error_type,
            message=message,
            severity=severity,
            agent_id=optional_id(agent_id, "agent_id"),
            occurred_at=optional_us(occurred_at),
            command_id=optional_id(command_id, "command_id"),
        )
        return self._run(command, r.SessionChanged)

    def rotate_session_key(
        self, tenant: str, user: str, session_id: Id, *, reason: str = "requested", command_id: Id | None = None
    ) -> r.SessionKeyRotated:
        """Seal a live session by a new data key from now on; what is recorded stays as it is, and readable.

        Raises SessionNotFound, SessionNotActive, KeyUnavailable.
        """
        command = c.RotateSessionKey(
            tenant=tenant,
            user=user,
            session_id=parse_id(session_id, "session_id"),
            reason=reason,
            command_id=optional_id(command_id, "command_id"),
        )
        return self._run(command, r.SessionKeyRotated)

    def import_session(self, command: c.ImportSession) -> r.SessionImported:
        """Record a session's history after the fact.

        Raises SessionExists where the id holds another history, HistoryErased where that history was erased since.
        """
        return self._run(command, r.SessionImported)
