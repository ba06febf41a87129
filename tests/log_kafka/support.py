"""A ledger's topics on a broker, as a `Storage` of the shared suite and for tests of their own."""

from __future__ import annotations

import uuid

from session_ledger.ledger.log.kafka import KafkaLog
from session_ledger.ledger.log.kafka_lease import SESSION_TIMEOUT_MS
from session_ledger.ledger.log.port import Log
from tests.log.conformance import Storage

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
