"""The eventsourcing library's own recorder suites, on a real broker."""

from __future__ import annotations

from unittest import TestCase

import pytest
from eventsourcing.persistence import ApplicationRecorder
from eventsourcing.tests import persistence as suite

from tests.log_kafka.support import KafkaStorage

pytestmark = pytest.mark.kafka


class OnKafka(TestCase):
    """Gives each test a ledger of its own."""

    bootstrap: str

    @pytest.fixture(autouse=True)
    def _broker(self, kafka: str) -> None:
        self.bootstrap = kafka

    def create_recorder(self) -> ApplicationRecorder:
        """A fresh log of one partition; it is closed after the test."""
        storage = KafkaStorage(self.bootstrap, partitions=1)
        self.addCleanup(storage.close_all)
        return storage.open().partitions[0]


class TestKafkaRecorder(OnKafka, suite.ApplicationRecorderTestCase[ApplicationRecorder]):
    """The application recorder's suite."""

    def test_insert_subscribe(self) -> None:
        """A subscription yields what is recorded and what comes, and stops."""
        self.optional_test_insert_subscribe()


class TestKafkaNonInterleaving(OnKafka, suite.NonInterleavingNotificationIDsBaseCase):
    """Two concurrent inserts never mix their notification ids."""
