"""The topics of a ledger: made on the first open for writing, checked on every one, and what they promise."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from session_ledger.domain.errors import LogCorrupt, LogRefused, LogUnavailable, Misconfigured
from session_ledger.ledger.log.kafka_client import Cluster
from session_ledger.ledger.log.kafka_types import MESSAGE_BYTES_MAX, TopicFacts

PARTITIONS_MAX = 4096  # slots
CREATED_TIMEOUT_S = 10.0  # until every broker knows a new topic
LOST_AFTER_S = 2.0  # a broker that knows a new topic late, or an owner between the two that it makes, is no loss
SAFE_REPLICATION = 3
SAFE_ISR = 2
KEEPS_EVERYTHING = {"retention.ms": "-1", "retention.bytes": "-1", "cleanup.policy": "delete"}


class Topics(NamedTuple):
    """What stands in the cluster for a ledger."""

    events: TopicFacts
    control: TopicFacts


def events_topic(ledger: str) -> str:
    """The topic of the ledger's events."""
    return f"{ledger}.events"


def control_topic(ledger: str) -> str:
    """The topic of the ledger's control log."""
    return f"{ledger}.control"


def checkpoints_topic(ledger: str) -> str:
    """The topic of the ledger's signed checkpoints."""
    return f"{ledger}.checkpoints"


def ensure_checkpoints_topic(cluster: Cluster, ledger: str, replication_factor: int | None) -> TopicFacts:
    """The topic of the checkpoints, made where it is missing. Raises Misconfigured, LogUnavailable."""
    return _ensure(cluster, checkpoints_topic(ledger), 1, replication_factor, create=True)


def ensure_topics(
    cluster: Cluster,
    ledger: str,
    partitions: int,
    replication_factor: int | None,
    create: bool,
    left: Sequence[Path] = (),
) -> Topics:
    """The ledger's topics, made if `create` and they are missing. Events are made first, so control tells of them.

    `left`: local files that only come with a log, found before this: where they are, a topic that is not there is lost,
    and none is made in its place. Raises Misconfigured, LogUnavailable, LogCorrupt (one of the two is lost).
    """
    if re.fullmatch(r"[A-Za-z0-9._-]{1,200}", ledger) is None:
        raise Misconfigured(f"{ledger!r} can not name a ledger on Kafka: use letters, digits, '.', '_' and '-'")
    if not 1 <= partitions <= PARTITIONS_MAX or partitions & (partitions - 1):
        raise Misconfigured(f"partitions={partitions}: must be a power of two from 1 to {PARTITIONS_MAX}")
    _assert_not_lost(cluster, ledger, left)
    events = _ensure(cluster, events_topic(ledger), partitions, replication_factor, create)
    control = _ensure(cluster, control_topic(ledger), 1, replication_factor, create)
    return Topics(events, control)


def _assert_not_lost(cluster: Cluster, ledger: str, left: Sequence[Path]) -> None:
    """Raise for a topic that was there and is not; a first creation that was broken off between the two goes on."""
    events, control = events_topic(ledger), control_topic(ledger)
    deadline_s = time.monotonic() + LOST_AFTER_S
    traces = [f"{path.name} in {path.parent}" for path in left]
    while True:
        has_control = cluster.topic(control) is not None  # made last, so asked for first
        facts = cluster.topic(events)
        whole = facts is not None and has_control
        if whole:
            return
        if facts is None and not has_control and not traces:
            if not _has_checkpoints(cluster, ledger):
                return
            traces = [f"the topic {checkpoints_topic(ledger)}"]
        if time.monotonic() > deadline_s:
            break
        time.sleep(0.05)
    told = ", ".join(traces)
    beside = f" ({told} came with it)" if traces else ""
    if has_control:
        raise LogCorrupt(
            f"there is no topic {events}, and {control} is there: the events are lost{beside}; restore the topic. "
            "Nothing was made in its place"
        )
    if facts is None:
        raise LogUnavailable(
            f"there are no topics {events} and {control}, and what only comes with a log is there ({told}): see "
            "the ledger's name; where they are lost, restore them. To begin a new ledger, take another name, or delete "
            "the topic of the checkpoints and take another replica directory (`?replica=DIR`)"
        )
    if traces or any(cluster.high_watermark(events, number) for number in range(facts.partitions)):
        raise LogCorrupt(
            f"there is no topic {control}, and {events} holds what was written after it was made{beside}: it is lost; "
            "restore the topic. Nothing was made in its place"
        )


def _has_checkpoints(cluster: Cluster, ledger: str) -> bool:
    """Whether something of a ledger of that name was signed; not known to whom the brokers do not tell."""
    try:
        return cluster.topic(checkpoints_topic(ledger)) is not None
    except LogRefused:
        return False


def _ensure(cluster: Cluster, name: str, partitions: int, replication_factor: int | None, create: bool) -> TopicFacts:
    facts = cluster.topic(name)
    if facts is None:
        if not create:
            raise LogUnavailable(
                f"there is no topic {name}: see the ledger's name; its owner makes it, which is `session-ledger serve` "
                "or any command that records"
            )
        factor = replication_factor or (SAFE_REPLICATION if cluster.brokers() >= SAFE_REPLICATION else 1)
        cluster.create_topic(name, partitions, factor, _configs(factor))
        deadline_s = time.monotonic() + CREATED_TIMEOUT_S
        while (facts := cluster.topic(name)) is None and time.monotonic() < deadline_s:
            time.sleep(0.05)  # one broker made it, and another one answers
        if facts is None:
            raise LogUnavailable(f"topic {name} was created and is not there: try again")
    _check(name, facts, partitions, replication_factor)
    return facts


def _configs(replication_factor: int) -> dict[str, str]:
    return {
        **KEEPS_EVERYTHING,
        "min.insync.replicas": str(SAFE_ISR if replication_factor >= SAFE_REPLICATION else 1),
        "unclean.leader.election.enable": "false",
        "max.message.bytes": str(MESSAGE_BYTES_MAX),
        "compression.type": "producer",
        "message.timestamp.type": "LogAppendTime",  # the broker's clock; the writer's stands in the value
    }


def _check(name: str, facts: TopicFacts, partitions: int, replication_factor: int | None) -> None:
    if facts.partitions != partitions:
        raise Misconfigured(
            f"topic {name} has {facts.partitions} partitions and the ledger is opened with {partitions}: "
            f"open it with {facts.partitions}; the number never changes"
        )
    if replication_factor not in (None, facts.replication_factor):
        raise Misconfigured(
            f"topic {name} has replication factor {facts.replication_factor} and the ledger's URL says "
            f"replication={replication_factor}: say {facts.replication_factor}, or reassign the topic's replicas"
        )
    in_sync = int(facts.configs.get("min.insync.replicas", "1"))
    if facts.replication_factor >= SAFE_REPLICATION and in_sync < SAFE_ISR:
        raise Misconfigured(
            f"topic {name} has replication factor {facts.replication_factor} and min.insync.replicas={in_sync}, so "
            f"what is acknowledged may be on one broker only: set it to {SAFE_ISR}"
        )
    for key, wanted in KEEPS_EVERYTHING.items():
        if facts.configs.get(key) != wanted:
            raise Misconfigured(
                f"topic {name} has {key}={facts.configs.get(key)}, which removes records: set it to {wanted}"
            )
    if int(facts.configs.get("max.message.bytes", "0")) < MESSAGE_BYTES_MAX:
        has = facts.configs.get("max.message.bytes")
        raise Misconfigured(f"topic {name} has max.message.bytes={has}: set it to {MESSAGE_BYTES_MAX}")


def has_broker_clock(facts: TopicFacts) -> bool:
    """Whether the topic's timestamps are the broker's."""
    return facts.configs.get("message.timestamp.type") == "LogAppendTime"


def durability(topics: Topics) -> str:
    """One sentence: what survives what."""
    factor = min(facts.replication_factor for facts in topics)
    isr = min(int(facts.configs.get("min.insync.replicas", "1")) for facts in topics)
    unclean = any(facts.configs.get("unclean.leader.election.enable") == "true" for facts in topics)
    settings = f"replication factor {factor}, min.insync.replicas {isr}"
    if unclean:
        return f"not promised: unclean.leader.election.enable is true, so acknowledged events may be lost ({settings})"
    if isr >= SAFE_ISR and factor > isr:
        return f"acknowledged events are on {isr} brokers or more and survive the loss of {isr - 1} ({settings})"
    if isr >= SAFE_ISR:
        return f"acknowledged events are on {isr} brokers; nothing is written while one of them is away ({settings})"
    return f"acknowledged events may be on one broker only: what its machine loses is lost ({settings})"
