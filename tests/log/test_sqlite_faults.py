"""The log in a directory when the disk fails: nothing of a failed append stands, and doubt is settled."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from session_ledger.domain.errors import AppendFailed, OutcomeUnknown
from session_ledger.ledger.log.port import PartitionLog
from session_ledger.ledger.log.recorder import VersionConflict
from session_ledger.ledger.log.sqlite import SQLiteLog
from session_ledger.ledger.log.sqlite_readers import connect
from tests.log.conformance import ROOT, assert_whole_batches, batch, everything, stored


class FaultyConnection(sqlite3.Connection):
    """A connection whose next COMMITs fail as a disk would let them: before they are done, or after."""

    fail_before = 0
    fail_after = 0

    def execute(self, sql: str, parameters: object = (), /) -> sqlite3.Cursor:
        """Run the statement, or fail with SQLITE_IOERR_FSYNC."""
        if sql == "COMMIT" and self.fail_before > 0:
            self.fail_before -= 1
            raise io_error()
        cursor = super().execute(sql, parameters)  # type: ignore[arg-type]
        if sql == "COMMIT" and self.fail_after > 0:
            self.fail_after -= 1
            raise io_error()
        return cursor


def io_error() -> sqlite3.OperationalError:
    """What a failed sync raises."""
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_IOERR_FSYNC, "SQLITE_IOERR_FSYNC"
    return error


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> list[FaultyConnection]:
    """The faulty connections that are opened for writing, in order."""
    opened: list[FaultyConnection] = []
    plain = sqlite3.connect

    def connect(database: str, **options: object) -> sqlite3.Connection:
        if "mode=rw" not in database:
            return plain(database, **options)  # type: ignore[call-overload,no-any-return]
        opened.append(plain(database, factory=FaultyConnection, **options))  # type: ignore[call-overload]
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", connect)
    return opened


@pytest.fixture
def partition(connection: list[FaultyConnection], tmp_path: Path) -> Iterator[PartitionLog]:
    """The partition of a log with three records, written through a faulty connection."""
    log = SQLiteLog.open(tmp_path, write=True, create=True)
    log.partitions[0].append(batch(0, 3))
    yield log.partitions[0]
    log.close()


def test_a_commit_that_fails_and_is_not_there(partition: PartitionLog, connection: list[FaultyConnection]) -> None:
    """AppendFailed; nothing stands; the next append succeeds."""
    connection[0].fail_before = 1
    with pytest.raises(AppendFailed, match="disk I/O error"):
        partition.append(batch(3, 2))
    assert partition.end() == 3
    partition.append(batch(3, 2))
    assert_whole_batches(everything(partition))


def test_a_commit_that_fails_and_is_there(
    partition: PartitionLog, connection: list[FaultyConnection], tmp_path: Path
) -> None:
    """The append is found, brought to the disk once more (into the database file), and acknowledged."""
    connection[0].fail_after = 1
    records = batch(3, 2)
    partition.append(records)
    assert stored(records) == stored(partition.read(3, 10))
    file_alone = connect(tmp_path / "log.db", write=False, immutable=True)
    assert file_alone.execute("SELECT max(position) FROM events").fetchone() == (5,)
    file_alone.close()
    partition.append(batch(5, 1))
    assert_whole_batches(everything(partition))


@pytest.mark.parametrize("stands", [True, False])
def test_an_outcome_that_stays_unknown_is_settled_later(
    partition: PartitionLog, connection: list[FaultyConnection], stands: bool
) -> None:
    """OutcomeUnknown while the disk fails on; then `settle` tells the truth, and the log goes on."""
    records = batch(3, 2)
    connection[0].fail_before, connection[0].fail_after = (0, 2) if stands else (2, 0)
    with pytest.raises(OutcomeUnknown, match="disk I/O error"):
        partition.append(records)
    assert partition.settle(records[0].batch_id, 4) is stands
    assert partition.end() == (5 if stands else 3)
    partition.append(batch(partition.end(), 1))
    assert_whole_batches(everything(partition))


def test_a_full_database_leaves_nothing(partition: PartitionLog, connection: list[FaultyConnection]) -> None:
    """SQLITE_FULL in the middle of an append: AppendFailed says so; with room again the same append succeeds."""
    connection[0].execute("PRAGMA max_page_count = 40")
    records = batch(3, 500, size=1000)
    for _ in range(2):
        with pytest.raises(AppendFailed, match=r"full.*nothing was written"):
            partition.append(records)
        assert partition.end() == 3
    partition.append(batch(3, 1))
    connection[0].execute("PRAGMA max_page_count = 100000")
    partition.append(batch(4, 500, size=1000))
    assert_whole_batches(everything(partition))


def test_a_topic_of_a_failed_append_is_not_remembered(
    partition: PartitionLog, connection: list[FaultyConnection]
) -> None:
    """The topic's number was rolled back with the append, so the next append numbers it again."""
    records = [record._replace(topic="seldom") for record in batch(3, 2)]
    connection[0].fail_before = 1
    with pytest.raises(AppendFailed):
        partition.append(records)
    with pytest.raises(VersionConflict):
        partition.append([record._replace(version=1) for record in records])
    partition.append(records)
    assert ["seldom", "seldom"] == [record.topic for record in partition.read(3, 10)]


def test_a_version_stands_once(partition: PartitionLog) -> None:
    """An append with a version that is in the log, or twice in it, is refused, not retriable, and leaves nothing."""
    there = partition.read(0, 3)
    again = [r._replace(originator_id=there[2].originator_id, version=3) for r in batch(3, 1)]
    twice = [r._replace(version=1) for r in batch(3, 2)]
    for records in (again, twice):
        with pytest.raises(VersionConflict) as raised:
            partition.append(records)
        assert raised.value.retriable is False
        assert partition.end() == 3


LIMITED = """
import json, os, resource, sys
from session_ledger.domain.errors import AppendFailed, OutcomeUnknown
from session_ledger.ledger.log.sqlite import SQLiteLog
from tests.log.conformance import batch

log = SQLiteLog.open(sys.argv[1], write=True, create=True)
partition = log.partitions[0]
acknowledged, outcomes, unsettled = [], [], []
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
for size in range(200_000, 1_000_000, 20_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    for _ in range(3):
        records = batch(partition.end(), 60, size=400)
        try:
            partition.append(records)
            acknowledged.append(records[0].batch_id.hex())
            outcomes.append("done")
        except (AppendFailed, OutcomeUnknown) as error:
            outcomes.append(type(error).__name__)
            if isinstance(error, OutcomeUnknown):
                resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
                if partition.settle(records[0].batch_id, records[0].position):
                    acknowledged.append(records[0].batch_id.hex())
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
print(json.dumps([acknowledged, outcomes]), flush=True)
os._exit(0)  # no close: what is there must be in the files already
"""


def test_a_file_size_limit_leaves_whole_batches(tmp_path: Path) -> None:
    """Writes that the system really cuts off: every acknowledged batch stands whole, and no other does."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    acknowledged, outcomes = json.loads(done.stdout)
    assert {"done", "AppendFailed"} <= set(outcomes)
    log = SQLiteLog.open(tmp_path, write=True)
    records = everything(log.partitions[0])
    assert_whole_batches(records)
    assert acknowledged == [record.batch_id.hex() for record in records[::60]]
    log.close()
