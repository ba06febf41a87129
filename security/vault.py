"""Where wrapped data keys are kept: the port, and a vault in one SQLite file.

A vault never sees a data key, only its wrapped form. The SQLite vault ties a ledger to its machine: whoever moves the
ledger takes vault and keyring along, and whoever loses one of them loses what was sealed.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

from session_ledger.domain.errors import KeyNotStored, KeyUnavailable, Misconfigured, VaultBusy
from session_ledger.security.files import exist_private, open_to_others
from session_ledger.security.stored import StoredKey as StoredKey
from session_ledger.security.tenant_store import TenantKeyStore
from session_ledger.security.vault_pseudonyms import CREATE_PSEUDONYMS, SQLitePseudonyms, refuse_replaced
from session_ledger.security.vault_tenants import CREATE_TENANT_KEYS, SQLiteTenantKeys

VAULT_VERSION = 3
APPLICATION_ID = 0x534C564C  # "SLVL": tells this file from other SQLite files
BUSY_TIMEOUT_S = 5.0  # another process may write; its transaction is one fsync long

_COLUMNS = "session_id, tenant, user, generation, key_id, wrapping_key_id, wrapped, created_at"
_CREATE = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS keys (
    session_id BLOB NOT NULL, tenant TEXT NOT NULL, user TEXT NOT NULL, generation INTEGER NOT NULL,
    key_id BLOB NOT NULL, wrapping_key_id TEXT NOT NULL, wrapped BLOB NOT NULL, created_at INTEGER NOT NULL,
    PRIMARY KEY (session_id, tenant, user, generation)
) WITHOUT ROWID;
{CREATE_TENANT_KEYS}
{CREATE_PSEUDONYMS}
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VAULT_VERSION};
COMMIT;
"""
_UPGRADE = f"""
BEGIN IMMEDIATE;
{CREATE_TENANT_KEYS}
{CREATE_PSEUDONYMS}
PRAGMA user_version = {VAULT_VERSION};
COMMIT;
"""
_WHAT_IS_IT = "SELECT (SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_master)"
_INSERT = f"INSERT INTO keys ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_OF_SCOPE = f"SELECT {_COLUMNS} FROM keys WHERE session_id = ? AND tenant = ? AND user = ?"
_NEWEST = f"{_OF_SCOPE} ORDER BY generation DESC LIMIT 1"
_BY_KEY_ID = f"{_OF_SCOPE} AND key_id = ?"
_DESTROY = "DELETE FROM keys WHERE session_id = ? AND tenant = ? AND user = ? RETURNING key_id, wrapped"
SCRUB_RETRY_S = 0.05
LOOKED_FOR_MAX = 16  # ids and wrapped keys, some 50 ms each in 100 MB: a rewrite takes no longer than that many
PIECE_BYTES = 16  # of a wrapped key of 61 bytes: whatever still holds the key holds one of its pieces
_BY_GENERATION = f"{_OF_SCOPE} AND generation = ?"


class Vault(ABC):
    """Keeps wrapped data keys. Thread-safe. Every failure is KeyUnavailable, or KeyNotStored from an insert."""

    tenants: TenantKeyStore
    """The tenant keys that wrap them, and what else these wrap (`tenants.pseudonyms`)."""

    @abstractmethod
    def insert_if_absent(self, keys: Sequence[StoredKey]) -> list[StoredKey]:
        """Make them durable in one transaction; where (scope, generation) is taken, what stands there stays.

        Returns the stored keys that stand in the place of given ones with another key id; [] where all are in.
        Raises KeyNotStored: none of them is known to be durable; inserting them again is harmless. Raises
        TenantKeyReplaced, which is one: a tenant key that wraps one of them is not the tenant's newest.
        """

    @abstractmethod
    def newest(self, tenant: str, user: str, session_id: bytes) -> StoredKey | None:
        """The scope's key of the highest generation; None where there is none."""

    @abstractmethod
    def find(self, tenant: str, user: str, session_id: bytes, key_id: bytes) -> StoredKey | None:
        """The scope's key with that id, of whatever generation; None where there is none."""

    @abstractmethod
    def first(self, tenant: str, user: str, session_id: bytes) -> StoredKey | None:
        """The scope's key of generation 1; None where there is none."""

    @abstractmethod
    def users(self, tenant: str) -> list[str]:
        """The tenant's users who have a key, sorted; "": the tenant's own account."""

    @abstractmethod
    def keys_of(self, tenant: str, user: str, session_id: bytes | None = None) -> list[StoredKey]:
        """Every key of a session, or (None) of all sessions of the user and of the account (session id b"")."""

    @abstractmethod
    def destroy(self, tenant: str, user: str, session_ids: Sequence[bytes]) -> int:
        """Destroy every key of those sessions, in one transaction; how many it were. A repeat destroys none."""

    @abstractmethod
    def destroy_account(self, tenant: str, user: str, but: bytes | None) -> int:
        """Destroy the keys of the user's account that came before the one with that id (None: all); how many."""

    @abstractmethod
    def destroy_tenant(self, tenant: str) -> int:
        """Destroy every key and way back of the tenant, tenant keys too; how many data keys it were."""

    @abstractmethod
    def scrub(self, *, thorough: bool = False) -> None:
        """Leave no copy of what was destroyed in the vault's files. Raises VaultBusy where somebody is in the way.

        What was removed by this object since the last time is looked for; `thorough`: more was removed, before.
        """

    @abstractmethod
    def empty(self) -> bool:
        """True: it holds no key."""

    @abstractmethod
    def close(self) -> None:
        """Release what is open. Idempotent."""


class SQLiteVault(Vault):
    """A vault in one SQLite file (mode 0600, WAL, synchronous=FULL, secure_delete).

    `readonly` is for processes beside the ledger's owner that open content. Two connections, so that a lookup never
    waits for an insert's fsync. Raises Misconfigured for a path, mode or version that is not usable.
    """

    def __init__(self, path: Path, *, readonly: bool = False) -> None:
        self.path = path
        self._readonly = readonly
        self._pid = os.getpid()
        self._read_lock, self._write_lock = threading.Lock(), threading.Lock()
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._removed: list[bytes] = []  # since the file was scrubbed last: what must be found in it no more
        self.tenants = SQLiteTenantKeys(self.writing, self.rows, path)
        self.tenants.pseudonyms = SQLitePseudonyms(self.writing, self.rows, self._removed)
        _check_file(path, readonly)
        try:
            if not readonly:
                self._writer = self._connect()
                _prepare(self._writer, path)
            self._reader = self._connect()
            _check_version(self._reader, path)
        except sqlite3.Error as error:
            self.close()
            raise KeyUnavailable(f"the vault {path} can not be opened: {error}") from error
        except BaseException:
            self.close()
            raise

    def insert_if_absent(self, keys: Sequence[StoredKey]) -> list[StoredKey]:
        with self.writing(f"{len(keys)} data keys") as writer:
            refuse_replaced(writer, keys)
            before = writer.total_changes
            writer.executemany(_INSERT, keys)
            if writer.total_changes - before == len(keys):
                return []
            return [stored for key in keys if (stored := _winner(writer, key)) is not None]

    def newest(self, tenant: str, user: str, session_id: bytes) -> StoredKey | None:
        return self._one(_NEWEST, (session_id, tenant, user))

    def find(self, tenant: str, user: str, session_id: bytes, key_id: bytes) -> StoredKey | None:
        return self._one(_BY_KEY_ID, (session_id, tenant, user, key_id))

    def first(self, tenant: str, user: str, session_id: bytes) -> StoredKey | None:
        return self._one(_BY_GENERATION, (session_id, tenant, user, 1))

    def users(self, tenant: str) -> list[str]:
        rows = self.rows("SELECT DISTINCT user FROM keys WHERE tenant = ? ORDER BY user", (tenant,))
        return [str(row[0]) for row in rows]

    def keys_of(self, tenant: str, user: str, session_id: bytes | None = None) -> list[StoredKey]:
        if session_id is not None:
            return [StoredKey._make(row) for row in self.rows(_OF_SCOPE, (session_id, tenant, user))]
        query = f"SELECT {_COLUMNS} FROM keys WHERE tenant = ? AND user = ?"
        return [StoredKey._make(row) for row in self.rows(query, (tenant, user))]

    def destroy(self, tenant: str, user: str, session_ids: Sequence[bytes]) -> int:
        with self.writing("the end of a session's keys") as writer:
            gone: list[tuple[bytes, bytes]] = []
            for session_id in filter(None, session_ids):
                gone += writer.execute(_DESTROY, (session_id, tenant, user)).fetchall()
        return self._noted(gone)

    def destroy_account(self, tenant: str, user: str, but: bytes | None) -> int:
        with self.writing("the end of an account's keys") as writer:
            query = "SELECT key_id, generation FROM keys WHERE session_id = x'' AND tenant = ? AND user = ?"
            generations = dict(writer.execute(query, (tenant, user)))
            before = None if but is None else generations.get(but, 0)  # it is not there: a later erasure was here
            query = "DELETE FROM keys WHERE session_id = x'' AND tenant = ? AND user = ?"
            gone = writer.execute(
                f"{query} AND (?3 IS NULL OR generation < ?3) RETURNING key_id, wrapped", (tenant, user, before)
            ).fetchall()
        return self._noted(gone)

    def _noted(self, gone: Sequence[tuple[bytes, bytes]]) -> int:
        self._removed += [value for row in gone for value in row]
        return len(gone)

    def destroy_tenant(self, tenant: str) -> int:
        with self.writing("the end of a tenant's keys") as writer:
            gone = writer.execute("DELETE FROM keys WHERE tenant = ? RETURNING key_id, wrapped", (tenant,)).fetchall()
            others = writer.execute(
                "DELETE FROM pseudonyms WHERE tenant = ? RETURNING sealed, sealed", (tenant,)
            ).fetchall()
            others += writer.execute("DELETE FROM tenant_keys WHERE tenant = ? RETURNING key_id, wrapped", (tenant,))
        self._noted(others)
        return self._noted(gone)

    def scrub(self, *, thorough: bool = False) -> None:
        """SQLite overwrites what is deleted, but not the copies in pages that it has split or merged before.

        So the file is searched, and rewritten (VACUUM) where anything is found, or too much would be looked for.
        """
        self._empty_log()
        removed = len(self._removed)
        if thorough or not 0 < removed <= LOOKED_FOR_MAX or self._still_holds(self._removed):
            self._rewrite()
            self._empty_log()
        del self._removed[:removed]

    def _empty_log(self) -> None:
        deadline_s = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            ((busy, _, _),) = self.rows("PRAGMA wal_checkpoint(TRUNCATE)", ())
            if not busy:
                return
            if time.monotonic() > deadline_s:
                raise VaultBusy(f"somebody reads the vault {self.path}, so its log of changes can not be emptied yet")
            time.sleep(SCRUB_RETRY_S)

    def _still_holds(self, removed: Sequence[bytes]) -> bool:
        """The file's bytes, read by SQLite (who opens the file beside it takes its locks away): a copy in memory."""
        with self.writing("a look at its own bytes") as writer:
            if self.path.with_name(self.path.name + "-wal").stat().st_size:
                return True  # somebody has written since: what is read is not what stands in the file
            content = writer.serialize()
        pieces = (value[at : at + PIECE_BYTES] for value in removed for at in range(0, len(value), PIECE_BYTES))
        return any(piece in content for piece in pieces if len(piece) == PIECE_BYTES)

    def _rewrite(self) -> None:
        with self._write_lock:
            try:
                self._usable(self._writer).execute("VACUUM")
            except sqlite3.Error as error:
                raise VaultBusy(
                    f"the vault {self.path} could not be rewritten without what is gone: {error}"
                ) from error

    def empty(self) -> bool:
        return self._one(f"SELECT {_COLUMNS} FROM keys LIMIT 1", ()) is None

    def close(self) -> None:
        if self._pid != os.getpid():
            return  # the connections and locks are the parent's
        with self._write_lock, self._read_lock:
            for connection in (self._reader, self._writer):
                if connection is not None:
                    connection.close()
            self._reader = self._writer = None

    @contextlib.contextmanager
    def writing(self, what: str) -> Iterator[sqlite3.Connection]:
        """One transaction, durable when it is left; nothing of it where it raises. Raises KeyNotStored for `what`."""
        self._check_process()
        with self._write_lock:
            writer = self._usable(self._writer)
            try:
                writer.execute("BEGIN IMMEDIATE")
                yield writer
                writer.execute("COMMIT")
            except sqlite3.Error as error:
                raise KeyNotStored(f"the vault {self.path} did not take {what}: {error}") from error
            finally:
                if writer.in_transaction:
                    writer.rollback()

    def rows(self, query: str, parameters: Sequence[object]) -> list[tuple[object, ...]]:
        """What a query finds. Raises KeyUnavailable."""
        self._check_process()
        with self._read_lock:
            reader = self._usable(self._reader)
            try:
                return reader.execute(query, parameters).fetchall()
            except sqlite3.Error as error:
                raise KeyUnavailable(f"the vault {self.path} can not be read: {error}") from error

    def _one(self, query: str, parameters: tuple[object, ...]) -> StoredKey | None:
        self._check_process()
        with self._read_lock:
            reader = self._usable(self._reader)
            try:
                row = reader.execute(query, parameters).fetchone()
            except sqlite3.Error as error:
                raise KeyUnavailable(f"the vault {self.path} can not be read: {error}") from error
        return None if row is None else StoredKey._make(row)

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            raise KeyUnavailable(f"the vault {self.path} was opened before a fork; open the ledger in this process")

    def _usable(self, connection: sqlite3.Connection | None) -> sqlite3.Connection:
        if connection is None:
            what = "opened read-only" if self._readonly and self._reader is not None else "closed"
            raise KeyUnavailable(f"the vault {self.path} was {what}")
        return connection

    def _connect(self) -> sqlite3.Connection:
        mode = "ro" if self._readonly else "rw"
        uri = f"{self.path.absolute().as_uri()}?mode={mode}"
        connection = sqlite3.connect(
            uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA temp_store = MEMORY")  # a rewrite leaves no copy of the keys elsewhere
        connection.execute("PRAGMA synchronous = FULL")
        return connection


def _winner(writer: sqlite3.Connection, key: StoredKey) -> StoredKey | None:
    row = writer.execute(_BY_GENERATION, (key.session_id, key.tenant, key.user, key.generation)).fetchone()
    stored = StoredKey._make(row)
    return None if stored.key_id == key.key_id else stored


def _check_file(path: Path, readonly: bool) -> None:
    try:
        if not readonly:
            exist_private(path)
        status = path.stat()
    except FileNotFoundError:
        instead = "bring it back: without it no content opens" if readonly else "nor can one be made there"
        raise Misconfigured(f"there is no vault at {path}; {instead}") from None
    except OSError as error:
        raise Misconfigured(f"the vault {path} can not be opened: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise Misconfigured(f"{path} is no file, so no vault")
    wrong = open_to_others(status.st_mode)
    if wrong:
        raise Misconfigured(f"the vault {path} {wrong}: chmod 600 {path}")


def _prepare(writer: sqlite3.Connection, path: Path) -> None:
    """Make the tables of a new file, and what an older one lacks; leave every other file as it is."""
    version, tables = writer.execute(_WHAT_IS_IT).fetchone()
    if version == 0 and tables:
        raise Misconfigured(f"{path} is an SQLite file, but no vault")
    if version <= VAULT_VERSION:
        _use_wal(writer)
    if version == 0:
        writer.executescript(_CREATE)
    elif version < VAULT_VERSION and writer.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,):
        writer.executescript(_UPGRADE)  # of several who upgrade at once, the later find it done


def _use_wal(writer: sqlite3.Connection) -> None:
    """Switch the file to WAL. Of several that switch a new file at once, SQLite refuses some and does not wait."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            writer.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)  # until it is the other's turn no more
        else:
            return


def _check_version(reader: sqlite3.Connection, path: Path) -> None:
    (application,) = reader.execute("PRAGMA application_id").fetchone()
    (version,) = reader.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise Misconfigured(f"{path} is no vault of a session ledger")
    if version > VAULT_VERSION:
        raise Misconfigured(f"the vault {path} has version {version}, this release knows up to {VAULT_VERSION}")
