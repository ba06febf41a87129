"""A command that is repeated with its id runs once, whatever happened in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from session_ledger.domain.commands import CreateSession, SetQuota
from session_ledger.domain.errors import CommandIdReused, CommandTooOld, InvalidInput, NoAgentAvailable
from session_ledger.domain.ids import new_id, parse_id
from session_ledger.domain.results import Result
from session_ledger.ledger.ledger import Ledger
from tests.ledger.support import Clock, events, fresh_id, judged, partition_folds, shards_of, stored

WINDOW_S = 600
AHEAD_S = 10_000  # how far a test may set the clock ahead of the broker's
Repeat = Callable[[Ledger, str], Result]


@pytest.fixture
def clock() -> Clock:
    """The ledger's clock."""
    return Clock()


@pytest.fixture
def ledger(ledger_url: str, clock: Clock) -> Iterator[Ledger]:
    """An open ledger."""
    with Ledger.open(ledger_url, clock_us=clock, clock_skew_max_s=AHEAD_S) as ledger:
        yield ledger


def _partition(ledger: Ledger) -> int:
    """That of the user "u"."""
    return ledger.create_session("t", "u", reuse=True).partition


def _commands(ledger: Ledger) -> dict[str, Repeat]:
    """Every command that is remembered, to be run with an id; each can run in the state that this leaves."""
    partition = _partition(ledger)
    session = ledger.create_session("t", "u").session_id
    ending = ledger.create_session("t", "u").session_id
    ledger.set_quota("t", "u", "calls", 100)
    reservation = ledger.consume_quota("t", "u", "calls", 5, reserve=True).reservation_id
    assert reservation is not None
    held = ledger.register_agent("t", "helper", partition=partition).agent_id
    ledger.acquire_agent("t", "u", session, "helper")
    ledger.register_agent("t", "painter", partition=partition)
    retiring = ledger.register_agent("t", "other", partition=partition).agent_id
    return {
        "create": lambda ledger, i: ledger.create_session("t", "u", title="x", command_id=i),
        "create with eviction": lambda ledger, i: ledger.create_session("t", "u", title="y", command_id=i),
        "update": lambda ledger, i: ledger.update_session("t", "u", session, title="new", command_id=i),
        "say": lambda ledger, i: ledger.add_message("t", "u", session, role="user", content="hi", command_id=i),
        "end": lambda ledger, i: ledger.end_session("t", "u", ending, note="bye", command_id=i),
        "error": lambda ledger, i: ledger.report_error(
            "t", "u", session, component="c", error_type="e", message="m", command_id=i
        ),
        "set quota": lambda ledger, i: ledger.set_quota("t", "u", "tokens", 7, command_id=i),
        "consume": lambda ledger, i: ledger.consume_quota("t", "u", "calls", 90, reserve=True, command_id=i),
        "release quota": lambda ledger, i: ledger.release_quota("t", "u", reservation, 2, command_id=i),
        "user limits": lambda ledger, i: ledger.set_user_limits("t", "u", max_sessions=4, command_id=i),
        "failure": lambda ledger, i: ledger.report_authentication_failure(
            "t", "u", method="m", reason="r", ip_address="::1", command_id=i
        ),
        "register": lambda ledger, i: ledger.register_agent("t", "new", partition=partition, command_id=i),
        "acquire": lambda ledger, i: ledger.acquire_agent("t", "u", session, "painter", command_id=i),
        "release": lambda ledger, i: ledger.release_agent("t", "u", session, held, command_id=i),
        "retire": lambda ledger, i: ledger.retire_agent("t", retiring, command_id=i),
        "limits": lambda ledger, i: ledger.set_limits("t", max_sessions=4, quotas={"a": (1, 60)}, command_id=i),
    }


def _as_repeat(result: Result) -> Result:
    changed: dict[str, Any] = {"repeated": True}
    return replace(result, **changed)


def test_every_command_answers_a_repeat_with_what_it_did(ledger: Ledger, ledger_url: str, clock: Clock) -> None:
    """Same id and body: the same result, marked as repeated, and nothing recorded; also after opening again."""
    done: list[tuple[Repeat, str, Result]] = []
    for run in _commands(ledger).values():
        clock.step(1)
        command_id = fresh_id(clock)
        result = run(ledger, command_id)
        assert (command_id, False) == (result.command_id, result.repeated)
        assert _as_repeat(result) == run(ledger, command_id)
        done.append((run, command_id, result))
    positions = ledger.positions()
    assert [_as_repeat(result) for _, _, result in done] == [run(ledger, command_id) for run, command_id, _ in done]
    assert positions == ledger.positions()
    judged(stored(ledger))
    if ledger_url == "memory:":
        return
    ledger.close()
    with Ledger.open(ledger_url, clock_us=clock, clock_skew_max_s=AHEAD_S) as again:
        assert [_as_repeat(result) for _, _, result in done] == [run(again, command_id) for run, command_id, _ in done]
        assert positions == again.positions()


def test_another_body_with_the_same_id_is_an_error(ledger: Ledger) -> None:
    """Another field, another session, another kind of command: CommandIdReused, and nothing recorded."""
    first, second = (ledger.create_session("t", "u").session_id for _ in range(2))
    command_id = ledger.add_message("t", "u", first, role="user", content="hi").command_id
    before = len(events(ledger))
    for other in (
        lambda: ledger.add_message("t", "u", first, role="user", content="ho", command_id=command_id),
        lambda: ledger.add_message("t", "u", first, role="user", content="hi", tokens_in=1, command_id=command_id),
        lambda: ledger.add_message("t", "u", second, role="user", content="hi", command_id=command_id),
        lambda: ledger.end_session("t", "u", first, command_id=command_id),
        lambda: ledger.set_quota("t", "u", "calls", 1, command_id=command_id),
    ):
        with pytest.raises(CommandIdReused) as reused:
            other()
        assert command_id == reused.value.command_id
    assert before == len(events(ledger))
    assert ledger.create_session("t", "another", command_id=command_id).created  # ids are scoped to their user


def test_a_command_sent_twice_at_once_runs_once(ledger: Ledger) -> None:
    """In one append or in two: both callers get the same answer, one of them as a repeat."""
    for number in range(20):
        command = CreateSession(tenant="t", user=f"u{number}", title="x", command_id=parse_id(fresh_id()))
        first, second = ledger.submit(command), ledger.submit(command)
        assert _as_repeat(first.result(30)) == second.result(30)
        assert not first.result().repeated
    assert 20 == len(judged(stored(ledger)))


def test_two_bodies_with_one_id_at_once(ledger: Ledger) -> None:
    """The first is recorded, the other one is told."""
    command = SetQuota(tenant="t", user="u", resource="a", limit=Decimal(1), command_id=parse_id(fresh_id()))
    first, second = ledger.submit(command), ledger.submit(replace(command, limit=Decimal(2)))
    assert not first.result(30).repeated
    assert isinstance(second.exception(30), CommandIdReused)


def test_a_repeat_is_known_after_its_user_left_memory(sqlite_url: str) -> None:
    """Also with states of a few users in memory, and also after opening again."""
    with Ledger.open(sqlite_url, accounts_in_memory=16, checkpoint_events=10) as ledger:
        done = [ledger.create_session("t", f"u{number}") for number in range(100)]
        assert ("t", "u0") not in {**partition_folds(ledger)._young, **partition_folds(ledger)._old}
        for result in done:
            again = ledger.create_session("t", result.user, command_id=result.command_id)
            assert _as_repeat(result) == again
    with Ledger.open(sqlite_url, accounts_in_memory=16, checkpoint_events=10) as ledger:
        for result in done:
            assert _as_repeat(result) == ledger.create_session("t", result.user, command_id=result.command_id)
        assert 100 == len(events(ledger))


def test_an_id_older_than_the_window_is_never_run(ledger: Ledger, ledger_url: str, clock: Clock) -> None:
    """Ten minutes: until then a repeat, after it CommandTooOld, whether it was recorded before or not."""
    never_sent = fresh_id(clock)
    done = ledger.set_quota("t", "u", "calls", 5)
    clock.step(WINDOW_S - 1)
    assert _as_repeat(done) == ledger.set_quota("t", "u", "calls", 5, command_id=done.command_id)
    clock.step(2)
    for command_id in (done.command_id, never_sent):
        with pytest.raises(CommandTooOld):
            ledger.set_quota("t", "u", "calls", 5, command_id=command_id)
    assert 1 == len(events(ledger))
    if ledger_url == "memory:":
        return
    ledger.close()
    with Ledger.open(ledger_url, clock_us=clock, clock_skew_max_s=AHEAD_S) as again:
        for command_id in (done.command_id, never_sent):
            with pytest.raises(CommandTooOld):
                again.set_quota("t", "u", "calls", 5, command_id=command_id)
        assert 1 == len(events(again))


def test_an_id_from_the_future_or_of_another_kind_is_refused(ledger: Ledger, clock: Clock) -> None:
    """More than a minute ahead, or no UUIDv7: InvalidInput."""
    ahead = str(UUID(bytes=new_id(clock() + 61_000_000)))
    for command_id in (ahead, "00000000-0000-4000-8000-000000000000", "x", b"short"):
        with pytest.raises(InvalidInput) as refused:
            ledger.create_session("t", "u", command_id=command_id)
        assert "command_id" == refused.value.field
    assert [] == events(ledger)


def test_a_refusal_is_decided_again(ledger: Ledger) -> None:
    """Only what was recorded is remembered: after a refusal the id of its error may be used until it succeeds."""
    partition = _partition(ledger)
    session = ledger.create_session("t", "u").session_id
    agent = ledger.register_agent("t", "helper", partition=partition).agent_id
    other = ledger.create_session("t", "u").session_id
    ledger.acquire_agent("t", "u", other, "helper")
    with pytest.raises(NoAgentAvailable) as refused:
        ledger.acquire_agent("t", "u", session, "helper")
    command_id = refused.value.command_id
    assert command_id is not None
    with pytest.raises(NoAgentAvailable):
        ledger.acquire_agent("t", "u", session, "helper", command_id=command_id)
    ledger.release_agent("t", "u", other, agent)
    leased = ledger.acquire_agent("t", "u", session, "helper", command_id=command_id)
    assert (agent, False) == (leased.agent_id, leased.repeated)
    assert ledger.acquire_agent("t", "u", session, "helper", command_id=command_id).repeated


def test_ids_that_the_ledger_gives_are_the_same_for_a_repeat(ledger: Ledger) -> None:
    """Of a session and of an agent instance."""
    command_id = fresh_id()
    first, again = (ledger.create_session("t", "u", command_id=command_id) for _ in range(2))
    assert first.session_id == again.session_id
    command_id = fresh_id()
    one, same = (ledger.register_agent("t", "helper", command_id=command_id) for _ in range(2))
    assert one.agent_id == same.agent_id
    assert len(shards_of(ledger).log.partitions) >= 1
