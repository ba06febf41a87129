"""Commands about erasure and legal holds; see `commands`. Their texts stand in the clear, so they name no person."""

from __future__ import annotations

from dataclasses import dataclass

from session_ledger.domain.command import Command, SessionCommand, UserCommand
from session_ledger.domain.frozen import quick


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class EraseSession(SessionCommand):
    """Erase what was said in a session, live or over: it is ended, and its data keys are destroyed."""

    requested_by: str
    reason: str


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class EraseUser(UserCommand):
    """The same for all sessions of the user so far, and for what is sealed in the account."""

    requested_by: str
    reason: str


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class SetLegalHold(UserCommand):
    """Keep a user's content, or one session's, from being erased until the hold is lifted."""

    matter: str
    """What it is for: several matters may hold the same content, and each is lifted by itself."""
    session_id: bytes | None = None
    """None: the user's, all sessions and the account."""
    requested_by: str
    reason: str


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class LiftLegalHold(UserCommand):
    """Lift the hold of that matter, of the same scope."""

    matter: str
    session_id: bytes | None = None
    requested_by: str
    reason: str


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class EraseTenant(Command):
    """Erase everything of a tenant: from now on it takes no command but erasures, then each user is erased."""

    requested_by: str
    reason: str


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class SetTenantHold(Command):
    """Keep all content of a tenant from being erased until the hold is lifted."""

    matter: str
    requested_by: str
    reason: str


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class LiftTenantHold(Command):
    """Lift the tenant's hold of that matter."""

    matter: str
    requested_by: str
    reason: str


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class SetRetention(Command):
    """Set how long a tenant's content is kept, as a whole; None: the built-in time."""

    retention_ms: int | None = None
    """From the end of a session."""
    sensitive_retention_ms: int | None = None
    """The same, of sensitive sessions."""
    requested_by: str
    reason: str
