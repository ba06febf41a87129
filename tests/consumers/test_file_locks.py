"""SQLite files that one process opens twice: the second opening takes no lock of the first away."""

from __future__ import annotations

import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

from session_ledger.consumers.wiring import VIEWS_FILE, current_projections
from session_ledger.ledger.checkpoints import FILE, Kept, SQLiteCheckpoints
from session_ledger.projections.merkle import Trees
from session_ledger.projections.store import Store

TRY = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'r+b'), fcntl.LOCK_EX | fcntl.LOCK_NB)"


class Closable(Protocol):
    """What was opened."""

    def close(self) -> None:
        """Close it."""


def trees(directory: Path) -> Trees:
    """The trees, in use."""
    found = Trees(directory / "merkle.db", log_id="a log")
    found.position(0)
    return found


def checkpoints(directory: Path) -> SQLiteCheckpoints:
    """The checkpoints, in use."""
    found = SQLiteCheckpoints(directory, write=True)
    found.append(Kept(0, "a note"))
    return found


def views(directory: Path) -> Store:
    """The views, in use."""
    found = Store(directory / VIEWS_FILE, log_id="a log", projections=current_projections())
    found.position(0)
    return found


def is_locked(path: Path) -> bool:
    """Another process can not take it alone."""
    return subprocess.run([sys.executable, "-c", TRY, str(path)], capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize(("file", "opened"), [("merkle.db", trees), (FILE, checkpoints), (VIEWS_FILE, views)])
def test_opening_a_file_again_keeps_the_locks_on_it(
    tmp_path: Path, file: str, opened: Callable[[Path], Closable]
) -> None:
    """POSIX drops a process's locks on a file when any descriptor of it is closed; so none is, but SQLite's own."""
    first = opened(tmp_path)
    assert 0o600 == stat.S_IMODE((tmp_path / file).stat().st_mode)
    assert is_locked(tmp_path / file)
    second = opened(tmp_path)
    assert is_locked(tmp_path / file)
    second.close()
    assert is_locked(tmp_path / file)
    first.close()
    assert not is_locked(tmp_path / file)
    assert [] == [*tmp_path.glob(".*")]
