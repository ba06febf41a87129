"""The projector: keeps a store of views up to a log, rebuilds it, and says how far it is behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from session_ledger.consumers.tail import BATCH_RECORDS, PartitionStopped, Tail
from session_ledger.domain.errors import Misconfigured, SessionLedgerError, WaitTimeout
from session_ledger.ledger.log.port import Log, PartitionLog
from session_ledger.projections.port import Quarantined, Receipt
from session_ledger.projections.store import Store
from session_ledger.schemas.codec import Codec

STOP_S = 10.0  # a batch takes a tenth of a second, on a busy machine more
WAIT_POLL_S = 0.005  # another process may be the one that projects


@dataclass(frozen=True, slots=True)
class Lag:
    """How far the views are behind the log in one partition (-1: the control log)."""

    partition: int
    end: int
    """The last position of the log that is visible here."""
    position: int
    """The last position folded into the views."""
    quarantined: int = 0
    """Records that were stepped over on purpose."""
    stopped: str | None = None
    """Why the partition is not followed any more, where this projector has found that."""
    undecided: int = 0
    """Offsets of Kafka that are written and not stable yet (high watermark less last stable offset)."""

    @property
    def behind(self) -> int:
        """Records still to fold."""
        return max(self.end - self.position, 0)


def targets(acknowledged: Sequence[int]) -> dict[int, int]:
    """What `Ledger.positions()` says, the control log's position last, as partition to position."""
    *partitions, control = acknowledged
    return {-1: control, **dict(enumerate(partitions))}


class Projector:
    """Joins a log and a store. Thread-safe: one step at a time."""

    def __init__(self, log: Log, codec: Codec, store: Store, *, batch_records: int = BATCH_RECORDS) -> None:
        """The store must be of this log (`Store` checks the log's id when it opens)."""
        if store.log_id != log.log_id:
            raise Misconfigured(f"the views are of the log {store.log_id}, not of {log.log_id}")
        self._log = log
        self._codec = codec
        self._store = store
        self._batch_records = batch_records
        self._lock = threading.RLock()
        self._moved = threading.Condition()
        self._following: Tail | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self._tail = self._make_tail(store)

    def _make_tail(self, store: Store) -> Tail:
        def stepped_over(partition: int) -> frozenset[int]:
            return frozenset(record.position for record in store.quarantined(partition))

        return Tail(
            [self._log.control, *self._log.partitions],
            self._codec,
            store,
            stepped_over=stepped_over,
            batch_records=self._batch_records,
        )

    def partition(self, number: int) -> PartitionLog:
        """The log of a partition; -1 is the control log."""
        if not -1 <= number < len(self._log.partitions):
            raise Misconfigured(f"there is no partition {number}, only -1 to {len(self._log.partitions) - 1}")
        return self._log.control if number == -1 else self._log.partitions[number]

    # --- following ------------------------------------------------------------------------------------------------

    def catch_up(self, to: Mapping[int, int] | None = None) -> int:
        """Fold everything up to the positions `to` (None: each log's end now); the number of records folded.

        Views of another version of the projecting code are rebuilt first. Raises PartitionStopped once the other
        partitions have caught up, LogUnavailable, ProjectionConflict where another process holds the views too long.
        """
        with self._lock:
            if self._store.outdated:
                return self.rebuild(to)
            applied = self._tail.catch_up(to)
        self._notify()
        return applied

    def run(self, stop: threading.Event) -> None:
        """Follow the log until `stop` is set. A partition that can not go on is left in `stopped`, the others go on."""
        if self._store.outdated:
            self.rebuild()
        tail = self._following = self._make_tail(self._store)
        tail.run(stop, on_applied=self._notify)

    def start(self) -> None:
        """Run in a thread of its own, until `stop`."""
        if self._thread is not None:
            raise Misconfigured("the projector runs already")
        self._stop.clear()
        self._failure = None
        self._thread = threading.Thread(target=self._run_in_thread, name="projector", daemon=True)
        self._thread.start()

    def _run_in_thread(self) -> None:
        try:
            self.run(self._stop)
        except Exception as error:  # noqa: BLE001 - handed to whoever calls `stop`
            self._failure = error

    def stop(self, timeout_s: float = STOP_S) -> None:
        """End the thread after the batch that it is at. Idempotent.

        Raises WaitTimeout where that takes longer (the rows are sound all the same), and what ended the thread before,
        if something did: views that can not be used, a log that was closed.
        """
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._stop.set()
        thread.join(timeout_s)
        if thread.is_alive():
            raise WaitTimeout(f"the projector did not end its batch within {timeout_s} s")
        if self._failure is not None:
            raise self._failure

    def _notify(self) -> None:
        with self._moved:
            self._moved.notify_all()

    @property
    def stopped(self) -> dict[int, PartitionStopped]:
        """Partitions that are not followed any more, and why."""
        return dict(self._tail.stopped) | dict(self._following.stopped if self._following else {})

    @property
    def trouble(self) -> dict[int, SessionLedgerError]:
        """Partitions whose log can not be reached right now, and why."""
        return dict(self._following.trouble if self._following else {})

    # --- how far --------------------------------------------------------------------------------------------------

    def position(self, partition: int) -> int:
        """The last position folded."""
        return self._store.position(partition)

    def positions(self) -> dict[int, int]:
        """Partition to the last position folded; -1 is the control log."""
        return {number: self._store.position(number) for number in range(-1, len(self._log.partitions))}

    def receipts(self) -> list[Receipt]:
        """How far each projection is, and a hash over what it folded: see `Receipt`."""
        return self._store.receipts()

    def lag(self) -> list[Lag]:
        """One a partition, the control log (-1) first."""
        stopped = self.stopped
        rows = []
        for number in range(-1, len(self._log.partitions)):
            end, position = self.partition(number).end(), self._store.position(number)
            reason = str(stopped[number]) if number in stopped else None
            quarantined, undecided = len(self._store.quarantined(number)), self.partition(number).undecided()
            rows.append(Lag(number, end, position, quarantined, reason, undecided))
        return rows

    def wait(self, partition: int, position: int, timeout_s: float) -> None:
        """Return once that position is folded, by this projector or another; WaitTimeout where it takes longer."""
        self.partition(partition)
        deadline = time.monotonic() + timeout_s
        while (reached := self._store.position(partition)) < position:
            if partition in self.stopped:
                raise self.stopped[partition]
            left = deadline - time.monotonic()
            if left <= 0:
                raise WaitTimeout(
                    f"partition {partition} is projected to {reached}, not to {position}, after {timeout_s} s"
                )
            with self._moved:
                self._moved.wait(min(left, WAIT_POLL_S))

    # --- rebuilding -----------------------------------------------------------------------------------------------

    def rebuild(
        self, to: Mapping[int, int] | None = None, *, on_progress: Callable[[int], None] = lambda records: None
    ) -> int:
        """Build the views again from position 1 into a file beside, then put them in place in one step.

        Readers see the old rows until then. `to` as in `catch_up`; quarantined records stay stepped over.
        `on_progress` is told the records folded so far. Returns the number of records folded. Where a partition
        stops, the others are complete, what stands before the record is in place, and PartitionStopped is raised.
        """
        with self._lock:
            built = Store.temporary(
                log_id=self._log.log_id, projections=self._store.projections, directory=self._store.directory
            )
            with built:
                for record in self._store.quarantined():
                    built.quarantine(record)
                tail = self._make_tail(built)
                folded = 0
                targets = dict(to) if to is not None else self._ends()
                for partition, target in targets.items():
                    while (position := built.position(partition)) < target and partition not in tail.stopped:
                        chunk = {partition: min(position + 10 * self._batch_records, target)}
                        folded += tail.catch_up(chunk, raise_stopped=False)
                        on_progress(folded)
                stopped = dict(tail.stopped)
                self._store.adopt(built)
        self._tail.stopped.update(stopped)
        self._notify()
        for stop in stopped.values():
            raise stop
        return folded

    def _ends(self) -> dict[int, int]:
        return {number: self.partition(number).end() for number in range(-1, len(self._log.partitions))}

    # --- stepping over ----------------------------------------------------------------------------------------------

    def quarantine(self, partition: int, position: int, reason: str) -> Quarantined:
        """Step over one record that stops the partition, on purpose: the only way past it.

        The record's bytes and the reason stand in the table `quarantine`; `lag` counts it and `verify` reports it. The
        views are then those of the log without that record. Raises Misconfigured where there is no such record, or it
        is folded already.
        """
        records = self.partition(partition).read(position - 1, 1)
        if position < 1 or not records:
            raise Misconfigured(f"partition {partition} has no record at position {position}")
        record = records[0]
        row = Quarantined(partition, position, record.topic, record.originator_id, record.version, record.value, reason)
        self._store.quarantine(row)
        for tail in (self._tail, self._following):
            if tail is not None:
                tail.stopped.pop(partition, None)
        return row
