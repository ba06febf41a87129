"""The eventsourcing library's own recorder suites, run on every log that needs no server."""

from __future__ import annotations

from tempfile import TemporaryDirectory
from unittest import TestCase

from eventsourcing.persistence import ApplicationRecorder
from eventsourcing.tests import persistence as suite

from session_ledger.ledger.log.memory import MemoryLog
from session_ledger.ledger.log.sqlite import SQLiteLog


class TestMemoryRecorder(suite.ApplicationRecorderTestCase[ApplicationRecorder]):
    """The application recorder's suite on the log in memory."""

    def create_recorder(self) -> ApplicationRecorder:
        log = MemoryLog()
        self.addCleanup(log.close)
        return log.partitions[0]

    def test_insert_subscribe(self) -> None:
        """A subscription yields what is recorded and what comes, and stops."""
        self.optional_test_insert_subscribe()


class TestMemoryNonInterleaving(suite.NonInterleavingNotificationIDsBaseCase):
    """Two concurrent inserts never mix their notification ids."""

    def create_recorder(self) -> ApplicationRecorder:
        log = MemoryLog()
        self.addCleanup(log.close)
        return log.partitions[0]


class TestSQLiteRecorder(suite.ApplicationRecorderTestCase[ApplicationRecorder]):
    """The application recorder's suite on the log in a directory."""

    def create_recorder(self) -> ApplicationRecorder:
        return sqlite_recorder(self)

    def test_insert_subscribe(self) -> None:
        """A subscription yields what is recorded and what comes, and stops."""
        self.optional_test_insert_subscribe()


class TestSQLiteNonInterleaving(suite.NonInterleavingNotificationIDsBaseCase):
    """Two concurrent inserts never mix their notification ids."""

    def create_recorder(self) -> ApplicationRecorder:
        return sqlite_recorder(self)


def sqlite_recorder(case: TestCase) -> ApplicationRecorder:
    """A fresh log in a directory that goes with the test."""
    directory = TemporaryDirectory()
    case.addCleanup(directory.cleanup)
    log = SQLiteLog.open(directory.name, name="suite", write=True, create=True)
    case.addCleanup(log.close)
    return log.partitions[0]
