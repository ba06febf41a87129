"""The eventsourcing library's application recorder, on top of `append`, `read`, `end` and `wait`.

Adapters derive from `RecordedPartition` and implement `PartitionLog`. The ledger's shard calls `append` itself and
never pays for what stands here: the index of versions is built on the first call that needs it.

Originator ids are UUIDs on the library's side (UUID text is taken too) and 16 bytes in the log. Notification ids are
positions.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from threading import Lock
from uuid import UUID

from eventsourcing.persistence import (
    IntegrityError,
    Notification,
    NotSupportedError,
    StoredEvent,
    Subscription,
)

from session_ledger.domain.errors import AppendFailed, LedgerClosed
from session_ledger.domain.ids import format_id, parse_id
from session_ledger.ledger.log.port import PartitionLog, Record

READ_RECORDS = 1000  # records fetched at once by scans; some 400 kB
STOP_CHECK_S = 0.1  # how soon a waiting subscription notices that it was stopped


class VersionConflict(AppendFailed):
    """A record's (originator id, version) stands in the log already; nothing was written.

    Raised by adapters whose storage has a unique index of its own.
    """

    retriable = False


class RecordedPartition(PartitionLog):
    """Base of every partition: the library's port as concrete methods. Thread-safe."""

    def __init__(self) -> None:
        self._insert_lock = Lock()
        self._index_lock = Lock()
        self._indexed = 0  # position up to which the index is built
        self._index: dict[bytes, dict[int, int]] = {}  # originator id -> version -> position

    # --- the library's port ---------------------------------------------------------------------------------------

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: object) -> Sequence[int]:
        """Append the events as one batch; returns their positions.

        Raises the library's IntegrityError if a (originator id, version) is recorded already or given twice, and what
        `append` raises. Two writers of one log that use this and `append` at the same time may see AppendFailed.
        """
        if kwargs:
            raise NotSupportedError(f"the ledger's log records events only, not {', '.join(sorted(kwargs))}")
        if not stored_events:
            return []
        keyed = [(parse_id(e.originator_id, "originator_id"), e) for e in stored_events]
        if len({(originator, e.originator_version) for originator, e in keyed}) < len(keyed):
            raise IntegrityError("the same originator id and version is given twice")
        batch_id = os.urandom(16)
        with self._insert_lock:
            self._assert_unrecorded([(originator, e.originator_version) for originator, e in keyed])
            first = self.end() + 1
            try:
                self.append(
                    [
                        Record(first + i, batch_id, originator, e.originator_version, e.topic, e.state)
                        for i, (originator, e) in enumerate(keyed)
                    ]
                )
            except VersionConflict as error:
                raise IntegrityError(str(error)) from error
        return list(range(first, first + len(keyed)))

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """The originator's events with versions above `gt` and up to `lte`, by version."""
        self._build_index()
        with self._index_lock:
            versions = self._index.get(parse_id(originator_id, "originator_id"), {})
            chosen = sorted(
                (
                    (version, position)
                    for version, position in versions.items()
                    if (gt is None or version > gt) and (lte is None or version <= lte)
                ),
                reverse=desc,
            )[:limit]
        return [stored_event(record) for _, position in chosen for record in self.read(position - 1, 1)]

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """Up to `limit` notifications from `start` (or after it) to `stop`, of these topics if any are named."""
        after = 0 if start is None else start - 1 if inclusive_of_start else start
        last = self.end() if stop is None else min(stop, self.end())
        wanted = frozenset(topics)
        found: list[Notification] = []
        for record in self._scan(max(after, 0), last, READ_RECORDS if topics else min(limit, READ_RECORDS)):
            if not wanted or record.topic in wanted:
                found.append(notification(record))
                if len(found) >= limit:
                    break
        return found

    def max_notification_id(self) -> int | None:
        """The position of the last record, None for an empty log."""
        return self.end() or None

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> PartitionSubscription:
        """An iterator over notifications after `gt`, those to come included, until `stop()`."""
        return PartitionSubscription(self, gt=gt, topics=topics)

    # --- the index, for adapters without one ----------------------------------------------------------------------

    def _assert_unrecorded(self, versions: Sequence[tuple[bytes, int]]) -> None:
        """Raise IntegrityError if any (originator id, version) is in the log."""
        self._build_index()
        with self._index_lock:
            for originator, version in versions:
                position = self._index.get(originator, {}).get(version)
                if position is not None:
                    raise IntegrityError(
                        f"version {version} of {format_id(originator)} is recorded already, at position {position}"
                    )

    def _build_index(self) -> None:
        """Bring the index up to the end of the log."""
        with self._index_lock:
            for record in self._scan(self._indexed, self.end(), READ_RECORDS):
                self._index.setdefault(record.originator_id, {})[record.version] = record.position
                self._indexed = record.position

    def _scan(self, after: int, last: int, records: int) -> Iterator[Record]:
        """Every record after that position up to `last`, fetched so many at a time."""
        while after < last:
            batch = self.read(after, max(min(records, last - after), 1))
            if not batch:
                return
            yield from batch
            after = batch[-1].position


class PartitionSubscription(Subscription[RecordedPartition]):
    """Notifications as they come. Ends after `stop()`, from any thread, and when the log is closed; has no thread."""

    def __init__(self, recorder: RecordedPartition, gt: int | None = None, topics: Sequence[str] = ()) -> None:
        super().__init__(recorder=recorder, gt=gt, topics=topics)
        self._wanted = frozenset(topics)
        self._after = gt or 0
        self._fetched: deque[Record] = deque()

    def __next__(self) -> Notification:
        while not self._has_been_stopped:
            while self._fetched:
                record = self._fetched.popleft()
                if not self._wanted or record.topic in self._wanted:
                    self._last_notification_id = record.position
                    return notification(record)
            try:
                self._fetch()
            except LedgerClosed:
                self.stop()
        raise StopIteration

    def _fetch(self) -> None:
        records = self._recorder.read(self._after, READ_RECORDS)
        if records:
            self._fetched.extend(records)
            self._after = records[-1].position
        else:
            self._recorder.wait(self._after, STOP_CHECK_S)


def stored_event(record: Record) -> StoredEvent:
    """The record as the library's stored event."""
    return StoredEvent(
        originator_id=UUID(bytes=record.originator_id),
        originator_version=record.version,
        topic=record.topic,
        state=record.value,
    )


def notification(record: Record) -> Notification:
    """The record as the library's notification."""
    return Notification(
        originator_id=UUID(bytes=record.originator_id),
        originator_version=record.version,
        topic=record.topic,
        state=record.value,
        id=record.position,
    )


def check_batch(records: Sequence[Record], end: int) -> None:
    """Raise AppendFailed unless the records follow `end` densely and share one batch id."""
    if not records:
        raise AppendFailed("an append needs at least one record")
    batch_id = records[0].batch_id
    expected = end
    for record in records:
        expected += 1
        if record.position != expected:
            raise AppendFailed(
                f"position {record.position} does not follow: the log ends at {end}, so {expected} is next; "
                "read on from there and decide again"
            )
        if record.batch_id != batch_id:
            raise AppendFailed(f"position {record.position} has another batch id than the append's first record")
