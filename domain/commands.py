"""Commands: what a caller asks for, in the imperative, frozen, with plaintext as given.

A command names its tenant and user (agent and tenant commands: the tenant). `command_id` is a UUIDv7 of 16 bytes; the
facade makes one where it is None. Texts are sealed at the edge, before the shard decides: see `Prepared`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from session_ledger.domain.command import Command as Command
from session_ledger.domain.command import Json as Json
from session_ledger.domain.command import SessionCommand as SessionCommand
from session_ledger.domain.command import UserCommand as UserCommand
from session_ledger.domain.commands_access import Authenticate as Authenticate
from session_ledger.domain.commands_access import IssueAccessToken as IssueAccessToken
from session_ledger.domain.commands_access import ReportAuthenticationFailure as ReportAuthenticationFailure
from session_ledger.domain.commands_access import ReportAuthenticationSuccess as ReportAuthenticationSuccess
from session_ledger.domain.commands_access import RotateAccessToken as RotateAccessToken
from session_ledger.domain.commands_audit import AcknowledgeLeak as AcknowledgeLeak
from session_ledger.domain.commands_audit import RaiseAlert as RaiseAlert
from session_ledger.domain.commands_audit import RecordAuditRead as RecordAuditRead
from session_ledger.domain.commands_audit import ReportLeak as ReportLeak
from session_ledger.domain.commands_audit import RevealContent as RevealContent
from session_ledger.domain.commands_erasure import EraseSession as EraseSession
from session_ledger.domain.commands_erasure import EraseTenant as EraseTenant
from session_ledger.domain.commands_erasure import EraseUser as EraseUser
from session_ledger.domain.commands_erasure import LiftLegalHold as LiftLegalHold
from session_ledger.domain.commands_erasure import LiftTenantHold as LiftTenantHold
from session_ledger.domain.commands_erasure import SetLegalHold as SetLegalHold
from session_ledger.domain.commands_erasure import SetRetention as SetRetention
from session_ledger.domain.commands_erasure import SetTenantHold as SetTenantHold
from session_ledger.domain.commands_keys import RotateSessionKey as RotateSessionKey
from session_ledger.domain.frozen import quick

# --- sessions -----------------------------------------------------------------------------------------------------


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class CreateSession(UserCommand):
    """Begin a session. Refused or evicting when the user has as many live sessions as the limit allows."""

    title: str | None = None
    context: Json = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    kind: str = "standard"
    """standard, website or sensitive."""
    channel: str = "text"
    """text, voice, phone or api."""
    domain: str | None = None
    ip_address: str | None = None
    idle_timeout_ms: int | None = None
    """None: the default of the tenant for this kind."""
    ttl_ms: int | None = None
    occurred_at: int | None = None
    reuse: bool = False
    """True: answer with the most recently active live session if there is one (get or create)."""


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateSession(SessionCommand):
    """Change title, metadata or context; None leaves it as it is. Metadata replaces the whole."""

    title: str | None = None
    context: Json = None
    metadata: Mapping[str, str] | None = None
    occurred_at: int | None = None


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class AddMessage(SessionCommand):
    """Add a message to a live session."""

    role: str
    content: str
    parts: Json = None
    """A list of tool calls, tool results and other structured parts."""
    model: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    latency_ms: int | None = None
    audio_url: str | None = None
    audio_duration_ms: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    occurred_at: int | None = None
    agent_id: bytes | None = None
    """The instance that wrote it."""
    tokens_cached: int | None = None
    """Of `tokens_in`."""
    tokens_reasoning: int | None = None
    """Of `tokens_out`."""
    topic: str | None = None
    shared_source: str | None = None
    """The declared source, shared by all of the tenant's users, that the content was taken from."""


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class EndSession(SessionCommand):
    """End a live session; what it holds is released in the same append."""

    reason: str = "user"
    ended_by: str = "user"
    note: str | None = None
    occurred_at: int | None = None


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class ReportError(SessionCommand):
    """Record that something failed while a session was served."""

    component: str
    error_type: str
    message: str | None = None
    severity: str = "error"
    agent_id: bytes | None = None
    occurred_at: int | None = None


@quick
@dataclass(frozen=True, slots=True)
class ImportedMessage:
    """A message of an imported session; fields as in AddMessage."""

    role: str
    content: str
    parts: Json = None
    model: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    latency_ms: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    occurred_at: int | None = None
    audio_url: str | None = None
    audio_duration_ms: int | None = None
    agent_id: bytes | None = None
    tokens_cached: int | None = None
    tokens_reasoning: int | None = None
    topic: str | None = None
    shared_source: str | None = None


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSession(SessionCommand):
    """Record a session's history after the fact: created, messages and ended in one append.

    `session_id` is derived from the source's id (`ids.derived_session_id`), so a repeat finds the session and adds
    nothing. Above the batch limit a history comes in several commands: `first_message` counts up, the last is `final`.
    """

    messages: tuple[ImportedMessage, ...]
    first_message: int = 1
    final: bool = True
    title: str | None = None
    context: Json = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    kind: str = "standard"
    channel: str = "text"
    domain: str | None = None
    occurred_at: int | None = None
    ended_at: int | None = None
    source: str = ""
    """Where it came from (a file's name and line, or the source's own id); enters the import digest."""


# --- quotas and account -------------------------------------------------------------------------------------------


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class SetQuota(UserCommand):
    """Set a user's own quota of a resource; `limit` None removes it, so that the defaults count again."""

    resource: str
    limit: Decimal | None
    period_ms: int = 86_400_000


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumeQuota(UserCommand):
    """Consume an amount if it fits into the window; `reserve` keeps it open for a release until the period ends."""

    resource: str
    amount: Decimal
    reserve: bool = False
    session_id: bytes | None = None


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class CheckQuota(UserCommand):
    """Say whether an amount would fit now; records nothing."""

    resource: str
    amount: Decimal


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class ReportQuota(UserCommand):
    """Answer with every quota of the user as it stands now; records nothing."""

    resource: str | None = None


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseQuota(UserCommand):
    """Settle a reservation and give back its unused part (None: all of it)."""

    reservation_id: bytes
    amount: Decimal | None = None


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class SetUserLimits(UserCommand):
    """Set one user's session limit, policy and plan, as a whole; None: the plan's or tenant's counts."""

    max_sessions: int | None = None
    limit_policy: str | None = None
    plan: str | None = None


# --- agents -------------------------------------------------------------------------------------------------------


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterAgent(Command):
    """Register an instance. `agent_id` carries the partition (`ids.new_slotted_id`); the facade makes one."""

    agent_type: str
    capabilities: tuple[str, ...] = ()
    agent_id: bytes | None = None


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class AcquireAgent(SessionCommand):
    """Lease a free instance of the session's partition with all these capabilities."""

    agent_type: str
    capabilities: tuple[str, ...] = ()
    waited_ms: int | None = None
    """How long the caller has waited for it."""


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseAgent(SessionCommand):
    """End a lease that the session holds. `reset`: verified, failed or not_reported."""

    agent_id: bytes
    reset: str = "not_reported"


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class RetireAgent(Command):
    """Take an instance out; refused while a session holds it, unless `force` (the lease is released first)."""

    agent_id: bytes
    reason: str = "retired"
    force: bool = False


# --- the ledger's own ---------------------------------------------------------------------------------------------


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class ExpireSessions(UserCommand):
    """Record the expiry of every session of the user that is due; sent by the sweeper."""


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class RecordRefusals(UserCommand):
    """Record refusals that were coalesced and not written yet; sent by the shard."""


# --- the control log ----------------------------------------------------------------------------------------------


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class SetLimits(Command):
    """Set a tenant's (or one of its plans') limits and default quotas, as a whole; None: not set here."""

    plan: str | None = None
    max_sessions: int | None = None
    limit_policy: str | None = None
    idle_timeout_ms: int | None = None
    website_idle_timeout_ms: int | None = None
    ttl_ms: int | None = None
    sensitive_ttl_ms: int | None = None
    alert_threshold_percent: int | None = None
    quotas: Mapping[str, tuple[Decimal, int]] = field(default_factory=dict)
    """Resource to (limit, period_ms)."""


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class PublishSchema(Command):
    """Publish the text of a schema, once; sent by the ledger when it opens (`tenant` is "")."""

    name: str
    fingerprint: bytes
    schema_json: str


# --- what the shard decides -----------------------------------------------------------------------------------------


@quick
@dataclass(frozen=True, slots=True)
class Sealed:
    """The ciphertexts of one event, by the name of the event's field; absent: nothing was given."""

    event_id: bytes
    key_id: bytes | None
    metadata: Mapping[str, str]
    """The allow-listed part, which stays in the clear."""
    fields: Mapping[str, bytes]
    """`sealed_title`, `sealed_content`, ... to ciphertext."""


@quick
@dataclass(frozen=True, slots=True)
class Prepared:
    """A command that has been validated, given an id, digested and sealed: what `decide` takes.

    A retry after an unknown outcome reuses it whole, so that it carries the same ciphertext.
    """

    command: Command
    command_id: bytes
    digest: bytes
    """Keyed digest of the body, 16 bytes."""
    sealed: tuple[Sealed, ...] = ()
    """One for the command's own event; for ImportSession: created, each message, ended."""
    session_id: bytes | None = None
    """CreateSession: the id of the new session."""
    key_commitment: bytes | None = None
    """Of the data key that sealed it, where the log may not know that yet: of a new session's, and of a later one;
    EraseUser: of the account's next one."""
    key_generation: int = 1
    """Of that key."""
    key_reason: str = ""
    """Why a later key was made."""
    key_is_new: bool = False
    """ImportSession: the vault holds no key of that session."""
