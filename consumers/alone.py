"""One process at a time: `flock` on a file that stays."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from session_ledger.domain.errors import ProjectionInUse


@contextmanager
def alone(lock: Path, busy: str) -> Iterator[None]:
    """Hold it while the block runs. Raises ProjectionInUse with the text `busy` where another process does."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ProjectionInUse(busy) from None
        yield
    finally:
        os.close(descriptor)
