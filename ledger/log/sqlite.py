"""The log in a directory: one SQLite file in WAL mode, one partition and the control log, one owner at a time.

    DIR/log.db       the log (with log.db-wal and log.db-shm while it is open), mode 0600
    DIR/owner-N.lock two files; the owner's process holds that of its epoch's parity as long as it runs

`Record.key` is not stored and comes back empty: every value repeats it. An append, read or wait after `close` raises
LedgerClosed; after a take-over by another owner, append, settle and prove_ownership raise NotOwner and reads go on.
"""

from __future__ import annotations

import os
import socket
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, sleep

from session_ledger.domain.errors import LogCorrupt, LogUnavailable, Misconfigured, NotOwner
from session_ledger.ledger.log.port import Log
from session_ledger.ledger.log.sqlite_errors import as_log_error, primary_code
from session_ledger.ledger.log.sqlite_lock import OwnerLock
from session_ledger.ledger.log.sqlite_partition import SQLitePartition
from session_ledger.ledger.log.sqlite_readers import BUSY_TIMEOUT_S, Readers, connect, holder
from session_ledger.ledger.log.sqlite_schema import CONTROL, Meta, check_ends, create_tables, read_meta
from session_ledger.ledger.log.sqlite_wake import signal_of
from session_ledger.ledger.log.sqlite_writer import Writer, open_for_writing

LOG_FILE = "log.db"
LOCK_FILES = ("owner-0.lock", "owner-1.lock")  # by the parity of the owner's epoch: see `claim`
CLAIM_WAIT_S = 10.0  # a hundred times what a busy owner costs; longer means that it is stopped
CLAIM_RETRY_S = 0.00005  # shorter than an append, so that the moment between two is met


class SQLiteLog(Log):
    """One ledger's log in a directory. Open it with `SQLiteLog.open`."""

    durability = (
        "every acknowledged event is on this machine's disk (WAL, synchronous=FULL): it survives a crash of the "
        "process and of the machine, and is lost with the disk"
    )

    def __init__(self, directory: Path, meta: Meta, readers: Readers, writer: Writer | None) -> None:
        self.url, self.name, self.log_id = f"sqlite:{directory}", meta.name, meta.log_id
        self._readers, self._writer = readers, writer
        path, topics = directory / LOG_FILE, dict[int, str]()
        self.partitions = (SQLitePartition(0, path, readers, writer, topics),)
        self.control = SQLitePartition(CONTROL, path, readers, writer, topics)

    @classmethod
    def open(
        cls,
        directory: str | Path,
        *,
        name: str | None = None,
        write: bool,
        take_over: bool = False,
        create: bool = False,
    ) -> SQLiteLog:
        """Open the log in that directory, as its owner if `write`, else for reading beside whoever owns it.

        `name` is the ledger's: of a new one (None: the directory's name), else it must agree. `create` makes what is
        missing. `take_over` makes this process the owner although another one still runs.

        Raises NotOwner (another process owns it; names it), LogUnavailable, LogCorrupt, LogTooNew (before anything
        is touched), Misconfigured (another name).
        """
        directory = Path(directory).resolve()
        path = directory / LOG_FILE
        meta = look(path)
        if meta is None and not (write and create):
            raise LogUnavailable(f"there is no ledger in {directory}; name its directory, or create one there")
        if meta is not None and name is not None and name != meta.name:
            raise Misconfigured(f"the ledger in {directory} is named {meta.name!r}, not {name!r}; a name never changes")
        writer = claim(directory, name or directory.name, take_over) if write else None
        readers = Readers(path)
        try:
            with readers.lend() as connection:
                meta = read_meta(connection, path)
                assert meta is not None, "claimed or looked at above"
                for partition in (0, CONTROL):
                    check_ends(connection, partition, path)
        except BaseException:
            readers.close()
            if writer is not None:
                writer.close()
            raise
        return cls(directory, meta, readers, writer)

    def close(self) -> None:
        """Close every partition and give up ownership. Idempotent."""
        for partition in (*self.partitions, self.control):
            partition.close()
        self._readers.close()
        if self._writer is not None:
            self._writer.close()


def look(path: Path) -> Meta | None:
    """What the log says about itself, without a change to any file; None where there is none."""
    try:
        if not path.is_file():
            return None
        if not path.with_name(path.name + "-wal").exists():
            # Nobody has the file open, and only `immutable` keeps SQLite from making files beside it.
            try:
                return look_through(connect(path, write=False, immutable=True), path)
            except (sqlite3.Error, LogCorrupt):
                pass  # a process may just have begun to write: what is seen below stands
        return look_through(connect(path, write=False), path)
    except sqlite3.Error as error:
        raise as_log_error(error, "opening", path) from error
    except OSError as error:
        raise LogUnavailable(f"{path} can not be looked at: {error.strerror}") from error


def look_through(connection: sqlite3.Connection, path: Path) -> Meta | None:
    """What the log says about itself, by that connection, which is closed."""
    try:
        return read_meta(connection, path)
    finally:
        connection.close()


def claim(directory: Path, name: str, take_over: bool) -> Writer:
    """Become the owner: take the lock (unless taking over), make what is missing, and raise the epoch.

    The lock of the present epoch tells whether its owner lives. The new owner holds that of the next epoch before the
    epoch is raised, so at no moment does a live owner, taken over from or taking over, look dead to a third process.
    """
    path = directory / LOG_FILE
    locks: list[OwnerLock] = []
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        locks.extend(OwnerLock(directory / file) for file in LOCK_FILES)
        before = read_epoch(path)
    except OSError as error:
        raise LogUnavailable(
            f"the directory {directory} can not be used: {error.strerror}; choose one that this user may write"
        ) from error
    try:
        owned = NotOwner(
            f"the ledger in {directory} is owned by {holder(path)}; send commands through it or stop it, "
            "or take over with --take-over if it hangs"
        )
        if not locks[before % 2].try_acquire() and not take_over:
            raise owned
        if not path.exists():  # closing a file drops the locks that SQLite connections of this process have on it
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # SQLite's own default is 0644
        connection = open_for_writing(path)
        try:
            begin_between_appends(connection)
            if read_meta(connection, path) is None:
                create_tables(connection, name)
            epoch = connection.execute("SELECT epoch FROM owner").fetchone()[0] + 1
            lock, former = locks[epoch % 2], locks[(epoch + 1) % 2]
            if not lock.try_acquire():
                if not take_over:
                    raise owned
                lock.acquire_when_free()  # its holder was taken over from, and then its successor was
            elif epoch != before + 1 and not take_over:
                raise owned
            connection.execute("UPDATE owner SET epoch = ?, holder = ?", (epoch, this_process()))
            connection.execute("COMMIT")
            former.release()
            return Writer(path, connection, epoch, lock, signal_of(path))
        except BaseException:
            connection.close()
            raise
    except BaseException as error:
        for lock in locks:
            lock.release()
        if isinstance(error, sqlite3.Error):
            if primary_code(error) == sqlite3.SQLITE_BUSY:
                raise LogUnavailable(
                    f"{holder(path)} has kept the write lock of {path} for {CLAIM_WAIT_S:g} s, as a process does that "
                    "was stopped within an append; it can not be taken over from: end that process, then try again"
                ) from error
            raise as_log_error(error, "opening for writing", path) from error
        if isinstance(error, OSError):
            raise LogUnavailable(f"{path} can not be written: {error.strerror}") from error
        raise


def read_epoch(path: Path) -> int:
    """The epoch of the last owner; 0 where there is no log yet. Raises LogUnavailable, LogCorrupt."""
    if not path.is_file():
        return 0
    try:
        connection = connect(path, write=False)
        try:
            return (
                int(connection.execute("SELECT epoch FROM owner").fetchone()[0]) if read_meta(connection, path) else 0
            )
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise as_log_error(error, "opening", path) from error


def begin_between_appends(connection: sqlite3.Connection) -> None:
    """Begin a write transaction although the former owner appends without a pause; raises SQLITE_BUSY at the end.

    SQLite's own waiting sleeps up to 100 ms between tries, and starves against an owner that lets go for some
    microseconds at a time; so it is asked often instead.
    """
    deadline = monotonic() + CLAIM_WAIT_S
    connection.execute("PRAGMA busy_timeout = 0")
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
            break
        except sqlite3.OperationalError as error:
            if primary_code(error) != sqlite3.SQLITE_BUSY or monotonic() > deadline:
                raise
            sleep(CLAIM_RETRY_S)
    connection.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_S * 1000)}")


def this_process() -> str:
    """How an owner is named to others."""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return f"process {os.getpid()} on {socket.gethostname()} since {since}"
