"""A ledger's topics on a broker, as a `Storage` of the shared suite and for other tests; a load, and its judge."""

from __future__ import annotations

import threading
import time
import uuid

from kafka import KafkaAdminClient

from session_ledger.domain.errors import AppendFailed, LogUnavailable, OutcomeUnknown
from session_ledger.ledger.log.kafka import KafkaLog
from session_ledger.ledger.log.kafka_lease import SESSION_TIMEOUT_MS
from session_ledger.ledger.log.port import Log, PartitionLog
from tests.log.conformance import Storage, assert_whole_batches, batch, everything

PATIENCE_S = 60.0
DEAD_OWNER_S = SESSION_TIMEOUT_MS / 1000 + 4.0  # the session of a killed owner, and the broker's look at it


class KafkaStorage(Storage):
    """One ledger of a few partitions with topics of its own."""

    reader_lag_s = 2.0
    dead_owner_s = DEAD_OWNER_S

    def __init__(self, bootstrap: str, partitions: int = 2) -> None:
        super().__init__()
        self.bootstrap, self.partitions = bootstrap, partitions
        self.name = f"test-{uuid.uuid4().hex[:12]}"

    def open_log(self, *, write: bool, take_over: bool) -> Log:
        return KafkaLog.open(self.bootstrap, self.name, partitions=self.partitions, write=write, take_over=take_over)

    def opener(self) -> tuple[str, str]:
        return f"{__name__}:open_kafka", f"{self.bootstrap}/{self.name}/{self.partitions}"


def open_kafka(argument: str) -> Log:
    """The log of ``BOOTSTRAP/NAME/PARTITIONS``, for a process of its own; waits for a killed owner's end."""
    bootstrap, name, partitions = argument.rsplit("/", 2)
    storage = KafkaStorage(bootstrap, int(partitions))
    storage.name = name
    return storage.open_after_kill()


def delete_topics(bootstrap: str, *names: str) -> None:
    """Delete the topics, and wait until they are gone."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.delete_topics(sorted(names))
    deadline_s = time.monotonic() + 20
    while set(names) & set(admin.list_topics()):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    admin.close()


def topics_of(bootstrap: str, ledger: str) -> list[str]:
    """The ledger's topics that are there, without its name."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    found = sorted(name.removeprefix(f"{ledger}.") for name in admin.list_topics() if name.startswith(f"{ledger}."))
    admin.close()
    return found


class Load:
    """A thread that appends as a shard does: an unknown outcome is settled, a failure is tried again."""

    def __init__(self, partition: PartitionLog) -> None:
        self.partition = partition
        self.acknowledged: list[bytes] = []
        self.outcomes: list[str] = []
        self.error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                records = batch(self.partition.end(), 20)
                try:
                    self.partition.append(records)
                except AppendFailed:
                    self.outcomes.append("failed")
                    time.sleep(0.1)
                    continue
                except OutcomeUnknown:
                    written = self._settled(records[0].batch_id, records[0].position)
                    self.outcomes.append(f"settled: {written}")
                    if not written:
                        continue
                self.acknowledged.append(records[0].batch_id)
        except BaseException as error:  # told by `stop`
            self.error = error
            raise

    def _settled(self, batch_id: bytes, first: int) -> bool:
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self.partition.settle(batch_id, first)
            except LogUnavailable:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.2)

    def until(self, more: int) -> None:
        """Wait for so many further acknowledgements."""
        wanted, deadline_s = len(self.acknowledged) + more, time.monotonic() + PATIENCE_S
        while len(self.acknowledged) < wanted:
            assert self.error is None, self.error
            assert time.monotonic() < deadline_s, f"{len(self.acknowledged)} acknowledged; {self.outcomes}"
            time.sleep(0.01)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        assert self.error is None, self.error


def assert_history(partition: PartitionLog, acknowledged: list[bytes]) -> None:
    """Dense and whole, and every acknowledged batch is there, in the order of the acknowledgements."""
    records = everything(partition)
    assert_whole_batches(records)
    assert acknowledged == [record.batch_id for record in records if record.version == 1]
