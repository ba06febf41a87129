"""Waking readers of a log file when a writer in the same process commits; other processes' commits are polled for."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Condition, Lock
from weakref import WeakValueDictionary


class CommitSignal:
    """Counts the commits of this process to one file."""

    def __init__(self) -> None:
        self._changed = Condition()
        self.commits = 0

    def announce(self) -> None:
        """Wake everyone who waits: something was committed, or a log was closed."""
        with self._changed:
            self.commits += 1
            self._changed.notify_all()

    def wait(self, seen: int, timeout_s: float) -> bool:
        """Block until `commits` differs from `seen` or the time is over; True if it differs."""
        with self._changed:
            return self._changed.wait_for(lambda: self.commits != seen, timeout_s)


# One signal a file and process, for as long as a log on that file is open: a writer and a reader that were opened
# apart must find the same one.
_signals: WeakValueDictionary[tuple[int, Path], CommitSignal] = WeakValueDictionary()
_signals_lock = Lock()


def signal_of(path: Path) -> CommitSignal:
    """The signal that every log on this file shares in this process. Keep it: it lives as long as it is referred to."""
    key = (os.getpid(), path.resolve())
    with _signals_lock:
        signal = _signals.get(key)
        if signal is None:
            signal = _signals[key] = CommitSignal()
        return signal
