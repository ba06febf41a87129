"""Commands about data keys."""

from __future__ import annotations

from dataclasses import dataclass

from session_ledger.domain.command import SessionCommand
from session_ledger.domain.frozen import quick


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class RotateSessionKey(SessionCommand):
    """Seal a live session by a new data key from now on."""

    reason: str = "requested"
