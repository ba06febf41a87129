"""What the facade's methods share: how they run a command, and how they take ids, times and amounts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TypeVar
from uuid import UUID

from session_ledger.domain.commands import Command
from session_ledger.domain.errors import InvalidInput
from session_ledger.domain.ids import parse_id
from session_ledger.domain.results import Result
from session_ledger.domain.shapes import shape
from session_ledger.domain.values import time_us

R = TypeVar("R", bound=Result)
Id = str | UUID | bytes
"""A session, agent, command or reservation id: UUID text, a UUID, or 16 bytes."""
Time = datetime | int | None
"""A datetime with a time zone, or microseconds since the epoch, UTC."""
Amount = int | float | str | Decimal
"""A finite amount, 0 or more, with at most six decimals."""

MS_A_SECOND = 1000
MS_MAX = 2**62  # beyond every limit that validation sets


class Commands(ABC):
    """Something that runs commands: the facade itself, or its async form."""

    @abstractmethod
    def _new_id(self) -> bytes:
        """A fresh command id by the ledger's clock."""

    @abstractmethod
    def _run(self, command: Command, result: type[R]) -> R:
        """Run the command and give its result, which is of that type."""


def whole_ms(seconds: float, field: str) -> int:
    """Whole milliseconds of seconds. Raises InvalidInput."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float | Decimal):
        raise InvalidInput(field, shape(seconds), "must be a number of seconds")
    if not -MS_MAX < seconds * MS_A_SECOND < MS_MAX:  # nor not a number
        raise InvalidInput(field, "a number out of range", "must be a number of seconds")
    return round(seconds * MS_A_SECOND)


def optional_ms(seconds: float | None, field: str) -> int | None:
    """The same of a duration that may be missing. Raises InvalidInput."""
    return None if seconds is None else whole_ms(seconds, field)


def word_set(values: Sequence[str], field: str) -> tuple[str, ...]:
    """Texts, sorted, each once. Raises InvalidInput."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InvalidInput(field, shape(values), "must be a sequence of texts")
    words = tuple(values)
    for index, word in enumerate(words):
        if not isinstance(word, str):
            raise InvalidInput(f"{field}[{index}]", shape(word), "must be a text")
    return tuple(sorted(set(words)))


def optional_id(value: Id | None, field: str) -> bytes | None:
    """The 16 bytes of an id that may be missing. Raises InvalidInput."""
    return None if value is None else parse_id(value, field)


def optional_us(value: Time, field: str = "occurred_at") -> int | None:
    """Microseconds since the epoch of a time that may be missing. Raises InvalidInput."""
    return None if value is None else time_us(value, field)
