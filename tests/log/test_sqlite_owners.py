"""The log in a directory among processes: who owns it, what the others are told, how they follow it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from threading import Timer
from time import monotonic, sleep

import pytest

from session_ledger.domain.errors import AppendFailed, LogUnavailable, NotOwner
from session_ledger.ledger.log import sqlite, sqlite_partition, sqlite_readers
from session_ledger.ledger.log.sqlite import SQLiteLog
from tests.log.conformance import ROOT, append_later, batch, everything
from tests.log.test_conformance import open_sqlite


def start_writer(directory: Path, pause_s: float = 0) -> subprocess.Popen[str]:
    """A process that owns the log and appends to it, once it has appended."""
    opener = f"{open_sqlite.__module__}:{open_sqlite.__name__}"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.log.writer_process", opener, str(directory), str(pause_s)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def kill(process: subprocess.Popen[str]) -> None:
    """End it without a chance to tidy up."""
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_the_holder_is_named(tmp_path: Path) -> None:
    """NotOwner names the owner's process and host and what can be done; a reader's append names it too."""
    process = start_writer(tmp_path)
    try:
        with pytest.raises(NotOwner, match=rf"process {process.pid} on .* since .*--take-over"):
            SQLiteLog.open(tmp_path, write=True)
        reader = SQLiteLog.open(tmp_path, write=False)
        with pytest.raises(NotOwner, match=f"process {process.pid} on"):
            reader.partitions[0].append(batch(0, 1))
        reader.close()
    finally:
        kill(process)


def test_a_killed_owner_leaves_the_log_free(tmp_path: Path) -> None:
    """The lock goes with the process: the next one opens without a take-over."""
    kill(start_writer(tmp_path))
    log = SQLiteLog.open(tmp_path, write=True)
    log.partitions[0].append(batch(log.partitions[0].end(), 1))
    log.close()


def test_a_takeover_from_a_process_that_stands_still(tmp_path: Path) -> None:
    """While it is stopped the new owner writes; when it runs on it fails and nothing more of it stands."""
    process = start_writer(tmp_path, pause_s=0.3)
    sleep(0.1)  # it pauses, so it is not stopped within an append
    process.send_signal(signal.SIGSTOP)
    try:
        log = SQLiteLog.open(tmp_path, write=True, take_over=True)
        end = log.partitions[0].end()
        log.partitions[0].append(batch(end, 2, by="new"))
        process.send_signal(signal.SIGCONT)
        process.communicate(timeout=30)
        assert process.returncode == 1, "the writer goes on until an append raises"
        log.partitions[0].append(batch(end + 2, 1, by="new"))
        assert everything(log.partitions[0])[end - 1].value.startswith(b"child:")
        assert log.partitions[0].end() == end + 3
        log.close()
    finally:
        kill(process)


def test_a_takeover_from_a_process_stopped_within_an_append(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's write lock can not be taken from it: LogUnavailable names the process and says to end it."""
    monkeypatch.setattr(sqlite_readers, "BUSY_TIMEOUT_S", 0.1)
    monkeypatch.setattr(sqlite, "CLAIM_WAIT_S", 0.1)
    log = SQLiteLog.open(tmp_path, write=True, create=True)
    stopped = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
    stopped.execute("BEGIN IMMEDIATE")
    with pytest.raises(LogUnavailable, match=rf"process {os.getpid()} .*end that process"):
        SQLiteLog.open(tmp_path, write=True, take_over=True)
    with pytest.raises(AppendFailed, match="locked"):
        log.partitions[0].append(batch(0, 1))
    stopped.close()
    log.partitions[0].append(batch(0, 1))
    log.close()


def test_the_lock_follows_a_takeover(tmp_path: Path) -> None:
    """Before, while and after the former owner notices, a third process is refused, however often it was taken over."""
    old = SQLiteLog.open(tmp_path, write=True, create=True)
    for _ in range(3):
        new = SQLiteLog.open(tmp_path, write=True, take_over=True)
        with pytest.raises(NotOwner):
            SQLiteLog.open(tmp_path, write=True)
        with pytest.raises(NotOwner):
            old.partitions[0].prove_ownership()
        with pytest.raises(NotOwner):
            SQLiteLog.open(tmp_path, write=True)
        old.close()
        with pytest.raises(NotOwner):
            SQLiteLog.open(tmp_path, write=True)
        new.partitions[0].prove_ownership()
        old = new
    old.close()
    SQLiteLog.open(tmp_path, write=True).close()


def test_a_reader_follows_a_writer_in_another_process(tmp_path: Path) -> None:
    """`wait` notices commits of another process, and what is read is dense and whole."""
    process = start_writer(tmp_path)
    try:
        reader = SQLiteLog.open(tmp_path, write=False).partitions[0]
        for _ in range(20):
            end = reader.end()
            assert reader.wait(end, 10.0) is True
            assert reader.read(end, 1)[0].position == end + 1
    finally:
        kill(process)


def test_a_reader_is_woken_by_a_writer_in_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`wait` does not depend on polling there: logs opened apart on one directory share a signal."""
    monkeypatch.setattr(sqlite_partition, "POLL_S", 60.0)
    log = SQLiteLog.open(tmp_path, write=True, create=True)
    reader = SQLiteLog.open(f"{tmp_path}/../{tmp_path.name}", write=False)
    started = monotonic()
    later = append_later(log.partitions[0], 0)
    assert reader.partitions[0].wait(0, 30.0) is True
    assert monotonic() - started < 10
    later.join()
    closing = Timer(0.1, reader.close)
    closing.start()
    assert reader.partitions[0].wait(1, 30.0) is True
    assert monotonic() - started < 10
    closing.join()
    log.close()


def in_child(work: str, log: SQLiteLog) -> str:
    """Fork, use the log there, and tell what came of it: the error's class or `done`."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        outcome = "done"
        try:
            if work == "append":
                log.partitions[0].append(batch(1, 1, by="child"))
            elif work == "prove":
                log.partitions[0].prove_ownership()
            else:
                log.partitions[0].read(0, 1)
        except (NotOwner, LogUnavailable) as error:
            outcome = type(error).__name__
        finally:
            os.write(write_end, outcome.encode())
            os._exit(0)
    os.close(write_end)
    outcome = os.read(read_end, 100).decode()
    os.close(read_end)
    os.waitpid(child, 0)
    return outcome


def test_a_forked_child_does_not_use_its_parents_log(tmp_path: Path) -> None:
    """SQLite's connections must not cross a fork: the child is refused, and the parent goes on."""
    log = SQLiteLog.open(tmp_path, write=True, create=True)
    log.partitions[0].append(batch(0, 1))
    assert in_child("append", log) == "NotOwner"
    assert in_child("prove", log) == "LogUnavailable"
    assert in_child("read", log) == "LogUnavailable"
    log.partitions[0].append(batch(1, 1))
    assert log.partitions[0].end() == 2
    log.close()


def test_a_forked_child_does_not_hold_the_log(tmp_path: Path) -> None:
    """The lock ends with the owner although a child that it forked lives on."""
    log = SQLiteLog.open(tmp_path, write=True, create=True)
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write_end)
        os.read(read_end, 1)  # until the parent is done
        os._exit(0)
    try:
        log.close()
        SQLiteLog.open(tmp_path, write=True).close()
    finally:
        os.close(write_end)
        os.close(read_end)
        os.waitpid(child, 0)
