"""Imported history: one append or several, harmless when repeated, outside every limit."""

from __future__ import annotations

from dataclasses import replace

from session_ledger.domain import commands as c
from session_ledger.domain.control import Limits, TenantSettings
from session_ledger.domain.errors import InvalidInput, KeyUnavailable, SessionExists, SessionNotActive
from session_ledger.domain.events import MessageAdded, SessionCreated, SessionEnded
from session_ledger.domain.ids import derived_session_id, slot_of_user
from session_ledger.domain.results import Result, SessionImported
from tests.domain.world import DAY, START, TENANT, USER, World

SESSION_ID = derived_session_id("chats.jsonl:1", START - DAY, slot_of_user(TENANT, USER))


def history(first: int, count: int, *, final: bool, source: str = "chats.jsonl:1") -> c.ImportSession:
    """A part of a history: messages `first` to `first` + `count` - 1."""
    return c.ImportSession(
        tenant=TENANT,
        user=USER,
        session_id=SESSION_ID,
        messages=tuple(
            c.ImportedMessage("user", f"message {number}", occurred_at=START - DAY + number)
            for number in range(first, first + count)
        ),
        first_message=first,
        final=final,
        title="an old chat",
        occurred_at=START - DAY,
        ended_at=START - 1,
        source=source,
    )


def added(result: Result) -> tuple[int, bool]:
    """(messages added, whether the history is complete)."""
    assert isinstance(result, SessionImported)
    return result.added, result.complete


def test_a_whole_history_is_one_append() -> None:
    """Created, its messages with their own times, ended with the reason imported; no command id is remembered."""
    world = World()
    outcome = world.run(history(1, 2, final=True))
    created, first, second, ended = outcome.events
    assert isinstance(created, SessionCreated)
    assert isinstance(second, MessageAdded)
    assert isinstance(ended, SessionEnded)
    assert (True, None, START - DAY, b"'an old chat'") == (
        created.imported,
        created.session_limit,
        created.occurred_at,
        created.sealed_title,
    )
    assert (3, 2, START - DAY + 2, b"'message 2'") == (
        second.version,
        second.message_number,
        second.occurred_at,
        second.sealed_content,
    )
    assert ("imported", "system", START - 1, 4) == (ended.reason, ended.ended_by, ended.occurred_at, ended.version)
    assert {None} == {event.command_id for event in outcome.events}
    assert {START} == {event.recorded_at for event in outcome.events}
    assert (2, True) == added(outcome.ok())
    assert {} == world.account().sessions
    assert first.version == 2


def test_importing_again_adds_nothing() -> None:
    """The session's id makes it idempotent, whatever the command id and however much later."""
    world = World()
    world.run(history(1, 2, final=True)).ok()
    world.now += 100 * DAY
    again = world.run(history(1, 2, final=True))
    assert (0, True) == added(again.ok())
    assert [] == again.events


def test_a_long_history_comes_in_parts() -> None:
    """Each adds its messages; the final one ends the session; a part that comes twice adds nothing."""
    world = World()
    assert (3, False) == added(world.run(history(1, 3, final=False)).ok())
    assert (0, False) == added(world.run(history(1, 3, final=False)).ok())
    assert (2, False) == added(world.run(history(4, 2, final=False)).ok())
    assert (0, False) == added(world.run(history(4, 2, final=False)).ok())
    assert (1, True) == added(world.run(history(6, 1, final=True)).ok())
    numbers = [event.message_number for event in world.events if isinstance(event, MessageAdded)]
    assert [1, 2, 3, 4, 5, 6] == numbers


def test_a_part_that_overlaps_adds_the_rest() -> None:
    """Cut elsewhere than before, no message is doubled or left out."""
    world = World()
    world.run(history(1, 3, final=False)).ok()
    outcome = world.run(history(2, 4, final=True))
    assert (2, True) == added(outcome.ok())
    sealed = [event.sealed_content for event in outcome.events if isinstance(event, MessageAdded)]
    assert [b"'message 4'", b"'message 5'"] == sealed


def test_a_final_part_that_adds_no_message_still_ends() -> None:
    """Everything was there but the end."""
    world = World()
    world.run(history(1, 3, final=False)).ok()
    outcome = world.run(history(2, 2, final=True))
    (ended,) = outcome.events
    assert isinstance(ended, SessionEnded)
    assert 5 == ended.version
    assert (0, True) == added(outcome.ok())


def test_a_part_that_leaves_a_gap_is_refused() -> None:
    """In the middle and at the beginning."""
    world = World()
    assert isinstance(world.run(history(2, 1, final=True)).error, InvalidInput)
    world.run(history(1, 2, final=False)).ok()
    assert isinstance(world.run(history(4, 1, final=True)).error, InvalidInput)


def test_another_history_under_the_same_id_is_refused() -> None:
    """While it is imported, its first part tells; a live session is never imported into."""
    world = World()
    world.run(history(1, 2, final=False)).ok()
    assert isinstance(world.run(history(1, 2, final=True, source="other")).error, SessionExists)
    live = world.create()
    assert isinstance(world.run(replace(history(1, 1, final=True), session_id=live)).error, SessionExists)


def test_an_import_stands_outside_every_limit() -> None:
    """It evicts nothing, does not count, does not time out, and takes no messages but its own."""
    world = World(TenantSettings(Limits(max_sessions=1, limit_policy="refuse")))
    live = world.create()
    world.run(history(1, 2, final=False)).ok()
    assert {live, SESSION_ID} == set(world.account().sessions)
    assert isinstance(world.say(SESSION_ID).error, SessionNotActive)
    world.now += 365 * DAY
    world.create()
    assert SESSION_ID in world.account().sessions
    world.run(history(3, 1, final=True)).ok()
    assert SESSION_ID not in world.account().sessions


def test_an_import_without_its_seals_records_nothing() -> None:
    """Too few seals, or another key's than the first part's: KeyUnavailable."""
    world = World()
    prepared = world.prepare(history(1, 2, final=True))
    assert isinstance(world.run_prepared(replace(prepared, sealed=prepared.sealed[:-1])).error, KeyUnavailable)
    world.run(history(1, 2, final=False)).ok()
    prepared = world.prepare(history(3, 1, final=True))
    other = tuple(replace(sealed, key_id=b"o" * 16) for sealed in prepared.sealed)
    assert isinstance(world.run_prepared(replace(prepared, sealed=other)).error, KeyUnavailable)
    assert 3 == len(world.events)
