"""Pages stay quick however many sessions there are: each query of the read side walks an index, none sorts or scans."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator

import pytest

from session_ledger.projections import quota_reading, reading
from tests.projections.rows import empty_views

SESSION = bytes(16)
KEY = (1, SESSION)
Query = Callable[[sqlite3.Connection], object]

QUERIES: dict[str, Query] = {
    "one session": lambda db: reading.session(db, "t", "u", SESSION),
    "sessions of a user": lambda db: reading.sessions(db, "t", "u", "live", 51, None),
    "sessions of a user, on": lambda db: reading.sessions(db, "t", "u", "live", 51, KEY),
    "sessions of a tenant": lambda db: reading.sessions(db, "t", None, "live", 51, None),
    "sessions of a tenant, on": lambda db: reading.sessions(db, "t", None, "live", 51, KEY),
    "count": lambda db: reading.count_sessions(db, "t", "u", ("live", "ended")),
    "current": lambda db: reading.current_session(db, "t", "u", 1),
    "content": lambda db: reading.content(db, [SESSION, SESSION]),
    "agents held": lambda db: reading.agents_held(db, [SESSION]),
    "messages": lambda db: reading.messages(db, SESSION, 0, 50),
    "last messages": lambda db: reading.last_messages(db, SESSION, 50),
    "errors": lambda db: reading.session_errors(db, SESSION, 0, 50),
    "authentication failures": lambda db: reading.authentication_failures(db, "t", "u", None, 50),
    "agents": lambda db: reading.agents(db, "t", None, False, 50, ("", b"")),
    "agents of a type": lambda db: reading.agents(db, "t", "helper", False, 50, ("", b"")),
    "account": lambda db: quota_reading.account_of(db, "t", "u"),
    "users with quotas": lambda db: quota_reading.users_with_quotas(db, "t", "", 50),
    "settings": lambda db: quota_reading.settings_of(db, "t"),
}
ANY_STATUS: dict[str, Query] = {
    "sessions of a user, any status": lambda db: reading.sessions(db, "t", "u", None, 51, None),
    "sessions of a tenant, any status, on": lambda db: reading.sessions(db, "t", None, None, 51, KEY),
}


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    """Empty tables; plans of SQLite do not depend on what is in them."""
    views = empty_views()
    yield views
    views.close()


def plans(db: sqlite3.Connection, query: Query) -> list[str]:
    """The steps of the plan of each statement that the query runs."""
    statements: list[str] = []
    db.set_trace_callback(statements.append)
    query(db)
    db.set_trace_callback(None)
    assert statements
    return [step[3] for sql in statements for step in db.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall()]


@pytest.mark.parametrize("name", QUERIES)
def test_a_read_walks_an_index_in_its_order(db: sqlite3.Connection, name: str) -> None:
    """Every table is searched by an index or its key; nothing is scanned or sorted."""
    steps = plans(db, QUERIES[name])
    assert [] == [step for step in steps if "SCAN" in step or "TEMP B-TREE" in step]
    assert any(step.startswith("SEARCH") for step in steps)


@pytest.mark.parametrize("name", ANY_STATUS)
def test_a_page_of_any_status_sorts_pages_not_tables(db: sqlite3.Connection, name: str) -> None:
    """One page a status is read by the index, and only those few rows are merged."""
    steps = plans(db, ANY_STATUS[name])
    searched = [step for step in steps if step.startswith("SEARCH sessions USING INDEX")]
    assert 5 == len(searched)
    assert [] == [step for step in steps if "SCAN sessions" in step]
