"""A ledger that nobody used for hours: what brokers forget and close meanwhile does not fail its next command."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient

from session_ledger import Ledger, Views
from session_ledger.ledger.log import kafka_partition
from tests.broker.broker import Broker
from tests.ledger.support import assert_folds_equal_the_log, shards_of

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.xdist_group("idle")]

FORGETS = {
    "transactional.id.expiration.ms": "1000",
    "transaction.remove.expired.transaction.cleanup.interval.ms": "200",
    "producer.id.expiration.ms": "1000",
    "producer.id.expiration.check.interval.ms": "200",
    "connections.max.idle.ms": "1500",
}
PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that forgets producers and closes idle connections within seconds."""
    broker = Broker(tmp_path_factory.mktemp("forgetful") / "broker", properties=FORGETS)
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()


def await_forgotten(broker: Broker, ledger_name: str) -> None:
    """Until the broker knows no transactional id of the ledger."""
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    deadline_s = time.monotonic() + PATIENCE_S
    try:
        while any(ledger_name in str(known) for known in admin.list_transactions().values()):
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
    finally:
        admin.close()


def test_the_first_command_after_a_long_pause(
    forgetful: Broker, ledger_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands, checks and fresh reads succeed at once although the broker forgot the producers and hung up."""
    monkeypatch.setattr(kafka_partition, "REVIVE_EVERY_S", 0.5)  # hours are seconds here
    url = f"kafka://{forgetful.bootstrap}/{ledger_name}?partitions=1&replica={tmp_path / 'replica'}"
    with Ledger.open(url) as ledger, Views.open(url) as views:
        ledger.set_quota("t", "u", "calls", 5)
        for number in range(2):
            await_forgotten(forgetful, ledger_name)
            session = ledger.create_session("t", "u")
            await_forgotten(forgetful, ledger_name)
            assert 5 == ledger.check_quota("t", "u", "calls").limit
            assert number + 1 == len(views.sessions("t", "u").items)
        await_forgotten(forgetful, ledger_name)
        assert shards_of(ledger).positions()[0] == session.position
        assert_folds_equal_the_log(ledger)
