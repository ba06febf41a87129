"""What the ledger relies on in the client and in the group: fencing, and one holder at a time."""

from __future__ import annotations

import time
from typing import Any

import pytest

from session_ledger.domain.errors import LogUnavailable, NotOwner
from session_ledger.ledger.log import kafka_partition
from session_ledger.ledger.log.kafka_client import Cluster, Group
from session_ledger.ledger.log.kafka_lease import SESSION_TIMEOUT_MS, WANTS, OwnerLease
from session_ledger.ledger.log.kafka_partition import KafkaPartition
from session_ledger.ledger.log.kafka_producer import Producer
from session_ledger.ledger.log.kafka_records import barrier
from session_ledger.ledger.log.kafka_types import Beat, ClientOptions, ProducerFailed, Sent
from session_ledger.security.elapsed import elapsed_s
from tests.log_kafka.support import KafkaStorage

pytestmark = pytest.mark.kafka


def test_a_fenced_producer_never_fences_back(kafka: str) -> None:
    """Its writes fail as fenced, however often, and the producer that took over goes on."""
    storage = KafkaStorage(kafka, partitions=1)
    storage.open().close()
    options, place = ClientOptions(kafka, "test"), (storage.name, f"{storage.name}.events", 0)
    old = Producer(options, *place)
    new = Producer(options, *place)
    for _ in range(3):
        with pytest.raises(ProducerFailed) as failure:
            old.send([barrier()])
        assert failure.value.fenced
        new.send([barrier()])
        new.abort()
    old.discard()
    new.close()


def test_a_fenced_transaction_is_not_committed(kafka: str) -> None:
    """A transaction that another producer has ended can be neither committed nor aborted by its own."""
    storage = KafkaStorage(kafka, partitions=1)
    storage.open().close()
    options, place = ClientOptions(kafka, "test"), (storage.name, f"{storage.name}.events", 0)
    for end in (Producer.commit, Producer.abort):
        old = Producer(options, *place)
        old.send([barrier()])
        new = Producer(options, *place)
        with pytest.raises(ProducerFailed) as failure:
            end(old)
        assert failure.value.fenced
        old.discard()
        new.close()


def test_a_proof_of_ownership_is_old_when_the_machine_has_slept(kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for anew then, however little this process has run meanwhile."""
    slept_s, proofs = 0.0, 0
    monkeypatch.setattr(kafka_partition, "elapsed_s", lambda: elapsed_s() + slept_s)
    monkeypatch.setattr(kafka_partition, "PROOF_AGE_S", 60.0)
    storage = KafkaStorage(kafka, partitions=1)
    partition = storage.open().partitions[0]
    assert isinstance(partition, KafkaPartition)
    proved = partition._proved

    def noted(sent: Sent, started_s: float) -> None:
        nonlocal proofs
        proofs += 1
        proved(sent, started_s)

    monkeypatch.setattr(partition, "_proved", noted)
    for asleep_s in (0.0, 3600.0, 0.0):
        slept_s += asleep_s
        partition.prove_ownership()
        partition.prove_ownership()
    assert 1 == proofs
    storage.close_all()


def test_a_member_that_holds_keeps_its_place(kafka: str) -> None:
    """One that joins beside the holder is assigned nothing; the holder stays until it is put out or leaves."""
    ours, others = (Cluster(ClientOptions(kafka, name)) for name in ("ours", "other"))
    ledger = f"group-{time.monotonic_ns()}"
    lease = OwnerLease.acquire(ours, ledger, take_over=False)
    group = Group(others, f"{ledger}.owner", SESSION_TIMEOUT_MS)
    joined = group.join("", WANTS)
    assert joined is not None
    assert not joined.leads
    assert group.sync(joined, {}) == b""
    assert group.heartbeat(joined) is Beat.ALIVE
    group.leave([joined.member_id])
    lease.confirm()
    with pytest.raises(NotOwner, match=r"owned by ours at 127\.0\.0\.1"):
        OwnerLease.acquire(others, ledger, take_over=False)
    taken = OwnerLease.acquire(others, ledger, take_over=True)
    with pytest.raises(NotOwner, match="owned by other"):
        lease.confirm()
    lease.release()
    taken.release()
    assert group.members() == []
    ours.close()
    others.close()


def test_a_holder_that_was_put_out_while_nobody_came_is_back(kafka: str) -> None:
    """Whether the coordinator has forgotten the member, or still lists it under an id that is its own."""
    cluster = Cluster(ClientOptions(kafka, "ours"))
    ledger = f"group-{time.monotonic_ns()}"
    lease = OwnerLease.acquire(cluster, ledger, take_over=False)
    group = Group(cluster, f"{ledger}.owner", SESSION_TIMEOUT_MS)
    for _ in range(3):
        group.leave([member.member_id for member in group.members()])
        lease.confirm()
        assert 1 == len(group.members())
    generation = lease._joined
    assert generation is not None
    lease._joined = generation._replace(generation=generation.generation - 1)  # an answer to a join that was lost
    lease.confirm()
    assert 1 == len(group.members())
    ghost = group.join("", WANTS)  # a member of this process that the coordinator still lists
    assert ghost is not None
    lease._group.own.add(ghost.member_id)
    group.leave([member.member_id for member in group.members() if member.member_id != ghost.member_id])
    lease.confirm()
    lease.release()
    cluster.close()


@pytest.mark.parametrize("step", ["join", "sync"])
def test_a_holder_that_is_put_out_while_it_comes_back_is_back_later(
    kafka: str, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A coordinator that forgets the member between any two of its requests makes nobody else the owner."""
    cluster = Cluster(ClientOptions(kafka, "ours"))
    ledger = f"group-{time.monotonic_ns()}"
    lease = OwnerLease.acquire(cluster, ledger, take_over=False)
    group = Group(cluster, f"{ledger}.owner", SESSION_TIMEOUT_MS)
    real, put_out = getattr(lease._group, step), 0

    def after_it_was_put_out(*arguments: Any) -> Any:
        nonlocal put_out
        member = arguments[0].member_id if step == "sync" else arguments[0]
        if put_out < 6 and member:
            put_out += 1
            group.leave([member])
        return real(*arguments)

    monkeypatch.setattr(lease._group, step, after_it_was_put_out)
    group.leave([member.member_id for member in group.members()])
    deadline_s = time.monotonic() + 20
    while True:
        try:
            lease.confirm()
            if put_out == 6:
                break
        except LogUnavailable:
            assert time.monotonic() < deadline_s
    assert 1 == len(group.members())
    lease.release()
    cluster.close()
