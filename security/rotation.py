"""Rotations that leave the log alone: a tenant's key, and the key service's own.

Both are resumable: killed at any step, everything in the vault opens, and the next run finishes what was begun. Both
run beside the ledger's owner: the vault takes no data key that an older tenant key wraps, and what is read anew after a
key went is found wrapped by its successor.

    tenant     1 insert the next generation   2 wrap data keys anew, a batch a transaction; likewise what pseudonyms
               need   3 drop what wraps nothing
    provider   1 the service's new key        2 wrap each tenant key anew, one a transaction

Data keys that the keyring wrapped itself (a vault of version 1) are wrapped by their tenant's key in step 2 of either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from session_ledger.domain.errors import InvalidInput, KeyUnavailable
from session_ledger.security.data_keys import DataKeys
from session_ledger.security.pseudonym_keys import PseudonymRows
from session_ledger.security.sealing import wrapping_data
from session_ledger.security.stored import TENANT_KEY_PREFIX, StoredKey, StoredTenantKey
from session_ledger.security.tenant_keys import TenantKey, TenantKeys
from session_ledger.security.tenant_store import Rewrapped, TenantKeyStore

BATCH_KEYS = 500  # data keys wrapped anew in one transaction: some 10 ms, during which no session can begin
LOOKS_MAX = 10  # at what is not wrapped by the newest key: more are needed only while others rotate the same tenant

Progress = Callable[[int], None]
"""Told how many data keys have been wrapped anew so far."""


@dataclass(frozen=True, slots=True)
class TenantRotated:
    """What became of a tenant's keys."""

    tenant: str
    generation: int
    """The one that wraps now."""
    resumed: bool
    """An unfinished rotation was finished; no further generation was made."""
    rewrapped: int
    """Data keys wrapped anew by this run."""
    dropped: int
    """Older generations that are gone from the vault."""
    kept: int
    """Older generations that still wrap something: another rotation of the tenant runs."""
    pseudonyms: int = 0
    """Ways back from pseudonyms, and the pseudonym key, that were sealed anew by this run."""


@dataclass(frozen=True, slots=True)
class ProviderRotated:
    """What became of the key service's wrappings."""

    provider_key_id: str
    """What wraps now."""
    tenant_keys: int
    """Wrapped anew by this run."""
    data_keys: int
    """Of a vault of version 1: wrapped by their tenant's key now."""


class Rotation:
    """Over one vault. Raises KeyUnavailable where a key does not open: what came before it stays done."""

    def __init__(self, ledger: str, store: TenantKeyStore, tenants: TenantKeys, batch_keys: int = BATCH_KEYS) -> None:
        self._store = store
        self._tenants = tenants
        self._data_keys = DataKeys(ledger, tenants)
        self._pseudonyms = PseudonymRows(ledger, tenants)
        self._batch_keys = batch_keys

    def rotate_tenant(self, tenant: str, progress: Progress | None = None) -> TenantRotated:
        """A new generation of the tenant's key wraps all its data keys; the older ones go.

        Where an earlier run was cut short, it is finished instead. Raises InvalidInput for a tenant without a key.
        """
        of_tenant = [key for key in self._store.all() if key.tenant == tenant]
        if not of_tenant and tenant not in self._direct():
            raise InvalidInput("tenant", f"{tenant[:40]!r}, which has no key in the vault", "must be one that has")
        resumed = len(of_tenant) > 1
        key = self._tenants.named(tenant, of_tenant[-1].name) if resumed else self._tenants.next_generation(tenant)
        rewrapped = self._rewrap(key, progress)
        pseudonyms = self._reseal(key)
        dropped = self._store.drop_unused(tenant)
        kept = sum(other.tenant == tenant for other in self._store.all()) - 1
        return TenantRotated(tenant, key.generation, resumed, rewrapped, len(dropped), kept, pseudonyms)

    def rotate_provider(self, progress: Progress | None = None) -> ProviderRotated:
        """Every tenant key is wrapped by the service's key as it is now; so is what an older service wrapped.

        The service's own new key, where it does not make them by itself, is made by the caller, before.
        """
        provider_key_id = self._tenants.provider.current()
        waiting = [stored for stored in self._store.all() if stored.provider_key_id != provider_key_id]
        done = sum(map(self._rewrap_tenant_key, waiting))
        data_keys = 0
        for tenant in self._direct():
            data_keys += self._rewrap(self._tenants.wrapping_key(tenant), progress, direct_only=True)
        return ProviderRotated(provider_key_id, done, data_keys)

    def _direct(self) -> list[str]:
        """Tenants with data keys that no tenant key wraps."""
        counts = self._store.counts()
        return sorted({count.tenant for count in counts if not count.wrapping_key_id.startswith(TENANT_KEY_PREFIX)})

    def _rewrap_tenant_key(self, stored: StoredTenantKey) -> bool:
        provider = self._tenants.provider
        bound = self._tenants.bound(stored)
        name, wrapped = provider.rewrap(stored.provider_key_id, stored.wrapped, bound)
        if provider.unwrap(name, wrapped, bound) != provider.unwrap(stored.provider_key_id, stored.wrapped, bound):
            raise KeyUnavailable(f"{provider.describe()} wrapped tenant key {stored.name} as another key: it is left")
        return self._store.replace(stored, name, wrapped)

    def _rewrap(self, key: TenantKey, progress: Progress | None, *, direct_only: bool = False) -> int:
        done = 0
        for _ in range(LOOKS_MAX):
            found = changed = 0
            for batch in self._batches(key):
                found += len(batch)
                wrapped = [self._rewrapped(stored, key) for stored in batch if not (direct_only and _by_tenant(stored))]
                changed += self._store.rewrap(wrapped)
                if progress is not None:
                    progress(done + changed)
            done += changed
            if not found or direct_only:
                break
        return done

    def _reseal(self, key: TenantKey) -> int:
        """Of the tenant's pseudonyms: whatever another tenant key wraps."""
        store, done, stuck = self._store.pseudonyms, 0, 0
        while stuck < LOOKS_MAX and (found := store.wrapped_otherwise(key.tenant, key.name, self._batch_keys)):
            changed = store.reseal([self._pseudonyms.resealed(stored, key) for stored in found])
            stuck = 0 if changed else stuck + 1  # others rotate the same tenant
            done += changed
        return done

    def _batches(self, key: TenantKey) -> Iterator[list[StoredKey]]:
        after: StoredKey | None = None
        while batch := self._store.wrapped_otherwise(key.tenant, key.name, after, self._batch_keys):
            yield batch
            after = batch[-1]

    def _rewrapped(self, stored: StoredKey, key: TenantKey) -> Rewrapped:
        found = self._data_keys.unwrap(stored)
        associated = wrapping_data(found.scope_bytes, stored.key_id)
        return Rewrapped(stored, *self._tenants.wrap_by(key, found.key, associated))


def _by_tenant(stored: StoredKey) -> bool:
    return stored.wrapping_key_id.startswith(TENANT_KEY_PREFIX)
