"""Views of another user: who may not use them is told, and nobody is sent to delete them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from session_ledger.consumers.wiring import current_projections
from session_ledger.projections.store import Store

ROOT = Path(__file__).parents[2]
OPENING = """
import os, sys
from pathlib import Path
from session_ledger.consumers.wiring import current_projections
from session_ledger.domain.errors import SessionLedgerError
from session_ledger.projections.store import Store
from session_ledger.security.users import system_user
system_user()
os.setgroups([])
os.setgid(54321)
os.setuid(54321)
try:
    Store(Path(sys.argv[1]), log_id="log-1", projections=current_projections())
except SessionLedgerError as error:
    print(error.code, error)
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user of the system can see."""
    found = Path(tempfile.mkdtemp(prefix="sl-"))
    yield found
    shutil.rmtree(found)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(("mode", "which"), [(0o777, "views.db"), (0o755, ""), (0o700, "")])
def test_who_may_not_use_the_views_is_told(place: Path, mode: int, which: str) -> None:
    """The file is private, or its directory is: the user, the place and its owner, and no advice to delete it."""
    Store(place / "views.db", log_id="log-1", projections=current_projections()).close()
    place.chmod(mode)
    command = [sys.executable, "-c", OPENING, str(place / "views.db")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("misconfigured "), done.stderr
    assert f"uid 54321 may not read and write {place / which}, which is root's" in done.stdout
    assert "delete" not in done.stdout
