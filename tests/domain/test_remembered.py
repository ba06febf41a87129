"""Commands that come again: the same answer, never a second run, in bounded memory."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from session_ledger.domain import commands as c
from session_ledger.domain import remembered
from session_ledger.domain.errors import CommandIdReused, CommandTooEarly, CommandTooOld, InvalidInput
from session_ledger.domain.ids import id_time_us
from session_ledger.domain.remembered import (
    AHEAD_MAX,
    ENTRIES_KEPT,
    ENTRIES_MAX,
    WINDOW_US,
    Remembered,
    recall,
    remember,
)
from tests.domain.world import MINUTE, SECOND, START, TENANT, USER, Ids, World

DIGEST = b"d" * 16


def test_a_repeat_answers_what_the_first_one_did() -> None:
    """The result is equal apart from `repeated`, and nothing is recorded."""
    world = World()
    prepared = world.prepare(c.CreateSession(tenant=TENANT, user=USER))
    first = world.run_prepared(prepared).ok()
    world.now += 9 * MINUTE
    again = world.run_prepared(prepared)
    assert [] == again.events
    assert replace(first, repeated=True) == again.ok()


def test_an_id_with_another_body_is_refused() -> None:
    """CommandIdReused, and nothing is recorded."""
    world = World()
    prepared = world.prepare(c.CreateSession(tenant=TENANT, user=USER))
    world.run_prepared(prepared).ok()
    outcome = world.run_prepared(replace(prepared, digest=b"x" * 16))
    assert isinstance(outcome.error, CommandIdReused)
    assert [] == outcome.events


def test_an_id_older_than_ten_minutes_never_runs() -> None:
    """Whether it was recorded before or not: CommandTooOld."""
    world = World()
    known = world.prepare(c.CreateSession(tenant=TENANT, user=USER))
    unknown = world.prepare(c.CreateSession(tenant=TENANT, user=USER))
    world.run_prepared(known).ok()
    world.now += WINDOW_US
    world.run_prepared(known).ok()
    world.now += 1
    assert isinstance(world.run_prepared(known).error, CommandTooOld)
    assert isinstance(world.run_prepared(unknown).error, CommandTooOld)
    assert 1 == len(world.events)


def test_an_id_from_the_future_is_invalid() -> None:
    """A minute ahead of the ledger's clock is allowed, more is not."""
    ids, commands = Ids(), Remembered()
    assert recall(commands, ids.at(START + MINUTE), DIGEST, START) is None
    with pytest.raises(InvalidInput, match="command_id"):
        recall(commands, ids.at(START + MINUTE + SECOND), DIGEST, START)


def test_a_refused_command_is_decided_again() -> None:
    """Refusals are not remembered: the same command succeeds once the state allows it."""
    world = World()
    prepared = world.prepare(c.SetUserLimits(tenant=TENANT, user=USER, max_sessions=1, limit_policy="refuse"))
    world.run_prepared(prepared).ok()
    session_id = world.create()
    create = world.prepare(c.CreateSession(tenant=TENANT, user=USER))
    assert world.run_prepared(create).error is not None
    world.run(c.EndSession(tenant=TENANT, user=USER, session_id=session_id)).ok()
    assert not world.run_prepared(create).ok().repeated


class Clocks:
    """One user's commands with small bounds, made by clocks that are right, ahead or behind; and what must hold."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.commands, self.now, self.position = Remembered(), START, 0
        self.ran: dict[bytes, int] = {}
        """Id to when it was recorded."""

    def new_id(self, id_time: int) -> bytes:
        tail = self.random.randbytes(10)
        return (
            (id_time // 1000).to_bytes(6, "big") + bytes([tail[0] & 15 | 0x70, tail[1], tail[2] & 63 | 128]) + tail[3:]
        )

    def settled_since(self, id_time: int) -> int:
        """Commands that ran and whose own time has come, no earlier than the millisecond of `id_time`."""
        settled = (max(at // 1000 * 1000, id_time_us(command_id)) for command_id, at in self.ran.items())
        return sum(id_time // 1000 * 1000 <= when <= self.now for when in settled)

    def run(self, id_time: int) -> None:
        """A new command, which a ledger would record unless it is refused."""
        command_id = self.new_id(id_time)
        try:
            assert recall(self.commands, command_id, DIGEST, self.now) is None
        except CommandTooOld:
            assert id_time < self.now // 1000 * 1000, "an id made now by a correct clock is refused"
            behind = id_time_us(command_id) < self.now - WINDOW_US
            assert behind or self.settled_since(id_time) >= remembered.ENTRIES_KEPT
            return
        except CommandTooEarly as error:
            ahead = sum(id_time_us(other) > self.now for other in self.ran)
            assert id_time > self.now
            assert ahead > remembered.AHEAD_MAX // 2
            later = self.now + round((error.retry_after_s or 0) * SECOND)
            assert self.now < later <= self.now + MINUTE
            assert recall(self.commands, command_id, DIGEST, later) is None
            return
        self.position += 1
        remember(self.commands, command_id, DIGEST, self.now, self.position)
        self.ran[command_id] = self.now
        assert recall(self.commands, command_id, DIGEST, self.now) == (self.position, 1)

    def check(self) -> None:
        """Nothing that ran may run again, the last that settled are known, and memory is bounded."""
        settled = []
        for command_id, at in self.ran.items():
            try:
                assert recall(self.commands, command_id, DIGEST, self.now) is not None, "it would run twice"
            except CommandTooOld:
                assert command_id not in self.commands.entries or id_time_us(command_id) < self.now - WINDOW_US
            if id_time_us(command_id) > self.now:
                assert command_id in self.commands.entries
            else:
                settled.append((max(at // 1000 * 1000, id_time_us(command_id)), command_id))
        border = sorted(when for when, _ in settled)[-remembered.ENTRIES_KEPT :][:1]
        for when, command_id in settled:
            if when > border[0] and id_time_us(command_id) >= self.now - WINDOW_US:
                assert command_id in self.commands.entries
        of_one_millisecond = max(Counter(command_id[:6] for command_id in self.ran).values())
        assert len(self.commands.entries) <= remembered.ENTRIES_MAX + remembered.AHEAD_MAX + of_one_millisecond


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    steps=st.integers(1, 30),
    pause=st.sampled_from([0, 500, 20_000, SECOND, 20 * SECOND]),
    offsets=st.lists(st.integers(-MINUTE, MINUTE) | st.integers(-20_000, 20_000) | st.just(0), min_size=1, max_size=4),
)
def test_nothing_runs_twice_and_a_correct_clock_is_never_refused(
    seed: int, steps: int, pause: int, offsets: list[int]
) -> None:
    """Whatever other clocks say, in bursts above every bound; and only what is needed is refused."""
    random = Random(seed)
    world = Clocks(random)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("PRUNE_FROM", 4), ("ENTRIES_MAX", 32), ("ENTRIES_KEPT", 24), ("AHEAD_MAX", 16)):
            patch.setattr(remembered, name, value)
        for _ in range(steps):
            world.now += random.randrange(pause + 1)
            offset = random.choice([*offsets, 0])
            for _ in range(random.choice([1, 1, 5, 50])):
                world.run(world.now + offset)
            world.run(world.now)
            if random.random() < 0.1:
                world.check()
        world.check()


def test_a_client_whose_clock_is_ahead_locks_nobody_out() -> None:
    """Not with a flood either: ids made now run, those ahead wait once as many as are kept are known."""
    commands, ids = Remembered(), Ids()
    ahead = [ids.at(START + 50 * SECOND) for _ in range(AHEAD_MAX)]
    for position, command_id in enumerate(ahead, 1):
        assert recall(commands, command_id, DIGEST, START) is None
        remember(commands, command_id, DIGEST, START, position)
    with pytest.raises(CommandTooEarly) as refused:
        recall(commands, ids.at(START + 40 * SECOND), DIGEST, START)
    assert (True, 40.0) == (refused.value.retriable, refused.value.retry_after_s)
    for step in range(2 * ENTRIES_MAX):
        now = START + step * 5000
        fresh = ids.at(now)
        assert recall(commands, fresh, DIGEST, now) is None
        remember(commands, fresh, DIGEST, now, 1)
    assert all(recall(commands, command_id, DIGEST, now) is not None for command_id in ahead)
    assert len(commands.entries) <= ENTRIES_MAX + AHEAD_MAX


def test_a_flood_forgets_the_longest_settled_and_keeps_three_quarters() -> None:
    """More commands than are remembered: the newest stay known, the oldest are refused, one some seconds late runs."""
    commands, ids = Remembered(), Ids()
    made = [ids.at(START + step * 1000) for step in range(3 * ENTRIES_MAX)]
    for step, command_id in enumerate(made):
        remember(commands, command_id, DIGEST, START + step * 1000, step + 1)
    now = START + len(made) * 1000
    assert ENTRIES_KEPT <= len(commands.entries) <= ENTRIES_MAX
    assert all(command_id in commands.entries for command_id in made[-ENTRIES_KEPT:])
    with pytest.raises(CommandTooOld):
        recall(commands, made[0], DIGEST, now)
    assert recall(commands, ids.at(now - (ENTRIES_KEPT - 1) * 1000), DIGEST, now) is None


def test_a_quiet_user_keeps_little() -> None:
    """Entries leave once their ids are too old to run, without any bound being reached."""
    commands, ids, now = Remembered(), Ids(), START
    for position in range(1, 2000):
        now += MINUTE
        remember(commands, ids.at(now), DIGEST, now, position)
    assert len(commands.entries) <= 33
    assert b"" == commands.forgotten


def test_an_entry_is_small() -> None:
    """Id and entry take no more than 160 bytes, the dictionary's share included."""
    commands, ids = Remembered(), Ids()
    for position in range(1, 21):
        remember(commands, ids.at(START), DIGEST, START, position)
    size = sys.getsizeof(commands.entries) + sum(
        sys.getsizeof(command_id) + sys.getsizeof(entry) for command_id, entry in commands.entries.items()
    )
    assert size / 20 <= 170
