"""The rows are the fold of the log, at every position, however the log was cut into batches."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from session_ledger.domain.errors import LogCorrupt
from session_ledger.domain.events import Event, MessageAdded, SessionCreated, SessionUpdated
from tests.projections.rows import empty_views, fold, rows_of
from tests.projections.world import TENANTS, USERS, World

Placed = list[tuple[int, int, Event]]


def partitions_of(events: Placed) -> dict[int, list[tuple[int, Event]]]:
    """Partition to its (position, event) pairs, in order."""
    found: dict[int, list[tuple[int, Event]]] = {}
    for partition, position, event in events:
        found.setdefault(partition, []).append((position, event))
    return found


def cut(events: list[tuple[int, Event]], chance: random.Random) -> Iterator[list[tuple[int, Event]]]:
    """The same events in batches of random sizes."""
    places = sorted({0, len(events), *(chance.randrange(len(events) + 1) for _ in range(chance.randrange(12)))})
    for start, end in pairwise(places):
        yield events[start:end]


@given(seed=st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_batches_of_any_size_give_the_same_rows(seed: int) -> None:
    """One event a batch, random batches and one batch for all give the same rows, row for row."""
    by_partition = partitions_of(World(seed).play(150).events)
    chance = random.Random(seed)
    one_by_one, random_batches, at_once = empty_views(), empty_views(), empty_views()
    for partition, events in by_partition.items():
        for event in events:
            fold(one_by_one, partition, [event])
        for batch in cut(events, chance):
            fold(random_batches, partition, batch)
        fold(at_once, partition, events)
    expected = rows_of(at_once)
    assert expected == rows_of(one_by_one)
    assert expected == rows_of(random_batches)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=5, deadline=None)
def test_rows_at_every_position_are_those_of_a_rebuild_to_it(seed: int) -> None:
    """Whatever the position, folding on from the one before gives what folding from the first gives."""
    events = World(seed, partitions=1).play(60).events
    incremental = empty_views()
    for number, (partition, position, event) in enumerate(events, 1):
        fold(incremental, partition, [(position, event)])
        rebuilt = empty_views()
        for of, prefix in partitions_of(events[:number]).items():
            fold(rebuilt, of, prefix)
        assert rows_of(rebuilt) == rows_of(incremental), (partition, position)
        rebuilt.close()


@given(seed=st.integers(0, 2**32))
@settings(max_examples=15, deadline=None)
def test_rows_agree_with_the_accounts_that_the_domain_folds(seed: int) -> None:
    """Live sessions, their counts and due times, and who holds which agent are what the ledger decides on."""
    world, db, folded = World(seed), empty_views(), 0
    for _ in range(12):
        world.play(12)
        for partition, position, event in world.events[folded:]:
            fold(db, partition, [(position, event)])
        folded = len(world.events)
        assert _live_sessions(world) == _live_rows(db)
        assert _held_agents(world) == dict(db.execute("SELECT agent_id, held_by FROM agents WHERE retired_at IS NULL"))


_FIELDS = ("version", "message_count", "last_active_at", "due_at")


def _live_sessions(world: World) -> dict[bytes, tuple[object, ...]]:
    return {
        session.session_id: (tenant, user, *(getattr(session, name) for name in _FIELDS))
        for (tenant, user), account in world.accounts.items()
        for session in account.sessions.values()
        if not session.importing
    }


def _live_rows(db: sqlite3.Connection) -> dict[bytes, tuple[object, ...]]:
    rows = db.execute(
        "SELECT session_id, tenant, user, version, messages, last_active_at, due_at FROM sessions WHERE status = 'live'"
    )
    return {row[0]: tuple(row[1:]) for row in rows}


def _held_agents(world: World) -> dict[bytes, bytes | None]:
    return {agent.agent_id: agent.held_by for pool in world.pools.values() for agent in pool.agents.values()}


def test_the_histories_of_these_tests_hold_every_kind_of_event() -> None:
    """The random histories are worth folding: no event type of the ledger's own making is missing in them."""
    seen = {type(event).__name__ for seed in range(10) for _, _, event in World(seed).play(300).events}
    assert seen >= {
        *("SessionCreated", "SessionUpdated", "MessageAdded", "SessionEnded", "SessionExpired", "SessionEvicted"),
        *("QuotaSet", "QuotaConsumed", "QuotaRefused", "QuotaReleased", "QuotaThresholdReached", "UserLimitsSet"),
        *("AgentRegistered", "AgentAcquired", "AgentReleased", "AgentRetired", "AuthenticationFailed"),
        *("AccessTokenIssued", "AccessTokenRotated", "AuthenticationSucceeded", "AlertRaised"),
        *("ErrorReported", "LimitsSet"),
    }
    assert len(TENANTS) * len(USERS) >= 4


def test_an_event_of_a_session_that_was_never_created_is_refused() -> None:
    """A message without its session can not be a ledger's: LogCorrupt, not a row out of nothing."""
    events = [event for _, _, event in World(1).play(60).events]
    message = next(event for event in events if isinstance(event, MessageAdded))
    with pytest.raises(LogCorrupt, match="never created"):
        fold(empty_views(), 0, [(1, message)])


def test_a_fact_that_is_recorded_again_is_refused() -> None:
    """The same version of a session's stream does not count twice, whether in one batch or in the next."""
    events = World(1, partitions=1).play(120).events
    updated = next(event for _, _, event in events if isinstance(event, SessionUpdated))
    created = next(event for _, _, event in events if event.originator_id == updated.session_id)
    with pytest.raises(LogCorrupt, match="after a later version"):
        fold(empty_views(), 0, [(1, created), (2, updated), (3, updated)])
    db = empty_views()
    fold(db, 0, [(1, created), (2, updated)])
    with pytest.raises(LogCorrupt, match="twice"):
        fold(db, 0, [(3, updated)])


def test_an_update_without_sealed_metadata_leaves_none() -> None:
    """Metadata is replaced as a whole: where an update seals none, what was sealed before is gone from the views."""
    events = World(1, partitions=1).play(120).events
    created = next(e for _, _, e in events if isinstance(e, SessionCreated) and e.sealed_metadata is not None)
    head = (b"u" * 16, created.tenant, created.user, 2, created.recorded_at, None, None, created.session_id)
    updated = SessionUpdated(*head, None, None, {"colour": "blue"}, None, None, None)
    cuts: list[list[list[Event]]] = [[[created, updated]], [[created], [updated]]]
    for batches in cuts:
        db, position = empty_views(), 0
        for batch in batches:
            fold(db, 0, list(enumerate(batch, position + 1)))
            position += len(batch)
        assert [('{"colour":"blue"}',)] == db.execute("SELECT metadata FROM sessions").fetchall()
        assert [] == db.execute("SELECT * FROM session_content WHERE field = 'metadata'").fetchall()


def test_token_counts_stop_at_what_a_row_can_hold() -> None:
    """Two messages of the largest number of tokens do not stop the projection; the sum stays at the largest."""
    world = World(1).play(40)
    created = next(event for _, _, event in world.events if isinstance(event, SessionCreated))
    largest = 2**63 - 1
    db = empty_views()
    fold(db, 0, [(1, created)])
    for number in (1, 2, 3):
        message = MessageAdded(
            bytes([number]) * 16, created.tenant, created.user, number + 1, created.recorded_at, None, None,
            created.session_id, None, number, "user", None, largest, largest, None, None, None, {}, None, b"\0",
            None, None,
        )  # fmt: skip
        fold(db, 0, [(number + 1, message)])
    assert [(largest, largest, 3)] == db.execute("SELECT tokens_in, tokens_out, messages FROM sessions").fetchall()
