"""What the facade's methods share: how they run a command, and how they take ids, times and amounts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime
from decimal import Decimal
from typing import TypeVar
from uuid import UUID

from session_ledger.domain.commands import Command
from session_ledger.domain.ids import parse_id
from session_ledger.domain.results import Result
from session_ledger.domain.values import time_us

R = TypeVar("R", bound=Result)
Id = str | UUID | bytes
"""A session, agent, command or reservation id: UUID text, a UUID, or 16 bytes."""
Time = datetime | int | None
"""A datetime with a time zone, or microseconds since the epoch, UTC."""
Amount = int | float | str | Decimal
"""A finite amount, 0 or more, with at most six decimals."""

MS_A_SECOND = 1000


class Commands(ABC):
    """Something that runs commands: the facade itself, or its async form."""

    @abstractmethod
    def _run(self, command: Command, result: type[R]) -> R:
        """Run the command and give its result, which is of that type."""


def optional_ms(seconds: float | None) -> int | None:
    """Whole milliseconds of seconds."""
    return None if seconds is None else round(seconds * MS_A_SECOND)


def optional_id(value: Id | None, field: str) -> bytes | None:
    """The 16 bytes of an id that may be missing. Raises InvalidInput."""
    return None if value is None else parse_id(value, field)


def optional_us(value: Time, field: str = "occurred_at") -> int | None:
    """Microseconds since the epoch of a time that may be missing. Raises InvalidInput."""
    return None if value is None else time_us(value, field)
