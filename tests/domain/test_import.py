"""Imported history: one append or several, harmless when repeated, outside every limit."""

from __future__ import annotations

from dataclasses import replace

from session_ledger.domain import commands as c
from session_ledger.domain.control import Limits, TenantSettings
from session_ledger.domain.decide_import import OPEN_IMPORTS_MAX
from session_ledger.domain.errors import InvalidInput, KeyUnavailable, SessionExists, SessionNotActive, TooManyImports
from session_ledger.domain.events import MessageAdded, SessionCreated, SessionEnded, SessionExpired
from session_ledger.domain.ids import derived_session_id, format_id, slot_of_user, with_slot
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


def import_id(number: int) -> bytes:
    """The id of another history of the same user."""
    return derived_session_id(f"chats.jsonl:{number + 2}", START - DAY, slot_of_user(TENANT, USER))


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
    """It evicts nothing, does not count, is not idle however long it pauses, and takes no messages but its own."""
    world = World(TenantSettings(Limits(max_sessions=1, limit_policy="refuse")))
    live = world.create()
    world.run(history(1, 2, final=False)).ok()
    assert {live, SESSION_ID} == set(world.account().sessions)
    assert isinstance(world.say(SESSION_ID).error, SessionNotActive)
    world.now += 30 * DAY - 1
    world.create()
    assert SESSION_ID in world.account().sessions
    world.run(history(3, 1, final=True)).ok()
    assert SESSION_ID not in world.account().sessions


def test_an_import_that_is_not_finished_expires() -> None:
    """After the lifetime of a session: by a sweep, by the next part or by the next session; then its id is used up."""
    for part, error in ((history(3, 1, final=True), SessionNotActive), (history(1, 3, final=True), SessionExists)):
        world = World()
        world.run(history(1, 2, final=False)).ok()
        assert START + 30 * DAY == world.account().due_at
        world.now += DAY
        world.run(history(2, 1, final=False)).ok()
        assert START + 30 * DAY == world.account().due_at
        world.now = START + 30 * DAY
        outcome = world.run(part)
        (expired,) = outcome.events
        assert isinstance(expired, SessionExpired)
        assert ("ttl", START + 30 * DAY, 4) == (expired.reason, expired.due_at, expired.version)
        assert isinstance(outcome.error, error)
        again = world.run(part)
        assert ([], error) == (again.events, type(again.error))
        assert ({}, None) == (world.account().sessions, world.account().due_at)
    for command in (c.ExpireSessions(tenant=TENANT, user=USER), c.CreateSession(tenant=TENANT, user=USER)):
        world = World()
        world.run(history(1, 2, final=False)).ok()
        world.now += 30 * DAY
        assert isinstance(world.run(command).events[0], SessionExpired)
        assert SESSION_ID not in world.account().sessions


def test_a_user_has_so_many_unfinished_imports_at_most() -> None:
    """A further one is refused until one is finished or expires; a history in one command needs no place."""
    world = World()
    for number in range(OPEN_IMPORTS_MAX):
        world.now = START + number
        world.run(replace(history(1, 1, final=False), session_id=import_id(number))).ok()
    further = replace(history(1, 1, final=False), session_id=import_id(99))
    refused = world.run(further)
    assert isinstance(refused.error, TooManyImports)
    assert ([], True) == (refused.events, refused.error.retriable)
    world.run(history(1, 1, final=True)).ok()
    world.run(replace(history(2, 1, final=True), session_id=import_id(3))).ok()
    world.run(further).ok()
    world.now = START + 30 * DAY + 1
    outcome = world.run(replace(further, session_id=import_id(100)))
    assert ["SessionExpired", "SessionExpired", "SessionCreated", "MessageAdded"] == [
        type(event).__name__ for event in outcome.events
    ]
    result = outcome.ok()
    assert isinstance(result, SessionImported)
    assert result.created


def test_an_id_that_is_somebody_elses_is_refused() -> None:
    """A session of another user or tenant, live or over, and an agent, live or retired: nothing tells which."""
    world = World()
    agents = [with_slot(world.ids.at(START), slot_of_user(TENANT, USER)) for _ in range(2)]
    for agent_id in agents:
        world.run(c.RegisterAgent(tenant="globex", agent_type="writer", agent_id=agent_id)).ok()
    world.run(c.RetireAgent(tenant="globex", agent_id=agents[1])).ok()
    live, over = (with_slot(world.create(user="bob"), slot_of_user(TENANT, USER)) for _ in range(2))
    for stranger in (live, over):  # as if the slots of the two users were the same
        world.owners[stranger] = (TENANT, "bob")
    world.ended[over] = "ended"
    said = set()
    for session_id in (live, over, *agents):
        outcome = world.run(replace(history(1, 1, final=True), session_id=session_id))
        assert isinstance(outcome.error, SessionExists)
        assert [] == outcome.events
        said.add(str(outcome.error).replace(format_id(session_id), ""))
    assert 1 == len(said)


def test_a_session_of_the_user_that_was_not_imported_is_no_import() -> None:
    """Ended (with whatever reason), expired or evicted: SessionExists, and nothing is added."""
    world = World(TenantSettings(Limits(max_sessions=1)))
    ended = world.create()
    world.run(c.EndSession(tenant=TENANT, user=USER, session_id=ended, reason="completed")).ok()
    evicted, expired = world.create(), world.create()
    world.now += DAY
    assert isinstance(world.say(expired).error, SessionNotActive)
    for session_id in (ended, evicted, expired):
        outcome = world.run(replace(history(1, 1, final=True), session_id=session_id))
        assert isinstance(outcome.error, SessionExists)
        assert [] == outcome.events


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
