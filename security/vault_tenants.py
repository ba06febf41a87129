"""The tenant keys of a vault in an SQLite file, and the steps of a rotation over its data keys."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from session_ledger.domain.errors import KeyUnavailable
from session_ledger.security.stored import KeyCount, StoredKey, StoredTenantKey
from session_ledger.security.tenant_store import Rewrapped, TenantKeyStore
from session_ledger.security.vault_pseudonyms import SQLitePseudonyms

CREATE_TENANT_KEYS = """
CREATE TABLE IF NOT EXISTS tenant_keys (
    tenant TEXT NOT NULL, generation INTEGER NOT NULL, key_id BLOB NOT NULL, provider_key_id TEXT NOT NULL,
    wrapped BLOB NOT NULL, created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, generation)
) WITHOUT ROWID;
"""
_COLUMNS = "tenant, generation, key_id, provider_key_id, wrapped, created_at"
_DATA_COLUMNS = "session_id, tenant, user, generation, key_id, wrapping_key_id, wrapped, created_at"
_SELECT = f"SELECT {_COLUMNS} FROM tenant_keys"
_INSERT = f"INSERT INTO tenant_keys ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_NEWEST = f"{_SELECT} WHERE tenant = ? ORDER BY generation DESC LIMIT 1"
_COUNTS = """
SELECT tenant, wrapping_key_id, count(*) FILTER (WHERE session_id <> x''), count(*) FILTER (WHERE session_id = x'')
FROM keys GROUP BY tenant, wrapping_key_id ORDER BY tenant, wrapping_key_id
"""
_OTHERWISE = f"""
SELECT {_DATA_COLUMNS} FROM keys
WHERE (session_id, tenant, user, generation) > (?, ?, ?, ?) AND tenant = ? AND wrapping_key_id <> ?
ORDER BY session_id, tenant, user, generation LIMIT ?
"""
_REWRAP = """
UPDATE keys SET wrapping_key_id = ?, wrapped = ?
WHERE session_id = ? AND tenant = ? AND user = ? AND generation = ? AND key_id = ? AND wrapping_key_id = ?
"""
_REPLACE = """
UPDATE tenant_keys SET provider_key_id = ?, wrapped = ?
WHERE tenant = ? AND generation = ? AND key_id = ? AND wrapped = ?
"""
_USED = """
SELECT wrapping_key_id FROM keys WHERE tenant = ? UNION SELECT wrapping_key_id FROM pseudonyms WHERE tenant = ?
"""
_NO_SESSION: tuple[object, ...] = (b"", "", "", 0)  # before every row: generations begin with 1


class SQLiteTenantKeys(TenantKeyStore):
    """Of the vault whose transactions and queries it is given. A vault of version 1 that is only read has none."""

    def __init__(
        self,
        writing: Callable[[str], AbstractContextManager[sqlite3.Connection]],
        rows: Callable[[str, Sequence[object]], list[tuple[object, ...]]],
        path: Path,
    ) -> None:
        self._writing = writing
        self._rows = rows
        self._path = path
        self.pseudonyms = SQLitePseudonyms(writing, rows)

    def insert_if_absent(self, key: StoredTenantKey) -> StoredTenantKey:
        with self._writing(f"a key of tenant {key.tenant!r}") as writer:
            writer.execute(_INSERT, key)
            place = (key.tenant, key.generation)
            row = writer.execute(f"{_SELECT} WHERE tenant = ? AND generation = ?", place).fetchone()
        return StoredTenantKey._make(row)

    def newest(self, tenant: str) -> StoredTenantKey | None:
        found = self._found(_NEWEST, (tenant,))
        return found[0] if found else None

    def find(self, tenant: str, key_id: bytes) -> StoredTenantKey | None:
        found = self._found(f"{_SELECT} WHERE tenant = ? AND key_id = ?", (tenant, key_id))
        return found[0] if found else None

    def all(self) -> list[StoredTenantKey]:
        return self._found(f"{_SELECT} ORDER BY tenant, generation", ())

    def counts(self) -> list[KeyCount]:
        return [KeyCount._make(row) for row in self._rows(_COUNTS, ())]

    def wrapped_otherwise(
        self, tenant: str, wrapping_key_id: str, after: StoredKey | None, limit: int
    ) -> list[StoredKey]:
        place = _NO_SESSION if after is None else (after.session_id, after.tenant, after.user, after.generation)
        return [StoredKey._make(row) for row in self._rows(_OTHERWISE, (*place, tenant, wrapping_key_id, limit))]

    def rewrap(self, keys: Sequence[Rewrapped]) -> int:
        rows = [
            (by, wrapped, old.session_id, old.tenant, old.user, old.generation, old.key_id, old.wrapping_key_id)
            for old, by, wrapped in keys
        ]
        with self._writing(f"{len(keys)} data keys wrapped anew") as writer:
            before = writer.total_changes
            writer.executemany(_REWRAP, rows)
            return writer.total_changes - before

    def replace(self, stored: StoredTenantKey, provider_key_id: str, wrapped: bytes) -> bool:
        place = (stored.tenant, stored.generation, stored.key_id, stored.wrapped)
        with self._writing(f"a key of tenant {stored.tenant!r} wrapped anew") as writer:
            return writer.execute(_REPLACE, (provider_key_id, wrapped, *place)).rowcount == 1

    def drop_unused(self, tenant: str) -> list[StoredTenantKey]:
        with self._writing(f"the end of older keys of tenant {tenant!r}") as writer:
            query = f"{_SELECT} WHERE tenant = ? ORDER BY generation"
            older = [StoredTenantKey._make(row) for row in writer.execute(query, (tenant,))][:-1]
            used = {name for (name,) in writer.execute(_USED, (tenant, tenant))} if older else set()
            dropped = [key for key in older if key.name not in used]
            for key in dropped:
                writer.execute("DELETE FROM tenant_keys WHERE tenant = ? AND key_id = ?", (tenant, key.key_id))
        if dropped:
            self._leave_no_copy()
        return dropped

    def _leave_no_copy(self) -> None:
        """Empty the write-ahead log, where nobody reads it: it may hold what was removed."""
        self._rows("PRAGMA wal_checkpoint(TRUNCATE)", ())

    def _found(self, query: str, parameters: Sequence[object]) -> list[StoredTenantKey]:
        try:
            rows = self._rows(query, parameters)
        except KeyUnavailable as error:
            if "no such table: tenant_keys" in str(error.__cause__):  # version 1, opened read-only
                return []
            raise
        return [StoredTenantKey._make(row) for row in rows]
