"""What several consumers are: something that opens this and that, and closes it with itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self


class Closing:
    """A context manager that closes what was put into `_closing`, the last first."""

    _closing: list[Callable[[], None]]

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what was opened. Idempotent."""
        while self._closing:
            self._closing.pop()()
