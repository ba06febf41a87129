"""What the Kafka client takes, gives and raises: plain values, so that no other module needs kafka-python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, Protocol

MESSAGE_BYTES_MAX = 4 * 1024 * 1024  # a record batch as topic and client take it
RECORD_OVERHEAD_BYTES = 32  # lengths and deltas of one record, from above

Message = tuple[bytes | None, bytes, bytes]
"""Key, value and encoded headers (see `kafka_batch.headers`) of one record."""


class ClientError(Exception):
    """The client could not do it. `str` says what the broker or the client said."""


class BrokerAway(ClientError):
    """No broker answered in time, or none that leads what was asked for."""


class OffsetGone(ClientError):
    """The offset asked for is not in the partition: removed at the log's beginning, or past its end."""


class ProducerFailed(ClientError):
    """A transaction failed; the producer is of no use any more. `fenced`: another producer of its id was made.

    `forgotten`: the brokers know its id no more, after a long idle time; a new producer is all that it takes.
    `refused`: the brokers forbid it, or do not let this process in.
    """

    fenced = False
    forgotten = False
    refused = False


class Fetched(Protocol):
    """One committed record as the consumer gives it."""

    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


class Sent(NamedTuple):
    """Where a transaction's records stand, and the broker's clock when it took them (None: not told)."""

    first_offset: int
    last_offset: int
    broker_time_us: int | None


@dataclass(frozen=True)
class ClientOptions:
    """How to reach the brokers: ``host:port`` comma separated, and kafka-python's security options."""

    bootstrap: str
    client_id: str
    compression: str | None = None
    """"lz4", "gzip" or "none"; None takes lz4 where its library is installed, else none."""
    security: Mapping[str, str | int | float | bool] = field(default_factory=dict, repr=False)
    """`security_protocol`, `ssl_*` and `sasl_*` of kafka-python, and `sasl_plain_password_file`."""


def message_size(message: Message) -> int:
    """Bytes that a record takes uncompressed, from above."""
    key, value, headers = message
    return RECORD_OVERHEAD_BYTES + len(key or b"") + len(value) + len(headers)


class TopicFacts(NamedTuple):
    """What the cluster says of a topic; `configs` are all that apply, defaults included."""

    topic_id: str
    partitions: int
    replication_factor: int
    configs: Mapping[str, str]


class Member(NamedTuple):
    """A member of a group, as its coordinator knows it."""

    member_id: str
    client_id: str
    host: str


class Joined(NamedTuple):
    """The outcome of a join: the leader gets every member's metadata and assigns."""

    member_id: str
    generation: int
    leads: bool
    members: Mapping[str, bytes]


class Beat(Enum):
    """What the coordinator answers to a heartbeat."""

    ALIVE = "alive"
    REBALANCING = "rebalancing"  # join again, with the same member id
    GONE = "gone"  # not a member any more
