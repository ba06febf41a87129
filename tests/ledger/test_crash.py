"""kill -9 of a writer under load, again and again: what was acknowledged stands once, nothing stands by half."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from session_ledger.domain.commands import Command, CreateSession
from session_ledger.domain.errors import NotOwner
from session_ledger.domain.ids import parse_id
from session_ledger.domain.results import Result
from session_ledger.ledger.ledger import Ledger
from session_ledger.ledger.log.port import Log
from session_ledger.ledger.open import open_log
from session_ledger.ledger.settings import Settings
from session_ledger.ledger.url import parse_url
from tests.chaos.checker import check, read_whole
from tests.chaos.history import History, Outcome, Recorder, Try, parse, read
from tests.ledger.process import started
from tests.ledger.support import assert_folds_equal_the_log, fresh_id, keys_in_vault, stored

ROUNDS, KAFKA_ROUNDS = 12, 2
THREADS = "24"


class Crashes:
    """Writers of one ledger that are killed under load, and the history of all commands that it was sent."""

    def __init__(self, url: str, own: Path) -> None:
        """`own`: the file of the commands that the test itself sends."""
        self._url, self._luck, self._own = url, random.Random(), own
        self._recorder = Recorder(os.open(own, os.O_CREAT | os.O_APPEND | os.O_WRONLY), "test")
        self._killed = History()

    def kill_one(self, threads: str = THREADS) -> None:
        """Start a writer and kill it at a random time after its first answers."""
        with started(self._url, "write", threads) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(50)]
            time.sleep(self._luck.uniform(0, 0.25))
            process.kill()
            lines += process.stdout.readlines()
        one = parse(lines)
        assert any(each.wrote for each in one.tries), lines
        self._killed.tries += one.tries
        self._killed.problems += one.problems

    def send(self, ledger: Ledger, command: Command | None = None) -> Result:
        """Send a command, without one a session's creation; it must be acknowledged."""
        sent = command or CreateSession(tenant="t", user="test", command_id=parse_id(fresh_id()))
        with self._recorder.trying(sent) as answer:
            answer.result = ledger.submit(sent).result()
        assert answer.result is not None, answer.error
        return answer.result

    def settle(self, ledger: Ledger) -> None:
        """Repeat every command whose writer was killed before it was answered; each is decided now."""
        for one in self.history.unsettled():
            command = one.command()
            with self._recorder.trying(command) as answer:
                answer.result = ledger.submit(command).result()
        assert [] == self.history.unsettled()

    @property
    def history(self) -> History:
        """Everything so far."""
        own = read([self._own])
        return History([*self._killed.tries, *own.tries], [*self._killed.problems, *own.problems])

    def acknowledged(self) -> list[Try]:
        """The tries that were told where their events stand."""
        return [one for one in self.history.tries if one.wrote]

    def assert_right(self, log: Log, directory: Path) -> None:
        """History and log agree, and every key that sealed anything is in the vault."""
        found, broken = read_whole(log)
        assert [] == broken + check(self.history, found)
        assert [] == self.history.problems
        used = {key for one in found if (key := getattr(one.event, "key_id", None)) is not None}
        assert used <= keys_in_vault(directory)


def test_a_killed_writer_on_sqlite(sqlite_url: str, directory: Path, tmp_path: Path) -> None:
    """After each kill: acknowledged once and whole, dense, every key in the vault, and the ledger goes on."""
    crashes = Crashes(sqlite_url, tmp_path / "own.jsonl")
    for _ in range(ROUNDS):
        crashes.kill_one()
        log = open_log(parse_url(sqlite_url), Settings(), write=False)
        crashes.assert_right(log, directory)
        log.close()
        with sqlite3.connect(directory / "log.db") as connection:
            assert ("ok",) == connection.execute("PRAGMA integrity_check").fetchone()
        connection.close()
    with Ledger.open(sqlite_url) as ledger:
        assert_folds_equal_the_log(ledger)
        first = [one for one in crashes.acknowledged() if one.what == "AddMessage"][-1]
        after = ledger.positions()
        again = crashes.send(ledger, first.command())
        assert (first.position, True, after) == (again.position, again.repeated, ledger.positions())
        assert after[0] + 1 == crashes.send(ledger).position
        crashes.settle(ledger)
        crashes.assert_right(ledger.log, directory)
    assert len(crashes.acknowledged()) > 100
    assert not [one for one in crashes.history.tries if one.outcome is Outcome.FAILED]


@pytest.mark.kafka
@pytest.mark.slow
def test_a_killed_writer_on_kafka(kafka: str, ledger_name: str, directory: Path, tmp_path: Path) -> None:
    """The same on a broker, on several partitions; what had no answer is settled by a repeat."""
    url = f"kafka://{kafka}/{ledger_name}?partitions=2&replica={directory}"
    crashes = Crashes(url, tmp_path / "own.jsonl")
    for _ in range(KAFKA_ROUNDS):
        crashes.kill_one()
        with _open_after_kill(url) as ledger:  # waits until the killed owner's lease is over
            crashes.assert_right(ledger.log, directory)
            assert_folds_equal_the_log(ledger)
            crashes.settle(ledger)
            crashes.send(ledger)
            crashes.assert_right(ledger.log, directory)
    assert len(crashes.acknowledged()) > 20


def _open_after_kill(url: str) -> Ledger:
    deadline_s = time.monotonic() + 40
    while True:
        try:
            return Ledger.open(url)
        except NotOwner:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.2)


def test_the_owner_beside_a_killed_client_goes_on(sqlite_url: str, directory: Path, tmp_path: Path) -> None:
    """A client that is killed under load leaves whole commands; what it was told stands."""
    crashes = Crashes(sqlite_url, tmp_path / "own.jsonl")
    with Ledger.open(sqlite_url) as owner:
        for _ in range(3):
            crashes.kill_one("8")
            crashes.send(owner)
        crashes.settle(owner)
        crashes.assert_right(owner.log, directory)
        assert_folds_equal_the_log(owner)


def test_a_process_that_ends_without_closing_loses_nothing(sqlite_url: str) -> None:
    """What a script acknowledged stands, also when it forgot to close the ledger."""
    script = (
        "import sys; from session_ledger.ledger.ledger import Ledger; ledger = Ledger.open(sys.argv[1]);"
        " print(ledger.create_session('t', 'u').position)"
    )
    done = subprocess.run([sys.executable, "-c", script, sqlite_url], capture_output=True, text=True, timeout=60)
    assert (0, "1\n", "") == (done.returncode, done.stdout, done.stderr)
    assert 1 == len(stored(sqlite_url))
