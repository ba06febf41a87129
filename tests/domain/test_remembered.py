"""Commands that come again: the same answer, never a second run, in bounded memory."""

from __future__ import annotations

import sys
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_ledger.domain import commands as c
from session_ledger.domain import remembered
from session_ledger.domain.errors import CommandIdReused, CommandTooOld, InvalidInput
from session_ledger.domain.ids import id_time_us
from session_ledger.domain.remembered import ENTRIES_KEPT, ENTRIES_MAX, WINDOW_US, Remembered, recall, remember
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


@given(st.integers(0, 2**32), st.integers(1, 300), st.sampled_from([0, 20_000, SECOND, 20 * SECOND]))
def test_what_ran_is_known_or_too_old_and_never_new(seed: int, count: int, pause: int) -> None:
    """Whatever the order of ids and however many, with a bound of 32: nothing that ran may run again."""
    random = Random(seed)
    commands, ids, now = Remembered(), Ids(), START
    ran: list[bytes] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remembered, "PRUNE_FROM", 4)
        patch.setattr(remembered, "ENTRIES_MAX", 32)
        patch.setattr(remembered, "ENTRIES_KEPT", 24)
        for position in range(1, count + 1):
            now += random.randrange(pause + 1)
            command_id = ids.at(now + random.choice([0, 0, 0, -SECOND, -MINUTE, 30 * SECOND]))
            try:
                assert recall(commands, command_id, DIGEST, now) is None
            except CommandTooOld:
                continue
            remember(commands, command_id, DIGEST, now, position)
            ran.append(command_id)
            assert command_id in commands.entries
        assert len(commands.entries) <= 32
        for command_id in ran:
            if now - WINDOW_US <= id_time_us(command_id) and command_id in commands.entries:
                assert recall(commands, command_id, DIGEST, now) is not None
            else:
                with pytest.raises(CommandTooOld):
                    recall(commands, command_id, DIGEST, now)


def test_a_flood_forgets_the_lowest_ids_and_keeps_three_quarters() -> None:
    """More commands than are remembered: the newest stay known, the oldest are refused."""
    commands, ids = Remembered(), Ids()
    made = [ids.at(START + step * 1000) for step in range(5000)]
    for position, command_id in enumerate(made, 1):
        remember(commands, command_id, DIGEST, START + 5 * SECOND, position)
    assert ENTRIES_KEPT <= len(commands.entries) <= ENTRIES_MAX
    assert all(command_id in commands.entries for command_id in made[-ENTRIES_KEPT:])
    with pytest.raises(CommandTooOld):
        recall(commands, made[0], DIGEST, START + 5 * SECOND)


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
