"""Events, version 1: facts in the past tense, each self-sufficient, frozen.

Shapes shared by all: ids are 16 bytes; times are microseconds since the epoch, UTC; durations end in their unit;
amounts are `Decimal` with at most six decimals; texts that people said or that say who they are stand in `sealed_*`
fields as ciphertext (see `security.envelope`), opened with the data key `key_id` (None: sealing is off).

Every event starts with the same seven fields:

- `event_id`: its own random id, unique in the log, part of every seal's associated data.
- `tenant`, `user`: whose it is (`user` is "" for facts about an agent or a tenant).
- `version`: place in its stream (the originator's), 1, 2, 3, ... without a gap.
- `recorded_at`: the writer's clock; never goes back within a partition. It alone decides quotas and expiry.
- `command_id`, `command_digest`: the command that caused it and a keyed digest of its body; None for what the ledger
  does by itself (expiry) and for what is not remembered (refusals).

The stream (originator) of an event is its session, its agent, its user's account or its tenant: see `originator_id`.
New fields are appended with a default; fields are never removed, renamed or given another meaning.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from session_ledger.domain.events_access import AccessTokenIssued as AccessTokenIssued
from session_ledger.domain.events_access import AccessTokenRotated as AccessTokenRotated
from session_ledger.domain.events_access import AuthenticationFailed as AuthenticationFailed
from session_ledger.domain.events_access import AuthenticationSucceeded as AuthenticationSucceeded
from session_ledger.domain.events_audit import AlertRaised as AlertRaised
from session_ledger.domain.events_audit import AuditRead as AuditRead
from session_ledger.domain.events_audit import ContentRevealed as ContentRevealed
from session_ledger.domain.events_audit import LeakAcknowledged as LeakAcknowledged
from session_ledger.domain.events_audit import LeakFound as LeakFound
from session_ledger.domain.events_control import LimitsSet as LimitsSet
from session_ledger.domain.events_control import QuotaDefault as QuotaDefault
from session_ledger.domain.events_control import SchemaPublished as SchemaPublished
from session_ledger.domain.events_erasure import ContentErased as ContentErased
from session_ledger.domain.events_erasure import ErasureRefused as ErasureRefused
from session_ledger.domain.events_erasure import LegalHoldLifted as LegalHoldLifted
from session_ledger.domain.events_erasure import LegalHoldSet as LegalHoldSet
from session_ledger.domain.events_erasure import RetentionSet as RetentionSet
from session_ledger.domain.events_erasure import TenantErased as TenantErased
from session_ledger.domain.events_erasure import TenantHoldLifted as TenantHoldLifted
from session_ledger.domain.events_erasure import TenantHoldSet as TenantHoldSet
from session_ledger.domain.events_keys import KeyRotated as KeyRotated
from session_ledger.domain.frozen import quick
from session_ledger.domain.streams import AccountEvent as AccountEvent
from session_ledger.domain.streams import AgentEvent as AgentEvent
from session_ledger.domain.streams import Event as Event
from session_ledger.domain.streams import SessionEvent as SessionEvent
from session_ledger.domain.streams import TenantEvent as TenantEvent

# --- sessions -----------------------------------------------------------------------------------------------------


@quick
@dataclass(frozen=True, slots=True)
class SessionCreated(SessionEvent):
    """A session began; carries its whole initial state."""

    occurred_at: int | None
    """The caller's time, for display and analytics only."""
    kind: str
    """standard, website or sensitive: decides the default timeouts."""
    channel: str
    """text, voice, phone or api."""
    domain: str | None
    """The website's domain."""
    idle_timeout_ms: int
    """Time without activity after which the session expires."""
    expires_at: int
    """The absolute end of its life."""
    session_limit: int | None
    """The limit of live sessions that the decision applied (None: imported history, no limit applies)."""
    limit_policy: str
    """evict or refuse."""
    imported: bool
    """History recorded after the fact: consumes no quota, evicts nothing, is ended by the import."""
    import_digest: bytes | None
    """Of imported history: tells the same source from another under the same id."""
    key_id: bytes | None
    key_commitment: bytes | None
    """SHA-256 over the key id and the data key: proves later which key it was."""
    metadata: dict[str, str]
    """The allow-listed part, in the clear."""
    sealed_metadata: bytes | None
    """JSON object of text to text."""
    sealed_title: bytes | None
    sealed_context: bytes | None
    """JSON of the initial context."""
    sealed_ip_address: bytes | None


@quick
@dataclass(frozen=True, slots=True)
class SessionUpdated(SessionEvent):
    """Title, metadata or context changed; None means unchanged."""

    occurred_at: int | None
    key_id: bytes | None
    metadata: dict[str, str] | None
    """The whole allow-listed part as it is from now on."""
    sealed_metadata: bytes | None
    sealed_title: bytes | None
    sealed_context: bytes | None


@quick
@dataclass(frozen=True, slots=True)
class MessageAdded(SessionEvent):
    """A message was added to a session."""

    occurred_at: int | None
    message_number: int
    """1, 2, 3, ... within the session."""
    role: str
    """user, assistant, system, tool, developer, or another."""
    model: str | None
    tokens_in: int | None
    tokens_out: int | None
    latency_ms: int | None
    audio_duration_ms: int | None
    key_id: bytes | None
    metadata: dict[str, str]
    sealed_metadata: bytes | None
    sealed_content: bytes
    """UTF-8 text."""
    sealed_parts: bytes | None
    """JSON array: tool calls, tool results and other structured parts."""
    sealed_audio_url: bytes | None
    agent_id: bytes | None = None
    """The agent instance that wrote it, or that it was written to."""
    tokens_cached: int | None = None
    """How many of `tokens_in` were read from a cache."""
    tokens_reasoning: int | None = None
    """How many of `tokens_out` were reasoning."""
    topic: str | None = None
    """What it is about: a word of the caller's or of the configured taxonomy; None: unknown."""
    shared_source: str | None = None
    """The declared source, shared by all of the tenant's users, that its text was taken from."""


@quick
@dataclass(frozen=True, slots=True)
class SessionEnded(SessionEvent):
    """Somebody ended the session."""

    occurred_at: int | None
    reason: str
    """user, admin, completed, imported, or another word of the caller's."""
    ended_by: str
    """user, admin or system."""
    key_id: bytes | None
    sealed_note: bytes | None


@quick
@dataclass(frozen=True, slots=True)
class SessionExpired(SessionEvent):
    """The session's time ran out."""

    reason: str
    """idle or ttl."""
    due_at: int
    """When it ran out; the fact is recorded later, by a sweep or by the next command."""


@quick
@dataclass(frozen=True, slots=True)
class SessionEvicted(SessionEvent):
    """The session had to make room for a newer one of the same user."""

    session_limit: int
    """The limit that the decision applied."""
    replaced_by: bytes
    """The session that took its place, 16 bytes."""


# --- quotas and account -------------------------------------------------------------------------------------------


@quick
@dataclass(frozen=True, slots=True)
class QuotaSet(AccountEvent):
    """A user's own quota of a resource was set or removed."""

    resource: str
    """api_calls, tokens, storage_mb, compute_seconds, or another."""
    limit: Decimal | None
    """None: the user's own quota is removed, the plan's or tenant's default counts again."""
    period_ms: int


@quick
@dataclass(frozen=True, slots=True)
class QuotaConsumed(AccountEvent):
    """An amount was consumed, or reserved, within the limit."""

    resource: str
    amount: Decimal
    used: Decimal
    """In the window after this, this amount included (bucketed amounts counted until their bucket is over)."""
    limit: Decimal
    """The limit that the decision applied."""
    period_ms: int
    limit_source: str
    """user, plan or tenant."""
    reserved: bool
    """True: may be released until the period ends; `event_id` is the reservation's id."""
    session_id: bytes | None


@quick
@dataclass(frozen=True, slots=True)
class QuotaRefused(AccountEvent):
    """Consumption was refused; at most one such fact a second a user and resource."""

    resource: str
    amount: Decimal
    """Asked for, by the last of the refused."""
    used: Decimal
    limit: Decimal
    period_ms: int
    limit_source: str
    count: int
    """Refusals that this fact stands for, 1 or more."""
    retry_after_ms: int | None
    """None: the amount alone is over the limit."""


@quick
@dataclass(frozen=True, slots=True)
class QuotaReleased(AccountEvent):
    """The unused part of a reservation was given back; the reservation is settled."""

    resource: str
    amount: Decimal
    reservation_id: bytes


@quick
@dataclass(frozen=True, slots=True)
class QuotaThresholdReached(AccountEvent):
    """Usage went over the alert threshold of the limit."""

    resource: str
    used: Decimal
    limit: Decimal
    period_ms: int
    threshold_percent: int


@quick
@dataclass(frozen=True, slots=True)
class UserLimitsSet(AccountEvent):
    """Limits of one user, over the plan's and the tenant's; None: not set here."""

    max_sessions: int | None
    limit_policy: str | None
    plan: str | None


@quick
@dataclass(frozen=True, slots=True)
class ErrorReported(SessionEvent):
    """Something failed while the session was served."""

    occurred_at: int | None
    component: str
    error_type: str
    severity: str
    """warning, error or critical."""
    agent_id: bytes | None
    key_id: bytes | None
    sealed_message: bytes | None


# --- agents -------------------------------------------------------------------------------------------------------


@quick
@dataclass(frozen=True, slots=True)
class AgentRegistered(AgentEvent):
    """An agent instance joined the partition; its stream begins."""

    capabilities: tuple[str, ...]
    """Sorted, unique."""


@quick
@dataclass(frozen=True, slots=True)
class AgentAcquired(AgentEvent):
    """A session leased the instance."""

    session_id: bytes
    required: tuple[str, ...]
    """The capabilities that were asked for, sorted."""
    waited_ms: int | None = None
    """How long the caller had waited, as it says."""


@quick
@dataclass(frozen=True, slots=True)
class AgentReleased(AgentEvent):
    """The lease ended."""

    session_id: bytes
    reason: str
    """released, session_ended, session_expired, session_evicted or retired."""
    reset: str
    """verified, failed or not_reported."""


@quick
@dataclass(frozen=True, slots=True)
class AgentRetired(AgentEvent):
    """The instance left the partition."""

    reason: str


@quick
@dataclass(frozen=True, slots=True)
class AgentRefused(AccountEvent):
    """Every instance that would have done was held; at most one such fact a second a user and agent type."""

    agent_type: str
    required: tuple[str, ...]
    """The capabilities that the last of the refused asked for, sorted."""
    session_id: bytes
    """For which it asked."""
    count: int
    """Refusals that this fact stands for, 1 or more."""
    waited_ms: int | None
    """How long the last of the refused had waited, as it says."""


EVENT_TYPES: tuple[type[Event], ...] = (
    SessionCreated,
    SessionUpdated,
    MessageAdded,
    SessionEnded,
    SessionExpired,
    SessionEvicted,
    KeyRotated,
    QuotaSet,
    QuotaConsumed,
    QuotaRefused,
    QuotaReleased,
    QuotaThresholdReached,
    UserLimitsSet,
    AccessTokenIssued,
    AccessTokenRotated,
    AuthenticationFailed,
    AuthenticationSucceeded,
    ErrorReported,
    AgentRegistered,
    AgentAcquired,
    AgentReleased,
    AgentRetired,
    AgentRefused,
    ContentRevealed,
    AuditRead,
    LeakFound,
    LeakAcknowledged,
    AlertRaised,
    ContentErased,
    ErasureRefused,
    LegalHoldSet,
    LegalHoldLifted,
    LimitsSet,
    SchemaPublished,
    RetentionSet,
    TenantErased,
    TenantHoldSet,
    TenantHoldLifted,
)
TOPIC_PREFIX = "session_ledger.events."
EVENT_BY_TOPIC: dict[str, type[Event]] = {TOPIC_PREFIX + cls.__name__: cls for cls in EVENT_TYPES}
TOPIC_BY_EVENT: dict[type[Event], str] = {cls: topic for topic, cls in EVENT_BY_TOPIC.items()}
"""Stable names: the topic is the Avro full name of the schema and the CloudEvents type."""
