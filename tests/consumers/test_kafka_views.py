"""The same code over a real broker: several partitions, read as committed, beside the owner."""

from __future__ import annotations

import time

import pytest

from session_ledger.consumers.projector import Projector, targets
from session_ledger.consumers.verify import verify
from session_ledger.consumers.views import Views
from session_ledger.consumers.wiring import open_store
from session_ledger.ledger.ledger import Ledger
from session_ledger.ledger.log.kafka import KafkaLog
from session_ledger.ledger.log.kafka_producer import Producer
from session_ledger.ledger.log.kafka_records import barrier
from session_ledger.ledger.log.kafka_types import ClientOptions
from tests.projections.rows import rows_in
from tests.projections.world import CODEC, World

pytestmark = pytest.mark.kafka


def test_views_of_a_log_on_kafka(kafka: str, ledger_name: str) -> None:
    """A reader beside the writer folds every partition to what was acknowledged; rebuilt and verified the same."""
    log = KafkaLog.open(kafka, ledger_name, partitions=2, write=True)
    try:
        world = World(4, log=log).play(60)
        acknowledged = targets([*(partition.end() for partition in log.partitions), log.control.end()])
        reader = KafkaLog.open(kafka, ledger_name, partitions=2, write=False)
        try:
            with open_store(reader, None) as store:
                projector = Projector(reader, CODEC, store, batch_records=20)
                assert len(world.events) == projector.catch_up(acknowledged)
                followed = rows_in(store)
                assert [] == verify(reader, CODEC, store, to=acknowledged).findings
                assert len(world.events) == projector.rebuild(acknowledged)
                assert followed == rows_in(store)
        finally:
            reader.close()
    finally:
        log.close()


def test_views_are_opened_beside_a_ledger_on_kafka(
    kafka: str, ledger_name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """An answer's position is waited for, then the read shows what was written."""
    url = f"kafka://{kafka}/{ledger_name}?partitions=2&replica={tmp_path_factory.mktemp('replica')}"
    with Ledger.open(url) as ledger:
        started = ledger.create_session("acme", "ada", title="Billing")
        answer = ledger.add_message("acme", "ada", started.session_id, role="user", content="hello")
        with Views.open(url) as views:
            views.wait(answer.partition, answer.position)
            session = views.session("acme", "ada", started.session_id, fresh=False)
            assert ("Billing", 1) == (session.title, session.messages)
            views.refresh(targets(ledger.positions()))
            assert [0, 0, 0] == [row.behind for row in views.projector.lag()]


def test_lag_shows_what_stands_behind_a_hanging_transaction(
    kafka: str, ledger_name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The high watermark less the last stable offset, of that partition alone; 0 again when the transaction ends."""
    url = f"kafka://{kafka}/{ledger_name}?partitions=2&replica={tmp_path_factory.mktemp('replica')}"
    with Ledger.open(url), Views.open(url) as views:
        hanging = Producer(ClientOptions(kafka, "test"), "hanging", f"{ledger_name}.events", 1)
        hanging.send([barrier(), barrier(), barrier()])
        assert [0, 0, 3] == [row.undecided for row in views.projector.lag()]
        hanging.abort()
        hanging.close()
        deadline_s = time.monotonic() + 10
        while any(row.undecided for row in views.projector.lag()):
            assert time.monotonic() < deadline_s
