"""Checkpoints of a ledger on a real broker: a topic of the ledger, one checkpointer in the whole cluster, kills."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

from session_ledger.consumers.checkpointer import Checkpointer
from session_ledger.consumers.mirror import Mirror
from session_ledger.domain.errors import LogCorrupt, LogUnavailable, NotOwner, ProjectionInUse
from session_ledger.ledger.checkpoints import CheckpointLog, Kept, open_checkpoints
from session_ledger.ledger.log import kafka_checkpoints
from session_ledger.ledger.log.kafka_client import Reader
from session_ledger.ledger.log.kafka_producer import Producer
from session_ledger.ledger.log.kafka_types import Fetched
from session_ledger.ledger.open import open_settings
from session_ledger.ledger.url import parse_url
from session_ledger.security.checkpoint import origin_of
from session_ledger.security.signing import Signer
from tests.broker.broker import Broker
from tests.cli.shell import environment
from tests.consumers.signed import Signed

pytestmark = pytest.mark.kafka
FREE_S = 20.0  # until the place of a killed checkpointer is free


def on_kafka(bootstrap: str, name: str, directory: Path, partitions: int = 2) -> Signed:
    """A ledger there, with its local files in that directory."""
    return Signed(directory, f"kafka://{bootstrap}/{name}?partitions={partitions}&replica={directory}")


@pytest.fixture
def ledger(kafka: str, ledger_name: str, directory: Path) -> Signed:
    """A ledger of two partitions on the run's broker."""
    return on_kafka(kafka, ledger_name, directory)


def opened(ledger: Signed, *, write: bool) -> CheckpointLog:
    """Its checkpoints."""
    return open_checkpoints(parse_url(ledger.url), open_settings(None, {}), write=write)


def test_every_partition_is_signed_into_a_topic_of_the_ledger(ledger: Signed, ledger_name: str) -> None:
    """Whoever may read the topic has the notes; log, topic and mirror agree."""
    for _ in range(8):
        ledger.grow(3)
    signed = ledger.sign()
    assert {-1, 0, 1} == {one.partition for one in signed}
    ledger.grow(2)
    assert 1 == len(ledger.sign())
    reading = opened(ledger, write=False)
    kept = reading.read()
    with pytest.raises(NotOwner):
        reading.append(kept[0])
    reading.close()
    assert [-1, 0, 1] == sorted(one.partition for one in kept[:3])
    assert kept[-1].note.startswith(f"session-ledger/{ledger_name}/{kept[-1].partition}\n")
    found = ledger.check(mirror=True)
    assert ([], 4, 4) == (found.findings, sum(found.checkpoints.values()) - 4, sum(found.kept_outside.values()))
    with ledger.prover() as prover:
        session = prover.session(ledger.sessions[0])
        assert 4 == len(session["events"])  # type: ignore[arg-type]


def test_nothing_is_there_before_the_first_checkpoint(ledger: Signed) -> None:
    """A reader finds none, and makes no topic."""
    ledger.grow(1)
    for _ in range(2):
        reading = opened(ledger, write=False)
        assert [] == reading.read()
        reading.close()


def test_two_at_once_in_the_cluster_are_one_too_many(ledger: Signed, tmp_path: Path) -> None:
    """Also from another machine, with local files of its own: the second is told who works."""
    ledger.grow(3)
    elsewhere = Signed(tmp_path / "elsewhere", ledger.url.replace(str(ledger.directory), str(tmp_path / "elsewhere")))
    elsewhere.directory.mkdir()
    with Checkpointer(ledger.url) as first:
        with pytest.raises(ProjectionInUse, match=f"has a checkpointer already, session-ledger-.*-{os.getpid()} at"):
            Checkpointer(elsewhere.url)
        first.catch_up()
        assert first.sign_all()
    assert not (elsewhere.directory / "signing.key").exists()


def test_a_checkpointer_that_was_fenced_appends_nothing_more(ledger: Signed, ledger_name: str) -> None:
    """Whoever holds the transactional id is the one that appends, whatever another one believes."""
    ledger.grow(1)
    ledger.sign()
    first = opened(ledger, write=True)
    try:
        before = first.read()
        Producer(first._options, f"{ledger_name}-checkpointer", f"{ledger_name}.checkpoints", 0).discard()  # type: ignore[attr-defined]
        with pytest.raises(LogUnavailable, match="can not be used"):
            first.append(Kept(0, "a note"))
        assert before == first.read()
        first.append(Kept(0, "a note"))  # it still holds the place, so it makes a producer anew
        assert [*before, Kept(0, "a note")] == first.read()
    finally:
        first.close()


def test_however_many_there_are_they_are_read_as_long_as_some_come(
    ledger: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline counts from the last one that came, not from the first; where none comes it still ends."""
    ledger.grow(1)
    writing = opened(ledger, write=True)
    notes = [Kept(0, f"note {number}") for number in range(8)]
    for one in notes:
        writing.append(one)
    monkeypatch.setattr(kafka_checkpoints, "BACK_OFFSETS", 2)
    assert ["note 7", None] == [writing.newest(partition) for partition in (0, 1)]
    writing.append(Kept(1, "another"))
    notes.append(Kept(1, "another"))
    assert ["note 7", "another"] == [writing.newest(partition) for partition in (0, 1)]
    poll = Reader.poll

    def slowly(reader: Reader, timeout_s: float, records: int) -> Sequence[Fetched]:
        time.sleep(0.2)
        return poll(reader, timeout_s, 1)

    monkeypatch.setattr(kafka_checkpoints, "READ_TIMEOUT_S", 1.0)
    monkeypatch.setattr(Reader, "poll", slowly)
    assert notes == writing.read()
    monkeypatch.setattr(Reader, "poll", lambda reader, timeout_s, records: [])
    with pytest.raises(LogUnavailable, match="nothing came for 1 s"):
        writing.read()
    writing.close()


def test_without_its_local_files_it_goes_on_from_the_topic(ledger: Signed) -> None:
    """Trees are made again from the log, and what was signed before is in them; the key must be the same."""
    ledger.grown_and_signed(5)
    key = (ledger.directory / "signing.key").read_bytes()
    for file in ledger.directory.glob("merkle.db*"):
        file.unlink()
    assert [] == ledger.sign()
    ledger.grow(2)
    assert 1 == len(ledger.sign())
    assert key == (ledger.directory / "signing.key").read_bytes()
    assert [] == ledger.found(mirror=True)


@pytest.mark.slow
def test_a_killed_checkpointer_never_contradicts_itself(ledger: Signed) -> None:
    """kill -9 at any moment: the topic holds one history, each size once, and the next one goes on."""
    luck = random.Random(3)
    command = [sys.executable, "-m", "session_ledger.cli.main", "checkpoint", "--every-records", "2", "--json"]
    command += ["--mirror", str(ledger.mirror), "-u", ledger.url]
    for _ in range(2):
        for _ in range(4):
            ledger.grow(20)
        process = started(command)
        time.sleep(luck.random() * 0.3)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    wait_until_free(ledger)
    found = ledger.check(mirror=True)
    assert [] == found.findings
    assert found.ends == found.protected_outside
    reading = opened(ledger, write=False)
    sizes = [(one.partition, int(one.note.split("\n")[1])) for one in reading.read()]
    reading.close()
    assert len(set(sizes)) == len(sizes)


def started(command: list[str]) -> subprocess.Popen[bytes]:
    """A checkpointer that has signed; tried again while the place of the one before is not free."""
    deadline_s = time.monotonic() + FREE_S
    while True:
        process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        if b"tree_size" in process.stdout.readline():
            return process
        problem = process.communicate()[1]
        assert b"has a checkpointer already" in problem, problem
        assert time.monotonic() < deadline_s
        time.sleep(0.5)


def wait_until_free(ledger: Signed) -> None:
    """Sign, as soon as the place of the killed one is free."""
    deadline_s = time.monotonic() + FREE_S
    while True:
        try:
            ledger.sign()
            return
        except ProjectionInUse:
            assert time.monotonic() < deadline_s
            time.sleep(0.5)


# --- tampering: a topic made again, by somebody who runs the brokers --------------------------------------------------


def rewritten(bootstrap: str, topic: str, change: Any) -> None:
    """Delete the topic and make it again from its committed records, changed."""
    at = TopicPartition(topic, 0)
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, isolation_level="read_committed", enable_auto_commit=False)
    consumer.assign([at])
    consumer.seek_to_beginning(at)
    end, records = consumer.end_offsets([at])[at], list[Any]()
    while consumer.position(at) < end:
        records += consumer.poll(500).get(at, ())
    consumer.close()
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    configs = {"retention.ms": "-1", "retention.bytes": "-1", "max.message.bytes": str(4 * 1024 * 1024)}
    configs["message.timestamp.type"] = "LogAppendTime"
    admin.delete_topics([topic])
    deadline_s = time.monotonic() + FREE_S
    while topic in admin.list_topics():
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
    wanted = {"num_partitions": 1, "replication_factor": 1, "configs": configs}
    admin.create_topics({topic: wanted}, wait_for_metadata=True)
    admin.close()
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    for record in change(records):
        producer.send(topic, record.value, record.key, list(record.headers), 0).get(30)
    producer.close()


@pytest.mark.slow
def test_a_topic_that_was_made_again_with_a_changed_record_is_found(own_broker: Broker, directory: Path) -> None:
    """Positions and headers as they were, one value changed, one record lost at the end: both are found."""
    ledger = on_kafka(own_broker.bootstrap, "tampered", directory, partitions=1)
    ledger.grown_and_signed(6, 4)
    assert [] == ledger.found(mirror=True)

    def changed(records: list[Any]) -> list[Any]:
        one = records[8]
        return [*records[:8], one._replace(value=one.value[:-1] + bytes([one.value[-1] ^ 1])), *records[9:]]

    rewritten(own_broker.bootstrap, "tampered.events", changed)
    assert [("changed", 0, 8)] == ledger.found()
    rewritten(own_broker.bootstrap, "tampered.events", lambda records: records[:-2])
    assert ("truncated", 0, 11) in ledger.found()
    (ledger.directory / "merkle.db").unlink()  # another topic: its id is another one
    with pytest.raises(LogCorrupt, match="ends at position 10, and a checkpoint is signed over 12"):
        ledger.sign()


def test_a_foreign_note_in_the_topic_is_found(ledger: Signed, ledger_name: str) -> None:
    """Whoever may write the topic without the key can add what is no checkpoint of ours; it is told."""
    ledger.grown_and_signed(2)
    first = opened(ledger, write=True)
    (partition, *_) = [one.partition for one in first.read() if one.partition >= 0]
    note = Mirror(ledger.mirror).read(origin_of(ledger_name, partition))[0][1]
    first.append(Kept(partition, note.replace("\n3\n", "\n4\n")))
    first.close()
    assert [("signature", partition, None)] == ledger.found()
    assert str(Signer(ledger.directory / "signing.key", ledger_name).verifier)
