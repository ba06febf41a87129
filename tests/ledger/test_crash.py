"""kill -9 of a writer under load, again and again: what was acknowledged stands once, nothing stands by half."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from session_ledger.domain.errors import NotOwner
from session_ledger.domain.events import (
    AgentReleased,
    Event,
    MessageAdded,
    SessionCreated,
    SessionEnded,
    SessionEvicted,
)
from session_ledger.domain.ids import format_id
from session_ledger.ledger.ledger import Ledger
from tests.ledger.process import line, lines, started
from tests.ledger.support import Stored, assert_folds_equal_the_log, judged, keys_in_vault, stored

ROUNDS, KAFKA_ROUNDS = 16, 3
SQLITE_THREADS, KAFKA_THREADS = "24", "24"


def _killed(url: str, threads: str, luck: random.Random) -> list[dict[str, Any]]:
    """What a writer had acknowledged when it was killed, at a random time after its first answer."""
    with started(url, "write", threads) as process:
        first = line(process)
        time.sleep(luck.uniform(0, 0.25))
        process.kill()
        return [first, *lines(process)]


def _assert_acknowledged_once(found: list[Stored], told: list[dict[str, Any]]) -> None:
    """Each acknowledged command is in the log, at the place that it was told, and nowhere else."""
    places: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for one in found:
        if one.event.command_id is not None:
            places[format_id(one.event.command_id)].append((one.partition, one.record.position))
    for one_told in told:
        if "position" in one_told:
            at = places[one_told["command_id"]]
            assert (one_told["partition"], one_told["position"]) == at[-1]
            first = at[0][1]
            assert [(one_told["partition"], first + number) for number in range(len(at))] == at


def _assert_no_half_command(found: list[Stored], told: list[dict[str, Any]]) -> None:
    """All events of a command, told or not: an eviction with its creation, an end with what the session held."""
    commands: dict[bytes, list[Event]] = defaultdict(list)
    held: dict[bytes, set[bytes]] = defaultdict(set)
    for one in found:
        event = one.event
        if event.command_id is not None:
            commands[event.command_id].append(event)
        if type(event).__name__ == "AgentAcquired":
            held[event.session_id].add(event.agent_id)  # type: ignore[attr-defined]
        elif isinstance(event, AgentReleased):
            held[event.session_id].discard(event.agent_id)
    for events in commands.values():
        last = events[-1]
        for event in events:
            if isinstance(event, SessionEvicted):
                assert isinstance(last, SessionCreated)
                assert last.session_id == event.replaced_by
    over = {one.event.originator_id for one in found if isinstance(one.event, SessionEnded | SessionEvicted)}
    assert not {session for session, agents in held.items() if agents} & over
    messages = [one["position"] for one in told if one.get("what") == "add_message"]
    by_position = {one.record.position: one.event for one in found if one.partition == 0}
    assert all(isinstance(by_position[position], MessageAdded) for position in messages if position in by_position)


def test_a_killed_writer_on_sqlite(sqlite_url: str, directory: Path) -> None:
    """After each kill: acknowledged once and whole, dense, every key in the vault, and the ledger goes on."""
    luck = random.Random()
    told: list[dict[str, Any]] = []
    for _ in range(ROUNDS):
        told += _killed(sqlite_url, SQLITE_THREADS, luck)
        found = judged(stored(sqlite_url))
        _assert_acknowledged_once(found, told)
        _assert_no_half_command(found, told)
        used = {key for one in found if (key := getattr(one.event, "key_id", None)) is not None}
        assert used <= keys_in_vault(directory)
        with sqlite3.connect(directory / "log.db") as connection:
            assert ("ok",) == connection.execute("PRAGMA integrity_check").fetchone()
        connection.close()
    with Ledger.open(sqlite_url) as ledger:
        assert_folds_equal_the_log(ledger)
        repeated = [one for one in told if one.get("what") == "create_session"][-1]
        after = ledger.positions()[0]
        user = next(one.event.user for one in found if one.record.position == repeated["position"])
        again = ledger.create_session("t", user, title="hello", command_id=repeated["command_id"])
        assert (repeated["position"], True, after) == (again.position, again.repeated, ledger.positions()[0])
        assert after + 1 == ledger.create_session("t", "after").position
    assert sum("position" in one for one in told) > 100
    assert not [one for one in told if one.get("error") not in (None, "no_agent_available", "session_not_active")]


@pytest.mark.kafka
@pytest.mark.slow
def test_a_killed_writer_on_kafka(kafka: str, ledger_name: str, directory: Path) -> None:
    """The same on a broker, on several partitions."""
    url = f"kafka://{kafka}/{ledger_name}?partitions=2&replica={directory}"
    luck = random.Random()
    told: list[dict[str, Any]] = []
    for _ in range(KAFKA_ROUNDS):
        told += _killed(url, KAFKA_THREADS, luck)
        with _open_after_kill(url) as ledger:  # waits until the killed owner's lease is over
            found = judged(stored(ledger))
            _assert_acknowledged_once(found, told)
            _assert_no_half_command(found, told)
            used = {key for one in found if (key := getattr(one.event, "key_id", None)) is not None}
            assert used <= keys_in_vault(directory)
            assert_folds_equal_the_log(ledger)
            assert ledger.create_session("t", "after").created
    assert sum("position" in one for one in told) > 20


def _open_after_kill(url: str) -> Ledger:
    deadline_s = time.monotonic() + 40
    while True:
        try:
            return Ledger.open(url)
        except NotOwner:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.2)


def test_the_owner_beside_a_killed_client_goes_on(sqlite_url: str) -> None:
    """A client that is killed under load leaves whole commands; what it was told stands."""
    luck = random.Random()
    with Ledger.open(sqlite_url) as owner:
        told: list[dict[str, Any]] = []
        for _ in range(3):
            told += _killed(sqlite_url, "8", luck)
            owner.create_session("t", "owner")
        found = judged(stored(owner))
        _assert_acknowledged_once(found, told)
        _assert_no_half_command(found, told)
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
