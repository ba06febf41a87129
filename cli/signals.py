"""Clean stops of commands that run until they are told to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def until_stopped() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; a second signal is what it always was, so a hanging stop can be ended."""
    stop = threading.Event()
    before: dict[signal.Signals, object] = {}

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()
        for other, handler in before.items():
            signal.signal(other, handler)  # type: ignore[arg-type]

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, on_signal)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
