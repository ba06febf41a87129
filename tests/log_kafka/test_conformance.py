"""The suite that every log passes, on a real broker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.log.conformance import LogConformance, Storage
from tests.log_kafka.support import KafkaStorage

pytestmark = pytest.mark.kafka


class TestKafkaLog(LogConformance):
    """The log on Kafka."""

    @pytest.fixture
    def storage(self, kafka: str) -> Iterator[Storage]:
        storage = KafkaStorage(kafka)
        yield storage
        storage.close_all()
