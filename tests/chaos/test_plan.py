"""A seed decides its faults; a run that shows nothing fails; what a runner leaves behind is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from itertools import islice

import pytest

from tests.chaos.history import History, Outcome, Try
from tests.chaos.nemesis import SECONDS, kinds_of, plan
from tests.chaos.processes import ROOT
from tests.chaos.run import Report

FAULTS = 100


def test_the_same_seed_draws_the_same_faults() -> None:
    """Kinds, order and parameters come again; another seed's are others."""
    first, again, other = (list(islice(plan(seed, kinds_of("kafka", 1)), FAULTS)) for seed in ("7", "7", "8"))
    assert first == again
    assert first != other


def test_every_kind_comes_before_any_comes_again() -> None:
    """As many faults as there are kinds hold each once, within its bounds."""
    drawn = list(islice(plan("7", kinds_of("kafka", 3)), len(SECONDS)))
    assert sorted(SECONDS) == sorted(fault.kind for fault in drawn)
    assert all(SECONDS[fault.kind][0] <= fault.seconds <= SECONDS[fault.kind][1] for fault in drawn)


@pytest.mark.parametrize(("acknowledged", "faults", "idle"), [(0, 0, 2), (0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_a_run_that_shows_nothing_fails(acknowledged: int, faults: int, idle: int) -> None:
    """No acknowledgement, or no fault, is a violation of its own."""
    tries = [Try("a", "AddMessage", 1, 2, Outcome.ACKNOWLEDGED) for _ in range(acknowledged)]
    report = Report(History(tries, []))
    report.faults.update({"kill_owner": faults} if faults else {})
    report.assert_it_shows_something()
    assert idle == len(report.violations)
    assert str(idle) == report.table().split()[-1]


def test_what_a_killed_runner_started_is_ended() -> None:
    """A runner that is killed with -9 leaves no process behind, not even a stopped one."""
    script = (
        "import subprocess, time\n"
        "from tests.chaos.processes import Guard\n"
        "with Guard():\n"
        "    child = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        "    child.send_signal(19)\n"
        "    time.sleep(1.0)\n"
        "    print(child.pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as runner:
        assert runner.stdout is not None
        child = int(runner.stdout.readline())
        os.kill(runner.pid, signal.SIGKILL)
    deadline_s = time.monotonic() + 20
    while _runs(child):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"  # nobody may be there to reap it
    except OSError:
        return False
