"""Pseudonym keys and ways back, of a vault in an SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from session_ledger.domain.errors import KeyUnavailable
from session_ledger.security.pseudonym_store import PseudonymStore, Resealed, TenantKeyReplaced
from session_ledger.security.stored import TENANT_KEY_PREFIX, StoredKey, StoredPseudonym

CREATE_PSEUDONYMS = """
CREATE TABLE IF NOT EXISTS pseudonyms (
    tenant TEXT NOT NULL, pseudonym TEXT NOT NULL, wrapping_key_id TEXT NOT NULL, sealed BLOB NOT NULL,
    PRIMARY KEY (tenant, pseudonym)
) WITHOUT ROWID;
"""
_SELECT = "SELECT tenant, pseudonym, wrapping_key_id, sealed FROM pseudonyms"
_INSERT = (
    "INSERT INTO pseudonyms (tenant, pseudonym, wrapping_key_id, sealed) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
_ONE = f"{_SELECT} WHERE tenant = ? AND pseudonym = ?"
_OTHERWISE = f"{_SELECT} WHERE tenant = ? AND wrapping_key_id <> ? ORDER BY pseudonym LIMIT ?"
_RESEAL = """
UPDATE pseudonyms SET wrapping_key_id = ?, sealed = ?
WHERE tenant = ? AND pseudonym = ? AND wrapping_key_id = ? AND sealed = ?
"""
_NEWEST_ID = "SELECT key_id FROM tenant_keys WHERE tenant = ? ORDER BY generation DESC LIMIT 1"


class SQLitePseudonyms(PseudonymStore):
    """Of the vault whose transactions and queries it is given. A vault before version 3 that is only read has none."""

    def __init__(
        self,
        writing: Callable[[str], AbstractContextManager[sqlite3.Connection]],
        rows: Callable[[str, Sequence[object]], list[tuple[object, ...]]],
        removed: list[bytes] | None = None,
    ) -> None:
        """`removed`: where what was destroyed is put, for the vault to look for when it is scrubbed."""
        self._writing = writing
        self._rows = rows
        self._removed = [] if removed is None else removed

    def insert_if_absent(self, rows: Sequence[StoredPseudonym]) -> list[StoredPseudonym]:
        with self._writing(f"{len(rows)} ways back from pseudonyms") as writer:
            refuse_replaced(writer, rows)
            writer.executemany(_INSERT, rows)
            return [StoredPseudonym._make(writer.execute(_ONE, row[:2]).fetchone()) for row in rows]

    def find(self, tenant: str, pseudonym: str) -> StoredPseudonym | None:
        found = self._found(_ONE, (tenant, pseudonym))
        return found[0] if found else None

    def any(self) -> bool:
        return bool(self._found(f"{_SELECT} LIMIT 1", ()))

    def destroy(self, tenant: str, pseudonym: str) -> bool:
        if not pseudonym:
            raise ValueError("the tenant's pseudonym key goes with the tenant")
        with self._writing("the end of a way back") as writer:
            query = "DELETE FROM pseudonyms WHERE tenant = ? AND pseudonym = ? RETURNING sealed"
            gone = [sealed for (sealed,) in writer.execute(query, (tenant, pseudonym))]
        self._removed += gone
        return bool(gone)

    def wrapped_otherwise(self, tenant: str, wrapping_key_id: str, limit: int) -> list[StoredPseudonym]:
        return self._found(_OTHERWISE, (tenant, wrapping_key_id, limit))

    def reseal(self, rows: Sequence[Resealed]) -> int:
        with self._writing(f"{len(rows)} ways back from pseudonyms sealed anew") as writer:
            before = writer.total_changes
            writer.executemany(
                _RESEAL,
                [(by, sealed, old.tenant, old.pseudonym, old.wrapping_key_id, old.sealed) for old, by, sealed in rows],
            )
            return writer.total_changes - before

    def _found(self, query: str, parameters: Sequence[object]) -> list[StoredPseudonym]:
        try:
            rows = self._rows(query, parameters)
        except KeyUnavailable as error:
            if "no such table: pseudonyms" in str(error.__cause__):  # before version 3, opened read-only
                return []
            raise
        return [StoredPseudonym._make(row) for row in rows]


def refuse_replaced(writer: sqlite3.Connection, rows: Sequence[StoredKey] | Sequence[StoredPseudonym]) -> None:
    """Raise TenantKeyReplaced unless each is wrapped by its tenant's newest key (or by no tenant key)."""
    for tenant, wrapping_key_id in {(row.tenant, row.wrapping_key_id) for row in rows}:
        if not wrapping_key_id.startswith(TENANT_KEY_PREFIX):
            continue
        row = writer.execute(_NEWEST_ID, (tenant,)).fetchone()
        if row is None or TENANT_KEY_PREFIX + row[0].hex() != wrapping_key_id:
            raise TenantKeyReplaced(f"{wrapping_key_id} is not the newest key of tenant {tenant!r}: wrap again")
