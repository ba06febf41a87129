"""Results: what a command answers. Each is rebuilt from the command's events alone, so a repeat answers the same."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from session_ledger.domain.frozen import quick


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Where the command's last event stands.

    `position` is dense in `partition`; answers that recorded nothing carry the position that they were decided at.
    `command_id` is UUID text; `repeated` says that the command had been recorded before.
    """

    partition: int = -1
    position: int = 0
    command_id: str = ""
    repeated: bool = False


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStarted(Result):
    """CreateSession: the session, and which ones had to go for it. Ids are UUID text.

    `user` is as recorded: the pseudonym where the ledger has them, which every call takes like the id.
    """

    tenant: str
    user: str
    session_id: str
    thread_id: str
    created: bool = True
    """False: a live session was reused (get or create)."""
    evicted: tuple[str, ...] = ()


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRecorded(Result):
    """AddMessage."""

    session_id: str
    message_number: int


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class SessionChanged(Result):
    """UpdateSession, EndSession, ReportError. `version`: of the session's stream."""

    session_id: str
    version: int
    released_agents: tuple[str, ...] = ()


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class SessionKeyRotated(Result):
    """RotateSessionKey: the session's new data key. `version`: of the session's stream."""

    session_id: str
    version: int
    key_id: str
    generation: int


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class AccessTokenSet(Result):
    """IssueAccessToken, RotateAccessToken. `version`: of the session's stream."""

    session_id: str
    version: int
    expires_at: int
    """Microseconds since the epoch, UTC: from then on the token opens nothing."""


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Authenticated(Result):
    """Authenticate: whose session the token opens, and until when."""

    tenant: str
    user: str
    session_id: str
    expires_at: int
    """Microseconds since the epoch, UTC."""


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class SessionImported(Result):
    """ImportSession. `added`: messages; 0, and not `created`, where the history was there already."""

    session_id: str
    added: int
    complete: bool
    created: bool = False
    """This command began the session."""


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaStatus(Result):
    """A quota as it stands: ConsumeQuota, CheckQuota, and each row of ReportQuota."""

    resource: str
    used: Decimal
    limit: Decimal
    period_ms: int
    source: str
    """user, plan or tenant."""
    allowed: bool = True
    """CheckQuota: whether the amount would fit."""
    resets_at: int | None = None
    """When the oldest amount in the window leaves it, microseconds since the epoch; None: nothing is in it.

    Of CheckQuota and ReportQuota; ConsumeQuota, whose answer is made from its event alone, leaves it None.
    """
    retry_after_ms: int | None = None
    reservation_id: str | None = None

    @property
    def remaining(self) -> Decimal:
        """What still fits, never below 0."""
        return max(self.limit - self.used, Decimal(0))

    @property
    def percentage(self) -> float:
        """Used of the limit, in percent; 100.0 where the limit is 0."""
        return 100.0 if self.limit == 0 else round(float(self.used / self.limit * 100), 2)


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaReport(Result):
    """ReportQuota."""

    quotas: tuple[QuotaStatus, ...]


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaGivenBack(Result):
    """ReleaseQuota."""

    resource: str
    amount: Decimal


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class AgentLeased(Result):
    """AcquireAgent."""

    agent_id: str
    agent_type: str
    session_id: str


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class AgentChanged(Result):
    """RegisterAgent, ReleaseAgent, RetireAgent."""

    agent_id: str
    agent_type: str


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsExpired(Result):
    """ExpireSessions."""

    session_ids: tuple[str, ...]


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded(Result):
    """SetQuota, SetUserLimits, SetLimits, PublishSchema, ReportAuthenticationFailure, RecordRefusals, and of audits."""
