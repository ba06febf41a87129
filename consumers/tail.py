"""The tailing runner: one thread follows some partitions of a log, in batches, into a sink that remembers positions.

A step is: read, decode, apply, commit positions; the last two are one transaction of the sink. Nothing is skipped: a
record that can not be read or folded stops its partition, with an error that names it, and the others go on. The one
way past such a record is `Projector.quarantine`, which keeps its bytes and is shown by `lag` and `verify`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from session_ledger.domain.errors import (
    LogCorrupt,
    LogUnavailable,
    ProjectionConflict,
    SessionLedgerError,
    UndecodableRecord,
)
from session_ledger.ledger.log.port import PartitionLog, Record
from session_ledger.projections.port import Entry
from session_ledger.projections.store import digest
from session_ledger.schemas.codec import Codec

BATCH_RECORDS = 4000  # some 2 MB and 100 ms: larger gains little, and a step should not hold the views for long
BATCH_BYTES = 16 * 1024 * 1024  # of values; batches of long messages become shorter, so that memory stays bounded
FIRST_RECORDS = 250  # of the first batch, before it is known how long messages are: at most 250 MiB
POLL_S = 0.05  # how long a pass over partitions without news takes
SHOWN_S = 1.0  # how long a reader may take to see what another one has folded already
RETRY_S = 1.0  # after a log that could not be reached
CONFLICTS_MAX = 100  # in a row; each means that another projector moved the position, so many mean something else


class Sink(Protocol):
    """Where batches go; `Store` is one."""

    def position(self, partition: int) -> int:
        """The position of the last record applied; 0 for none."""

    def last(self, partition: int) -> tuple[int, bytes]:
        """That position and the digest of the record there."""

    def apply(self, partition: int, entries: Sequence[Entry]) -> None:
        """Apply the batch and move the position in one transaction; ProjectionConflict if it does not follow."""


class PartitionStopped(LogCorrupt):
    """A partition is not followed further: one of its records can not be read or folded. Names the record."""

    code = "partition_stopped"
    position: int

    def __init__(self, partition: int, position: int, reason: str) -> None:
        self.partition, self.position, self.reason = partition, position, reason
        super().__init__(f"partition {partition} stopped at position {position}: {reason}")

    def __reduce__(self) -> tuple[type[PartitionStopped], tuple[int, int, str]]:
        return type(self), (self.partition, self.position, self.reason)


class Tail:
    """Follows partitions into a sink. Use from one thread at a time; `stopped` and `trouble` may be read by any."""

    restored = "was it restored from a copy? then rebuild the views"
    """What to ask, and to do, where the log is not the one that was folded."""

    def __init__(
        self,
        logs: Sequence[PartitionLog],
        codec: Codec,
        sink: Sink,
        *,
        stepped_over: Callable[[int], frozenset[int]] = lambda partition: frozenset(),
        batch_records: int = BATCH_RECORDS,
    ) -> None:
        """`stepped_over(partition)`: positions of quarantined records. `batch_records`: the most in one transaction."""
        self._logs = tuple(logs)
        self._codec = codec
        self._sink = sink
        self._stepped_over = stepped_over
        self._batch_records = batch_records
        self.stopped: dict[int, PartitionStopped] = {}
        """Partitions that are not followed any more, and why."""
        self.trouble: dict[int, SessionLedgerError] = {}
        """Partitions whose log, or its schema registry, can not be reached now, and why; tried again every second."""
        self._retry_at: dict[int, float] = {}
        self._continued: set[int] = set()  # partitions whose last record was found in the log as it was folded
        self._sizes: dict[int, int] = {}  # partition to records of the next batch

    def step(self, log: PartitionLog, *, after: int | None = None, limit: int | None = None) -> int:
        """One batch of one partition; the number of records applied, 0 at the end of the log.

        `after`: the sink's position, where the caller has just looked. `limit`: fewer records than a whole batch.
        Raises PartitionStopped (what stands before the record is applied; likewise where its schema's registry can
        not be asked, RegistryUnavailable), ProjectionConflict, LogUnavailable.
        """
        self._continue(log)
        if after is None:
            after = self._sink.position(log.partition)
        size = min(self._sizes.get(log.partition, FIRST_RECORDS), self._batch_records)
        records = self._read(log, after, min(limit or size, size))
        self._sizes[log.partition] = _next_size(size, records)
        entries, unreadable = self._decode(log.partition, after, records)
        self._apply(log.partition, entries)
        if unreadable is not None:
            raise unreadable
        return len(entries)

    def catch_up(self, to: Mapping[int, int] | None = None, *, raise_stopped: bool = True) -> int:
        """Apply everything up to the positions `to` (partition to position; None: each log's end now).

        Returns the number of records applied. Raises PartitionStopped after the other partitions have caught up
        (unless told not to), LogUnavailable, LogCorrupt where a log ends before its target.
        """
        applied, stops = 0, list[PartitionStopped]()
        for log in self._logs:
            if to is not None and log.partition not in to:
                continue
            self.stopped.pop(log.partition, None)
            target = log.end() if to is None else to[log.partition]
            try:
                applied += self._catch_up_one(log, target)
            except PartitionStopped as stop:
                self.stopped[log.partition] = stop
                stops.append(stop)
        if stops and raise_stopped:
            raise stops[0]
        return applied

    def _catch_up_one(self, log: PartitionLog, target: int) -> int:
        applied, conflicts = 0, 0
        self._continue(log)
        while (position := self._sink.position(log.partition)) < target:
            try:
                count = self.step(log, after=position, limit=target - position)
                conflicts = 0
            except ProjectionConflict:  # another projector is at work here: go on from where it got to
                conflicts += 1
                if conflicts > CONFLICTS_MAX:
                    raise
                continue
            if count == 0:
                raise LogCorrupt(f"partition {log.partition} ends at {position}, before position {target}")
            applied += count
        return applied

    def run(self, stop: threading.Event, on_applied: Callable[[], None] = lambda: None) -> None:
        """Follow until `stop` is set; returns within a step of that. Stopped partitions are left in `stopped`."""
        while not stop.is_set():
            news = 0
            following = [log for log in self._logs if log.partition not in self.stopped]
            for log in following:
                if stop.is_set():
                    return
                news += self._follow(log)
            if news:
                on_applied()
            elif following:
                self._wait(following, stop)
            else:
                stop.wait(POLL_S)

    def _follow(self, log: PartitionLog) -> int:
        partition = log.partition
        if time.monotonic() < self._retry_at.get(partition, 0.0):
            return 0
        try:
            count = self.step(log)
        except PartitionStopped as stop:
            self.stopped[partition] = stop
            return 0
        except ProjectionConflict:
            return 0  # the next step starts from where the other projector got to
        except LogUnavailable as error:
            self.trouble[partition] = error
            self._retry_at[partition] = time.monotonic() + RETRY_S
            return 0
        self.trouble.pop(partition, None)
        return count

    def _wait(self, following: Sequence[PartitionLog], stop: threading.Event) -> None:
        for log in following:
            if stop.is_set():
                return
            if log.partition in self.trouble:
                stop.wait(POLL_S / len(following))
                continue
            try:
                if log.wait(self._sink.position(log.partition), POLL_S / len(following)):
                    return
            except LogUnavailable as error:
                self.trouble[log.partition] = error
                self._retry_at[log.partition] = time.monotonic() + RETRY_S

    def _continue(self, log: PartitionLog) -> None:
        """Once a partition: the record that the sink stands at is the log's own; a log restored from a copy is not."""
        partition = log.partition
        if partition in self._continued:
            return
        position, folded = self._sink.last(partition)
        if position:
            records = self._read(log, position - 1, 1)
            if not records and log.wait(position - 1, SHOWN_S):
                records = self._read(log, position - 1, 1)
            if not records:
                reason = f"the log ends at {log.end()}, before it; {self.restored}"
                raise PartitionStopped(partition, position, reason)
            if self._mark(records[0]) != folded:
                reason = f"the log has another record there than was folded; {self.restored}"
                raise PartitionStopped(partition, position, reason)
        self._continued.add(partition)

    # --- the step's parts ---------------------------------------------------------------------------------------

    def _mark(self, record: Record) -> bytes:
        """What the sink's `last` gives for that record."""
        return digest(material(record))

    def _read(self, log: PartitionLog, after: int, limit: int) -> list[Record]:
        try:
            return log.read(after, limit)
        except UndecodableRecord as error:
            raise PartitionStopped(log.partition, error.position or after + 1, error.reason) from error
        except LogCorrupt as error:
            raise PartitionStopped(log.partition, after + 1, str(error)) from error

    def _decode(
        self, partition: int, after: int, records: Sequence[Record]
    ) -> tuple[list[Entry], PartitionStopped | LogUnavailable | None]:
        """(what can be applied, why what follows it can not)."""
        decode, over = self._codec.decode, self._stepped_over(partition)
        entries: list[Entry] = []
        for expected, record in enumerate(records, after + 1):
            position = record.position
            if position != expected:
                reason = f"position {position} stands where {expected} belongs"
                return entries, PartitionStopped(partition, expected, reason)
            event = None
            if position not in over:
                try:
                    event = decode(record.value, record.topic, partition=partition, position=position)
                except LogUnavailable as error:  # of a schema registry: the record may be sound, and is tried again
                    return entries, error
                except LogCorrupt as error:
                    reason = error.reason if isinstance(error, UndecodableRecord) else str(error)
                    stop = PartitionStopped(partition, position, reason)
                    stop.__cause__ = error
                    return entries, stop
            entries.append(Entry(position, event, material(record)))
        return entries, None

    def _apply(self, partition: int, entries: Sequence[Entry]) -> None:
        try:
            self._sink.apply(partition, entries)
        except LogCorrupt:
            for entry in entries:  # one by one, so that what can be folded is, and the error names the record
                try:
                    self._sink.apply(partition, [entry])
                except LogCorrupt as error:
                    raise PartitionStopped(partition, entry.position, str(error)) from error


def _next_size(size: int, records: Sequence[Record]) -> int:
    """Twice as many records next time, or as many of these as the bytes allow."""
    value_bytes = sum(len(record.value) for record in records)
    if value_bytes <= BATCH_BYTES // 2:
        return min(2 * size, BATCH_RECORDS)
    return max(len(records) * BATCH_BYTES // 2 // value_bytes, 1)


def material(record: Record) -> bytes:
    """A record's framing and value as bytes; what a receipt hashes."""
    return b"%d %d %b %b %b" % (
        record.position,
        record.version,
        record.originator_id,
        record.topic.encode(),
        record.value,
    )
