"""Facts about access to sessions; see `events` for the shapes."""

from __future__ import annotations

from dataclasses import dataclass

from session_ledger.domain.frozen import quick
from session_ledger.domain.streams import AccountEvent, SessionEvent


@quick
@dataclass(frozen=True, slots=True)
class AccessTokenIssued(SessionEvent):
    """From here on a token opens the session: whoever presents it is authenticated as the session's user."""

    token_digest: bytes
    """SHA-256 of the token; the token itself, 256 random bits, stands nowhere."""
    expires_at: int
    """From when on it opens nothing; never later than the session may live."""


@quick
@dataclass(frozen=True, slots=True)
class AccessTokenRotated(SessionEvent):
    """From here on another token opens the session."""

    token_digest: bytes
    """SHA-256 of the new token."""
    expires_at: int
    replaced_digest: bytes
    """SHA-256 of the token before."""
    replaced_until: int
    """From when on that one opens nothing; `recorded_at`: at once."""


@quick
@dataclass(frozen=True, slots=True)
class AuthenticationFailed(AccountEvent):
    """Somebody failed to authenticate as this user; under a flood one fact a second tells of several attempts."""

    occurred_at: int | None
    session_id: bytes | None
    method: str
    """access_token, password, api_key, or another word of the caller's."""
    reason: str
    """bad_credential, expired, replaced, no_token, session_over, unknown_user, or another word of the caller's."""
    key_id: bytes | None
    sealed_ip_address: bytes | None
    attempts: int = 1
    """How many this fact tells of; the other fields are those of the last."""


@quick
@dataclass(frozen=True, slots=True)
class AuthenticationSucceeded(AccountEvent):
    """Somebody authenticated as this user after failed attempts in a row. Recorded only then."""

    session_id: bytes | None
    method: str
    failed_attempts: int
    """In a row before it."""
