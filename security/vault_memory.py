"""A vault in memory: for ledgers in memory, whose keys are gone with them."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from session_ledger.security.vault import StoredKey, Vault

_Scope = tuple[str, str, bytes]


class MemoryVault(Vault):
    """Keeps wrapped data keys as long as the process runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: dict[_Scope, list[StoredKey]] = {}

    def insert_if_absent(self, keys: Sequence[StoredKey]) -> list[StoredKey]:
        winners: list[StoredKey] = []
        with self._lock:
            for key in keys:
                of_scope = self._keys.setdefault((key.tenant, key.user, key.session_id), [])
                there = next((stored for stored in of_scope if stored.generation == key.generation), None)
                if there is None:
                    of_scope.append(key)
                elif there.key_id != key.key_id:
                    winners.append(there)
        return winners

    def newest(self, tenant: str, user: str, session_id: bytes) -> StoredKey | None:
        with self._lock:
            of_scope = self._keys.get((tenant, user, session_id), [])
            return max(of_scope, key=lambda stored: stored.generation, default=None)

    def find(self, tenant: str, user: str, session_id: bytes, key_id: bytes) -> StoredKey | None:
        with self._lock:
            of_scope = self._keys.get((tenant, user, session_id), [])
            return next((stored for stored in of_scope if stored.key_id == key_id), None)

    def empty(self) -> bool:
        with self._lock:
            return not self._keys

    def close(self) -> None:
        with self._lock:
            self._keys.clear()
