"""Processes that work side by side: all of them, or an error; none outlives who started it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from session_ledger.consumers.apart import run_apart
from session_ledger.consumers.sole import sole_writer
from session_ledger.domain.errors import LogUnavailable, ProjectionInUse

WORKER = "tests.consumers.apart_worker"


def is_gone(pid: int, patience_s: float = 20.0) -> bool:
    """The process ends in time."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        state = Path(f"/proc/{pid}/stat")
        if state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def test_every_task_is_done_and_heard() -> None:
    """Each process is told its own task, and what they print is heard with its number."""
    heard: dict[int, str] = {}
    run_apart(
        WORKER, [{"do": "nothing"}, {"do": "nothing"}], lambda which, line: heard.update({which: line}), what="tests"
    )
    assert [0, 1] == sorted(heard)
    assert len(set(heard.values())) == 2


def test_the_failure_of_one_ends_the_others() -> None:
    """What it said last is the error; nobody goes on."""
    pids: dict[int, int] = {}
    with pytest.raises(LogUnavailable, match="on purpose"):
        run_apart(
            WORKER, [{"do": "fail"}, {"do": "sleep"}], lambda which, line: pids.update({which: int(line)}), what="tests"
        )
    assert all(is_gone(pid) for pid in pids.values())


def test_the_failure_of_a_late_one_is_not_waited_for() -> None:
    """Whichever fails first is the error, however long the ones before it go on."""
    began_s = time.monotonic()
    with pytest.raises(LogUnavailable, match="on purpose"):
        run_apart(WORKER, [{"do": "sleep"}, {"do": "fail"}], what="tests")
    assert time.monotonic() - began_s < 30  # who sleeps does so for a minute


def test_none_outlives_a_parent_that_was_killed() -> None:
    """kill -9 leaves no process behind that would write on."""
    parent = subprocess.Popen([sys.executable, "-m", WORKER, "parent"], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(parent.stdout.readline()) for _ in range(3)]
    assert pids[0] == parent.pid
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert all(is_gone(pid) for pid in pids[1:])


def test_one_at_a_time(tmp_path: Path) -> None:
    """Who comes second is refused, and told who is first; and may come when that one is gone."""
    give_up = sole_writer(tmp_path / "new")
    with pytest.raises(ProjectionInUse, match=f"exports is written by process {os.getpid()}"):
        sole_writer(tmp_path / "new", what="exports")
    give_up()
    sole_writer(tmp_path / "new")()
