"""The lock file that tells who lives: held by the owner's process for as long as it runs.

It is for liveness only. Safety comes from the epoch that every append checks in the database; so a take-over may go
ahead while another process still holds the lock.
"""

from __future__ import annotations

import fcntl
import os
import weakref
from pathlib import Path
from threading import Event, Lock, Thread

from session_ledger.domain.errors import LogUnavailable

RETRY_S = 0.1  # how soon a lock that the former owner drops is picked up


class OwnerLock:
    """`flock` on one file. Two instances exclude each other, in one process too. Thread-safe."""

    def __init__(self, path: Path) -> None:
        """Open (and where needed make) the file; raises LogUnavailable."""
        try:
            self._file: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LogUnavailable(f"the lock file {path} can not be opened: {error.strerror}") from error
        self._guard = Lock()
        self._released = Event()
        self.held = False
        # A forked child would share the lock and keep it alive after the owner's death.
        itself = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _drop_in_child(itself))

    def try_acquire(self) -> bool:
        """Take the lock if nobody has it; True if it is held now."""
        with self._guard:
            if self._file is not None and not self.held:
                try:
                    fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    self.held = True
                except BlockingIOError:
                    self.held = False
            return self.held

    def acquire_when_free(self) -> None:
        """Keep trying in the background until the lock is held or released."""
        Thread(target=self._keep_trying, name="owner-lock", daemon=True).start()

    def _keep_trying(self) -> None:
        while not self.try_acquire() and not self._released.wait(RETRY_S):
            pass

    def release(self) -> None:
        """Let the lock go for good. Idempotent."""
        self._released.set()
        with self._guard:
            if self._file is not None:
                fcntl.flock(self._file, fcntl.LOCK_UN)  # a child just forked may not have dropped its copy yet
                os.close(self._file)
                self._file, self.held = None, False

    def _drop_in_child(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file, self.held = None, False


def _drop_in_child(reference: weakref.ref[OwnerLock]) -> None:
    lock = reference()
    if lock is not None:
        lock._drop_in_child()
