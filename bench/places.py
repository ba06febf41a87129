"""Where a measured ledger stands: SQLite in a temporary directory, or a broker of the run's own."""

from __future__ import annotations

import sqlite3
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from session_ledger.ledger.ledger import Ledger
from session_ledger.ledger.url import parse_url

READ_RECORDS = 5000


class Place(Protocol):
    """Makes fresh ledgers to be measured."""

    def opened(self, **options: object) -> AbstractContextManager[Ledger]:
        """A new, empty ledger, gone afterwards; `options` are settings."""

    def appends(self, ledger: Ledger) -> int:
        """How many appends its first partition holds, so that a floor can commit batches of the same size."""


class SQLitePlace:
    """Ledgers in temporary directories."""

    @contextmanager
    def opened(self, **options: object) -> Iterator[Ledger]:
        with tempfile.TemporaryDirectory() as directory, Ledger.open(f"sqlite:{directory}", **options) as ledger:
            yield ledger

    def appends(self, ledger: Ledger) -> int:
        directory = parse_url(ledger.url).directory
        connection = sqlite3.connect(f"file:{directory}/log.db?mode=ro", uri=True)
        (count,) = connection.execute("SELECT count(*) FROM batches").fetchone()
        connection.close()
        return int(count)


class KafkaPlace:
    """Ledgers of one partition on a broker, each with topics of its own and a temporary replica."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap

    @contextmanager
    def opened(self, **options: object) -> Iterator[Ledger]:
        with tempfile.TemporaryDirectory() as replica:
            name = f"bench-{uuid.uuid4().hex[:12]}"
            with Ledger.open(f"kafka://{self.bootstrap}/{name}?partitions=1&replica={replica}", **options) as ledger:
                yield ledger

    def appends(self, ledger: Ledger) -> int:
        partition, position, batches = ledger.log.partitions[0], 0, set[bytes]()
        while records := partition.read(position, READ_RECORDS):
            batches.update(record.batch_id for record in records)
            position = records[-1].position
        return len(batches)
