"""What a leakage check finds."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

SKEW_US = 60_000_000  # clocks of two writers may differ by so much
TEXT, REWORDED = "text", "reworded"
WARNING, ERROR, CRITICAL = "warning", "error", "critical"


@dataclass(frozen=True, slots=True)
class Message:
    """What a content check looks at. `session_id`: 16 bytes; `recorded_at`: microseconds since the epoch, UTC."""

    partition: int
    position: int
    recorded_at: int
    tenant: str
    user: str
    session_id: bytes
    role: str
    text: str
    shared_source: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """A message without its text, or any event."""

    partition: int
    position: int
    recorded_at: int
    tenant: str
    user: str
    session_id: bytes | None


@dataclass(frozen=True, slots=True)
class Leak:
    """Something of `source` came to light at `place`."""

    kind: str
    """text, reworded, or the kind of an identifier; of structure, the name of the check."""
    severity: str
    place: Place
    source: Place
    direction: str
    """known: the source was first; unknown: they are too close in time, in two partitions, to tell."""
    length: int | None
    """Characters that both share, normalized (of reworded text, all runs together)."""
    score: float
    """0 to 1: how much of the text at `place` is shared."""

    @property
    def finding_id(self) -> bytes:
        """16 bytes: the same for the same kind of leak between the same two sessions."""
        parts = (self.kind, self.source.tenant, self.source.user, self.place.tenant, self.place.user)
        told = "\x00".join(parts).encode("utf-8", "surrogatepass")
        sessions = (self.source.session_id or b"") + (self.place.session_id or b"")
        return hashlib.blake2b(told + b"\x00" + sessions, digest_size=16, person=b"sl-finding").digest()


def direction(source: Place, place: Place) -> str:
    """Whether it can be told that the source was first."""
    if source.partition == place.partition:
        return "known" if source.position < place.position else "unknown"
    return "known" if place.recorded_at - source.recorded_at > SKEW_US else "unknown"
