"""What the client's errors become in our words, and what is said where another process is in the way."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import pytest
from kafka import errors as kafka_errors

from session_ledger.domain.errors import LogUnavailable
from session_ledger.ledger.log import kafka_partition
from session_ledger.ledger.log.kafka_access import said
from session_ledger.ledger.log.kafka_producer import Producer
from session_ledger.ledger.log.kafka_types import ClientOptions
from tests.log.conformance import batch
from tests.log_kafka.support import KafkaStorage


@pytest.fixture
def storage(kafka: str) -> Iterator[KafkaStorage]:
    """A ledger of its own on the run's broker."""
    storage = KafkaStorage(kafka, partitions=1)
    yield storage
    storage.close_all()


@pytest.mark.parametrize(
    ("expected", "error"),
    [
        ("InvalidProducerEpochError", kafka_errors.for_code(47)()),
        ("TopicAuthorizationFailedError: topic x", kafka_errors.for_code(29)("topic x")),
        ("no connection: Connection refused", kafka_errors.KafkaConnectionError("111 ECONNREFUSED")),
        ("no connection: Connection refused", kafka_errors.KafkaConnectionError(ConnectionRefusedError(111, "x"))),
        (
            "no connection: unable to connect: No route to host",
            kafka_errors.KafkaConnectionError(f"unable to connect: {OSError(113, 'x')}"),
        ),
        ("no connection", kafka_errors.KafkaConnectionError()),
        ("no answer to a question", kafka_errors.KafkaTimeoutError("no answer to a question")),
        ("no answer in time", kafka_errors.KafkaTimeoutError()),
        ("CorrelationIdError", kafka_errors.CorrelationIdError()),
        ("no such option", kafka_errors.KafkaConfigurationError("no such option")),
        ("No such file or directory: password", FileNotFoundError(2, "No such file or directory", "password")),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version", ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version")),
        ("it is no text in UTF-8", UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")),
    ],
)
def test_an_error_is_said_once(expected: str, error: Exception) -> None:
    """Kafka's own name, which operators search for, is kept; nothing is said twice, and nothing of Python's."""
    assert expected == said(error)


@pytest.mark.kafka
def test_an_owner_that_somebody_tried_to_take_over_from(storage: KafkaStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that another process was in the way, not that its brokers are away, and goes on by itself."""
    monkeypatch.setattr(kafka_partition, "PROOF_AGE_S", 0.0)
    monkeypatch.setattr(kafka_partition, "REVIVE_EVERY_S", 0.0)
    partition = storage.open().partitions[0]
    partition.append(batch(0, 1))
    options = ClientOptions(storage.bootstrap, "another")
    Producer(options, f"{storage.name}-0", f"{storage.name}.events", 0).close()
    told = r"can not be proved: write: \w+Error; another process has taken the partition in between or tried to"
    with pytest.raises(LogUnavailable, match=told) as refused:
        partition.prove_ownership()
    assert refused.value.fenced
    partition.prove_ownership()
    partition.append(batch(1, 1))
