"""What the tests of the write path share: a clock to set, what stands in a ledger's log, and what it folds to."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import msgspec

from session_ledger.domain.account import Account, evolve_account
from session_ledger.domain.agents import AgentPool, evolve_agents
from session_ledger.domain.events import Event, SessionEnded, SessionEvicted, SessionExpired
from session_ledger.domain.ids import new_id
from session_ledger.ledger.backend import Shards
from session_ledger.ledger.folds import PartitionFolds
from session_ledger.ledger.ledger import Ledger
from session_ledger.ledger.log.port import Log, PartitionLog, Record
from session_ledger.ledger.open import open_log
from session_ledger.ledger.settings import Settings
from session_ledger.ledger.shard import Shard
from session_ledger.ledger.url import parse_url
from session_ledger.schemas.codec import Codec
from session_ledger.schemas.library import Library
from tests.domain.judge import Judge

CODEC = Codec(Library())
SECOND = 1_000_000
DUMP = msgspec.msgpack.Encoder().encode


class Clock:
    """Microseconds since the epoch, as set: starts now and stands still."""

    def __init__(self, now: int | None = None) -> None:
        self.now = time.time_ns() // 1000 if now is None else now

    def __call__(self) -> int:
        return self.now

    def step(self, seconds: float) -> None:
        """Let time pass; negative: set the clock back."""
        self.now += round(seconds * SECOND)


class Stored(NamedTuple):
    """A record with its event."""

    partition: int
    record: Record
    event: Event


def fresh_id(clock: Callable[[], int] | None = None) -> str:
    """A new command id, as text."""
    return str(UUID(bytes=new_id(time.time_ns() // 1000 if clock is None else clock())))


def shards_of(ledger: Ledger) -> Shards:
    """The owner's backend."""
    assert isinstance(ledger._backend, Shards)
    return ledger._backend


def shard_of(ledger: Ledger, partition: int = 0) -> Shard:
    """The owner's shard of a partition."""
    return shards_of(ledger)._shards[partition]


def partition_folds(ledger: Ledger, partition: int = 0) -> PartitionFolds:
    """The folds of a partition; look at them while nothing is under way."""
    folds = shard_of(ledger, partition).folds
    assert isinstance(folds, PartitionFolds)
    return folds


def read_partition(partition: PartitionLog) -> list[Stored]:
    """Every record, decoded; fails where positions are not dense."""
    found: list[Stored] = []
    while records := partition.read(len(found), 1000):
        for record in records:
            assert len(found) + 1 == record.position
            event = CODEC.decode(record.value, record.topic, partition=partition.partition, position=record.position)
            assert (event.originator_id, event.version) == (record.originator_id, record.version)
            found.append(Stored(partition.partition, record, event))
    return found


def read_log(log: Log) -> list[Stored]:
    """Every record of every partition, partition by partition, without the control log."""
    return [stored for partition in log.partitions for stored in read_partition(partition)]


def stored(ledger: Ledger | str) -> list[Stored]:
    """What stands in the log: of an open ledger that owns it, or of a URL that nobody need have open."""
    if isinstance(ledger, Ledger):
        return read_log(shards_of(ledger).log)
    log = open_log(parse_url(ledger), Settings(), write=False)
    try:
        return read_log(log)
    finally:
        log.close()


def events(ledger: Ledger | str) -> list[Event]:
    """The events alone."""
    return [found.event for found in stored(ledger)]


def judged(found: list[Stored]) -> list[Stored]:
    """The same, after a judge who knows nothing of the folding code has seen every partition's events in order."""
    for partition in {one.partition for one in found}:
        judge = Judge()
        for one in found:
            if one.partition == partition:
                judge.see(one.event)
    return found


@dataclass(slots=True)
class Folded:
    """A partition, folded from position 1 without a state file."""

    accounts: dict[tuple[str, str], Account]
    agents: AgentPool
    ended: dict[bytes, str]


def fold(found: list[Stored], partition: int = 0) -> Folded:
    """Fold what stands in a partition."""
    folded = Folded({}, AgentPool(), {})
    how = {SessionEnded: "ended", SessionEvicted: "evicted", SessionExpired: "expired"}
    for one in found:
        if one.partition == partition:
            event = one.event
            key = (event.tenant, event.user)
            account = folded.accounts.setdefault(key, Account(*key))
            evolve_account(account, event, one.record.position)
            evolve_agents(folded.agents, event)
            if type(event) in how:
                imported = isinstance(event, SessionEnded) and event.reason == "imported"
                folded.ended[event.originator_id] = "imported" if imported else how[type(event)]
    return folded


def assert_folds_equal_the_log(ledger: Ledger) -> None:
    """Every account, the agents and how sessions ended are what the log folds to from position 1."""
    found = stored(ledger)
    begun_by = {one.event.originator_id: (one.event.tenant, one.event.user) for one in reversed(found)}
    for partition in range(len(shards_of(ledger)._shards)):
        folded = fold(found, partition)
        folds = partition_folds(ledger, partition)

        def look(folded: Folded = folded, folds: PartitionFolds = folds) -> None:
            for key, account in folded.accounts.items():
                seen = folds.account(key)
                for counting in seen.counting.values():
                    counting.uncounted = None  # not of the log
                assert account == seen, f"{account}\n{seen}"
            assert DUMP(folded.agents) == DUMP(folds._agents)
            for session_id, how in folded.ended.items():
                assert (how, False) == folds._stream(session_id, begun_by[session_id])

        shard_of(ledger, partition).call(look)


def keys_in_vault(directory: Path) -> set[bytes]:
    """The ids of the data keys that the vault holds."""
    with sqlite3.connect(directory / "vault.db") as connection:
        return {row[0] for row in connection.execute("SELECT key_id FROM keys")}
