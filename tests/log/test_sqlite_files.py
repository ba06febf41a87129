"""The log in a directory: what is on the disk, and every way in which it can not be opened or read."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import stat
from pathlib import Path

import pytest

from session_ledger.domain.errors import LogCorrupt, LogTooNew, LogUnavailable, Misconfigured
from session_ledger.ledger.log.port import Record
from session_ledger.ledger.log.sqlite import LOCK_FILES, SQLiteLog
from session_ledger.ledger.log.sqlite_readers import Readers
from session_ledger.ledger.log.sqlite_schema import FORMAT
from session_ledger.ledger.log.sqlite_writer import open_for_writing
from tests.log.conformance import batch, everything


def make(directory: Path, *counts: int) -> None:
    """A closed log with appends of so many records."""
    log = SQLiteLog.open(directory, write=True, create=True)
    end = 0
    for count in counts:
        log.partitions[0].append(batch(end, count, size=360))
        end += count
    log.close()


def alter(directory: Path, statement: str) -> None:
    """Change the closed log's file by hand."""
    connection = sqlite3.connect(directory / "log.db")
    connection.execute(statement)
    connection.commit()
    connection.close()


def digests(directory: Path) -> dict[str, str]:
    """Every file of the directory and its bytes' digest."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in directory.iterdir()}


def test_a_new_log_takes_the_directorys_name_or_the_one_given(tmp_path: Path) -> None:
    """The name is the directory's unless one is given, and stays."""
    with_default = SQLiteLog.open(tmp_path / "portal", write=True, create=True)
    named = SQLiteLog.open(tmp_path / "other", name="support", write=True, create=True)
    assert [with_default.name, named.name] == ["portal", "support"]
    assert f"sqlite:{tmp_path / 'portal'}" == with_default.url
    assert with_default.log_id != named.log_id
    with_default.close()
    named.close()


def test_another_name_is_refused(tmp_path: Path) -> None:
    """A log opened under a name that is not its own raises Misconfigured and names both."""
    make(tmp_path / "portal", 1)
    for write in (True, False):
        with pytest.raises(Misconfigured, match=r"'portal', not 'billing'"):
            SQLiteLog.open(tmp_path / "portal", name="billing", write=write)


def test_files_are_for_the_owner_alone(tmp_path: Path) -> None:
    """The directory is 0700 and every file in it 0600, whatever the umask."""
    before = os.umask(0)
    try:
        log = SQLiteLog.open(tmp_path / "ledger", write=True, create=True)
        log.partitions[0].append(batch(0, 1))
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "ledger").iterdir()}
        assert dict.fromkeys(["log.db", "log.db-wal", "log.db-shm", "owner-0.lock", "owner-1.lock"], 0o600) == modes
        assert stat.S_IMODE((tmp_path / "ledger").stat().st_mode) == 0o700
        log.close()
    finally:
        os.umask(before)


def test_after_close_one_file_holds_the_log(tmp_path: Path) -> None:
    """The write-ahead log is folded in and gone, so the directory can be copied."""
    make(tmp_path, 3, 200)
    assert {p.name for p in tmp_path.iterdir()} == {"log.db", "owner-0.lock", "owner-1.lock"}


@pytest.mark.parametrize("write", [True, False])
def test_a_missing_log_is_not_made_unless_asked_for(tmp_path: Path, write: bool) -> None:
    """Without `create` (or for reading) nothing is created, and LogUnavailable names the directory."""
    with pytest.raises(LogUnavailable, match=r"there is no ledger in .*absent"):
        SQLiteLog.open(tmp_path / "absent", write=write, create=not write)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["a file in the way", "no such place", "a directory in the way"])
def test_an_unwritable_place_is_unavailable(tmp_path: Path, where: str) -> None:
    """Where not even root can write, LogUnavailable names the path and says what is wrong."""
    (tmp_path / "file").write_text("")
    (tmp_path / "ledger" / "log.db").mkdir(parents=True)
    directory = {
        "a file in the way": tmp_path / "file" / "ledger",
        "no such place": Path("/proc/ledger"),
        "a directory in the way": tmp_path / "ledger",
    }[where]
    with pytest.raises(LogUnavailable, match=str(directory)):
        SQLiteLog.open(directory, write=True, create=True)


def test_a_creation_that_was_cut_off_is_taken_up_again(tmp_path: Path) -> None:
    """An empty file, left by a crash before the tables were there, becomes a log."""
    (tmp_path / "log.db").touch()
    with pytest.raises(LogUnavailable):
        SQLiteLog.open(tmp_path, write=True)
    make(tmp_path, 2)


@pytest.mark.parametrize("write", [True, False])
def test_a_creation_that_was_cut_off_within_a_transaction_is_taken_up_again(tmp_path: Path, write: bool) -> None:
    """A rollback journal beside the file, left by a crash before it was in WAL mode, is no reason to stop."""
    (tmp_path / "cut").mkdir()
    connection = sqlite3.connect(tmp_path / "whole.db", isolation_level=None)
    connection.execute("PRAGMA cache_size = 1")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("CREATE TABLE meta (name, value)")
    for n in range(100):
        connection.execute("INSERT INTO meta VALUES (?, ?)", (n, "x" * 5000))  # more than the cache: it is in the file
    for suffix in ("", "-journal"):
        shutil.copy(tmp_path / f"whole.db{suffix}", tmp_path / "cut" / f"log.db{suffix}")
    connection.close()
    assert b"xxxx" in (tmp_path / "cut" / "log.db").read_bytes()
    with pytest.raises(LogUnavailable, match="there is no ledger"):
        SQLiteLog.open(tmp_path / "cut", write=write)
    make(tmp_path / "cut", 2)


@pytest.mark.parametrize("take_over", [False, True])
@pytest.mark.parametrize("write", [True, False])
def test_a_newer_format_is_refused_before_anything_is_touched(tmp_path: Path, write: bool, take_over: bool) -> None:
    """LogTooNew names both formats; not one byte changes and no file appears."""
    make(tmp_path, 3)
    for file in LOCK_FILES:
        (tmp_path / file).unlink()
    alter(tmp_path, f"UPDATE meta SET value = {FORMAT + 1} WHERE name = 'format'")
    before = digests(tmp_path)
    with pytest.raises(LogTooNew, match=f"format {FORMAT + 1}.* up to {FORMAT}"):
        SQLiteLog.open(tmp_path, write=write, take_over=take_over, create=write)
    assert before == digests(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        "DROP TABLE meta",
        "DELETE FROM meta WHERE name = 'log_id'",
        "UPDATE meta SET value = 'one' WHERE name = 'format'",
        "DROP TABLE control_events",
        "DROP TABLE owner",
    ],
)
def test_a_database_that_is_no_log_is_corrupt(tmp_path: Path, damage: str) -> None:
    """LogCorrupt, not a crash, where a table or an entry is missing that every log has."""
    make(tmp_path, 3)
    alter(tmp_path, damage)
    with pytest.raises(LogCorrupt, match=r"log\.db"):
        SQLiteLog.open(tmp_path, write=True, create=True)


def test_a_file_of_other_bytes_is_corrupt(tmp_path: Path) -> None:
    """A file that SQLite does not know is refused and left as it is."""
    (tmp_path / "log.db").write_bytes(b"not a database at all" * 500)
    before = digests(tmp_path)
    for write in (True, False):
        with pytest.raises(LogCorrupt):
            SQLiteLog.open(tmp_path, write=write, create=write)
    assert before == digests(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM events WHERE position = 4",
        "DELETE FROM events WHERE position = 1",
        "DELETE FROM events WHERE position BETWEEN 3 AND 8",
        "DELETE FROM batches WHERE first_position = 4",
        "DELETE FROM batches WHERE first_position = 1",
        "UPDATE batches SET count = 2 WHERE first_position = 4",
        "DELETE FROM topics",
    ],
)
def test_a_gap_is_corrupt_when_it_is_read(tmp_path: Path, damage: str) -> None:
    """A record, an append or a topic deleted by hand: reading across it raises LogCorrupt, whatever the page."""
    make(tmp_path, 3, 3, 3)
    alter(tmp_path, damage)
    for page in (1, 2, 100):
        log = SQLiteLog.open(tmp_path, write=False)
        with pytest.raises(LogCorrupt):
            everything(log.partitions[0], page)
        log.close()


@pytest.mark.parametrize("damage", ["DELETE FROM events WHERE position = 9", "DELETE FROM batches WHERE count = 4"])
def test_a_lost_end_is_corrupt_when_it_is_opened(tmp_path: Path, damage: str) -> None:
    """The last append must be there whole: otherwise new records would take the positions of lost ones."""
    make(tmp_path, 5, 4)
    alter(tmp_path, damage)
    for write in (True, False):
        with pytest.raises(LogCorrupt, match="ends at position"):
            SQLiteLog.open(tmp_path, write=write)


def test_a_damaged_page_is_corrupt(tmp_path: Path) -> None:
    """Bytes overwritten inside the file raise LogCorrupt when they are read."""
    make(tmp_path, 2000)
    with (tmp_path / "log.db").open("r+b") as file:
        for page in range(20, 120):
            file.seek(page * 4096)
            file.write(b"\xff" * 64)
    log = SQLiteLog.open(tmp_path, write=False)
    with pytest.raises(LogCorrupt, match="malformed"):
        everything(log.partitions[0])
    log.close()


def test_a_row_stays_under_500_bytes(tmp_path: Path) -> None:
    """Values of 360 bytes, appended in bulk, cost less than 500 bytes each with index and all."""
    log, rows = SQLiteLog.open(tmp_path, write=True, create=True), 20_000
    values = os.urandom(360)
    sessions = [os.urandom(16) for _ in range(rows // 20)]
    for after in range(0, rows, 1000):
        batch_id = os.urandom(16)
        log.partitions[0].append(
            [
                Record(p, batch_id, sessions[p % len(sessions)], p // len(sessions), "MessageAdded", values, "t/u")
                for p in range(after + 1, after + 1001)
            ]
        )
    log.close()
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) / rows < 500


def test_a_commit_is_on_the_disk(tmp_path: Path) -> None:
    """The writer's connection uses the write-ahead log and syncs it at every commit."""
    (tmp_path / "log.db").touch()
    connection = open_for_writing(tmp_path / "log.db")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    connection.close()


@pytest.mark.parametrize(
    "change",
    [
        "value = 'hello'",
        "value = 7",
        "value = CAST(x'80414243' AS TEXT)",
        "value = substr(value, 1, 60) || X'ff' || substr(value, 62)",
        "originator_id = 'abc'",
        "version = 'two'",
    ],
)
def test_a_column_of_another_type_is_damage_at_its_position(tmp_path: Path, change: str) -> None:
    """Whatever somebody put there, also what is no text: LogCorrupt with the position, and no byte of it repeated."""
    make(tmp_path, 3, 5)
    alter(tmp_path, f"UPDATE events SET {change} WHERE position = 6")
    log = SQLiteLog.open(tmp_path, write=False)
    assert [1, 2, 3, 4, 5] == [record.position for record in log.partitions[0].read(0, 5)]
    with pytest.raises(LogCorrupt, match="position 6 of partition 0 is no record") as damaged:
        log.partitions[0].read(0, 100)
    assert 6 == damaged.value.position
    log.close()


def test_readers_can_not_write(tmp_path: Path) -> None:
    """The connections that read are opened read-only: a stray statement fails."""
    make(tmp_path, 1)
    readers = Readers(tmp_path / "log.db")
    with pytest.raises(LogUnavailable, match="readonly"), readers.lend() as connection:
        connection.execute("DELETE FROM events")
    readers.close()


def test_topics_come_back_by_name_to_readers_that_knew_none(tmp_path: Path) -> None:
    """A reader opened before a topic was first used still gives its name."""
    owner = SQLiteLog.open(tmp_path, write=True, create=True)
    reader = SQLiteLog.open(tmp_path, write=False)
    for number in range(3):
        owner.partitions[0].append([batch(number, 1)[0]._replace(topic=f"new{number}")])
        assert [f"new{n}" for n in range(number + 1)] == [r.topic for r in reader.partitions[0].read(0, 10)]
    reader.close()
    owner.close()
