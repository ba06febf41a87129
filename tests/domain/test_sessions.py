"""Decisions about sessions: limits, eviction, refusal, time-outs, reuse, endings, keys."""

from __future__ import annotations

from dataclasses import replace

import pytest

from session_ledger.domain import commands as c
from session_ledger.domain.control import Limits, TenantSettings
from session_ledger.domain.decision import EXPIRIES_MAX
from session_ledger.domain.errors import (
    InvalidInput,
    KeyUnavailable,
    SessionExists,
    SessionLimitReached,
    SessionNotActive,
    SessionNotFound,
)
from session_ledger.domain.events import (
    AgentReleased,
    ErrorReported,
    MessageAdded,
    SessionCreated,
    SessionEnded,
    SessionEvicted,
    SessionExpired,
    SessionUpdated,
)
from session_ledger.domain.ids import derived_session_id, format_id
from session_ledger.domain.results import MessageRecorded, SessionChanged, SessionsExpired, SessionStarted
from tests.domain.world import DAY, HOUR, KEY_ID, MINUTE, START, TENANT, USER, World

AGENT = derived_session_id("agent", START, 0)


def names(events: list[object]) -> list[str]:
    """The types of events, in order."""
    return [type(event).__name__ for event in events]


def test_created_carries_the_whole_initial_state() -> None:
    """Defaults are resolved into the event, so a reader needs no settings."""
    world = World()
    outcome = world.run(c.CreateSession(tenant=TENANT, user=USER, title="t", metadata={"a": "b"}, ip_address="::1"))
    (event,) = outcome.events
    assert isinstance(event, SessionCreated)
    assert (1, START, 30 * 60_000, START + 30 * DAY, 5, "evict", False) == (
        event.version,
        event.recorded_at,
        event.idle_timeout_ms,
        event.expires_at,
        event.session_limit,
        event.limit_policy,
        event.imported,
    )
    assert (KEY_ID, b"c" * 32, b"'t'", b"'::1'") == (
        event.key_id,
        event.key_commitment,
        event.sealed_title,
        event.sealed_ip_address,
    )
    result = outcome.ok()
    assert isinstance(result, SessionStarted)
    assert (format_id(event.session_id), True, ()) == (result.thread_id, result.created, result.evicted)


def test_the_least_recently_active_session_makes_room() -> None:
    """At the limit the one whose activity is the longest ago is evicted, and the decision records the limit."""
    world = World(TenantSettings(Limits(max_sessions=2)))
    first = world.create()
    world.now += MINUTE
    second = world.create()
    world.now += MINUTE
    world.say(first).ok()
    world.now += MINUTE
    outcome = world.run(c.CreateSession(tenant=TENANT, user=USER))
    evicted, created = outcome.events
    assert isinstance(evicted, SessionEvicted)
    assert (second, 2, 2, created.originator_id) == (
        evicted.session_id,
        evicted.version,
        evicted.session_limit,
        evicted.replaced_by,
    )
    assert {first, created.originator_id} == set(world.account().sessions)
    result = outcome.ok()
    assert isinstance(result, SessionStarted)
    assert (format_id(second),) == result.evicted


def test_a_lowered_limit_evicts_as_many_as_it_takes() -> None:
    """Three live, the limit set to one: creating evicts all three, the oldest first."""
    world = World()
    old = []
    for _ in range(3):
        old.append(world.create())
        world.now += 1
    world.run(c.SetUserLimits(tenant=TENANT, user=USER, max_sessions=1)).ok()
    outcome = world.run(c.CreateSession(tenant=TENANT, user=USER))
    assert old == [event.session_id for event in outcome.events if isinstance(event, SessionEvicted)]
    assert 1 == len(world.account().sessions)


def test_the_policy_refuse_refuses() -> None:
    """SessionLimitReached names the limit; nothing is recorded."""
    world = World(TenantSettings(Limits(max_sessions=1, limit_policy="refuse")))
    world.create()
    outcome = world.run(c.CreateSession(tenant=TENANT, user=USER))
    assert isinstance(outcome.error, SessionLimitReached)
    assert "the limit is 1" in str(outcome.error)
    assert [] == outcome.events


def test_sessions_that_are_due_make_room_first() -> None:
    """Creating records the expiry of all that are due, so none is evicted for one that had timed out."""
    world = World(TenantSettings(Limits(max_sessions=1, limit_policy="refuse")))
    session_id = world.create()
    world.now += 30 * MINUTE
    outcome = world.run(c.CreateSession(tenant=TENANT, user=USER))
    expired, created = outcome.events
    assert isinstance(expired, SessionExpired)
    assert isinstance(created, SessionCreated)
    assert (session_id, "idle", START + 30 * MINUTE, None) == (
        expired.session_id,
        expired.reason,
        expired.due_at,
        expired.command_id,
    )


def test_a_repeat_equals_the_first_answer_though_something_expired_before_it() -> None:
    """Expiry stands before the command's own events and is no part of the answer."""
    world = World()
    world.create()
    world.now += HOUR
    prepared = world.prepare(c.CreateSession(tenant=TENANT, user=USER))
    first = world.run_prepared(prepared)
    assert ["SessionExpired", "SessionCreated"] == names(list(first.events))
    assert replace(first.ok(), repeated=True) == world.run_prepared(prepared).ok()


def test_a_message_to_a_session_that_timed_out_records_the_expiry() -> None:
    """A microsecond before it is due it is live; when due: SessionExpired, the release of its agents, and an error."""
    world = World()
    world.run(c.RegisterAgent(tenant=TENANT, agent_type="writer", agent_id=AGENT)).ok()
    session_id = world.create()
    world.now += 30 * MINUTE - 1
    world.run(c.AcquireAgent(tenant=TENANT, user=USER, session_id=session_id, agent_type="writer")).ok()
    world.say(session_id).ok()
    world.now += 30 * MINUTE
    outcome = world.say(session_id)
    assert isinstance(outcome.error, SessionNotActive)
    expired, released = outcome.events
    assert isinstance(expired, SessionExpired)
    assert isinstance(released, AgentReleased)
    assert ("session_expired", "not_reported", None) == (released.reason, released.reset, released.command_id)
    again = world.say(session_id)
    assert isinstance(again.error, SessionNotActive)
    assert "expired" in str(again.error)
    assert [] == again.events
    assert {} == world.account().sessions
    assert {} == world.agents.held


def test_activity_does_not_move_the_absolute_end() -> None:
    """A session that is always active expires by ttl."""
    world = World()
    session_id = world.create(ttl_ms=3_600_000)
    for _ in range(5):
        world.now += 10 * MINUTE
        world.say(session_id).ok()
    world.now += 10 * MINUTE
    (expired,) = world.say(session_id).events
    assert isinstance(expired, SessionExpired)
    assert ("ttl", START + HOUR) == (expired.reason, expired.due_at)


def test_an_update_is_activity_and_an_error_report_is_none() -> None:
    """Only SessionUpdated and MessageAdded put the idle time-out off."""
    world = World()
    session_id = world.create()
    world.now += 20 * MINUTE
    world.run(c.UpdateSession(tenant=TENANT, user=USER, session_id=session_id, title="new")).ok()
    world.now += 20 * MINUTE
    report = c.ReportError(tenant=TENANT, user=USER, session_id=session_id, component="llm", error_type="timeout")
    (event,) = world.run(report).events
    assert isinstance(event, ErrorReported)
    world.now += 10 * MINUTE
    assert isinstance(world.say(session_id).error, SessionNotActive)


def test_the_kinds_have_their_own_time_outs() -> None:
    """Website sessions idle for a day; sensitive ones live a week at most."""
    world = World(TenantSettings(Limits(max_sessions=9)))
    world.create(kind="website")
    sensitive = world.run(c.CreateSession(tenant=TENANT, user=USER, kind="sensitive")).events[-1]
    assert isinstance(sensitive, SessionCreated)
    assert START + 7 * DAY == sensitive.expires_at
    world.now += 23 * HOUR
    assert 1 == len(world.run(c.ExpireSessions(tenant=TENANT, user=USER)).events)  # the sensitive one, idle
    world.now += HOUR
    assert 1 == len(world.run(c.ExpireSessions(tenant=TENANT, user=USER)).events)


def test_a_sensitive_session_never_lives_longer_than_its_tenant_allows() -> None:
    """A longer ttl is refused, not shortened."""
    world = World(TenantSettings(Limits(sensitive_ttl_ms=86_400_000)))
    command = c.CreateSession(tenant=TENANT, user=USER, kind="sensitive", ttl_ms=2 * 86_400_000)
    assert isinstance(world.run(command).error, InvalidInput)
    with pytest.raises(InvalidInput, match="ttl_ms"):
        world.prepare(replace(command, ttl_ms=8 * 86_400_000))


def test_reuse_answers_with_the_most_recently_active_session() -> None:
    """Get or create: nothing is recorded where a live session is found."""
    world = World()
    first = world.create()
    world.now += 1
    world.create()
    world.now += 1
    world.say(first).ok()
    outcome = world.run(c.CreateSession(tenant=TENANT, user=USER, reuse=True))
    result = outcome.ok()
    assert isinstance(result, SessionStarted)
    assert (format_id(first), False) == (result.session_id, result.created)
    assert [] == outcome.events
    world.now += HOUR
    created = world.run(c.CreateSession(tenant=TENANT, user=USER, reuse=True)).ok()
    assert isinstance(created, SessionStarted)
    assert created.created


def test_ending_says_who_and_why_and_releases_what_is_held() -> None:
    """SessionEnded and AgentReleased in one append; the result names both."""
    world = World()
    world.run(c.RegisterAgent(tenant=TENANT, agent_type="writer", agent_id=AGENT)).ok()
    session_id = world.create()
    world.run(c.AcquireAgent(tenant=TENANT, user=USER, session_id=session_id, agent_type="writer")).ok()
    command = c.EndSession(tenant=TENANT, user=USER, session_id=session_id, reason="done", ended_by="admin", note="n")
    outcome = world.run(command)
    ended, released = outcome.events
    assert isinstance(ended, SessionEnded)
    assert isinstance(released, AgentReleased)
    assert ("done", "admin", b"'n'") == (ended.reason, ended.ended_by, ended.sealed_note)
    assert ("session_ended", 3, ended.command_id) == (released.reason, released.version, released.command_id)
    result = outcome.ok()
    assert isinstance(result, SessionChanged)
    assert (2, (format_id(AGENT),)) == (result.version, result.released_agents)
    assert isinstance(world.say(session_id).error, SessionNotActive)


def test_one_decision_records_so_many_expiries_at_most() -> None:
    """The longest over come first, and the sweep comes again; a creation leaves the rest too, and counts none live."""
    world = World(TenantSettings(Limits(max_sessions=EXPIRIES_MAX * 3, limit_policy="refuse")))
    sessions = []
    for _ in range(EXPIRIES_MAX * 2 + 2):
        sessions.append(world.create())
        world.now += 1
    world.now += HOUR
    swept = world.run(c.ExpireSessions(tenant=TENANT, user=USER)).ok()
    assert isinstance(swept, SessionsExpired)
    assert [format_id(session_id) for session_id in sessions[:EXPIRIES_MAX]] == list(swept.session_ids)
    created = world.run(c.CreateSession(tenant=TENANT, user=USER))
    assert ["SessionExpired"] * EXPIRIES_MAX + ["SessionCreated"] == names(list(created.events))
    assert {*sessions[-2:], created.events[-1].originator_id} == set(world.account().sessions)
    assert isinstance(world.say(sessions[-1]).error, SessionNotActive)


def test_no_limit_is_passed_however_many_sessions_are_over() -> None:
    """After a limit was lowered, a creation records as many expiries as that takes: the log keeps the limit."""
    world = World(TenantSettings(Limits(max_sessions=EXPIRIES_MAX * 2)))
    for _ in range(EXPIRIES_MAX + 10):
        world.create()
        world.now += 1
    world.now += HOUR
    world.settings = TenantSettings(Limits(max_sessions=3, limit_policy="refuse"))
    outcome = world.run(c.CreateSession(tenant=TENANT, user=USER))
    outcome.ok()
    assert EXPIRIES_MAX + 8 == names(list(outcome.events)).count("SessionExpired")
    assert 3 == len(world.account().sessions)


def test_updated_holds_only_what_changed() -> None:
    """None means unchanged; metadata that is given replaces the whole."""
    world = World()
    session_id = world.create()
    (event,) = world.run(c.UpdateSession(tenant=TENANT, user=USER, session_id=session_id, metadata={"a": "b"})).events
    assert isinstance(event, SessionUpdated)
    assert ({}, None, None) == (event.metadata, event.sealed_title, event.sealed_context)
    assert event.sealed_metadata is not None
    (event,) = world.run(c.UpdateSession(tenant=TENANT, user=USER, session_id=session_id, title="t")).events
    assert isinstance(event, SessionUpdated)
    assert event.metadata is None


def test_messages_are_numbered_within_their_session() -> None:
    """1, 2, 3, whatever else the session records in between."""
    world = World()
    session_id, other = world.create(), world.create()
    world.say(session_id).ok()
    world.say(other).ok()
    world.run(c.UpdateSession(tenant=TENANT, user=USER, session_id=session_id, title="t")).ok()
    result = world.say(session_id).ok()
    assert isinstance(result, MessageRecorded)
    assert (2, len(world.events)) == (result.message_number, result.position)
    last = world.events[-1]
    assert isinstance(last, MessageAdded)
    assert (4, b"'hello'") == (last.version, last.sealed_content)


def test_another_users_session_is_not_found() -> None:
    """Nothing tells whether it exists."""
    world = World()
    session_id = world.create(user="bob")
    assert isinstance(world.say(session_id).error, SessionNotFound)


def test_without_the_sessions_key_nothing_is_recorded() -> None:
    """No seal, another key's seal, or no digest: KeyUnavailable."""
    world = World()
    session_id = world.create()
    command = c.AddMessage(tenant=TENANT, user=USER, session_id=session_id, role="user", content="x")
    prepared = world.prepare(command)
    other_key = replace(prepared.sealed[0], key_id=b"o" * 16)
    for bad in (
        replace(prepared, sealed=()),
        replace(prepared, sealed=(other_key,)),
        replace(prepared, sealed=(), digest=b""),
    ):
        outcome = world.run_prepared(bad)
        assert isinstance(outcome.error, KeyUnavailable)
        assert [] == outcome.events
    world.run_prepared(prepared).ok()


def test_a_sweep_records_what_is_due_in_the_order_of_time() -> None:
    """ExpireSessions answers with the sessions; nothing due, nothing recorded."""
    world = World()
    later = world.create(idle_timeout_ms=20 * 60_000)
    sooner = world.create(idle_timeout_ms=10 * 60_000)
    world.create(idle_timeout_ms=90 * 60_000)
    assert () == _expired(world)
    assert START + 10 * MINUTE == world.account().due_at
    world.now += 20 * MINUTE
    assert (format_id(sooner), format_id(later)) == _expired(world)
    assert 1 == len(world.account().sessions)


def _expired(world: World) -> tuple[str, ...]:
    result = world.run(c.ExpireSessions(tenant=TENANT, user=USER)).ok()
    assert isinstance(result, SessionsExpired)
    return result.session_ids


def test_a_session_id_that_exists_is_not_created_twice() -> None:
    """A prepared command that comes with a new command id but the same session id: SessionExists."""
    world = World()
    prepared = world.prepare(c.CreateSession(tenant=TENANT, user=USER))
    world.run_prepared(prepared).ok()
    again = replace(prepared, command_id=world.ids.at(world.now))
    assert isinstance(world.run_prepared(again).error, SessionExists)
