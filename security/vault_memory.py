"""A vault in memory: for ledgers in memory, whose keys are gone with them."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from session_ledger.security.pseudonym_store import PseudonymStore, Resealed
from session_ledger.security.stored import TENANT_KEY_PREFIX, KeyCount, StoredKey, StoredPseudonym, StoredTenantKey
from session_ledger.security.tenant_store import Rewrapped, TenantKeyReplaced, TenantKeyStore
from session_ledger.security.vault import Vault

_Scope = tuple[str, str, bytes]


class MemoryVault(Vault):
    """Keeps wrapped data keys as long as the process runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: dict[_Scope, list[StoredKey]] = {}
        self.tenants = self._tenants = MemoryTenantKeys(self._lock, self._keys)

    def insert_if_absent(self, keys: Sequence[StoredKey]) -> list[StoredKey]:
        winners: list[StoredKey] = []
        with self._lock:
            self._tenants.refuse_replaced(keys)
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

    def first(self, tenant: str, user: str, session_id: bytes) -> StoredKey | None:
        with self._lock:
            of_scope = self._keys.get((tenant, user, session_id), [])
            return next((stored for stored in of_scope if stored.generation == 1), None)

    def users(self, tenant: str) -> list[str]:
        with self._lock:
            return sorted({user for owner, user, _ in self._keys if owner == tenant})

    def keys_of(self, tenant: str, user: str, session_id: bytes | None = None) -> list[StoredKey]:
        with self._lock:
            keys = [key for of_scope in self._keys.values() for key in of_scope]
        return [key for key in keys if key[1:3] == (tenant, user) and session_id in (None, key.session_id)]

    def destroy(self, tenant: str, user: str, session_ids: Sequence[bytes]) -> int:
        with self._lock:
            return sum(len(self._keys.pop((tenant, user, session_id), [])) for session_id in session_ids if session_id)

    def destroy_account(self, tenant: str, user: str, but: bytes | None) -> int:
        with self._lock:
            there = self._keys.pop((tenant, user, b""), [])
            before = next((key.generation for key in there if key.key_id == but), 0)
            stays = [] if but is None else [key for key in there if key.generation >= before]
            if stays:
                self._keys[tenant, user, b""] = stays
            return len(there) - len(stays)

    def destroy_tenant(self, tenant: str) -> int:
        with self._lock:
            gone = [self._keys.pop(scope) for scope in [scope for scope in self._keys if scope[0] == tenant]]
            self._tenants.destroy(tenant)
            return sum(map(len, gone))

    def scrub(self, *, thorough: bool = False) -> None:
        """There are no files."""

    def empty(self) -> bool:
        with self._lock:
            return not self._keys

    def close(self) -> None:
        with self._lock:
            self._keys.clear()


class MemoryTenantKeys(TenantKeyStore):
    """Its tenant keys, under the vault's own lock."""

    def __init__(self, lock: threading.Lock, keys: dict[_Scope, list[StoredKey]]) -> None:
        self._lock = lock
        self._data_keys = keys
        self._keys: dict[tuple[str, int], StoredTenantKey] = {}
        self.pseudonyms = self._pseudonyms = MemoryPseudonyms(lock, self)

    def insert_if_absent(self, key: StoredTenantKey) -> StoredTenantKey:
        with self._lock:
            return self._keys.setdefault((key.tenant, key.generation), key)

    def newest(self, tenant: str) -> StoredTenantKey | None:
        with self._lock:
            return self._newest(tenant)

    def _newest(self, tenant: str) -> StoredTenantKey | None:
        of_tenant = (key for key in self._keys.values() if key.tenant == tenant)
        return max(of_tenant, key=lambda key: key.generation, default=None)

    def destroy(self, tenant: str) -> None:
        """Forget the tenant's keys; under the vault's lock, which the caller holds."""
        for place in [place for place in self._keys if place[0] == tenant]:
            del self._keys[place]
        self._pseudonyms.destroy_tenant(tenant)

    def find(self, tenant: str, key_id: bytes) -> StoredTenantKey | None:
        return next((key for key in self.all() if key.tenant == tenant and key.key_id == key_id), None)

    def all(self) -> list[StoredTenantKey]:
        with self._lock:
            return [self._keys[place] for place in sorted(self._keys)]

    def counts(self) -> list[KeyCount]:
        counted: dict[tuple[str, str], list[int]] = {}
        with self._lock:
            for key in self._all_data_keys():
                counted.setdefault((key.tenant, key.wrapping_key_id), [0, 0])[not key.session_id] += 1
        return [KeyCount(tenant, by, *counted[tenant, by]) for tenant, by in sorted(counted)]

    def wrapped_otherwise(
        self, tenant: str, wrapping_key_id: str, after: StoredKey | None, limit: int
    ) -> list[StoredKey]:
        with self._lock:
            found = [
                key
                for key in self._all_data_keys()
                if key.tenant == tenant
                and key.wrapping_key_id != wrapping_key_id
                and (after is None or key[:4] > after[:4])
            ]
        return found[:limit]

    def rewrap(self, keys: Sequence[Rewrapped]) -> int:
        done = 0
        with self._lock:
            for stored, wrapping_key_id, wrapped in keys:
                of_scope = self._data_keys.get((stored.tenant, stored.user, stored.session_id), [])
                if stored in of_scope:
                    changed = stored._replace(wrapping_key_id=wrapping_key_id, wrapped=wrapped)
                    of_scope[of_scope.index(stored)] = changed
                    done += 1
        return done

    def replace(self, stored: StoredTenantKey, provider_key_id: str, wrapped: bytes) -> bool:
        place = stored.tenant, stored.generation
        with self._lock:
            if self._keys.get(place) != stored:
                return False
            self._keys[place] = stored._replace(provider_key_id=provider_key_id, wrapped=wrapped)
            return True

    def drop_unused(self, tenant: str) -> list[StoredTenantKey]:
        with self._lock:
            newest = self._newest(tenant)
            used = {key.wrapping_key_id for key in self._all_data_keys() if key.tenant == tenant}
            used |= self._pseudonyms.wrapped_by(tenant)
            of_tenant = [key for key in self._keys.values() if key.tenant == tenant and key != newest]
            dropped = [key for key in of_tenant if key.name not in used]
            for key in dropped:
                del self._keys[key.tenant, key.generation]
        return dropped

    def refuse_replaced(self, keys: Sequence[StoredKey] | Sequence[StoredPseudonym]) -> None:
        """Raise TenantKeyReplaced unless each is wrapped by its tenant's newest key. The caller holds the lock."""
        for tenant, wrapping_key_id in {(key.tenant, key.wrapping_key_id) for key in keys}:
            newest = self._newest(tenant)
            if wrapping_key_id.startswith(TENANT_KEY_PREFIX) and (newest is None or newest.name != wrapping_key_id):
                raise TenantKeyReplaced(f"{wrapping_key_id} is not the newest key of tenant {tenant!r}: wrap again")

    def _all_data_keys(self) -> list[StoredKey]:
        return sorted((key for of_scope in self._data_keys.values() for key in of_scope), key=lambda key: key[:4])


class MemoryPseudonyms(PseudonymStore):
    """Its pseudonym keys and ways back, likewise."""

    def __init__(self, lock: threading.Lock, tenants: MemoryTenantKeys) -> None:
        self._lock = lock
        self._tenants = tenants
        self._rows: dict[tuple[str, str], StoredPseudonym] = {}

    def insert_if_absent(self, rows: Sequence[StoredPseudonym]) -> list[StoredPseudonym]:
        with self._lock:
            self._tenants.refuse_replaced(rows)
            return [self._rows.setdefault((row.tenant, row.pseudonym), row) for row in rows]

    def find(self, tenant: str, pseudonym: str) -> StoredPseudonym | None:
        with self._lock:
            return self._rows.get((tenant, pseudonym))

    def any(self) -> bool:
        with self._lock:
            return bool(self._rows)

    def destroy(self, tenant: str, pseudonym: str) -> bool:
        if not pseudonym:
            raise ValueError("the tenant's pseudonym key goes with the tenant")
        with self._lock:
            return self._rows.pop((tenant, pseudonym), None) is not None

    def destroy_tenant(self, tenant: str) -> None:
        """Forget the tenant's rows; the caller holds the lock, as for `wrapped_by`."""
        for place in [place for place in self._rows if place[0] == tenant]:
            del self._rows[place]

    def wrapped_by(self, tenant: str) -> set[str]:
        """The names of the tenant keys that wrap a row."""
        return {row.wrapping_key_id for row in self._rows.values() if row.tenant == tenant}

    def wrapped_otherwise(self, tenant: str, wrapping_key_id: str, limit: int) -> list[StoredPseudonym]:
        with self._lock:
            rows = [row for row in self._rows.values() if row.tenant == tenant]
        return sorted(row for row in rows if row.wrapping_key_id != wrapping_key_id)[:limit]

    def reseal(self, rows: Sequence[Resealed]) -> int:
        done = 0
        with self._lock:
            for stored, wrapping_key_id, sealed in rows:
                place = stored.tenant, stored.pseudonym
                if self._rows.get(place) == stored:
                    self._rows[place] = stored._replace(wrapping_key_id=wrapping_key_id, sealed=sealed)
                    done += 1
        return done
