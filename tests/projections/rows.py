"""Every row of every table of some projections, to compare."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from session_ledger.consumers.wiring import current_projections
from session_ledger.domain.events import Event
from session_ledger.projections.port import Projection
from session_ledger.projections.store import Store

Rows = dict[str, list[tuple[object, ...]]]


def rows_of(db: sqlite3.Connection, projections: Sequence[Projection] | None = None) -> Rows:
    """Table to its rows, in the order of the primary key."""
    tables = [table for projection in projections or current_projections() for table in projection.tables]
    return {table: db.execute(f"SELECT * FROM {table}").fetchall() for table in tables}


def rows_in(store: Store) -> Rows:
    """The rows of a store, in one snapshot."""
    with store.reading() as db:
        return rows_of(db)


def empty_views() -> sqlite3.Connection:
    """The tables of all projections in memory, without a store around them."""
    db = sqlite3.connect(":memory:")
    for projection in current_projections():
        db.executescript(projection.ddl)
    return db


def fold(db: sqlite3.Connection, partition: int, events: Sequence[tuple[int, Event]]) -> None:
    """Apply one batch to all projections."""
    for projection in current_projections():
        projection.apply(db, partition, events)
