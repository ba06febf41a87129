"""A process beside the test: opens a ledger, does what it is told, prints what came of it, one JSON a line.

python -m tests.ledger.process URL DO [ARGUMENT]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from session_ledger.domain.errors import SessionLedgerError
from session_ledger.domain.results import Result
from session_ledger.ledger.ledger import Ledger

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
    """Write without end from that many threads: sessions that evict, hold agents and end."""
    for _ in range(4):
        try:
            ledger.register_agent("t", "helper")
        except SessionLedgerError as error:
            tell(error=error.code)
    for number in range(int(argument)):
        threading.Thread(target=_write, args=(ledger, f"u{number}"), daemon=True).start()
    time.sleep(600)


def _write(ledger: Ledger, user: str) -> None:
    ledger.set_user_limits("t", user, max_sessions=2)
    while True:
        try:
            started = ledger.create_session("t", user, title="hello")
            session = started.session_id
            done: list[tuple[str, Result]] = [("create_session", started)]
            for _ in range(3):
                done.append(("add_message", ledger.add_message("t", user, session, role="user", content="hi")))
            try:
                done.append(("acquire_agent", ledger.acquire_agent("t", user, session, "helper")))
                if ord(session[-1]) % 2:
                    done.append(("end_session", ledger.end_session("t", user, session)))
            except SessionLedgerError as error:
                if error.code != "no_agent_available":
                    raise
            for what, result in done:
                tell(what=what, command_id=result.command_id, partition=result.partition, position=result.position)
        except SessionLedgerError as error:
            tell(error=error.code, command_id=error.command_id)
            if not error.retriable:
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
