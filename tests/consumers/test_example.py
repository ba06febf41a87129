"""The consumer of the documentation, run as a user runs it, against a real broker."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from session_ledger import Ledger
from session_ledger.domain.events import TOPIC_BY_EVENT, MessageAdded, SchemaPublished
from session_ledger.ledger.log.kafka import KafkaLog
from session_ledger.ledger.log.port import Record
from session_ledger.schemas.codec import Codec
from session_ledger.schemas.library import parse
from tests.schemas.golden import example
from tests.schemas.http_registry import HttpRegistry
from tests.schemas.strategies import LIBRARY, SHAPES

pytestmark = pytest.mark.kafka

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "consumer.py"
WAIT_S = 60
MANY = 4000  # messages; each is a transaction of its own in the consumer's database
USERS = ("ada", "bob", "eve", "kim")


class Consumer:
    """The script with a database of its own."""

    def __init__(self, kafka: str, ledger: str, directory: Path) -> None:
        self._command = [sys.executable, str(SCRIPT), kafka, ledger, str(directory / "counts.db")]
        self._database = directory / "counts.db"

    def once(self, *more: str) -> subprocess.CompletedProcess[str]:
        """Run it to the end of the log."""
        command = [*self._command, "--once", *more]
        return subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)

    def follow(self) -> subprocess.Popen[bytes]:
        """Run it until it is ended."""
        return subprocess.Popen(self._command)

    def has(self, least: int) -> bool:
        """Whether so many messages are counted."""
        return self.counts().get("acme", (0, 0))[0] >= least

    def counts(self) -> dict[str, tuple[int, int]]:
        """Tenant to messages and tokens."""
        if not self._database.exists():
            return {}
        db = sqlite3.connect(self._database)
        try:
            rows = db.execute("SELECT tenant, sum(messages), sum(tokens) FROM messages GROUP BY tenant").fetchall()
        except sqlite3.OperationalError:  # it has not made its tables yet
            rows = []
        finally:
            db.close()
        return {tenant: (messages, tokens) for tenant, messages, tokens in rows}


def write(url: str, messages: int, registry: str | None = None) -> None:
    """Messages of several users, so that they stand in both partitions; opening and closing leaves aborted barriers."""
    with Ledger.open(url, schema_registry=registry) as ledger:
        for user in USERS:
            session = ledger.create_session("acme", user).session_id
            for number in range(messages):
                ledger.add_message("acme", user, session, role="user", content=f"{number}", tokens_in=2, tokens_out=1)


def eventually(holds: Callable[[], bool]) -> bool:
    """Whether it comes to hold."""
    deadline = time.monotonic() + WAIT_S
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()


@pytest.fixture
def url(kafka: str, ledger_name: str, tmp_path: Path) -> str:
    """A ledger of two partitions."""
    return f"kafka://{kafka}/{ledger_name}?partitions=2&replica={tmp_path / 'replica'}"


@pytest.fixture
def consumer(kafka: str, ledger_name: str, tmp_path: Path) -> Consumer:
    """The consumer of that ledger."""
    return Consumer(kafka, ledger_name, tmp_path)


def test_it_counts_what_stands_in_the_log_and_resumes(url: str, consumer: Consumer) -> None:
    """Each event once, over two runs, across the barriers that every owner leaves."""
    write(url, 3)
    assert "16 events\n" == consumer.once().stdout
    assert {"acme": (12, 36)} == consumer.counts()
    assert "0 events\n" == consumer.once().stdout
    write(url, 2)
    assert "12 events\n" == consumer.once().stdout
    assert {"acme": (20, 60)} == consumer.counts()


@pytest.mark.slow
def test_a_kill_loses_nothing_and_counts_nothing_twice(url: str, consumer: Consumer) -> None:
    """Rows and positions move together, wherever it dies."""

    async def many(ledger: Ledger) -> None:
        session = ledger.create_session("acme", "ada").session_id
        say = partial(ledger.aio.add_message, "acme", "ada", session, role="user", tokens_in=3)
        await asyncio.gather(*(say(content=f"{number}") for number in range(MANY)))

    with Ledger.open(url) as ledger:
        asyncio.run(many(ledger))
    for least in (10, MANY // 4):
        running = consumer.follow()
        try:
            assert eventually(partial(consumer.has, least))
        finally:
            running.send_signal(signal.SIGKILL)
            running.wait()
        assert consumer.counts()["acme"][0] < MANY, "it came to the end before it was killed"
    assert consumer.once().returncode == 0
    assert {"acme": (MANY, 3 * MANY)} == consumer.counts()


def test_both_forms_are_read(url: str, consumer: Consumer) -> None:
    """A ledger that got a registry; without its address the consumer says so, and goes on from there with it."""
    write(url, 1)
    with HttpRegistry() as registry:
        write(url, 1, registry.url)
        refused = consumer.once()
        assert (1, "name its registry by --registry") == (refused.returncode, refused.stderr.strip()[-31:])
        assert consumer.once("--registry", registry.url).returncode == 0
    assert {"acme": (8, 24)} == consumer.counts()


def append(kafka: str, name: str, value: bytes, fact: bytes) -> None:
    """Append a message's record to partition 0 as the owner, behind a published schema in the control log."""
    log = KafkaLog.open(kafka, name, partitions=2, write=True)
    try:
        for log_of, kind, content in ((log.control, SchemaPublished, fact), (log.partitions[0], MessageAdded, value)):
            record = Record(log_of.end() + 1, b"b" * 16, b"o" * 16, 1, TOPIC_BY_EVENT[kind], content)
            log_of.append([record])
    finally:
        log.close()


def test_a_schema_of_a_newer_writer_is_learned_from_the_control_log(
    url: str, consumer: Consumer, kafka: str, ledger_name: str
) -> None:
    """A fingerprint that no file has: the control log holds its text, and the fields that are known are read."""
    write(url, 1)
    ours = LIBRARY.of(MessageAdded)
    schema = ours.parsed()
    fields = [*schema["fields"], {"name": "mood", "type": ["null", "string"], "default": None}]  # type: ignore[misc]
    newer = parse(json.dumps({**schema, "fields": fields}))
    event = example(MessageAdded, SHAPES[MessageAdded])
    assert isinstance(event, MessageAdded)
    event = replace(event, tenant="globex", tokens_in=40, tokens_out=2)
    body = Codec().encode(event)[10:] + b"\x02\x08glad"
    published = example(SchemaPublished, SHAPES[SchemaPublished])
    assert isinstance(published, SchemaPublished)
    fact = replace(published, name=newer.topic, fingerprint=newer.fingerprint, schema_json=newer.text)
    value = b"\xc3\x01" + newer.fingerprint + body
    append(kafka, ledger_name, value, Codec().encode(fact))
    done = consumer.once()
    assert "9 events\n" == done.stdout, done.stderr
    assert (1, 42) == consumer.counts()["globex"]


def test_damage_ends_it_with_the_place(url: str, consumer: Consumer, tmp_path: Path) -> None:
    """A position that does not follow: nothing is skipped, and nothing is written."""
    write(url, 1)
    assert consumer.once().returncode == 0
    db = sqlite3.connect(tmp_path / "counts.db")
    with db:
        db.execute("UPDATE progress SET position = position + 7")  # as after a log that was put back
    db.close()
    write(url, 1)
    refused = consumer.once()
    assert 1 == refused.returncode
    assert "belongs" in refused.stderr
    assert {"acme": (4, 12)} == consumer.counts()
