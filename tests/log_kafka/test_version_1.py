"""A cluster whose transactions are of version 1 (before KIP-890): what the log promises holds there too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from session_ledger.ledger.log.kafka_partition import KafkaPartition
from tests.broker.broker import Broker
from tests.log.conformance import LogConformance, Storage
from tests.log_kafka.support import KafkaStorage

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.xdist_group("version 1")]


@pytest.fixture(scope="module")
def version_1(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker formatted so."""
    broker = Broker(tmp_path_factory.mktemp("version-1") / "broker", form=["--feature", "transaction.version=1"])
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()


class TestVersion1:
    """The cases of the shared suite that stand on transactions, fencing and kills."""

    @pytest.fixture
    def storage(self, version_1: Broker) -> Iterator[Storage]:
        storage = KafkaStorage(version_1.bootstrap)
        yield storage
        storage.close_all()

    test_append = LogConformance.test_what_is_appended_is_read_back
    test_refusal = LogConformance.test_an_append_has_one_batch_id_and_something_in_it
    test_settle = LogConformance.test_settle_tells_which_batch_stands
    test_whole_batches = LogConformance.test_readers_see_whole_batches_only
    test_takeover = LogConformance.test_a_takeover_under_load_interleaves_nothing
    test_kill = LogConformance.test_kill_of_the_writer_process_under_load

    def test_it_is_version_1(self, storage: Storage) -> None:
        """The producer sees what the cluster finalized."""
        partition = storage.open().partitions[0]
        assert isinstance(partition, KafkaPartition)
        assert partition._producer is not None
        assert not partition._producer._version_2
