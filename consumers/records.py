"""What the read side answers with: frozen, ids as UUID text, times as aware datetimes (UTC), content opened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Generic, TypeVar

from session_ledger.domain.commands import Json
from session_ledger.domain.results import QuotaStatus

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionView:
    """A session as it stands at (partition, position)."""

    session_id: str
    thread_id: str
    """The same as the session id: the framework's thread."""
    tenant: str
    user: str
    status: str
    """live, ended, expired, evicted, or imported (history, recorded after the fact)."""
    timed_out: bool
    """It is recorded as live, but its time is over: the next command to it, or a sweep, records the expiry."""
    kind: str
    channel: str
    domain: str | None
    title: str | None
    context: Json
    metadata: dict[str, str]
    """What is in the clear and what is sealed, merged."""
    ip_address: str | None
    created_at: datetime
    occurred_at: datetime | None
    """The caller's time of its beginning."""
    last_active_at: datetime
    due_at: datetime
    """When it times out unless something happens before (of a session that is over: would have)."""
    expires_at: datetime
    idle_timeout: timedelta
    ended_at: datetime | None
    end_occurred_at: datetime | None
    """The caller's time of its end; of an expired session, when its time ran out."""
    end_reason: str | None
    ended_by: str | None
    note: str | None
    replaced_by: str | None
    """Of an evicted session: the one that took its place."""
    erased_at: datetime | None
    """Its content was erased then; what is left is structure."""
    session_limit: int | None
    limit_policy: str
    messages: int
    tokens_in: int
    tokens_out: int
    errors: int
    agents: tuple[str, ...]
    """The agent instances that it holds."""
    version: int
    partition: int
    position: int
    """Of its last event."""
    unreadable: str | None = None
    """Why title, context, metadata, address or note could not be opened (they are None or missing); None: all were."""

    @property
    def active(self) -> bool:
        """Live, and not timed out when it was read."""
        return self.status == "live" and not self.timed_out


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageView:
    """A message of a session."""

    session_id: str
    number: int
    role: str
    content: str | None
    parts: Json
    model: str | None
    tokens_in: int | None
    tokens_out: int | None
    latency_ms: int | None
    audio_url: str | None
    audio_duration_ms: int | None
    metadata: dict[str, str]
    recorded_at: datetime
    occurred_at: datetime | None
    event_id: str
    partition: int
    position: int
    unreadable: str | None = None
    """Why content could not be opened (it is None); None: it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorView:
    """Something that failed while a session was served."""

    session_id: str
    component: str
    error_type: str
    severity: str
    message: str | None
    agent_id: str | None
    recorded_at: datetime
    occurred_at: datetime | None
    partition: int
    position: int
    unreadable: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthenticationFailureView:
    """A failed attempt to authenticate as a user; of a flood, one a second that tells of several."""

    tenant: str
    user: str
    session_id: str | None
    method: str
    reason: str
    ip_address: str | None
    attempts: int
    """The other fields are those of the last."""
    recorded_at: datetime
    occurred_at: datetime | None
    partition: int
    position: int
    unreadable: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LegalHoldView:
    """A legal hold that is set."""

    tenant: str
    user: str | None
    """None: all of the tenant."""
    session_id: str | None
    """None: all of the user."""
    matter: str
    requested_by: str
    reason: str
    set_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentView:
    """An agent instance."""

    agent_id: str
    tenant: str
    agent_type: str
    capabilities: tuple[str, ...]
    status: str
    """free, held or retired."""
    held_by: str | None
    """The session that leases it."""
    held_since: datetime | None
    leases: int
    last_reset: str | None
    registered_at: datetime
    retired_at: datetime | None
    retired_reason: str | None
    partition: int
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UserQuotas:
    """The quotas of one user as they stand."""

    user: str
    quotas: tuple[QuotaStatus, ...]
    refusals: dict[str, int]
    """Resource to refusals recorded since the log began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantQuota:
    """One resource over all users of a tenant who have a quota of that period."""

    resource: str
    period_ms: int
    users: int
    used: Decimal
    """In the users' windows as they stand, together."""
    limit: Decimal
    """The users' limits, together."""
    refusals: int
    """Recorded since the log began."""

    @property
    def percentage(self) -> float:
        """Used of the limits, in percent; 100.0 where they are 0."""
        return 100.0 if self.limit == 0 else round(float(self.used / self.limit * 100), 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class UserActivity:
    """How busy a user was."""

    tenant: str
    user: str
    sessions: int
    messages: int
    tokens_in: int
    tokens_out: int
    refusals: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """A summary of the views, of one tenant or of all."""

    sessions: int
    messages: int
    errors: int
    tokens_in: int
    tokens_out: int
    by_status: dict[str, int]
    by_reason: dict[tuple[str, str], int]
    """(status, reason of the end) to sessions; live sessions are not in it."""
    busiest: tuple[UserActivity, ...]
    """By messages."""
    refusals: int
    refusals_by_resource: dict[str, int]
    agents: dict[str, dict[str, int]]
    """Agent type to status (free, held, retired) to instances."""
    leases: int
    authentication_failures: int
    positions: dict[int, int] = field(default_factory=dict)
    """Partition to the position that this was read at."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items, and where the next ones begin: pass `next` as `after`; None: there are no more."""

    items: tuple[T, ...]
    next: str | None = None

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __getitem__(self, index: int) -> T:
        return self.items[index]


def as_datetime(microseconds: int) -> datetime:
    """Microseconds since the epoch as an aware datetime; what lies beyond the calendar is its first or last instant."""
    try:
        return EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return (datetime.max if microseconds > 0 else datetime.min).replace(tzinfo=UTC)


def as_datetime_or_none(microseconds: int | None) -> datetime | None:
    """The same, for a time that may be missing."""
    return None if microseconds is None else as_datetime(microseconds)
