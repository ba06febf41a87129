"""What an adversary, a fork, a broken callback or a slow disk must not be able to do to the write path."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from session_ledger.domain.commands import AddMessage, CreateSession, PublishSchema
from session_ledger.domain.errors import (
    InvalidInput,
    LogUnavailable,
    Misconfigured,
    NotOwner,
    OutcomeUnknown,
    Overloaded,
    QuotaExceeded,
)
from session_ledger.domain.events import QuotaRefused
from session_ledger.domain.ids import new_slotted_id, slot_of_user
from session_ledger.ledger.ledger import Ledger
from session_ledger.ledger.shard import Shard
from session_ledger.ledger.url import parse_url
from session_ledger.ledger.wire import decode_request
from tests.ledger.support import events, shards_of
from tests.ledger.test_faults import Faults


def _occupy(shard: Shard) -> Callable[[], None]:
    """Keep the shard's thread busy until what is returned is called."""
    hold, held = threading.Event(), threading.Event()

    def stay() -> None:
        held.set()
        hold.wait(10)

    waiter = threading.Thread(target=shard.call, args=(stay,))
    waiter.start()
    held.wait(10)

    def release() -> None:
        hold.set()
        waiter.join()

    return release


def test_a_forked_child_uses_and_closes_nothing_of_its_parents(tmp_path: Path) -> None:
    """In the child commands raise NotOwner at once and close does nothing; the parent and its socket go on."""
    url = f"sqlite:{tmp_path / 'ledger'}"
    with Ledger.open(url) as ledger:
        child = os.fork()
        if child == 0:
            try:
                ledger.create_session("t", "u")
            except NotOwner:
                ledger.close()
                os._exit(7)
            finally:
                os._exit(8)
        assert 7 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with Ledger.open(url) as client:
            assert not client.is_owner
            assert 1 == client.create_session("t", "u").position


def test_a_fenced_owner_tells_no_positions(tmp_path: Path) -> None:
    """Positions mean "everything acknowledged so far": only the owner knows."""
    url = f"sqlite:{tmp_path / 'ledger'}"
    with Ledger.open(url) as old, Ledger.open(url, take_over=True) as new:
        assert [0] == new.positions()[:1]
        with pytest.raises(NotOwner):
            old.positions()


def test_messages_to_unknown_sessions_count_as_large_as_they_are() -> None:
    """Who sends large messages to sessions that do not exist fills the queue's bytes like everybody else."""
    with Ledger.open("memory:", queue_bytes_max=1_000_000) as ledger:
        shard = shards_of(ledger)._shards[0]
        release = _occupy(shard)
        unknown = new_slotted_id(time.time_ns() // 1000, slot_of_user("t", "u"))
        message = AddMessage(tenant="t", user="u", session_id=unknown, role="user", content="x" * 400_000)
        for _ in range(3):
            ledger.submit(message)
        with pytest.raises(Overloaded):
            ledger.submit(message)
        release()


def test_a_user_who_can_not_be_written_under_new_limits_is_swept_all_the_same(tmp_path: Path) -> None:
    """A sweep is the ledger's own: no limit on callers' input stops it."""
    url, now = f"sqlite:{tmp_path / 'ledger'}", [1_700_000_000_000_000]
    with Ledger.open(url, clock_us=lambda: now[0]) as ledger:
        for user in ("u" * 200, "short"):
            ledger.create_session("t", user, idle_timeout_s=1)
    now[0] += 10_000_000
    with Ledger.open(url, clock_us=lambda: now[0], id_bytes_max=100) as ledger:
        assert 2 == sum(len(result.session_ids) for result in ledger.expire_due())


def test_a_sweep_is_answered_while_the_log_is_away(tmp_path: Path) -> None:
    """Where states can not be restored, a sweep fails like a command does, instead of waiting."""
    with Ledger.open(f"sqlite:{tmp_path / 'ledger'}") as ledger:
        log = shards_of(ledger).log.partitions[0]
        faults = Faults(log)
        faults.before.append(LogUnavailable("away"))
        reading = log.read

        def away(after: int, limit: int) -> list[object]:
            raise LogUnavailable("away")

        log.read = away  # type: ignore[method-assign,assignment]
        with pytest.raises(LogUnavailable):
            ledger.create_session("t", "u")
        with pytest.raises(LogUnavailable):
            ledger.expire_due()
        log.read = reading  # type: ignore[method-assign]
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                ledger.create_session("t", "u")
                break
            except LogUnavailable:
                time.sleep(0.05)
        assert [] == ledger.expire_due()


def test_a_schema_is_published_only_as_what_it_is() -> None:
    """A text that is no schema, or that of another fingerprint, is refused; clients can not publish at all."""
    with Ledger.open("memory:") as ledger:
        with pytest.raises(InvalidInput):
            ledger.submit(PublishSchema(tenant="", name="x", fingerprint=b"12345678", schema_json="{not json"))
        text = '{"type":"record","name":"x","fields":[]}'
        with pytest.raises(InvalidInput):
            ledger.submit(PublishSchema(tenant="", name="x", fingerprint=b"12345678", schema_json=text))
    assert "command:PublishSchema" == decode_request("command:PublishSchema", b"")


def test_a_callback_that_leaves_keeps_nobody_waiting() -> None:
    """One future's callback raises SystemExit in the shard's thread; the other commands of the append are answered."""
    with Ledger.open("memory:") as ledger:
        shard = shards_of(ledger)._shards[0]
        release = _occupy(shard)
        first = ledger.submit(CreateSession(tenant="t", user="a"))
        first.add_done_callback(lambda _: sys.exit(1))
        second = ledger.submit(CreateSession(tenant="t", user="b"))
        release()
        assert 2 == second.result(10).position
        assert 3 == ledger.create_session("t", "c").position


def test_refusals_are_told_when_the_ledger_closes(tmp_path: Path) -> None:
    """What was coalesced is recorded by the close, with the whole count."""
    url = f"sqlite:{tmp_path / 'ledger'}"
    with Ledger.open(url) as ledger:
        ledger.set_quota("t", "u", "calls", 1, 3600)
        ledger.consume_quota("t", "u", "calls")
        for _ in range(100):
            with pytest.raises(QuotaExceeded):
                ledger.consume_quota("t", "u", "calls")
    with Ledger.open(url) as again:
        assert 100 == sum(event.count for event in events(again) if isinstance(event, QuotaRefused))


@pytest.mark.parametrize("option", [{"queue_bytes_max": "many"}, {"no_such": 1}, {"accounts_in_memory": 1}])
def test_settings_that_are_none_are_told(option: dict[str, object]) -> None:
    """A wrong value or an unknown name is Misconfigured, naming it."""
    with pytest.raises(Misconfigured, match=next(iter(option))):
        Ledger.open("memory:", **option)  # type: ignore[arg-type]


def test_a_place_that_can_not_be_a_directory_is_told(tmp_path: Path) -> None:
    """A file in the way is Misconfigured, naming it."""
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(Misconfigured, match="file"):
            Ledger.open(f"sqlite:{place}")


def test_an_agent_is_registered_in_a_partition_that_is_there() -> None:
    """Partition 9 of a ledger with one is refused."""
    with Ledger.open("memory:") as ledger:
        with pytest.raises(InvalidInput):
            ledger.register_agent("t", "helper", partition=9)
        assert ledger.register_agent("t", "helper").agent_id


@pytest.mark.parametrize("lost", ["vault.db", "keyring.json"])
def test_a_ledger_whose_keys_are_not_there_is_not_written(tmp_path: Path, lost: str) -> None:
    """No new vault or keyring is made for a log with events: half of it would be sealed by keys kept elsewhere."""
    url = f"sqlite:{tmp_path / 'ledger'}"
    with Ledger.open(url) as ledger:
        ledger.create_session("t", "u", title="title")
        before = ledger.positions()
    kept = {path.name: path for path in (tmp_path / "ledger").iterdir() if path.name.startswith(lost)}
    for path in kept.values():
        path.rename(tmp_path / path.name)
    with pytest.raises(Misconfigured, match=lost):
        Ledger.open(url)
    assert not (tmp_path / "ledger" / lost).exists()
    for name, path in kept.items():
        (tmp_path / name).rename(path)
    with Ledger.open(url) as ledger:
        assert before == ledger.positions()


def test_the_local_files_of_a_kafka_ledger_do_not_depend_on_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without `replica` they stand in the user's data directory."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert tmp_path / "session-ledger" / "support" == parse_url("kafka://127.0.0.1:9092/support").directory


def test_a_lost_log_is_not_replaced_by_a_new_one(tmp_path: Path) -> None:
    """Where vault and state stand without a log nothing is made; in a directory with a keyring alone, it is."""
    directory = tmp_path / "ledger"
    with Ledger.open(f"sqlite:{directory}") as ledger:
        ledger.create_session("t", "u")
    for path in directory.glob("log.db*"):
        path.unlink()
    before = sorted(directory.iterdir())
    with pytest.raises(LogUnavailable, match=r"log\.db is gone, and what came with it is there \(.*vault\.db"):
        Ledger.open(f"sqlite:{directory}")
    assert before == sorted(directory.iterdir())
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    (directory / "keyring.json").rename(fresh / "keyring.json")
    with Ledger.open(f"sqlite:{fresh}") as ledger:
        ledger.create_session("t", "u")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the shard's thread ends by it
@pytest.mark.parametrize("where", ["clock_us", "settle"])
def test_nobody_waits_for_a_shard_that_met_a_defect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Also before anything of a batch is decided, and while states are folded again: callers are answered."""
    ledger = Ledger.open(f"sqlite:{tmp_path / 'ledger'}")
    log = shards_of(ledger).log.partitions[0]

    def broken(*_: object) -> None:
        raise OSError(24, "no file handle is left")

    if where == "settle":

        def unknown(records: object) -> None:
            raise OutcomeUnknown("as told by the test")

        monkeypatch.setattr(log, "append", unknown)
    monkeypatch.setattr(log, where, broken)
    for _ in range(2):
        with pytest.raises((LogUnavailable, OutcomeUnknown)):
            ledger.submit(CreateSession(tenant="t", user="u")).result(20)
    with suppress(LogUnavailable):
        ledger.close()
