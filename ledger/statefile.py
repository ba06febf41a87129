"""The local state file: folded accounts and agents of one partition, disposable, written behind the acknowledgement.

It is a fuzzy checkpoint (as in ARIES; Mohan et al. 1992): rows are written one by one while commands go on, each with
the position of the last event folded into it, and `covered` is moved only when every row that was dirty at that
position has been written. Opening reads the log from `covered` on and folds an event into a row only if its position
is higher than the row's. No row ever goes back to a lower position, so that a former owner, which does not know yet
that it was fenced off, does no harm. A file of another log, of another version of the folding code, or ahead of the log is thrown
away.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

import msgspec

from session_ledger.domain.account import Account
from session_ledger.domain.agents import AgentPool
from session_ledger.domain.errors import LogUnavailable

FOLD_VERSION = 1  # raise it whenever evolve or a state's shape changes: old files are then rebuilt

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS accounts (
    tenant TEXT, user TEXT, position INTEGER, due_at INTEGER, state BLOB, PRIMARY KEY (tenant, user)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS accounts_due ON accounts (due_at) WHERE due_at IS NOT NULL;
CREATE TABLE IF NOT EXISTS agents (position INTEGER, state BLOB);
CREATE TABLE IF NOT EXISTS ended (session_id BLOB PRIMARY KEY, account BLOB, how TEXT) WITHOUT ROWID;
"""

AccountKey = tuple[str, str]
_encode = msgspec.msgpack.Encoder().encode
_decode_account = msgspec.msgpack.Decoder(Account).decode
_decode_agents = msgspec.msgpack.Decoder(AgentPool).decode


class StateFile:
    """One partition's state file; used by the shard's thread alone."""

    def __init__(self, path: Path | None) -> None:
        """`path` None keeps it in memory. Raises LogUnavailable where the file can not be used."""
        self._path = path
        try:
            self._connection = self._open()
        except sqlite3.DatabaseError as error:
            if path is None or isinstance(error, sqlite3.OperationalError):
                raise LogUnavailable(f"the local state file {path} can not be opened: {error}") from error
            path.unlink()  # damaged: it is rebuilt from the log
            self._connection = self._open()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path or ":memory:", check_same_thread=False, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")  # survives a crash whole; what it lacks is in the log
        connection.executescript(_SCHEMA)
        if self._path is not None:
            self._path.chmod(0o600)
        return connection

    # --- identity -------------------------------------------------------------------------------------------------

    def identity(self) -> tuple[str, int, int, bytes]:
        """(log id, fold version, covered position, batch id of the record there); ("", 0, 0, b"") for a new file."""
        rows = dict(self._connection.execute("SELECT name, value FROM meta"))
        return rows.get("log_id", ""), rows.get("fold_version", 0), rows.get("covered", 0), rows.get("batch_id", b"")

    def reset(self, log_id: str) -> None:
        """Forget everything and begin anew for that log. Raises LogUnavailable where the file can not be written."""
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            for table in ("meta", "accounts", "agents", "ended"):
                connection.execute(f"DELETE FROM {table}")
            connection.executemany(
                "INSERT INTO meta VALUES (?, ?)",
                [("log_id", log_id), ("fold_version", FOLD_VERSION), ("covered", 0), ("batch_id", b"")],
            )
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise LogUnavailable(f"the local state file {self._path} can not be written: {error}") from error

    # --- reading --------------------------------------------------------------------------------------------------

    def account(self, key: AccountKey) -> Account | None:
        """The account as last written; None if it never was."""
        row = self._connection.execute("SELECT state FROM accounts WHERE tenant = ? AND user = ?", key).fetchone()
        return None if row is None else _decode_account(row[0])

    def agents(self) -> tuple[int, AgentPool]:
        """(position of the last event folded into it, the partition's agents)."""
        row = self._connection.execute("SELECT position, state FROM agents").fetchone()
        return (0, AgentPool()) if row is None else (row[0], _decode_agents(row[1]))

    def ended(self, session_id: bytes, account: bytes) -> str | None:
        """How that account's session ended; None if it did not, or is another's."""
        row = self._connection.execute("SELECT account, how FROM ended WHERE session_id = ?", (session_id,)).fetchone()
        return None if row is None or row[0] != account else str(row[1])

    def due(self, now: int) -> list[AccountKey]:
        """Accounts that had a session due by `now` when they were written."""
        return list(self._connection.execute("SELECT tenant, user FROM accounts WHERE due_at <= ?", (now,)))

    # --- writing --------------------------------------------------------------------------------------------------

    def write(
        self,
        accounts: Iterable[tuple[AccountKey, Account]],
        ended: Iterable[tuple[bytes, bytes, str]] = (),
        agents: tuple[int, AgentPool] | None = None,
        covered: tuple[int, bytes] | None = None,
    ) -> None:
        """Write rows in one transaction, none to a lower position; `covered`: where replay starts after."""
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.executemany(
                "INSERT INTO accounts VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET position = excluded.position,"
                " due_at = excluded.due_at, state = excluded.state WHERE excluded.position >= accounts.position",
                [(key[0], key[1], state.position, state.due_at, _encode(state)) for key, state in accounts],
            )
            connection.executemany("INSERT OR REPLACE INTO ended VALUES (?, ?, ?)", ended)
            if agents is not None:
                connection.execute("DELETE FROM agents WHERE position <= ?", (agents[0],))
                connection.execute(
                    "INSERT INTO agents SELECT ?, ? WHERE NOT EXISTS (SELECT 1 FROM agents)",
                    (agents[0], _encode(agents[1])),
                )
            if covered is not None and covered[0] >= self.identity()[2]:
                connection.executemany(
                    "UPDATE meta SET value = ? WHERE name = ?", [(covered[0], "covered"), (covered[1], "batch_id")]
                )
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._connection.close()
