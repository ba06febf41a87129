"""A live session as decisions see it. One that ended leaves the account, so memory holds only what lives."""

from __future__ import annotations

from dataclasses import dataclass

IMPORTED = "imported"  # the reason with which an import ends a session; no caller ends one with it
STANDARD, WEBSITE, SENSITIVE = KINDS = ("standard", "website", "sensitive")
CHANNELS = ("text", "voice", "phone", "api")
EVICT, REFUSE = POLICIES = ("evict", "refuse")
IDLE, TTL = "idle", "ttl"
SENSITIVE_TTL_MS_MAX = 7 * 86_400_000  # from creation; nothing that is set makes it longer


@dataclass(slots=True, frozen=True)
class AccessToken:
    """What opens the session for who presents it."""

    digest: bytes
    """SHA-256."""
    expires_at: int
    replaced: bytes | None = None
    """Of the token before; opens the session until `replaced_until`."""
    replaced_until: int = 0


@dataclass(slots=True)
class Session:
    """Folded in place. Activity is what SessionCreated, SessionUpdated and MessageAdded record."""

    session_id: bytes
    version: int
    kind: str
    created_at: int
    last_active_at: int
    idle_timeout_ms: int
    expires_at: int
    message_count: int
    key_id: bytes | None
    importing: bool
    """History whose import is not final yet: counts against no limit; times out at `expires_at` alone."""
    import_digest: bytes | None
    key_generation: int = 1
    """Of `key_id`: 1, or what the last KeyRotated says."""
    previous_key_id: bytes | None = None
    """The key before that; what was sealed by it already may still come."""
    access_token: AccessToken | None = None

    @property
    def due_at(self) -> int:
        """When its time runs out, unless there is activity before."""
        if self.importing:
            return self.expires_at
        return min(self.last_active_at + self.idle_timeout_ms * 1000, self.expires_at)

    @property
    def due_reason(self) -> str:
        """idle or ttl: whichever comes first (ttl where both do)."""
        return IDLE if self.due_at < self.expires_at else TTL

    def is_due(self, now: int) -> bool:
        """Whether its time has run out at `now`."""
        return now >= self.expires_at or (
            not self.importing and now >= self.last_active_at + self.idle_timeout_ms * 1000
        )
