"""A process beside the test: opens a ledger, does what it is told, prints what came of it, one JSON a line.

python -m tests.ledger.process URL DO [ARGUMENT]
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from session_ledger.domain.results import Result
from session_ledger.ledger.ledger import Ledger
from tests.chaos.history import Outcome, Recorder
from tests.chaos.workload import Known, Workload, setting_up

_printing = threading.Lock()
ROOT = Path(__file__).resolve().parents[2]


def tell(**fields: object) -> None:
    """Print a line."""
    with _printing:
        print(json.dumps(fields), flush=True)


def own(ledger: Ledger, argument: str) -> None:
    """Hold the ledger until the standard input ends."""
    tell(owner=ledger.is_owner)
    sys.stdin.read()


def create(ledger: Ledger, argument: str) -> None:
    """Create so many sessions, each for a user of its own."""
    for number in range(int(argument)):
        started = ledger.create_session("t", f"{os.getpid()}-{number}")
        tell(owner=ledger.is_owner, command_id=started.command_id, position=started.position)
    tell(positions=ledger.positions())


def write(ledger: Ledger, argument: str) -> None:
    """Run random commands without end from that many threads; prints the history of them."""
    recorder, known = Recorder(sys.stdout.fileno(), str(os.getpid())), Known()
    partitions = len(ledger.positions()) - 1
    for command in setting_up(partitions):
        with recorder.trying(command) as answer:
            answer.result = ledger.submit(command).result()
    for _ in range(int(argument)):
        workload = Workload(random.Random(), known, partitions)
        threading.Thread(target=_write, args=(ledger, recorder, workload, known), daemon=True).start()
    time.sleep(600)


def _write(ledger: Ledger, recorder: Recorder, workload: Workload, known: Known) -> None:
    while True:
        command = workload.next()
        with recorder.trying(command) as answer:
            answer.result = ledger._run(command, Result)  # as every method of the facade does
        if answer.result is not None:
            known.learn(command, answer.result)
        elif answer.outcome is not Outcome.REFUSED:
            return


DO = {"own": own, "create": create, "write": write}


@contextmanager
def started(url: str, do: str, argument: str = "") -> Iterator[subprocess.Popen[str]]:
    """Such a process; killed at the end if it still runs."""
    command = [sys.executable, "-m", "tests.ledger.process", url, do, argument]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The next line that it prints."""
    assert process.stdout is not None
    text = process.stdout.readline()
    if not text:
        raise AssertionError(f"the process ended: {process.communicate()[1]}")
    found: dict[str, Any] = json.loads(text)
    return found


def lines(process: subprocess.Popen[str], timeout_s: float = 60) -> list[dict[str, Any]]:
    """All that it printed until it ended, a last line that was cut off left out."""
    assert process.stdout is not None  # `communicate` would leave out what `line` has read ahead
    found = [json.loads(text) for text in process.stdout.read().splitlines(keepends=True) if text.endswith("\n")]
    process.wait(timeout_s)
    return found


if __name__ == "__main__":
    with Ledger.open(sys.argv[1]) as opened:
        DO[sys.argv[2]](opened, sys.argv[3])
