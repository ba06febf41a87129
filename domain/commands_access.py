"""Commands about access to a session; see `commands`. They carry a token's digest, never the token."""

from __future__ import annotations

from dataclasses import dataclass

from session_ledger.domain.command import SessionCommand, UserCommand
from session_ledger.domain.frozen import quick


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class IssueAccessToken(SessionCommand):
    """Let whoever has the token authenticate for a live session; refused where another token still does."""

    token_digest: bytes
    """SHA-256 of the token."""
    ttl_ms: int | None = None
    """None: as long as the session may live."""


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class RotateAccessToken(SessionCommand):
    """Put another token in the place of the session's."""

    token_digest: bytes
    """SHA-256 of the new token."""
    ttl_ms: int | None = None
    """None: as long as the session may live."""
    grace_ms: int = 0
    """How long the replaced token still opens the session, for requests under way; never longer than it did anyway."""


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Authenticate(SessionCommand):
    """Ask whether a token that somebody presents opens the session now; a failure is recorded."""

    token_digest: bytes
    """SHA-256 of what was presented."""
    ip_address: str | None = None
    """From where; recorded with a failure, sealed."""


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class ReportAuthenticationFailure(UserCommand):
    """Record an attempt to authenticate as this user that failed elsewhere: a password, a key of an API."""

    method: str
    reason: str
    session_id: bytes | None = None
    ip_address: str | None = None
    occurred_at: int | None = None


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class ReportAuthenticationSuccess(UserCommand):
    """Say that one succeeded elsewhere: ends a row of failed attempts; where there is none, records nothing."""

    method: str
    session_id: bytes | None = None
