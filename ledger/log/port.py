"""The log's port: one ordered, dense sequence of records a partition, and every outcome an append may have.

Adapters: `memory`, `sqlite`, `kafka`. All of them pass `tests/log` (the library's suites and ours).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from eventsourcing.persistence import ApplicationRecorder


class Record(NamedTuple):
    """One event as it stands in the log.

    `originator_id` is 16 bytes; `topic` the registered name of the event type; `value` its Avro bytes;
    `batch_id` the 16 random bytes of the append that wrote it; `key` the routing key (``tenant/user``); a log that has
    no use for the key gives it back empty.
    """

    position: int
    batch_id: bytes
    originator_id: bytes
    version: int
    topic: str
    value: bytes
    key: str = ""


class PartitionLog(ApplicationRecorder):
    """One partition: the ledger appends by `append` and reads by `read`; the library's port works on top of them.

    An instance opened for writing owns the partition; one opened for reading only raises NotOwner on `append`.
    Thread-safe. After `close` every call but `wait` raises LedgerClosed, and whoever waits is woken.
    """

    partition: int
    """0, 1, 2, ...; the control log is partition -1."""
    proof_age_s: float = 0.0
    """How old a proof of ownership may be when `prove_ownership` returns: 0.0, but for Kafka 1.0 seconds."""

    @abstractmethod
    def append(self, records: Sequence[Record]) -> None:
        """Make all records durable, or none. Their positions follow the end of the log densely; they share a batch id.

        Outcomes:

        - returns: durable, and visible to every reader that starts after this.
        - NotOwner: another owner took the partition; nothing was written, and this instance never writes again.
        - AppendFailed: nothing was written (disk full, size over the limit, positions do not follow the end).
        - OutcomeUnknown: all or none were written, which is not known; `settle` tells.
        """

    @abstractmethod
    def settle(self, batch_id: bytes, first_position: int) -> bool:
        """After OutcomeUnknown: True if that batch stands at those positions, False if it does not and never will.

        Raises NotOwner, or LogUnavailable where it can not be told yet.
        """

    @abstractmethod
    def prove_ownership(self) -> None:
        """Return only if this instance owned the partition at some instant after the call began less `proof_age_s`.

        Else NotOwner; LogUnavailable where it can not be told.
        """

    @abstractmethod
    def read(self, after: int, limit: int) -> list[Record]:
        """Up to `limit` committed records with positions `after` + 1, `after` + 2, ...; [] at the end.

        Raises LogCorrupt on a gap or a repeat, LogUnavailable where the log can not be reached.
        """

    @abstractmethod
    def end(self) -> int:
        """The position of the last record that is committed and visible to this instance; 0 for an empty log.

        For the owner this is exact. A reader of Kafka may lag the owner by an instant (see
        docs/consumers.md): ask the owner where "everything acknowledged so far" is meant.
        """

    @abstractmethod
    def wait(self, after: int, timeout_s: float) -> bool:
        """Block until a record after that position may be there, or the time is over; True: look again."""

    @abstractmethod
    def clock_us(self) -> int | None:
        """The log's own clock (a broker's), microseconds since the epoch; None where it is this machine's."""

    def undecided(self) -> int:
        """How many places at the end of the log are written and neither committed nor aborted yet (0 but for Kafka).

        More than a moment's worth says that a transaction hangs: what stands behind it is visible to no reader.
        Raises LogUnavailable.
        """
        return 0

    @abstractmethod
    def close(self) -> None:
        """Give up ownership and release what is open. Idempotent."""


class Log(ABC):
    """A ledger's whole log: its partitions and the control partition, opened together, owned together."""

    url: str
    name: str
    """The ledger's name: part of every seal's associated data and of every checkpoint's origin; never changes."""
    log_id: str
    """Made once when the log is created; a replica or projection of another log is recognised by it."""
    partitions: tuple[PartitionLog, ...]
    control: PartitionLog
    durability: str
    """One sentence: what survives what."""

    @abstractmethod
    def close(self) -> None:
        """Close every partition and give up ownership. Idempotent."""
