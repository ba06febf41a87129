"""Many callers at once: nothing is lost, doubled or out of order, and no limit is passed."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import defaultdict
from collections.abc import Callable

import pytest

from session_ledger.domain.errors import NoAgentAvailable, SessionLimitReached, SessionNotActive
from session_ledger.domain.events import MessageAdded, SessionCreated
from session_ledger.domain.ids import parse_id, slot_of_user
from session_ledger.ledger.ledger import Ledger
from tests.ledger.support import assert_folds_equal_the_log, events, fresh_id, judged, shards_of, stored

CALLERS, MESSAGES = 10, 40


def _run_threads(count: int, work: Callable[[int], None]) -> None:
    """Run the work in so many threads that start together; raises what one of them raised."""
    errors: list[BaseException] = []
    together = threading.Barrier(count)

    def run(number: int) -> None:
        try:
            together.wait(30)
            work(number)
        except BaseException as error:  # noqa: BLE001 - raised below, in the test's thread
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _assert_whole_and_in_order(ledger: Ledger) -> None:
    """One session has every caller's messages, numbered densely, each caller's in the order they were sent."""
    said = [one.event for one in judged(stored(ledger)) if isinstance(one.event, MessageAdded)]
    assert [*range(1, CALLERS * MESSAGES + 1)] == [message.message_number for message in said]
    by_caller: dict[str, list[int | None]] = defaultdict(list)
    for message in said:
        by_caller[message.role].append(message.tokens_in)
    assert {f"caller-{number}": [*range(MESSAGES)] for number in range(CALLERS)} == by_caller
    assert_folds_equal_the_log(ledger)


def test_one_session_and_ten_threads(ledger_url: str) -> None:
    """No error, nothing lost, each thread's order kept."""
    with Ledger.open(ledger_url) as ledger:
        session = ledger.create_session("t", "u").session_id

        def say(number: int) -> None:
            last = 0
            for turn in range(MESSAGES):
                done = ledger.add_message("t", "u", session, role=f"caller-{number}", content="hi", tokens_in=turn)
                assert done.message_number > last
                last = done.message_number

        _run_threads(CALLERS, say)
        _assert_whole_and_in_order(ledger)


def test_one_session_and_ten_tasks(ledger_url: str) -> None:
    """The same in one event loop; a task's messages that are sent without waiting keep their order too."""

    async def run(ledger: Ledger, session: str) -> None:
        async def say(number: int) -> None:
            role = f"caller-{number}"
            sent = [
                ledger.aio.add_message("t", "u", session, role=role, content="hi", tokens_in=turn)
                for turn in range(MESSAGES // 2)
            ]
            await asyncio.gather(*sent)
            for turn in range(MESSAGES // 2, MESSAGES):
                await ledger.aio.add_message("t", "u", session, role=role, content="hi", tokens_in=turn)

        await asyncio.gather(*(say(number) for number in range(CALLERS)))

    with Ledger.open(ledger_url) as ledger:
        asyncio.run(run(ledger, ledger.create_session("t", "u").session_id))
        _assert_whole_and_in_order(ledger)


def test_256_callers_of_many_users(durable_url: str) -> None:
    """Each gets its own answers; the log holds every acknowledged command once, at the place it was told."""
    told: list[tuple[int, int, str]] = []

    def work(number: int) -> None:
        started = ledger.create_session("t", f"u{number % 100}")
        told.append((started.partition, started.position, started.command_id))
        for _ in range(4):
            try:
                done = ledger.add_message("t", started.user, started.session_id, role="user", content="hi")
            except SessionNotActive:  # evicted by another caller of the same user
                return
            told.append((done.partition, done.position, done.command_id))

    with Ledger.open(durable_url) as ledger:
        ledger.set_limits("t", max_sessions=2)
        _run_threads(256, work)
        found = judged(stored(ledger))
        places = {(one.partition, one.record.position): one.event.command_id for one in found}
        assert [parse_id(command_id) for _, _, command_id in told] == [places[at, position] for at, position, _ in told]
        assert {parse_id(command_id) for _, _, command_id in told} == set(places.values())
        assert_folds_equal_the_log(ledger)


@pytest.mark.parametrize("policy", ["evict", "refuse"])
def test_no_user_ever_has_more_sessions_than_the_limit(ledger_url: str, policy: str) -> None:
    """At every position, however many callers create at once; what was refused left nothing."""
    created: list[str] = []
    refused: list[str] = []

    def work(number: int) -> None:
        for turn in range(5):
            try:
                started = ledger.create_session("t", f"u{(number + turn) % 3}")
                created.append(started.session_id)
                if turn == 3:
                    ledger.end_session("t", started.user, started.session_id)
            except SessionLimitReached as error:
                refused.append(error.command_id or "")
            except SessionNotActive:  # evicted before it could be ended
                continue

    with Ledger.open(ledger_url) as ledger:
        ledger.set_limits("t", max_sessions=3, limit_policy=policy)
        _run_threads(24, work)
        made = {event.session_id for event in events(ledger) if isinstance(event, SessionCreated)}
        assert {parse_id(session) for session in created} == made
        assert (policy == "refuse") == bool(refused)
        assert not {parse_id(command_id) for command_id in refused} & {event.command_id for event in events(ledger)}
        judged(stored(ledger))  # which counts live sessions at every position
        assert_folds_equal_the_log(ledger)


def test_no_agent_is_ever_held_twice(ledger_url: str) -> None:
    """Many sessions want few instances; each lease is given once, and ends before the next begins."""

    def work(number: int) -> None:
        rng = random.Random(number)
        user = f"u{number}"
        session = ledger.create_session("t", user).session_id
        for _ in range(15):
            try:
                agent = ledger.acquire_agent("t", user, session, "helper").agent_id
            except NoAgentAvailable:
                continue
            if rng.random() < 0.3:
                ledger.end_session("t", user, session)
                session = ledger.create_session("t", user).session_id
            else:
                ledger.release_agent("t", user, session, agent)

    with Ledger.open(ledger_url) as ledger:
        partitions = len(shards_of(ledger).log.partitions)
        assert {0, 1} >= {slot_of_user("t", f"u{number}") % partitions for number in range(16)}
        for partition in range(partitions):
            for _ in range(3):
                ledger.register_agent("t", "helper", partition=partition)
        _run_threads(16, work)
        judged(stored(ledger))  # which follows every lease
        assert_folds_equal_the_log(ledger)


def test_the_same_command_from_many_threads_runs_once(ledger_url: str) -> None:
    """However many send it at once, one records it and all get its answer."""
    told: list[tuple[int, bool]] = []
    command_id = fresh_id()

    def work(number: int) -> None:
        done = ledger.create_session("t", "u", title="x", command_id=command_id)
        told.append((done.position, done.repeated))

    with Ledger.open(ledger_url) as ledger:
        _run_threads(16, work)
        assert [(1, False)] + [(1, True)] * 15 == sorted(told)
        assert 1 == len(events(ledger))


def test_limits_that_change_while_sessions_begin(ledger_url: str) -> None:
    """Each creation records the limit that it applied, and keeps it."""
    done = threading.Event()

    def work(number: int) -> None:
        if number == 0:
            for turn in range(20):
                ledger.set_limits("t", max_sessions=1 + turn % 4)
            done.set()
            return
        while not done.is_set():
            ledger.create_session("t", f"u{number % 2}")

    with Ledger.open(ledger_url) as ledger:
        _run_threads(5, work)
        limits = {event.session_limit for event in events(ledger) if isinstance(event, SessionCreated)}
        assert limits <= {1, 2, 3, 4, 5}
        judged(stored(ledger))
        assert_folds_equal_the_log(ledger)
