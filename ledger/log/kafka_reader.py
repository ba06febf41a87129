"""Reading one partition by position: committed records in dense order, several readers at a time.

Offsets have gaps (markers, aborted records), so positions stand in the records. A sparse map of positions to offsets
grows while reading; a place that it does not cover is found by halving.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

from session_ledger.domain.errors import LedgerClosed, LogCorrupt, LogUnavailable
from session_ledger.ledger.log.kafka_client import POLL_S, Cluster, Reader
from session_ledger.ledger.log.kafka_records import RecordCodec
from session_ledger.ledger.log.kafka_types import BrokerAway, ClientOptions, Fetched, OffsetGone
from session_ledger.ledger.log.port import Record

CURSORS_MAX = 2  # a follower and a look-up; each holds connections
INDEX_EVERY = 1_000  # positions between two entries of the map
SKIP_MAX = 2_000  # positions that are read and dropped rather than halved over
STABLE_POLL_S = 0.001  # a commit's marker is written a moment after its answer, seldom more than 15 ms
READ_TIMEOUT_S = 10.0  # for records that are known to be committed, and without anything that comes
TAIL_OFFSETS = 64  # how far before the end the last record is looked for first


class Cursor:
    """A consumer and the dense run of records that it last fetched."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.run: list[Record] = []
        self.next_position: int | None = None
        """The position that the next record must have; None: not placed, or to be told by the next record."""

    def held(self, after: int, limit: int) -> list[Record]:
        """What the run has from `after` + 1 on."""
        if not self.run or after + 1 < self.run[0].position:
            return []
        at = after + 1 - self.run[0].position
        return self.run[at : at + limit]


class PartitionReader:
    """Committed records of a partition by position. Thread-safe."""

    def __init__(
        self, options: ClientOptions, cluster: Cluster, topic: str, partition: int, codec: RecordCodec
    ) -> None:
        """`partition` is the topic's."""
        self._options, self._cluster = options, cluster
        self._topic, self._partition, self._codec = topic, partition, codec
        self._lock = threading.Condition()
        self._idle: list[Cursor] = []
        self._made = 0
        self._closed = False
        self._positions: list[int] = [1]  # entries of the map, ascending; the first record stands at offset 0 or after
        self._offsets: list[int] = [0]
        self._end_at: tuple[int, int] = (0, 0)  # a stable offset, and the position of the last record before it

    def read(self, after: int, limit: int, committed: int | None = None) -> list[Record]:
        """Up to `limit` records after that position, of those that are stable when the call begins.

        `committed`, where the caller knows it, is the end of the log: every record up to it is waited for.
        Raises LogCorrupt, LogTooNew, LogUnavailable, LedgerClosed.
        """
        wanted = limit if committed is None else min(limit, committed - after)
        if wanted <= 0:
            self._assert_open()
            return []
        deadline_s = time.monotonic() + READ_TIMEOUT_S
        with self._cursor(after + 1) as cursor:
            found = cursor.held(after, wanted)
            if len(found) == wanted:
                return found
            stable = self.stable_end() if committed is None else None
            self._place(cursor, after + len(found) + 1)
            while len(found) < wanted and (stable is None or self._offset(cursor) < stable):
                self._assert_open()
                if self._advance(cursor, after + len(found) + 1, POLL_S):
                    found += cursor.held(after + len(found), wanted - len(found))
                elif time.monotonic() > deadline_s:
                    raise LogUnavailable(
                        f"{self._topic}-{self._partition}: position {after + len(found) + 1} did not become readable "
                        f"within {READ_TIMEOUT_S:g} s: see that a broker answers at {self._options.bootstrap}, and "
                        "look for a transaction that hangs (see docs/operations.md)"
                    )
            return found

    def wait(self, after: int, timeout_s: float) -> bool:
        """Until a record after that position is there, or the time is over."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            with self._cursor(after + 1) as cursor:  # given back after each look: others may wait for one
                if cursor.held(after, 1):
                    return True
                self._place(cursor, after + 1)
                left_s = max(deadline_s - time.monotonic(), 0)
                if self._advance(cursor, after + 1, min(left_s, POLL_S)):
                    return True
            if self._closed or left_s == 0:
                return self._closed

    def end(self) -> int:
        """The position of the last record before the last stable offset."""
        stable = self.stable_end()
        with self._cursor(None) as cursor:
            if stable > self._end_at[0]:
                self._end_at = stable, self._last_before(cursor, stable)
            return self._end_at[1]

    def last_before(self, offset: int) -> int:
        """The position of the last record before that offset, which must become stable soon."""
        with self._cursor(None) as cursor:
            return self._last_before(cursor, offset)

    def stable_end(self) -> int:
        """The last stable offset: every record before it is committed or aborted."""
        self._assert_open()
        with self._errors():
            return self._cluster.stable_end(self._topic, self._partition)

    def assert_whole(self) -> None:
        """Raise LogCorrupt if records at the beginning were removed."""
        with self._errors():
            beginning = self._cluster.beginning(self._topic, self._partition)
            if beginning > 0:
                raise OffsetGone("records were removed")

    def undecided(self) -> int:
        """The high watermark less the last stable offset: what is written and neither committed nor aborted."""
        self._assert_open()
        with self._errors():
            stable = self._cluster.stable_end(self._topic, self._partition)
            return max(self._cluster.high_watermark(self._topic, self._partition) - stable, 0)

    def await_stable(self, offset: int, timeout_s: float) -> None:
        """Return once the last stable offset is behind that offset. Raises LogUnavailable."""
        deadline_s = time.monotonic() + timeout_s
        while (stable := self.stable_end()) <= offset:
            if time.monotonic() > deadline_s:
                raise LogUnavailable(
                    f"offset {offset} is not stable after {timeout_s:g} s, only what is before {stable}"
                )
            time.sleep(STABLE_POLL_S)

    def is_blank(self) -> bool:
        """Whether there is no committed record at all, one without a position included. Raises LogUnavailable."""
        end = self.stable_end()
        with self._cursor(None) as cursor, self._errors():
            cursor.reader.seek(0)
            for fetched in chain.from_iterable(cursor.reader.until(end, READ_TIMEOUT_S, records=1)):
                self._codec.decode(fetched)
                return False
            return True

    # --- moving a cursor ------------------------------------------------------------------------------------------

    def _place(self, cursor: Cursor, position: int) -> None:
        """Bring the cursor to that position, or a little before it."""
        if cursor.next_position is None or not 0 <= position - cursor.next_position <= SKIP_MAX:
            with self._errors():
                start, offset = self._locate(cursor.reader, position)
                cursor.reader.seek(offset)
            cursor.next_position, cursor.run = start, []

    def _offset(self, cursor: Cursor) -> int:
        with self._errors():
            return cursor.reader.offset()

    def _advance(self, cursor: Cursor, position: int, timeout_s: float) -> bool:
        """Read on until that position is in the cursor's run; False if it did not come in time."""
        deadline_s = time.monotonic() + timeout_s
        with self._errors():
            while True:
                run = self._decoded(cursor.reader.poll(timeout_s), cursor.next_position)
                if run:
                    cursor.run, cursor.next_position = run, run[-1].position + 1
                    if cursor.next_position > position:
                        return True
                elif time.monotonic() >= deadline_s:
                    return False

    def _decoded(self, fetched: Sequence[Fetched], expected: int | None) -> list[Record]:
        """The events among the records, asserted to be dense; the map grows by what passes."""
        run: list[Record] = []
        decode = self._codec.decode
        for one in fetched:
            record = decode(one)
            if record is None:
                continue
            position = record.position
            if position != expected and expected is not None:
                what = "missing" if position > expected else "repeated"
                error = LogCorrupt(
                    f"{self._topic}-{self._partition}: position {position} at offset {one.offset} where {expected} "
                    f"must stand: records are {what}"
                )
                error.position = expected
                raise error
            expected = position + 1
            if position % INDEX_EVERY == 0:
                self._remember(position, one.offset)
            run.append(record)
        return run

    def _remember(self, position: int, offset: int) -> None:
        with self._lock:
            at = bisect_right(self._positions, position)
            if self._positions[at - 1] != position:
                self._positions.insert(at, position)
                self._offsets.insert(at, offset)

    def _locate(self, reader: Reader, position: int) -> tuple[int, int]:
        """(a position at or a little before that one, where it stands), found in the map or by halving."""
        above: int | None = None
        while True:
            with self._lock:
                at = bisect_right(self._positions, position)
                start, offset = self._positions[at - 1], self._offsets[at - 1]
                known = self._offsets[at] if at < len(self._offsets) else None
            if position - start <= SKIP_MAX:
                return start, offset
            if above is None or (known is not None and known < above):
                above = known if known is not None else self._cluster.stable_end(self._topic, self._partition)
            if above - offset <= SKIP_MAX:
                return start, offset
            middle = offset + (above - offset) // 2
            found = self._first_from(reader, middle, above)
            if found is None or found[0] > position:
                above = middle
            if found is not None:
                self._remember(*found)

    def _first_from(self, reader: Reader, offset: int, end: int) -> tuple[int, int] | None:
        """(position, offset) of the first event at that offset or after it, None if there is none before `end`."""
        reader.seek(offset)
        for fetched in chain.from_iterable(reader.until(end, READ_TIMEOUT_S, records=1)):
            record = self._codec.decode(fetched)
            if record is not None:
                return record.position, fetched.offset
        return None

    def _last_before(self, cursor: Cursor, offset: int) -> int:
        """Look back from an offset in growing steps until an event is found; reading always reaches the offset.

        It may take as long as it comes forward: an idle partition has had a barrier for each proof of ownership.
        """
        cursor.next_position, cursor.run = None, []
        step, last = TAIL_OFFSETS, 0
        with self._errors():
            start = offset
            while start > 0 and not last:
                start, step = max(offset - step, 0), step * 8
                cursor.reader.seek(start)
                expected: int | None = None
                for fetched in cursor.reader.until(offset, READ_TIMEOUT_S):
                    run = self._decoded(fetched, expected)
                    if run:
                        last, expected = run[-1].position, run[-1].position + 1
        return last

    # --- the cursors ----------------------------------------------------------------------------------------------

    @contextmanager
    def _cursor(self, position: int | None) -> Iterator[Cursor]:
        """Lend a cursor: the one that stands where reading goes on, or else the one idle for longest."""
        with self._lock:
            self._assert_open()
            while not self._idle and self._made >= CURSORS_MAX:
                self._lock.wait()
                self._assert_open()
            fit = [c for c in self._idle if _serves(c, position)] + [c for c in self._idle if c.next_position is None]
            cursor = fit[0] if fit else self._idle[0] if self._made >= CURSORS_MAX else None
            if cursor is not None:
                self._idle.remove(cursor)
            else:
                self._made += 1
        try:
            if cursor is None:
                with self._errors():
                    cursor = Cursor(Reader(self._options, self._topic, self._partition))
            yield cursor
        except BaseException:
            if cursor is not None:
                cursor.next_position, cursor.run = None, []  # where it stands is not known
            raise
        finally:
            with self._lock:
                if cursor is None:
                    self._made -= 1
                elif self._closed:
                    cursor.reader.close()
                else:
                    self._idle.append(cursor)
                self._lock.notify()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            try:
                yield
            except OffsetGone as error:
                raise LogCorrupt(self._hole(error)) from error
        except BrokerAway as error:
            raise LogUnavailable(
                f"{self._topic}-{self._partition} can not be read: {error}; "
                f"see that a broker answers at {self._options.bootstrap}"
            ) from error

    def _hole(self, error: OffsetGone) -> str:
        """Which positions are gone, as far as it can be told."""
        reader = Reader(self._options, self._topic, self._partition)
        try:
            beginning = self._cluster.beginning(self._topic, self._partition)
            end = self._cluster.stable_end(self._topic, self._partition)
            first = self._first_from(reader, beginning, end)
        finally:
            reader.close()
        if beginning == 0:
            return (
                f"{self._topic}-{self._partition} ends at offset {end}, and more was read of it before ({error}): its "
                "tail is lost, or the topic was deleted and made again; restore it"
            )
        gone = "nothing is left" if first is None else f"positions 1 to {first[0] - 1} are gone"
        return (
            f"{self._topic}-{self._partition} begins at offset {beginning}: {gone} ({error}); records of a ledger's "
            "topic must never be removed: restore the topic, and see its retention.ms and retention.bytes are -1"
        )

    def _assert_open(self) -> None:
        if self._closed:
            raise LedgerClosed(f"{self._topic}-{self._partition} is closed")

    def close(self) -> None:
        """Close the cursors; those in use are closed when they come back. Idempotent."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            self._lock.notify_all()
        for cursor in idle:
            cursor.reader.close()


def _serves(cursor: Cursor, position: int | None) -> bool:
    """Whether the cursor has that position in its run, or stands right before it."""
    if position is None:
        return cursor.next_position is None
    return cursor.next_position == position or bool(cursor.held(position - 1, 1))
