"""What a projection is: tables, a version of its code, and a pure fold of batches into rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from session_ledger.domain.events import Event


class Entry(NamedTuple):
    """One record on its way into the views.

    `event` is None for a quarantined record, which is stepped over and not folded. `material` is the record's framing
    and value as bytes: what the receipt hashes.
    """

    position: int
    event: Event | None
    material: bytes


class Projection(Protocol):
    """One family of tables. Instances hold no state of their own: everything stands in the tables."""

    @property
    def name(self) -> str:
        """What its positions stand under."""

    @property
    def version(self) -> int:
        """Raised whenever the same events would give other rows: views of another version are rebuilt."""

    @property
    def ddl(self) -> str:
        """`CREATE TABLE` and `CREATE INDEX` statements."""

    @property
    def tables(self) -> tuple[str, ...]:
        """Every table of `ddl`: what `verify` compares, row for row."""

    def apply(self, db: sqlite3.Connection, partition: int, events: Sequence[tuple[int, Event]]) -> None:
        """Fold (position, event) pairs, in order, into the tables, inside the caller's transaction.

        The rows depend on the events alone, not on how they were cut into batches. Raises LogCorrupt where the events
        can not be a ledger's (a message of a session that was never created).
        """


@dataclass(frozen=True, slots=True)
class Receipt:
    """How far a projection has come in a partition, and which records it has folded.

    `count` records were folded (`position` less the quarantined ones). `root` is a running BLAKE2b-256 over every
    record so far, framing and value: root(n) = H(root(n - 1) + record(n)), root(0) = 32 zero bytes. Two views with the
    same receipt were folded from the same records in the same order, however they were cut into batches; whether the
    rows still are what those records give is what `verify` tells.
    """

    projection: str
    partition: int
    position: int
    count: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A record that somebody decided to step over, kept with its bytes."""

    partition: int
    position: int
    topic: str
    originator_id: bytes
    version: int
    value: bytes
    reason: str
