"""The facade: a ledger, opened by URL, with every command as a method."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime
from decimal import Decimal
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar, cast
from uuid import UUID

from session_ledger.domain import commands as c
from session_ledger.domain import results as r
from session_ledger.domain.errors import LedgerClosed
from session_ledger.domain.ids import new_id, parse_id, with_slot
from session_ledger.domain.values import amount as exact
from session_ledger.domain.values import time_us

if TYPE_CHECKING:
    from session_ledger.ledger.aio import AsyncLedger
    from session_ledger.ledger.backend import Backend
    from session_ledger.ledger.settings import Settings

R = TypeVar("R", bound=r.Result)
Id = str | UUID | bytes
"""A session, agent, command or reservation id: UUID text, a UUID, or 16 bytes."""
Time = datetime | int | None
"""A datetime with a time zone, or microseconds since the epoch, UTC."""
Amount = int | float | str | Decimal
"""A finite amount, 0 or more, with at most six decimals."""

MS_A_SECOND = 1000


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * MS_A_SECOND)


def _id(value: Id | None, field: str) -> bytes | None:
    return None if value is None else parse_id(value, field)


def _us(value: Time, field: str = "occurred_at") -> int | None:
    return None if value is None else time_us(value, field)


class Ledger:
    """A session ledger. Thread-safe; a context manager.

    Every command method waits until its events are durable and returns its result, with `partition` and `position`.
    All raise: InvalidInput (nothing was sent), Overloaded, NotOwner, AppendFailed (nothing was recorded; retriable),
    OutcomeUnknown (repeat with the `command_id` of the error), and the errors that each names.

    `command_id` (a UUIDv7) makes a command safe to repeat for ten minutes: the first outcome is answered again.
    """

    def __init__(self, backend: Backend, url: str, name: str, durability: str, close_timeout_s: float) -> None:
        """Use `Ledger.open`."""
        self._backend: Backend = backend
        self.url = url
        self.name = name
        self.durability = durability
        """One sentence: what an acknowledged command survives."""
        self._close_timeout_s = close_timeout_s

    @classmethod
    def open(
        cls,
        url: str | None = None,
        *,
        settings: Settings | None = None,
        take_over: bool = False,
        clock_us: Callable[[], int] | None = None,
        **options: object,
    ) -> Ledger:
        """Open a ledger for commands, and create it where there is none.

        `url`: ``sqlite:DIR``, ``kafka://HOST:PORT[,HOST:PORT]/NAME?partitions=8&replica=DIR`` or ``memory:``; None: that
        of the settings. This process becomes the owner; where another one is, commands go to it through its socket.
        `take_over` fences the other owner off. `options` are fields of `Settings` to set for this ledger. `clock_us`
        gives microseconds since the epoch, UTC; None: this machine's clock.

        Raises Misconfigured, LogUnavailable, LogTooNew, LogCorrupt, NotOwner (naming the holder), ClockUnreliable.
        """
        from session_ledger.ledger.open import machine_clock_us, open_ledger  # the place of wiring; imported late: it costs start-up time

        return open_ledger(cls, url, settings, take_over, clock_us or machine_clock_us, options)

    # --- running ----------------------------------------------------------------------------------------------------

    def _run(self, command: c.Command, result: type[R]) -> R:
        return cast(R, self._backend.run(command, None))

    def submit(self, command: c.Command) -> Future[r.Result]:
        """Queue a command and return a future of its result. Raises InvalidInput, Overloaded, LedgerClosed."""
        return self._backend.submit(command)

    def asubmit(self, command: c.Command) -> asyncio.Future[r.Result]:
        """The same for the running event loop: ``await ledger.asubmit(command)``."""
        return self._backend.in_loop(command)

    @property
    def aio(self) -> AsyncLedger:
        """Every command method in its async form: ``await ledger.aio.add_message(...)``."""
        from session_ledger.ledger.aio import AsyncLedger

        return AsyncLedger(self)

    def positions(self) -> list[int]:
        """The acknowledged position of each partition, the control log's last: all that is answered is at or below."""
        return self._backend.positions()

    def expire_due(self) -> list[r.SessionsExpired]:
        """One sweep: record the expiry of every session whose time is over. One result a user who had any."""
        return self._backend.expire_due()

    def close(self, timeout_s: float | None = None) -> None:
        """Serve what is queued, then give up ownership. Idempotent.

        Raises LedgerClosed naming how many commands were not served in time; each was answered, none was recorded.
        """
        left = self._backend.close(self._close_timeout_s if timeout_s is None else timeout_s)
        if left:
            raise LedgerClosed(f"closed with {left} commands not served in time; nothing of them was recorded")

    def __enter__(self) -> Ledger:
        """The ledger itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    # --- sessions ---------------------------------------------------------------------------------------------------

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
            metadata=metadata or {},
            kind=kind,
            channel=channel,
            domain=domain,
            ip_address=ip_address,
            idle_timeout_ms=_ms(idle_timeout_s),
            ttl_ms=_ms(ttl_s),
            reuse=reuse,
            occurred_at=_us(occurred_at),
            command_id=_id(command_id, "command_id"),
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
        """Change title, context or metadata (the whole of it); None leaves it. Raises SessionNotFound, SessionNotActive."""
        command = c.UpdateSession(
            tenant=tenant,
            user=user,
            session_id=parse_id(session_id, "session_id"),
            title=title,
            context=context,
            metadata=metadata,
            occurred_at=_us(occurred_at),
            command_id=_id(command_id, "command_id"),
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
        occurred_at: Time = None,
        command_id: Id | None = None,
    ) -> r.MessageRecorded:
        """Add a message to a live session. Raises SessionNotFound, SessionNotActive."""
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
            metadata=metadata or {},
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
            occurred_at=_us(occurred_at),
            command_id=_id(command_id, "command_id"),
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
            agent_id=_id(agent_id, "agent_id"),
            occurred_at=_us(occurred_at),
            command_id=_id(command_id, "command_id"),
        )
        return self._run(command, r.SessionChanged)

    def import_session(self, command: c.ImportSession) -> r.SessionImported:
        """Record a session's history after the fact. Raises SessionExists where the id holds another history."""
        return self._run(command, r.SessionImported)

    # --- quotas and account -----------------------------------------------------------------------------------------

    def set_quota(
        self,
        tenant: str,
        user: str,
        resource: str,
        limit: Amount | None,
        period_s: float = 86_400,
        *,
        command_id: Id | None = None,
    ) -> r.Recorded:
        """Set a user's own quota; `limit` None removes it, so that the plan's or tenant's default counts again."""
        command = c.SetQuota(
            tenant=tenant,
            user=user,
            resource=resource,
            limit=None if limit is None else exact(limit, "limit"),
            period_ms=round(period_s * MS_A_SECOND),
            command_id=_id(command_id, "command_id"),
        )
        return self._run(command, r.Recorded)

    def consume_quota(
        self,
        tenant: str,
        user: str,
        resource: str,
        amount: Amount = 1,
        *,
        reserve: bool = False,
        session_id: Id | None = None,
        command_id: Id | None = None,
    ) -> r.QuotaStatus:
        """Consume an amount of the sliding window. `reserve`: it may be released later (`reservation_id`).

        Raises QuotaExceeded (`retry_after_s` says when it fits), QuotaNotSet, TooManyReservations.
        """
        command = c.ConsumeQuota(
            tenant=tenant,
            user=user,
            resource=resource,
            amount=exact(amount, "amount"),
            reserve=reserve,
            session_id=_id(session_id, "session_id"),
            command_id=_id(command_id, "command_id"),
        )
        return self._run(command, r.QuotaStatus)

    def check_quota(self, tenant: str, user: str, resource: str, amount: Amount = 1) -> r.QuotaStatus:
        """Say whether an amount would fit now (`allowed`); records nothing. Raises QuotaNotSet."""
        command = c.CheckQuota(tenant=tenant, user=user, resource=resource, amount=exact(amount, "amount"))
        return self._run(command, r.QuotaStatus)

    def release_quota(
        self,
        tenant: str,
        user: str,
        reservation_id: Id,
        amount: Amount | None = None,
        *,
        command_id: Id | None = None,
    ) -> r.QuotaGivenBack:
        """Settle a reservation and give its unused `amount` back (None: all). Raises ReservationNotOpen."""
        command = c.ReleaseQuota(
            tenant=tenant,
            user=user,
            reservation_id=parse_id(reservation_id, "reservation_id"),
            amount=None if amount is None else exact(amount, "amount"),
            command_id=_id(command_id, "command_id"),
        )
        return self._run(command, r.QuotaGivenBack)

    def report_quota(self, tenant: str, user: str, resource: str | None = None) -> r.QuotaReport:
        """Every quota that counts for the user, as it stands now; records nothing."""
        return self._run(c.ReportQuota(tenant=tenant, user=user, resource=resource), r.QuotaReport)

    def set_user_limits(
        self,
        tenant: str,
        user: str,
        *,
        max_sessions: int | None = None,
        limit_policy: str | None = None,
        plan: str | None = None,
        command_id: Id | None = None,
    ) -> r.Recorded:
        """Set a user's session limit, policy (evict or refuse) and plan, as a whole; None: the plan's or tenant's."""
        command = c.SetUserLimits(
            tenant=tenant,
            user=user,
            max_sessions=max_sessions,
            limit_policy=limit_policy,
            plan=plan,
            command_id=_id(command_id, "command_id"),
        )
        return self._run(command, r.Recorded)

    def report_authentication_failure(
        self,
        tenant: str,
        user: str,
        *,
        method: str,
        reason: str,
        session_id: Id | None = None,
        ip_address: str | None = None,
        occurred_at: Time = None,
        command_id: Id | None = None,
    ) -> r.Recorded:
        """Record a failed attempt to authenticate as this user."""
        command = c.ReportAuthenticationFailure(
            tenant=tenant,
            user=user,
            method=method,
            reason=reason,
            session_id=_id(session_id, "session_id"),
            ip_address=ip_address,
            occurred_at=_us(occurred_at),
            command_id=_id(command_id, "command_id"),
        )
        return self._run(command, r.Recorded)

    # --- agents -----------------------------------------------------------------------------------------------------

    def register_agent(
        self,
        tenant: str,
        agent_type: str,
        *,
        capabilities: Sequence[str] = (),
        partition: int = 0,
        command_id: Id | None = None,
    ) -> r.AgentChanged:
        """Register an agent instance in a partition; only that partition's sessions can acquire it."""
        own = _id(command_id, "command_id") or new_id(time.time_ns() // 1000)
        command = c.RegisterAgent(
            tenant=tenant,
            agent_type=agent_type,
            capabilities=tuple(sorted(set(capabilities))),
            agent_id=with_slot(own, partition),  # derived, so that a repeat registers the same instance
            command_id=own,
        )
        return self._run(command, r.AgentChanged)

    def acquire_agent(
        self,
        tenant: str,
        user: str,
        session_id: Id,
        agent_type: str,
        *,
        capabilities: Sequence[str] = (),
        command_id: Id | None = None,
    ) -> r.AgentLeased:
        """Lease a free instance for a live session. Raises NoAgentAvailable (retriable), AgentTypeUnknown."""
        command = c.AcquireAgent(
            tenant=tenant,
            user=user,
            session_id=parse_id(session_id, "session_id"),
            agent_type=agent_type,
            capabilities=tuple(sorted(set(capabilities))),
            command_id=_id(command_id, "command_id"),
        )
        return self._run(command, r.AgentLeased)

    def release_agent(
        self,
        tenant: str,
        user: str,
        session_id: Id,
        agent_id: Id,
        *,
        reset: str = "not_reported",
        command_id: Id | None = None,
    ) -> r.AgentChanged:
        """End a lease. `reset`: verified, failed or not_reported. Raises AgentNotHeld."""
        command = c.ReleaseAgent(
            tenant=tenant,
            user=user,
            session_id=parse_id(session_id, "session_id"),
            agent_id=parse_id(agent_id, "agent_id"),
            reset=reset,
            command_id=_id(command_id, "command_id"),
        )
        return self._run(command, r.AgentChanged)

    def retire_agent(
        self, tenant: str, agent_id: Id, *, reason: str = "retired", force: bool = False, command_id: Id | None = None
    ) -> r.AgentChanged:
        """Take an instance out. Raises AgentNotFound, AgentBusy (unless `force`: the lease is released first)."""
        command = c.RetireAgent(
            tenant=tenant,
            agent_id=parse_id(agent_id, "agent_id"),
            reason=reason,
            force=force,
            command_id=_id(command_id, "command_id"),
        )
        return self._run(command, r.AgentChanged)

    # --- tenants ----------------------------------------------------------------------------------------------------

    def set_limits(
        self,
        tenant: str,
        *,
        plan: str | None = None,
        max_sessions: int | None = None,
        limit_policy: str | None = None,
        idle_timeout_s: float | None = None,
        website_idle_timeout_s: float | None = None,
        ttl_s: float | None = None,
        sensitive_ttl_s: float | None = None,
        alert_threshold_percent: int | None = None,
        quotas: Mapping[str, tuple[Amount, float]] | None = None,
        command_id: Id | None = None,
    ) -> r.Recorded:
        """Set a tenant's (or one of its plans') limits and default quotas, as a whole.

        `quotas`: resource to (limit, period in seconds).
        """
        command = c.SetLimits(
            tenant=tenant,
            plan=plan,
            max_sessions=max_sessions,
            limit_policy=limit_policy,
            idle_timeout_ms=_ms(idle_timeout_s),
            website_idle_timeout_ms=_ms(website_idle_timeout_s),
            ttl_ms=_ms(ttl_s),
            sensitive_ttl_ms=_ms(sensitive_ttl_s),
            alert_threshold_percent=alert_threshold_percent,
            quotas={
                resource: (exact(limit, f"quotas.{resource}"), round(period_s * MS_A_SECOND))
                for resource, (limit, period_s) in (quotas or {}).items()
            },
            command_id=_id(command_id, "command_id"),
        )
        return self._run(command, r.Recorded)
