"""Facts about data keys; see `events` for the shapes."""

from __future__ import annotations

from dataclasses import dataclass

from session_ledger.domain.frozen import quick
from session_ledger.domain.streams import SessionEvent


@quick
@dataclass(frozen=True, slots=True)
class KeyRotated(SessionEvent):
    """From here on the session is sealed by another data key; what was sealed before opens with the one that it names.

    What was under way already, sealed by the key directly before, may still follow.
    """

    key_id: bytes
    """The new key."""
    key_commitment: bytes
    """SHA-256 over the new key's id and the data key: proves later which key it was."""
    generation: int
    """Of the new key: the session's first is 1, and each is higher than the one before."""
    reason: str
    """age (the policy's), requested, resumed (the vault had it, no fact told yet), or another word of the caller's."""
