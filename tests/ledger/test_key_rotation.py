"""A session's key changes while the session lives: told first, readable for ever, whatever crashes in between."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from session_ledger.domain.commands import AddMessage, ImportedMessage, ImportSession
from session_ledger.domain.errors import AppendFailed, CommandIdReused, InvalidInput, KeyUnavailable, SessionLedgerError
from session_ledger.domain.events import Event, KeyRotated, MessageAdded, SessionCreated, SessionEnded, SessionUpdated
from session_ledger.domain.ids import derived_session_id, format_id, parse_id, slot_of_user
from session_ledger.ledger.ledger import Ledger
from session_ledger.ledger.log.port import PartitionLog, Record
from session_ledger.ledger.pending import FutureAnswer
from session_ledger.security.opening import open_text
from session_ledger.security.sealing import commitment_v1
from tests.ledger.support import (
    Clock,
    assert_folds_equal_the_log,
    events,
    fresh_id,
    judged,
    keys_in_vault,
    shards_of,
    stored,
)

DAY = 86_400.0
WHO = ("t", "u")
AT_ONCE: dict[str, Any] = {"keys_cached_s": 0.000_001, "clock_skew_max_s": 1e9}  # so that the clock alone decides


def rotations(found: list[Event]) -> list[KeyRotated]:
    """The facts that tell of new keys."""
    return [event for event in found if isinstance(event, KeyRotated)]


def say(ledger: Ledger, session: str, content: str, command_id: str | None = None) -> None:
    """Add a message of the user."""
    ledger.add_message(*WHO, session, role="user", content=content, command_id=command_id)


def said(ledger: Ledger) -> list[str | None]:
    """What the messages in the log open to."""
    found = [event for event in events(ledger) if isinstance(event, MessageAdded)]
    return [open_text(shards_of(ledger).envelope, event, "sealed_content") for event in found]


def assert_told_first(found: list[Event]) -> None:
    """Whatever is sealed, is sealed by a key that an earlier event of the session told, the last or the one before."""
    told: dict[bytes, list[bytes | None]] = {}
    for event in found:
        if isinstance(event, SessionCreated):
            told[event.session_id] = [event.key_id]
        elif isinstance(event, KeyRotated):
            told[event.session_id].append(event.key_id)
        elif isinstance(event, MessageAdded | SessionUpdated | SessionEnded):
            assert event.key_id in told[event.session_id][-2:]


def test_a_key_that_is_a_day_old_is_replaced_with_the_next_message(ledger_url: str) -> None:
    """KeyRotated stands before it in the same append, and is no part of the command; everything opens."""
    clock = Clock()
    with Ledger.open(ledger_url, clock_us=clock, **AT_ONCE) as ledger:
        session = ledger.create_session(*WHO, ttl_s=30 * DAY, idle_timeout_s=30 * DAY).session_id
        say(ledger, session, "first")
        clock.step(DAY - 1)
        say(ledger, session, "same day")
        clock.step(1)
        result = ledger.add_message(*WHO, session, role="user", content="next day")
        say(ledger, session, "and on")
        found = judged(stored(ledger))
        created, _, _, rotated, message, last = [one.event for one in found]
        assert isinstance(created, SessionCreated)
        assert isinstance(rotated, KeyRotated)
        assert isinstance(message, MessageAdded)
        assert isinstance(last, MessageAdded)
        assert (2, "age", None, None) == (
            rotated.generation, rotated.reason, rotated.command_id, rotated.command_digest
        )  # fmt: skip
        assert found[3].record.batch_id == found[4].record.batch_id
        assert (rotated.version + 1, 3, found[4].record.position) == (
            message.version, result.message_number, result.position
        )  # fmt: skip
        assert created.key_id != rotated.key_id == message.key_id == last.key_id
        key = shards_of(ledger).envelope.opening_key(*WHO, message.session_id, rotated.key_id)
        assert key is not None
        assert rotated.key_commitment == key.commitment == commitment_v1(rotated.key_id, key._key)  # type: ignore[attr-defined]
        assert ["first", "same day", "next day", "and on"] == said(ledger)
        assert_folds_equal_the_log(ledger)


def test_a_policy_that_is_shorter_than_keys_stay_in_memory_is_kept(tmp_path: Path) -> None:
    """The key of a session that has just begun is looked at again when it is too old, not when its time is over."""
    clock = Clock()
    with Ledger.open(f"sqlite:{tmp_path / 'ledger'}", clock_us=clock, session_key_age_max_s=0.05) as ledger:
        session = ledger.create_session(*WHO).session_id
        clock.step(1)
        while not rotations(events(ledger)):
            say(ledger, session, "hello")  # also the machine's clock has to move by as much


@pytest.mark.parametrize(("age_max_s", "days"), [(0, 100), (10 * DAY, 9.9)])
def test_the_policy_says_when(tmp_path: Path, age_max_s: float, days: float) -> None:
    """Never by itself, or later than a day."""
    clock = Clock()
    url = f"sqlite:{tmp_path / 'ledger'}"
    with Ledger.open(url, clock_us=clock, session_key_age_max_s=age_max_s, **AT_ONCE) as ledger:
        session = ledger.create_session(*WHO, ttl_s=200 * DAY, idle_timeout_s=200 * DAY).session_id
        clock.step(days * DAY)
        say(ledger, session, "hello")
        assert [] == rotations(events(ledger))


def test_what_is_not_sealed_rotates_nothing(tmp_path: Path) -> None:
    """A lease seals nothing, so it needs no new key; nor does a session of today."""
    clock = Clock()
    with Ledger.open(f"sqlite:{tmp_path / 'ledger'}", clock_us=clock, **AT_ONCE) as ledger:
        session = ledger.create_session(*WHO, ttl_s=30 * DAY, idle_timeout_s=30 * DAY).session_id
        ledger.register_agent("t", "helper", partition=0)
        clock.step(2 * DAY)
        ledger.acquire_agent(*WHO, session, "helper")
        assert [] == rotations(events(ledger))


def test_every_command_that_seals_tells_of_the_new_key_first(tmp_path: Path) -> None:
    """An update, an error, an end: each after a day of its own; versions are dense, answers are the command's own."""
    clock = Clock()
    with Ledger.open(f"sqlite:{tmp_path / 'ledger'}", clock_us=clock, **AT_ONCE) as ledger:
        session = ledger.create_session(*WHO, ttl_s=30 * DAY, idle_timeout_s=30 * DAY).session_id
        commands: list[Callable[[], Any]] = [
            lambda: ledger.update_session(*WHO, session, title="new"),
            lambda: ledger.report_error(*WHO, session, component="c", error_type="e", message="m"),
            lambda: ledger.end_session(*WHO, session, note="bye"),
        ]
        for number, command in enumerate(commands, 1):
            clock.step(DAY)
            assert 1 + 2 * number == command().version
        assert [2, 3, 4] == [event.generation for event in rotations([one.event for one in judged(stored(ledger))])]
        assert_told_first(events(ledger))


def test_a_key_is_rotated_when_asked_for(ledger_url: str) -> None:
    """The fact is the command's; what is sealed next is sealed by the new key; nothing before is touched."""
    with Ledger.open(ledger_url) as ledger:
        session = ledger.create_session(*WHO).session_id
        say(ledger, session, "before")
        before = [one.record for one in stored(ledger)]
        result = ledger.rotate_session_key(*WHO, session, reason="a leak")
        say(ledger, session, "after")
        *old, rotated, message = stored(ledger)
        assert before == [one.record for one in old]
        assert isinstance(rotated.event, KeyRotated)
        assert isinstance(message.event, MessageAdded)
        assert (session, 3, 2, format_id(rotated.event.key_id)) == (
            result.session_id, result.version, result.generation, result.key_id
        )  # fmt: skip
        assert ("a leak", result.command_id) == (rotated.event.reason, format_id(rotated.event.command_id or b""))
        assert rotated.event.key_id == message.event.key_id
        assert ["before", "after"] == said(ledger)
        again = ledger.rotate_session_key(*WHO, session, reason="a leak", command_id=result.command_id)
        assert (True, result.key_id, result.position) == (again.repeated, again.key_id, again.position)
        say(ledger, session, "more")
        assert 1 == len(rotations(events(ledger)))
        assert 3 == ledger.rotate_session_key(*WHO, session).generation
        assert_folds_equal_the_log(ledger)


@pytest.mark.parametrize("how", ["asked", "age"])
def test_a_repeat_is_known_again_after_a_rotation(durable_url: str, how: str) -> None:
    """Same id and body: the first answer; another body: refused. Also after a restart, and two rotations later."""
    clock = Clock()
    options: dict[str, Any] = {"clock_us": clock, "session_key_age_max_s": 60, **AT_ONCE}

    def rotate(ledger: Ledger, session: str) -> None:
        if how == "asked":
            ledger.rotate_session_key(*WHO, session)
        else:
            clock.step(61)
            say(ledger, session, "rotates")

    with Ledger.open(durable_url, **options) as ledger:
        session = ledger.create_session(*WHO).session_id
        command_id = fresh_id(clock)
        first = ledger.add_message(*WHO, session, role="user", content="hello", command_id=command_id)
        for _ in range(2):
            rotate(ledger, session)
            again = ledger.add_message(*WHO, session, role="user", content="hello", command_id=command_id)
            assert (True, first.position) == (again.repeated, again.position)
            with pytest.raises(CommandIdReused):
                say(ledger, session, "another", command_id)
    with Ledger.open(durable_url, **options) as ledger:
        again = ledger.add_message(*WHO, session, role="user", content="hello", command_id=command_id)
        assert (True, first.position) == (again.repeated, again.position)
        assert [1, 2, 3] == [1, *(event.generation for event in rotations(events(ledger)))]
        assert len({event.key_id for event in rotations(events(ledger))}) == 2


def _vaulted(ledger: Ledger, session: str) -> None:
    """Put the session's next key into the vault, as a writer does that dies before its append."""
    envelope = shards_of(ledger).envelope
    key = envelope.next_key(*WHO, parse_id(session))
    assert key is not None
    envelope.make_durable([key])


def test_a_key_in_the_vault_that_no_fact_tells_is_told_with_the_next_append(tmp_path: Path) -> None:
    """The vault is ahead of the log: what comes next tells of the key first, and uses it."""
    url = f"sqlite:{tmp_path / 'ledger'}"
    with Ledger.open(url) as ledger:
        session = ledger.create_session(*WHO).session_id
        _vaulted(ledger, session)
        _vaulted(ledger, session)
    with Ledger.open(url) as ledger:
        say(ledger, session, "hello")
        (rotated,) = rotations(events(ledger))
        assert (3, "resumed") == (rotated.generation, rotated.reason)
        assert ["hello"] == said(ledger)
        assert_told_first(events(ledger))


DIES = """
import os, signal, sys, time
from session_ledger.ledger.ledger import Ledger
from session_ledger.ledger.log.sqlite_partition import SQLitePartition
url, session, command_id, when = sys.argv[1:]
append = SQLitePartition.append
def dying(self, records):
    if any(record.topic.endswith("KeyRotated") for record in records):
        if when == "after":
            append(self, records)
        os.kill(os.getpid(), signal.SIGKILL)
    append(self, records)
SQLitePartition.append = dying
time.sleep(0.05)
with Ledger.open(url, session_key_age_max_s=0.05) as ledger:
    ledger.add_message("t", "u", session, role="user", content="hello", command_id=command_id)
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_writer_killed_between_vault_and_append_or_behind_it_leaves_no_gap(tmp_path: Path, when: str) -> None:
    """kill -9 there: the repeat is recorded once, sealed by the key that the vault has, which is told once."""
    url = f"sqlite:{tmp_path / 'ledger'}"
    with Ledger.open(url) as ledger:
        session = ledger.create_session(*WHO).session_id
    command_id = fresh_id()
    killed = subprocess.run([sys.executable, "-c", DIES, url, session, command_id, when], check=False, timeout=60)
    assert -signal.SIGKILL == killed.returncode
    in_vault = keys_in_vault(tmp_path / "ledger")
    with Ledger.open(url) as ledger:
        result = ledger.add_message(*WHO, session, role="user", content="hello", command_id=command_id)
        assert (when == "after") == result.repeated
        (rotated,) = rotations(events(ledger))
        assert ("resumed" if when == "before" else "age") == rotated.reason
        assert rotated.key_id in in_vault
        assert in_vault == keys_in_vault(tmp_path / "ledger")
        assert ["hello"] == said(ledger)
        assert_told_first(events(ledger))
        assert_folds_equal_the_log(ledger)


def test_an_append_that_fails_leaves_the_rotation_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller gets a retriable error, nothing is recorded; the repeat tells of the same key."""
    with Ledger.open(f"sqlite:{tmp_path / 'ledger'}") as ledger:
        session = ledger.create_session(*WHO).session_id
        partition = shards_of(ledger).log.partitions[0]
        with monkeypatch.context() as broken:
            broken.setattr(type(partition), "append", _failing)
            with pytest.raises(AppendFailed):
                ledger.rotate_session_key(*WHO, session)
        assert [] == rotations(events(ledger))
        say(ledger, session, "hello")
        (rotated,) = rotations(events(ledger))
        assert "requested" == rotated.reason
        assert ["hello"] == said(ledger)


def _failing(partition: PartitionLog, records: list[Record]) -> None:
    raise AppendFailed("the disk is full")


def test_what_was_under_way_when_the_key_changed_is_recorded(tmp_path: Path) -> None:
    """Sealed by the key directly before: taken. By an older one: a retriable error, and the repeat is sealed anew."""
    with Ledger.open(f"sqlite:{tmp_path / 'ledger'}") as ledger:
        session = ledger.create_session(*WHO).session_id
        shards = shards_of(ledger)

        def sealed(content: str) -> Any:
            command = AddMessage(tenant="t", user="u", session_id=parse_id(session), role="user", content=content)
            answer = FutureAnswer()
            return shards._edge.prepare(command, answer), answer.future

        (one, first), (two, second) = sealed("one"), sealed("two")
        ledger.rotate_session_key(*WHO, session)
        shards._shards[0].submit(one)
        assert 1 == first.result().message_number
        ledger.rotate_session_key(*WHO, session)
        shards._shards[0].submit(two)
        with pytest.raises(KeyUnavailable, match="repeat the command") as raised:
            second.result()
        assert raised.value.retriable
        three, third = sealed("three")  # by generation 3
        for _ in range(2):
            ledger.rotate_session_key(*WHO, session)
        shards._shards[0].submit(three)
        with pytest.raises(KeyUnavailable, match="generation 5"):
            third.result()
        assert ["one"] == said(ledger)
        assert_told_first(events(ledger))


def test_two_writers_that_make_the_same_generation_agree(tmp_path: Path) -> None:
    """The vault takes the first; who lost seals again, by that one."""
    url = f"sqlite:{tmp_path / 'ledger'}"
    with Ledger.open(url) as ledger:
        session = ledger.create_session(*WHO).session_id
        envelope = shards_of(ledger).envelope
        mine, other = (envelope.next_key(*WHO, parse_id(session)) for _ in range(2))
        assert mine is not None
        assert other is not None
        envelope.make_durable([other])
        with pytest.raises(KeyUnavailable) as raised:
            envelope.make_durable([mine])
        assert raised.value.retriable
        say(ledger, session, "hello")
        (rotated,) = rotations(events(ledger))
        assert other.key_id == rotated.key_id


def test_a_client_of_the_owner_rotates_too(tmp_path: Path) -> None:
    """Through the command socket: the owner makes the key, and seals what the client says by it."""
    url = f"sqlite:{tmp_path / 'ledger'}"
    with Ledger.open(url) as ledger, Ledger.open(url) as client:
        assert not client.is_owner
        session = client.create_session(*WHO).session_id
        result = client.rotate_session_key(*WHO, session)
        say(client, session, "hello")
        (rotated,) = rotations(events(ledger))
        assert format_id(rotated.key_id) == result.key_id
        assert ["hello"] == said(ledger)
        with pytest.raises(SessionLedgerError):
            client.rotate_session_key(*WHO, session, reason="")


def test_an_import_in_parts_goes_on_after_a_rotation(tmp_path: Path) -> None:
    """A part that comes a day later is sealed by a new key, told before it; the first part is known again."""
    clock = Clock()
    with Ledger.open(f"sqlite:{tmp_path / 'ledger'}", clock_us=clock, **AT_ONCE) as ledger:
        ledger.set_limits("t", ttl_s=30 * DAY)
        session_id = derived_session_id("source", clock.now, slot_of_user(*WHO))

        def part(first: int, *, final: bool) -> ImportSession:
            message = ImportedMessage("user", f"message {first}")
            where = {"tenant": "t", "user": "u", "session_id": session_id, "source": "s"}
            return ImportSession(**where, messages=(message,), first_message=first, final=final)  # type: ignore[arg-type]

        assert 1 == ledger.import_session(part(1, final=False)).added
        clock.step(2 * DAY)
        assert 0 == ledger.import_session(part(1, final=False)).added
        assert 1 == ledger.import_session(part(2, final=True)).added
        assert ["message 1", "message 2"] == said(ledger)
        assert [2] == [event.generation for event in rotations(events(ledger))]
        assert_told_first([one.event for one in judged(stored(ledger))])


def test_a_session_that_is_not_sealed_has_no_key_to_rotate(tmp_path: Path) -> None:
    """InvalidInput, and nothing is recorded; nor for a session that is over, or not there."""
    with Ledger.open(f"sqlite:{tmp_path / 'ledger'}", encryption="none") as ledger:
        session = ledger.create_session(*WHO).session_id
        with pytest.raises(InvalidInput, match="sealing is off"):
            ledger.rotate_session_key(*WHO, session)
        assert 1 == len(events(ledger))
    with Ledger.open(f"sqlite:{tmp_path / 'other'}") as ledger:
        session = ledger.create_session(*WHO).session_id
        ledger.end_session(*WHO, session)
        before = keys_in_vault(tmp_path / "other")
        for gone in (session, fresh_id()):
            with pytest.raises(SessionLedgerError):
                ledger.rotate_session_key(*WHO, gone)
        assert before == keys_in_vault(tmp_path / "other")
        assert 2 == len(events(ledger))


def test_many_callers_and_many_rotations_lose_nothing(tmp_path: Path) -> None:
    """Eight callers while the key changes every few milliseconds: every message once, each key told before its use."""
    options: dict[str, Any] = {"session_key_age_max_s": 0.005, "keys_cached_s": 0.001}
    with Ledger.open(f"sqlite:{tmp_path / 'ledger'}", **options) as ledger:
        session = ledger.create_session(*WHO).session_id

        def speak(caller: int) -> None:
            for number in range(25):
                _until_taken(ledger, session, f"{caller}/{number}")

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(speak, range(8)))
        assert sorted(f"{caller}/{number}" for caller in range(8) for number in range(25)) == sorted(
            content or "" for content in said(ledger)
        )
        found = [one.event for one in judged(stored(ledger))]
        assert len(rotations(found)) > 3
        assert_told_first(found)
        assert_folds_equal_the_log(ledger)


def _until_taken(ledger: Ledger, session: str, content: str) -> None:
    command_id = fresh_id()
    while True:
        try:
            return say(ledger, session, content, command_id)
        except SessionLedgerError as error:
            if not error.retriable:
                raise


def test_no_new_key_is_made_for_what_is_refused(tmp_path: Path) -> None:
    """A message to a session that is over leaves the vault as it is, however old the key."""
    clock = Clock()
    with Ledger.open(f"sqlite:{tmp_path / 'ledger'}", clock_us=clock, **AT_ONCE) as ledger:
        session = ledger.create_session(*WHO).session_id
        ledger.end_session(*WHO, session)
        before = keys_in_vault(tmp_path / "ledger")
        clock.step(3 * DAY)
        with pytest.raises(SessionLedgerError):
            say(ledger, session, "hello")
        assert before == keys_in_vault(tmp_path / "ledger")
