"""The structural checks: a sound ledger has no finding, and each thing that must not be is found."""

from __future__ import annotations

import duckdb
import pytest

from session_ledger.projections.analytics.leakage.structural import KINDS, leaks_by_structure
from session_ledger.projections.analytics.snapshots import VIEWS
from session_ledger.projections.analytics.store import script
from tests.projections.world import World

A, B = "00000000-0000-7000-8000-00000000000a", "00000000-0000-7000-8000-00000000000b"
AGENT, KEY = "00000000-0000-7000-8000-0000000000aa", "00000000-0000-7000-8000-0000000000cc"


@pytest.fixture
def database() -> duckdb.DuckDBPyConnection:
    """An empty one."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    for name in ("schema.sql", *VIEWS):
        connection.execute(script(name))
    return connection


def put(connection: duckdb.DuckDBPyConnection, *events: dict[str, object]) -> None:
    """Events of partition 0 at positions 1, 2, 3, ..., a second apart."""
    for position, fields in enumerate(events, 1):
        row: dict[str, object] = {
            "partition": 0, "position": position, "event_id": f"00000000-0000-7000-8000-{position:012x}", "tenant": "t",
            "user": "ada", "stream": A, "version": position, **fields,
        }  # fmt: skip
        names = ", ".join([*(f'"{name}"' for name in row), "recorded_at", "happened_at"])
        moment = f"to_timestamp({position})"
        marks = ", ".join([*(f"${name}" for name in row), moment, moment])
        connection.execute(f"INSERT INTO events ({names}) VALUES ({marks})", row)


def created(session: str, user: str = "ada", **more: object) -> dict[str, object]:
    """A session's beginning."""
    details = '{"imported": false}'
    return {"event_type": "SessionCreated", "session_id": session, "user": user, "details": details, **more}


def agent(what: str, session: str | None = None, user: str = "ada", reset: str | None = None) -> dict[str, object]:
    """A step of an agent's."""
    details = None if reset is None else f'{{"reset": "{reset}"}}'
    return {
        "event_type": what, "agent_id": AGENT, "agent_type": "helper", "session_id": session, "user": user,
        "details": details,
    }  # fmt: skip


def said(session: str, user: str = "ada", **more: object) -> dict[str, object]:
    """A message."""
    return {"event_type": "MessageAdded", "session_id": session, "user": user, **more}


SESSIONS = [created(A), created(B, "bob")]
REGISTERED = agent("AgentRegistered", None, "")
CASES: dict[str, list[dict[str, object]]] = {
    "agent_held_twice": [
        *SESSIONS, REGISTERED, agent("AgentAcquired", A), agent("AgentAcquired", B, "bob"),
    ],
    "agent_without_lease": [
        *SESSIONS, REGISTERED, agent("AgentAcquired", A), agent("AgentReleased", A, reset="verified"),
        said(A, agent_id=AGENT),
    ],
    "foreign_owner": [*SESSIONS, said(A, "bob")],
    "key_of_two_sessions": [created(A, key_id=KEY), created(B, "bob", key_id=KEY)],
    "message_after_end": [*SESSIONS, {"event_type": "SessionEnded", "session_id": A}, said(A)],
    "reset_failed": [
        *SESSIONS, REGISTERED, agent("AgentAcquired", A), agent("AgentReleased", A, reset="failed"),
        agent("AgentAcquired", B, "bob"),
    ],
    "reset_missing": [
        *SESSIONS, REGISTERED, agent("AgentAcquired", A), agent("AgentReleased", A, reset="verified"),
        agent("AgentAcquired", A), agent("AgentReleased", A, reset="not_reported"), agent("AgentAcquired", B, "bob"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_what_must_not_be_is_found(database: duckdb.DuckDBPyConnection, kind: str) -> None:
    """Each kind, once, at the event that shows it."""
    put(database, *CASES[kind])
    [leak] = leaks_by_structure(database)
    assert (kind, len(CASES[kind])) == (leak.kind, leak.place.position)
    assert leak.source.position < leak.place.position


@pytest.mark.parametrize(
    "events",
    [
        [*SESSIONS, REGISTERED, agent("AgentAcquired", A), said(A, agent_id=AGENT),
         agent("AgentReleased", A, reset="verified"), agent("AgentAcquired", B, "bob"), said(B, "bob", agent_id=AGENT)],
        [*SESSIONS, REGISTERED, agent("AgentAcquired", A), agent("AgentReleased", A, reset="not_reported"),
         agent("AgentAcquired", B, "bob")],
        [created(A, details='{"imported": true}'), said(A, agent_id=AGENT)],
        [created(A, key_id=KEY), said(A, key_id=KEY), {"event_type": "SessionEnded", "session_id": A, "key_id": KEY}],
        [created(A), {"event_type": "AuthenticationFailed", "session_id": A, "key_id": KEY},
         {"event_type": "AuthenticationFailed", "session_id": B, "key_id": KEY}],
    ],
    ids=["leased", "no pool that reports", "imported", "own key", "account's key"],
)  # fmt: skip
def test_what_may_be_is_not_found(database: duckdb.DuckDBPyConnection, events: list[dict[str, object]]) -> None:
    """Leases in turn, pools that report no resets, history, a session's own key."""
    put(database, *events)
    assert [] == leaks_by_structure(database)


@pytest.mark.parametrize("seed", range(3))
def test_a_sound_ledger_has_no_finding(database: duckdb.DuckDBPyConnection, seed: int) -> None:
    """Random histories by the real domain, but for resets that were reported as failed or left out."""
    from session_ledger.projections.analytics.columns import table_of

    world = World(seed).play(400)
    for partition in {partition for partition, _, _ in world.events}:
        batch = table_of(partition, [(position, event) for p, position, event in world.events if p == partition])
        database.register("batch", batch)
        database.execute("INSERT INTO events BY NAME SELECT * FROM batch")
        database.unregister("batch")
    assert set() == {leak.kind for leak in leaks_by_structure(database)} - {"reset_failed", "reset_missing"}
