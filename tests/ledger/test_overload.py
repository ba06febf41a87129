"""Bounded queues, closing with and without time, and callers who stop waiting."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from decimal import Decimal

import pytest

from session_ledger.domain.commands import AddMessage, CheckQuota, CreateSession
from session_ledger.domain.errors import LedgerClosed, Overloaded, SessionLedgerError
from session_ledger.domain.ids import parse_id
from session_ledger.domain.results import Result
from session_ledger.ledger.ledger import Ledger
from tests.ledger.support import assert_folds_equal_the_log, events, judged, shards_of, stored
from tests.ledger.test_faults import Faults


@pytest.fixture
def ledger(sqlite_url: str) -> Iterator[Ledger]:
    """A ledger with room for twenty commands, or 200 kB, in its queue."""
    with Ledger.open(sqlite_url, queue_commands_max=20, queue_bytes_max=200_000) as ledger:
        yield ledger


@pytest.fixture
def faults(ledger: Ledger) -> Faults:
    """Holds its appends up."""
    return Faults(shards_of(ledger).log.partitions[0])


def _hold(ledger: Ledger, faults: Faults) -> Future[Result]:
    """A command whose append is held up: the shard is busy, its queue is empty."""
    faults.hold()
    busy = ledger.submit(CreateSession(tenant="t", user="busy"))
    assert faults.appending.wait(10)
    return busy


def test_a_full_queue_refuses_and_serves_the_others(ledger: Ledger, faults: Faults) -> None:
    """Overloaded is retriable, carries the command's id, and nothing is recorded for it."""
    busy = _hold(ledger, faults)
    waiting = [ledger.submit(CreateSession(tenant="t", user=f"u{number}")) for number in range(20)]
    with pytest.raises(Overloaded) as refused:
        ledger.create_session("t", "late")
    assert refused.value.retriable
    assert refused.value.command_id is not None
    with pytest.raises(Overloaded):
        ledger.check_quota("t", "late", "calls")
    faults.release()
    assert [*range(1, 22)] == [future.result(10).position for future in (busy, *waiting)]
    again = ledger.create_session("t", "late", command_id=refused.value.command_id)
    assert (22, False) == (again.position, again.repeated)
    judged(stored(ledger))


def test_the_queue_is_bounded_in_bytes(ledger: Ledger, faults: Faults) -> None:
    """A few large commands fill it as many small ones do: each counts as it was given and as it was sealed."""
    session = parse_id(ledger.create_session("t", "u").session_id)
    busy = _hold(ledger, faults)
    large = AddMessage(tenant="t", user="u", session_id=session, role="user", content="x" * 90_000)
    waiting = [ledger.submit(large) for _ in range(2)]
    with pytest.raises(Overloaded):
        ledger.submit(large)
    faults.release()
    for future in (busy, *waiting):
        future.result(10)
    assert 5 == ledger.submit(large).result(10).position
    assert 0 == shards_of(ledger)._shards[0]._queued_bytes


def test_a_close_serves_what_waits(ledger: Ledger, faults: Faults) -> None:
    """Everything that was accepted is recorded before the ledger closes."""
    busy = _hold(ledger, faults)
    waiting = [ledger.submit(CreateSession(tenant="t", user=f"u{number}")) for number in range(10)]
    closing = threading.Thread(target=ledger.close)
    closing.start()
    time.sleep(0.05)
    with pytest.raises(LedgerClosed):
        ledger.create_session("t", "late")
    faults.release()
    closing.join(10)
    assert not closing.is_alive()
    assert [*range(1, 12)] == [future.result(0).position for future in (busy, *waiting)]


def test_a_close_that_runs_out_of_time_says_how_many_were_not_served(sqlite_url: str) -> None:
    """Each of them gets LedgerClosed with its id, and nothing of it is recorded."""
    ledger = Ledger.open(sqlite_url)
    faults = Faults(shards_of(ledger).log.partitions[0])
    busy = _hold(ledger, faults)
    waiting = [ledger.submit(CreateSession(tenant="t", user=f"u{number}")) for number in range(10)]
    threading.Timer(0.5, faults.release).start()
    with pytest.raises(LedgerClosed, match="10 commands"):
        ledger.close(timeout_s=0.1)
    errors = [future.exception(10) for future in waiting]
    assert all(isinstance(error, LedgerClosed) and error.command_id for error in errors)
    assert 1 == busy.result(10).position
    assert ["busy"] == [event.user for event in events(sqlite_url)]
    ledger.close()
    with Ledger.open(sqlite_url) as again:
        assert_folds_equal_the_log(again)
        told = [error.command_id for error in errors if isinstance(error, SessionLedgerError)]
        assert 2 == again.create_session("t", "u0", command_id=told[0]).position


def test_nothing_is_taken_after_a_close(ledger_url: str) -> None:
    """Every way to ask raises LedgerClosed; closing again does nothing."""
    ledger = Ledger.open(ledger_url)
    ledger.create_session("t", "u")
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerClosed):
        ledger.create_session("t", "u")
    with pytest.raises(LedgerClosed):
        ledger.submit(CheckQuota(tenant="t", user="u", resource="calls", amount=Decimal(1)))
    with pytest.raises(LedgerClosed):
        ledger.expire_due()

    async def ask() -> None:
        with pytest.raises(LedgerClosed):
            await ledger.aio.create_session("t", "u")

    asyncio.run(ask())


def test_commands_that_race_with_a_close_are_answered(sqlite_url: str) -> None:
    """While callers go on a close ends: each command is recorded and acknowledged, or LedgerClosed and not recorded."""
    ledger = Ledger.open(sqlite_url)
    done: list[str] = []
    refused: list[BaseException] = []

    def work(number: int) -> None:
        try:
            while True:
                done.append(ledger.create_session("t", f"u{number}").command_id)
        except BaseException as error:  # noqa: BLE001 - looked at below
            refused.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    ledger.close()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert [LedgerClosed] * 8 == [type(error) for error in refused]
    assert {parse_id(command_id) for command_id in done} == {one.event.command_id for one in judged(stored(sqlite_url))}


def test_callers_who_stop_waiting_hurt_nobody(ledger: Ledger, faults: Faults) -> None:
    """A cancelled task's command is recorded all the same, and the others get their answers."""

    async def run() -> None:
        faults.hold()
        first = asyncio.ensure_future(ledger.aio.create_session("t", "u0"))
        await asyncio.to_thread(faults.appending.wait, 10)
        others = [asyncio.ensure_future(ledger.aio.create_session("t", f"u{number}")) for number in range(1, 10)]
        for future in (first, *others[::2]):
            future.cancel()
        faults.release()
        results = await asyncio.gather(first, *others, return_exceptions=True)
        assert 6 == sum(isinstance(result, asyncio.CancelledError) for result in results)
        assert 11 == (await ledger.aio.create_session("t", "u")).position

    asyncio.run(run())
    assert 11 == len(judged(stored(ledger)))


def test_a_loop_that_ends_before_its_answers_hurts_nobody(ledger: Ledger, faults: Faults) -> None:
    """Answers to a closed event loop are dropped; threads that wait for the same append get theirs."""

    async def leave() -> None:
        ledger.asubmit(CreateSession(tenant="t", user="loop"))

    faults.hold()
    asyncio.run(leave())
    assert faults.appending.wait(10)
    waiting = ledger.submit(CreateSession(tenant="t", user="thread"))
    faults.release()
    assert 2 == waiting.result(10).position


def test_a_callback_that_fails_hurts_nobody(ledger: Ledger) -> None:
    """What a future's callback raises stays there."""
    future = ledger.submit(CreateSession(tenant="t", user="u"))
    future.add_done_callback(lambda _: 1 / 0)
    assert 1 == future.result(10).position
    assert 2 == ledger.create_session("t", "u").position


def test_a_command_too_large_for_any_append_is_refused(sqlite_url: str) -> None:
    """Before it is queued, as InvalidInput, so that it never stops those behind it."""
    with Ledger.open(sqlite_url, batch_bytes_max=20_000) as ledger:
        session = ledger.create_session("t", "u").session_id
        with pytest.raises(SessionLedgerError) as refused:
            ledger.add_message("t", "u", session, role="user", content="x" * 30_000)
        assert "invalid_input" == refused.value.code
        assert 2 == ledger.add_message("t", "u", session, role="user", content="x" * 10_000).position
