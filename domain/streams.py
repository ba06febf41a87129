"""What all events share, and the streams (originators) that they belong to; see `events` for the events themselves."""

from __future__ import annotations

from dataclasses import dataclass

from session_ledger.domain.frozen import quick
from session_ledger.domain.ids import account_id, tenant_id


@quick
@dataclass(frozen=True, slots=True)
class Event:
    """What all events share."""

    event_id: bytes
    tenant: str
    user: str
    version: int
    recorded_at: int
    command_id: bytes | None
    command_digest: bytes | None

    @property
    def originator_id(self) -> bytes:
        """The stream the event belongs to, 16 bytes; each kind of stream below says which."""
        raise NotImplementedError(type(self).__name__)


@quick
@dataclass(frozen=True, slots=True)
class SessionEvent(Event):
    """A fact in a session's stream."""

    session_id: bytes

    @property
    def originator_id(self) -> bytes:
        return self.session_id


@quick
@dataclass(frozen=True, slots=True)
class AccountEvent(Event):
    """A fact in a user's account stream."""

    @property
    def originator_id(self) -> bytes:
        return account_id(self.tenant, self.user)


@quick
@dataclass(frozen=True, slots=True)
class AgentEvent(Event):
    """A fact in an agent instance's stream."""

    agent_id: bytes
    agent_type: str

    @property
    def originator_id(self) -> bytes:
        return self.agent_id


@quick
@dataclass(frozen=True, slots=True)
class TenantEvent(Event):
    """A fact in a tenant's stream, in the control log."""

    @property
    def originator_id(self) -> bytes:
        return tenant_id(self.tenant)
