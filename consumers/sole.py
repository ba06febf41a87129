"""One writer of a projection's files, whichever process it is in."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from session_ledger.domain.errors import ProjectionInUse
from session_ledger.security.files import naming

LOCK = "writer.lock"


def sole_writer(directory: Path, lock_file: str = LOCK, what: str | None = None) -> Callable[[], None]:
    """Hold the right to write there; returns what gives it up. `what` is written; None: the directory.

    Raises ProjectionInUse, naming who has it; OSError, naming the file.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(directory / lock_file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(lock, 20).decode() or "another one"
        os.close(lock)
        raise ProjectionInUse(
            f"{what or directory} is written by process {holder} already, and one is enough: let it, or stop it first"
        ) from None
    try:
        with naming(directory / lock_file):
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(os.getpid()).encode(), 0)
    except OSError:
        os.close(lock)
        raise
    return lambda: os.close(lock)
