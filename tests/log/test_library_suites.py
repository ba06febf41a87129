"""The eventsourcing library's own recorder suites, run on every log that needs no server."""

from __future__ import annotations


from eventsourcing.tests import persistence as suite

from session_ledger.ledger.log.memory import MemoryLog
from session_ledger.ledger.log.recorder import RecordedPartition


class TestMemoryRecorder(suite.ApplicationRecorderTestCase[RecordedPartition]):
    """The application recorder's suite on the log in memory."""

    def create_recorder(self) -> RecordedPartition:
        log = MemoryLog()
        self.addCleanup(log.close)
        return log.partitions[0]

    def test_insert_subscribe(self) -> None:
        """A subscription yields what is recorded and what comes, and stops."""
        self.optional_test_insert_subscribe()


class TestMemoryNonInterleaving(suite.NonInterleavingNotificationIDsBaseCase):
    """Two concurrent inserts never mix their notification ids."""

    def create_recorder(self) -> RecordedPartition:
        log = MemoryLog()
        self.addCleanup(log.close)
        return log.partitions[0]


