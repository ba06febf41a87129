"""The local state file: folded accounts and agents of one partition, disposable, written behind the acknowledgement.

It is a fuzzy checkpoint (as in ARIES; Mohan et al. 1992): rows are written one by one while commands go on, each with
the position of the last event folded into it, and `covered` is moved only when every row that was dirty at that
position has been written. Opening reads the log from `covered` on and folds an event into a row only if its position
is higher than the row's. Every write moves `reached` too, to a position that no row is beyond, with the batch id that
stands there. A file of another log, of another version of the folding code, or that reached what the log does not
hold, is thrown away; so is a damaged one.

A file is its last opener's, who puts a mark of its own into it, and every read and write looks for that mark in the
same transaction. So a former owner, which does not know yet that it was fenced off and for which the log ends earlier,
neither reads what its follower wrote nor writes to it, let alone throws it away.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from session_ledger.domain.account import Account
from session_ledger.domain.agents import AgentPool
from session_ledger.domain.errors import LogUnavailable, NotOwner
from session_ledger.domain.ids import account_id
from session_ledger.security.files import exist_private

T = TypeVar("T")
LIVE = "live"
FOLD_VERSION = 9  # raise it whenever evolve or a state's shape changes: old files are then rebuilt

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS accounts (
    tenant TEXT, user TEXT, position INTEGER, due_at INTEGER, state BLOB, PRIMARY KEY (tenant, user)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS accounts_due ON accounts (due_at) WHERE due_at IS NOT NULL;
CREATE TABLE IF NOT EXISTS agents (position INTEGER, state BLOB);
CREATE TABLE IF NOT EXISTS streams (stream BLOB PRIMARY KEY, account BLOB, how TEXT) WITHOUT ROWID;
"""

BUSY_S = (
    1.0  # for the writes of a former owner; one that was stopped in the middle of a write keeps its file for itself
)

_DAMAGE = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)  # the file's content is at fault
AccountKey = tuple[str, str]
Reached = tuple[int, bytes]
"""A position, and the id of the batch that the record there belongs to."""
_encode = msgspec.msgpack.Encoder().encode
_decode_account = msgspec.msgpack.Decoder(Account).decode
_decode_agents = msgspec.msgpack.Decoder(AgentPool).decode


class StateFileDamaged(LogUnavailable):
    """The state file can not be read as what it was written as: replace it, and fold again from the log."""


class StateFileTaken(NotOwner):
    """Another process has opened the state file since, as the owner of the ledger."""


class StateFile:
    """One partition's state file; used by the shard's thread alone."""

    def __init__(self, path: Path | None) -> None:
        """Take the file from whoever had it. `path` None: in memory. Raises LogUnavailable where it can not be used."""
        self._path = path
        self._mark = os.urandom(16)
        self._inode: int | None = None
        try:
            self._connection = self._open()
        except OSError as error:
            raise LogUnavailable(f"the local state file {path} can not be opened: {error}") from error
        except sqlite3.DatabaseError as error:
            if path is None or error.sqlite_errorcode & 0xFF not in (*_DAMAGE, sqlite3.SQLITE_BUSY):
                raise LogUnavailable(f"the local state file {path} can not be opened: {error}") from error
            self._connection = self._anew()

    def _open(self) -> sqlite3.Connection:
        if self._path is not None:
            exist_private(self._path)
        connection = sqlite3.connect(
            self._path or ":memory:", timeout=BUSY_S, check_same_thread=False, isolation_level=None
        )
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")  # survives a crash whole; what it lacks is in the log
            connection.executescript(_SCHEMA)
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('mark', ?)", (self._mark,))
            self._inode = self._inode_now()
        except BaseException:
            connection.close()
            raise
        return connection

    def _anew(self) -> sqlite3.Connection:
        if self._path is not None:
            for suffix in ("", "-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        return self._open()

    def replace(self) -> None:
        """Throw the file away and begin with an empty one. Raises StateFileTaken, LogUnavailable."""
        with suppress(StateFileDamaged):
            self._read("SELECT 1")
        if self._inode_now() not in (None, self._inode):  # another has replaced it
            raise self._taken()
        self._connection.close()
        try:
            self._connection = self._anew()
        except (OSError, sqlite3.Error) as error:
            raise LogUnavailable(f"the damaged state file {self._path} can not be replaced: {error}") from error

    def _inode_now(self) -> int | None:
        try:
            return None if self._path is None else self._path.stat().st_ino
        except FileNotFoundError:
            return None

    def _taken(self) -> StateFileTaken:
        return StateFileTaken(
            f"the local state file {self._path} was taken by another process, which owns the ledger now: send the "
            "command there, or open the ledger again"
        )

    # --- identity -------------------------------------------------------------------------------------------------

    def identity(self) -> tuple[str, int, int, Reached]:
        """(log id, fold version, covered position, what was reached); ("", 0, 0, (0, b"")) for a new file."""
        rows = dict(self._read("SELECT name, value FROM meta"))
        covered, reached, batch_id = rows.get("covered", 0), rows.get("reached", 0), rows.get("batch_id", b"")
        if not isinstance(covered, int) or not isinstance(reached, int) or not 0 <= covered <= reached:
            raise StateFileDamaged(f"the local state file {self._path} covers {covered!r} and reached {reached!r}")
        return rows.get("log_id", ""), rows.get("fold_version", 0), covered, (reached, batch_id)

    def reset(self, log_id: str) -> None:
        """Forget everything and begin anew for that log. Raises StateFileDamaged, StateFileTaken, LogUnavailable."""
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            self._assert_mine()
            for table in ("meta", "accounts", "agents", "streams"):
                connection.execute(f"DELETE FROM {table}")
            connection.executemany(
                "INSERT INTO meta VALUES (?, ?)",
                [
                    ("log_id", log_id),
                    ("fold_version", FOLD_VERSION),
                    ("covered", 0),
                    ("reached", 0),
                    ("batch_id", b""),
                    ("mark", self._mark),
                ],
            )
            connection.execute("COMMIT")
        except BaseException as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if not isinstance(error, sqlite3.Error):
                raise
            if isinstance(error, sqlite3.DatabaseError) and error.sqlite_errorcode & 0xFF in _DAMAGE:
                raise StateFileDamaged(f"the local state file {self._path} can not be emptied: {error}") from error
            raise LogUnavailable(f"the local state file {self._path} can not be written: {error}") from error

    # --- reading --------------------------------------------------------------------------------------------------

    def _read(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        """The rows, whose first column is never NULL. Raises StateFileDamaged, StateFileTaken."""
        marked = f"SELECT meta.value, found.* FROM meta LEFT JOIN ({query}) AS found WHERE meta.name = 'mark'"
        try:
            rows = self._connection.execute(marked, values).fetchall()
        except sqlite3.Error as error:
            raise StateFileDamaged(f"the local state file {self._path} can not be read: {error}") from error
        if not rows or rows[0][0] != self._mark:
            raise self._taken()
        return [row[1:] for row in rows if row[1] is not None]

    def _assert_mine(self) -> None:
        """Raise StateFileTaken; within the transaction that is to write."""
        if self._connection.execute("SELECT value FROM meta WHERE name = 'mark'").fetchall() != [(self._mark,)]:
            raise self._taken()

    def _decoded(self, decode: Callable[[bytes], T], state: bytes) -> T:
        try:
            return decode(state)
        except (msgspec.MsgspecError, TypeError, ValueError) as error:
            raise StateFileDamaged(f"a row of the local state file {self._path} can not be read: {error}") from error

    def account(self, key: AccountKey) -> Account | None:
        """The account as last written; None if it never was."""
        rows = self._read("SELECT state FROM accounts WHERE tenant = ? AND user = ?", key)
        return self._decoded(_decode_account, rows[0][0]) if rows else None

    def agents(self) -> tuple[int, AgentPool]:
        """(position of the last event folded into it, the partition's agents)."""
        rows = self._read("SELECT position, state FROM agents")
        return (rows[0][0], self._decoded(_decode_agents, rows[0][1])) if rows else (0, AgentPool())

    def stream(self, stream: bytes) -> tuple[bytes, str] | None:
        """(account id of its owner, `LIVE` or how it ended) of a session or agent; None: none of that id is known."""
        rows = self._read("SELECT account, how FROM streams WHERE stream = ?", (stream,))
        return (rows[0][0], str(rows[0][1])) if rows else None

    def due(self, now: int) -> list[AccountKey]:
        """Accounts that had a session due by `now` when they were written."""
        return self._read("SELECT tenant, user FROM accounts WHERE due_at <= ?", (now,))

    # --- writing --------------------------------------------------------------------------------------------------

    def write(
        self,
        reached: Reached,
        accounts: Sequence[tuple[AccountKey, Account]],
        ended: Iterable[tuple[bytes, bytes, str]] = (),
        agents: tuple[int, AgentPool] | None = None,
        covered: int | None = None,
    ) -> None:
        """Write rows in one transaction, none to a lower position (while the log is read again). Raises sqlite3.Error,
        StateFileTaken.

        `reached`: no row is beyond that position. `ended`: (session or agent id, its account's id, how). `covered`:
        where replay starts after.
        """
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            self._assert_mine()
            connection.executemany(
                "INSERT INTO accounts VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET position = excluded.position,"
                " due_at = excluded.due_at, state = excluded.state WHERE excluded.position >= accounts.position",
                [(key[0], key[1], state.position, state.due_at, _encode(state)) for key, state in accounts],
            )
            connection.executemany(
                "INSERT INTO streams VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                [(session, account_id(*key), LIVE) for key, state in accounts for session in state.sessions],
            )
            connection.executemany("INSERT OR REPLACE INTO streams VALUES (?, ?, ?)", ended)
            if agents is not None:
                connection.execute("DELETE FROM agents WHERE position <= ?", (agents[0],))
                connection.execute(
                    "INSERT INTO agents SELECT ?, ? WHERE NOT EXISTS (SELECT 1 FROM agents)",
                    (agents[0], _encode(agents[1])),
                )
            was = dict(
                connection.execute("SELECT name, value FROM meta WHERE name IN ('covered', 'reached')").fetchall()
            )
            changed: list[tuple[object, str]] = []
            if reached[0] > was["reached"]:
                changed += [(reached[0], "reached"), (reached[1], "batch_id")]
            if covered is not None and covered > was["covered"]:
                changed.append((covered, "covered"))
            connection.executemany("UPDATE meta SET value = ? WHERE name = ?", changed)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._connection.close()
