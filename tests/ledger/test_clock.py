"""The writer's clock: it may stand still or stutter, but what is recorded never goes back in time."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import pytest

from session_ledger.domain.errors import ClockUnreliable
from session_ledger.ledger.ledger import Ledger
from tests.ledger.support import Clock, assert_folds_equal_the_log, events, judged, stored

HOUR_S = timedelta(hours=1).total_seconds()


def test_a_clock_far_behind_the_last_record_refuses_until_it_is_right(sqlite_url: str) -> None:
    """More than 60 s: every command, also a check, gets ClockUnreliable, retriable, and nothing is recorded."""
    clock = Clock()
    with Ledger.open(sqlite_url, clock_us=clock) as ledger:
        ledger.set_quota("t", "u", "calls", 5)
        clock.step(-61)
        with pytest.raises(ClockUnreliable) as refused:
            ledger.create_session("t", "u")
        assert refused.value.retriable
        assert refused.value.command_id is not None
        with pytest.raises(ClockUnreliable):
            ledger.check_quota("t", "u", "calls")
        assert 1 == len(events(ledger))
        clock.step(61)
        again = ledger.create_session("t", "u", command_id=refused.value.command_id)
        assert (2, False) == (again.position, again.repeated)


def test_within_a_minute_time_never_goes_back(ledger_url: str) -> None:
    """A clock that is set back a little stands still in the log until it has caught up."""
    clock = Clock()
    with Ledger.open(ledger_url, clock_us=clock) as ledger:
        start = clock.now
        for seconds in (0, 10, -30, -29, 5, 60):
            clock.step(seconds)
            ledger.create_session("t", "u")
        seconds_recorded = [(event.recorded_at - start) / 1e6 for event in events(ledger) if event.version == 1]
        assert [0, 10, 10, 10, 10, 16] == seconds_recorded
        judged(stored(ledger))


def test_a_quota_window_does_not_run_backwards(ledger_url: str) -> None:
    """What was consumed before the clock was set back leaves the window no sooner than the period after it."""
    clock = Clock()
    with Ledger.open(ledger_url, clock_us=clock) as ledger:
        ledger.set_quota("t", "u", "calls", 1, 60)
        ledger.consume_quota("t", "u", "calls")
        clock.step(-50)
        assert not ledger.check_quota("t", "u", "calls").allowed
        clock.step(109)
        assert not ledger.check_quota("t", "u", "calls").allowed
        clock.step(1)
        assert ledger.check_quota("t", "u", "calls").allowed


def test_an_owner_an_hour_behind_the_one_before_does_not_serve(sqlite_url: str) -> None:
    """It can not open the ledger; when its clock is set right it can."""
    ahead, behind = Clock(), Clock()
    behind.step(-HOUR_S)
    with Ledger.open(sqlite_url, clock_us=ahead) as ledger:
        ledger.create_session("t", "u")
    with pytest.raises(ClockUnreliable):
        Ledger.open(sqlite_url, clock_us=behind)
    behind.step(HOUR_S - 30)
    with Ledger.open(sqlite_url, clock_us=behind) as ledger:
        ledger.create_session("t", "u")
        assert events(ledger)[0].recorded_at == events(ledger)[1].recorded_at


def test_an_owner_an_hour_ahead_of_the_one_before_serves(sqlite_url: str) -> None:
    """Time only jumps; every kind of command goes on, those that make ids from the clock too."""
    first, second = Clock(), Clock()
    second.step(HOUR_S)
    with Ledger.open(sqlite_url, clock_us=first) as ledger:
        session = ledger.create_session("t", "u").session_id
        ledger.register_agent("t", "helper")
    with Ledger.open(sqlite_url, clock_us=second) as ledger:
        agent = ledger.register_agent("t", "helper").agent_id
        assert ledger.create_session("t", "u").created
        assert [] == ledger.expire_due()  # the creation found the first one's time over
        ledger.retire_agent("t", agent)
        assert session
        judged(stored(ledger))
        assert_folds_equal_the_log(ledger)


def test_a_take_over_by_a_clock_an_hour_behind_does_not_serve(sqlite_url: str) -> None:
    """The taker is told, and the one before has lost the ledger all the same."""
    ahead, behind = Clock(), Clock()
    behind.step(-HOUR_S)
    with Ledger.open(sqlite_url, clock_us=ahead) as ledger:
        ledger.create_session("t", "u")
        with pytest.raises(ClockUnreliable):
            Ledger.open(sqlite_url, clock_us=behind, take_over=True)
    with Ledger.open(sqlite_url, clock_us=ahead) as ledger:
        assert 2 == ledger.create_session("t", "u").position


@pytest.mark.kafka
def test_a_clock_off_the_brokers_does_not_serve(kafka: str, ledger_name: str, tmp_path: Path) -> None:
    """More than 60 s to either side."""
    url = f"kafka://{kafka}/{ledger_name}?partitions=1&replica={tmp_path / 'ledger'}"
    clock = Clock()
    with Ledger.open(url, clock_us=clock) as ledger:
        ledger.create_session("t", "u")
        for seconds in (120, -240):
            clock.step(seconds)
            with pytest.raises(ClockUnreliable):
                ledger.create_session("t", "u")
        clock.step(120)
        assert ledger.create_session("t", "u").created


@pytest.mark.parametrize("off_s", [-HOUR_S, HOUR_S])
def test_an_owner_an_hour_off_the_brokers_clock_does_not_serve(kafka_url: str, off_s: float) -> None:
    """On Kafka the broker's clock judges, ahead and behind; an owner whose clock is right opens the same ledger."""
    with pytest.raises(ClockUnreliable):
        Ledger.open(kafka_url, clock_us=lambda: time.time_ns() // 1000 + round(off_s * 1_000_000))
    with Ledger.open(kafka_url) as ledger:
        assert 1 == ledger.create_session("t", "u").position
