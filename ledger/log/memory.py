"""A log in memory: for tests and trials. What it holds is gone with its `MemoryStore`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Condition
from uuid import uuid4

from session_ledger.domain.errors import LedgerClosed, Misconfigured, NotOwner
from session_ledger.ledger.log.port import Log, Record
from session_ledger.ledger.log.recorder import RecordedPartition, check_batch

CONTROL = -1


@dataclass(eq=False)
class MemoryStore:
    """What a disk is to the other logs: the records, and who owns them. Give it to two logs and they share it."""

    name: str = "memory"
    partitions: int = 1
    log_id: str = field(default_factory=lambda: str(uuid4()))
    epoch: int = 0
    owned: bool = False
    changed: Condition = field(default_factory=Condition)
    records: dict[int, list[Record]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.partitions < 1:
            raise Misconfigured(f"a log needs at least one partition, not {self.partitions}")
        self.records = {number: [] for number in range(CONTROL, self.partitions)}


class MemoryLog(Log):
    """Partitions and control in one `MemoryStore`.

    A second log opened for writing on the same store raises NotOwner unless `take_over` is given.
    """

    durability = "nothing: an acknowledged event is lost with the process"

    def __init__(
        self,
        name: str = "memory",
        partitions: int = 1,
        *,
        store: MemoryStore | None = None,
        write: bool = True,
        take_over: bool = False,
    ) -> None:
        """`store` None makes a new one of that name and number of partitions; else those are the store's."""
        self._store = store or MemoryStore(name, partitions)
        self.url, self.name, self.log_id = "memory:", self._store.name, self._store.log_id
        self._epoch: int | None = self._claim(take_over) if write else None
        self.partitions = tuple(MemoryPartition(self._store, n, self._epoch) for n in range(self._store.partitions))
        self.control = MemoryPartition(self._store, CONTROL, self._epoch)

    def _claim(self, take_over: bool) -> int:
        with self._store.changed:
            if self._store.owned and not take_over:
                raise NotOwner("the log in memory is owned by another part of this process; take over, or close it")
            self._store.owned = True
            self._store.epoch += 1
            return self._store.epoch

    def close(self) -> None:
        """Close every partition and give up ownership. Idempotent."""
        for partition in (*self.partitions, self.control):
            partition.close()
        with self._store.changed:
            if self._store.epoch == self._epoch:
                self._store.owned = False
        self._epoch = None


class MemoryPartition(RecordedPartition):
    """One partition in memory. After `close` every call raises LedgerClosed; `wait` returns True."""

    def __init__(self, store: MemoryStore, partition: int, epoch: int | None) -> None:
        super().__init__()
        self.partition = partition
        self._store, self._epoch, self._closed = store, epoch, False
        self._records = store.records[partition]

    def append(self, records: Sequence[Record]) -> None:
        """See the port; never of unknown outcome."""
        with self._store.changed:
            self._assert_owner()
            check_batch(records, len(self._records))
            self._records.extend(records)
            self._store.changed.notify_all()

    def settle(self, batch_id: bytes, first_position: int) -> bool:
        """See the port."""
        with self._store.changed:
            self._assert_owner()
            at = self._records[first_position - 1 : first_position]
            before = self._records[first_position - 2 : first_position - 1] if first_position > 1 else []
            return [r.batch_id for r in at] == [batch_id] and all(r.batch_id != batch_id for r in before)

    def prove_ownership(self) -> None:
        """See the port."""
        with self._store.changed:
            self._assert_owner()

    def _assert_owner(self) -> None:
        self._assert_open()
        if self._epoch is None:
            raise NotOwner("the log in memory is open for reading only")
        if self._epoch != self._store.epoch:
            raise NotOwner("another part of this process took over the log in memory")

    def _assert_open(self) -> None:
        if self._closed:
            raise LedgerClosed("the log in memory is closed")

    def read(self, after: int, limit: int) -> list[Record]:
        """See the port; dense by construction."""
        self._assert_open()
        with self._store.changed:
            return self._records[after : after + limit]

    def end(self) -> int:
        """See the port."""
        self._assert_open()
        return len(self._records)

    def wait(self, after: int, timeout_s: float) -> bool:
        """See the port; True also when the log is closed, so that the caller looks again and learns it."""
        with self._store.changed:
            return self._store.changed.wait_for(lambda: self._closed or len(self._records) > after, timeout_s)

    def clock_us(self) -> int | None:
        """None: the machine's clock is the log's."""
        return None

    def close(self) -> None:
        """See the port; the log itself gives up ownership."""
        with self._store.changed:
            self._closed = True
            self._store.changed.notify_all()
