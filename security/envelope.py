"""Envelopes: data keys from a vault, wrapped by tenant keys; and none, which must be chosen explicitly."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import cast

from session_ledger.domain.errors import KeyNotStored, KeyUnavailable
from session_ledger.domain.ids import format_id
from session_ledger.security.data_keys import DataKeys, Unwrapped
from session_ledger.security.elapsed import CACHED_S, elapsed_s
from session_ledger.security.keys import AGE, REQUESTED, RESUMED, Places, PlainKey, Scope, SealingKey
from session_ledger.security.opened_keys import OpenedKeys
from session_ledger.security.port import DataKey, Envelope, Kept
from session_ledger.security.provider import KeyProvider
from session_ledger.security.pseudonym_keys import VaultPseudonyms, WayBack
from session_ledger.security.pseudonyms import NoPseudonyms, Pseudonyms
from session_ledger.security.sealing import (
    KEY_BYTES,
    KEY_ID_BYTES,
    Nonces,
    digest_key_v1,
    scope_data,
    wrapping_data,
)
from session_ledger.security.tenant_keys import WAIT_S, TenantKeys
from session_ledger.security.tenant_store import TenantKeyReplaced
from session_ledger.security.vault import StoredKey, Vault
from session_ledger.security.wrapping import Secret

KEYS_CACHED_MAX = 20_000
FIRST_GENERATION = 1
WRAPS_MAX = 3  # tries to store data keys while their tenant key is being rotated
US_A_SECOND = 1_000_000


def _now_us() -> int:
    return time.time_ns() // 1000


class VaultEnvelope(Envelope):
    """Seals by data keys that are kept in a vault, wrapped by tenant keys, which a key service wraps.

    A scope's key is the same object for all threads as long as it is cached. The cache is only a cache: where it
    drops a key that is not durable yet and another one is made for the same scope, the vault takes the first that is
    inserted, and the other raises KeyNotStored before anything sealed by it can be appended. When a key's time in it is
    over, the vault is asked again: a key that is gone from there seals and opens no more.

    It does not close the vault that it was given.
    """

    def __init__(
        self,
        ledger: str,
        vault: Vault,
        provider: KeyProvider,
        *,
        keys_cached_max: int = KEYS_CACHED_MAX,
        cached_s: float = CACHED_S,
        wait_s: float = WAIT_S,
        session_key_age_max_s: float | None = None,
        clock_us: Callable[[], int] = _now_us,
        monotonic_s: Callable[[], float] = elapsed_s,
    ) -> None:
        """`cached_s`: how long a key is used without asking for it again; `wait_s`: for a key service that is remote.

        `session_key_age_max_s`: a session's key that is older seals no more, a new one does; None: it always seals.
        """
        self._ledger = ledger
        self._vault = vault
        self._clock_us = clock_us
        self._monotonic_s = monotonic_s
        self._cached_s = cached_s
        self._age_max_us = None if session_key_age_max_s is None else round(session_key_age_max_s * US_A_SECOND)
        self._keys_cached_max = keys_cached_max
        self._keys: OrderedDict[Scope, SealingKey] = OrderedDict()
        self._lock = threading.Lock()
        self._nonces = Nonces()
        self._nonce = self._nonces.take  # one bound method for all keys: each would be another object
        self._places = Places()
        self._tenants = TenantKeys(
            ledger,
            vault.tenants,
            provider,
            cached_s=cached_s,
            cached_max=keys_cached_max,
            wait_s=wait_s,
            clock_us=clock_us,
            monotonic_s=monotonic_s,
        )
        self._data_keys = DataKeys(ledger, self._tenants)
        self._opened = OpenedKeys(keys_cached_max)
        self.pseudonyms = self.vault_pseudonyms = VaultPseudonyms(
            ledger,
            vault.tenants.pseudonyms,
            self._tenants,
            cached_s=cached_s,
            cached_max=keys_cached_max,
            monotonic_s=monotonic_s,
        )

    def session_key(
        self, tenant: str, user: str, session_id: bytes, *, create: bool = False, fresh: bool = False
    ) -> DataKey | None:
        key = cast("dict[tuple[str, str, bytes], SealingKey]", self._keys).get((tenant, user, session_id))
        if key is not None and key.until_s > self._monotonic_s():  # found without making a Scope, which is this tuple
            key.used = True
            return key
        return self._key(Scope(tenant, user, session_id), create, fresh)

    def account_key(self, tenant: str, user: str, *, create: bool = False) -> DataKey | None:
        return self._key(Scope(tenant, user, b""), create, False)

    def next_key(self, tenant: str, user: str, session_id: bytes) -> DataKey | None:
        scope = Scope(tenant, user, session_id)
        newest = self._newest(scope)
        return None if newest is None else self._following(self._loaded(newest), REQUESTED)

    def opening_key(self, tenant: str, user: str, session_id: bytes, key_id: bytes | None) -> DataKey | None:
        if key_id is None:
            return None
        scope, now_s = Scope(tenant, user, session_id), self._monotonic_s()
        key = self._keys.get(scope)
        if key is not None and key.key_id == key_id and key.until_s > now_s:
            key.used = True
            return key
        key = self._opened.get(scope, key_id, now_s)
        if key is not None:
            return key
        found = self._data_keys.read(lambda: self._vault.find(tenant, user, session_id, key_id))
        if found is None:
            self._opened.drop(scope, key_id)
            return None
        return self._opened.keep(self._made(found, None), now_s)

    def make_durable(self, keys: Iterable[Kept]) -> None:
        keys = list(keys)
        fresh = {id(key): key for key in keys if isinstance(key, SealingKey) and not key.durable}
        if fresh:
            self._make_keys_durable(fresh)
        self.vault_pseudonyms.make_durable([key for key in keys if isinstance(key, WayBack)])

    def _make_keys_durable(self, fresh: dict[int, SealingKey]) -> None:
        now = self._clock_us()
        lost = self._inserted(list(fresh.values()), now)
        winners = {(stored.tenant, stored.user, stored.session_id, stored.generation): stored for stored in lost}
        losers: list[SealingKey] = []
        with self._lock:
            for key in fresh.values():
                winner = winners.get((*key.scope, key.generation))
                if winner is not None and winner.key_id != key.key_id:
                    key.abandon()
                    losers.append(key)
                    if self._keys.get(key.scope) is key:
                        del self._keys[key.scope]
                else:
                    key.durable, key.wrapping = True, None
                    cached = self._keys.get(key.scope)
                    if cached is None or cached.generation <= key.generation:
                        self._cache(key)
        if losers:
            self._adopt(winners.values())
            raise KeyNotStored(
                f"{len(losers)} data keys were made elsewhere first, as {format_id(losers[0].key_id)} of one session "
                "or account: seal those commands again"
            )

    def renewed_account_key(self, tenant: str, user: str) -> DataKey:
        scope = Scope(tenant, user, b"")
        newest = self._newest(scope)
        generation = FIRST_GENERATION if newest is None else newest.stored.generation + 1
        return self._new(scope, scope_data(self._ledger, *scope), generation, REQUESTED, None)

    def forget(self, tenant: str, user: str, session_id: bytes | None) -> None:
        with self._lock:
            for scope in [scope for scope in self._keys if scope[:2] == (tenant, user)]:
                if session_id is None or scope.session_id == session_id:
                    self._keys.pop(scope).revoked = True
        self._opened.forget(tenant, user, session_id)
        if session_id is None:
            self.vault_pseudonyms.forget(tenant, user)

    def close(self) -> None:
        with self._lock:
            self._keys.clear()
            self._nonces.forget()
        self._opened.clear()
        self.vault_pseudonyms.clear()
        self._tenants.clear()

    # --- the cache ------------------------------------------------------------------------------------------------

    def _key(self, scope: Scope, create: bool, fresh: bool) -> SealingKey | None:
        while True:
            key = self._valid(scope)
            if key is not None:
                return key
            before = self._keys.get(scope)
            was_durable = before is not None and before.durable
            key = self._looked_up(scope, create, fresh)  # not under the lock: it may wait for the service
            with self._lock:
                there = self._keys.get(scope)
                if key is None:
                    self._keys.pop(scope, None)  # gone from the vault, or never there
                    return None
                if there is not None:
                    if not key.durable and there.durable and not (there is before and was_durable):
                        continue  # it went into the vault since that was asked
                    if self._stays(there, key):
                        there.until_s = max(there.until_s, key.until_s)
                        return there
                self._cache(key)
                return key

    def _looked_up(self, scope: Scope, create: bool, fresh: bool) -> SealingKey | None:
        """The scope's key as the vault has it; a new one where that is too old, or is not there and may be made."""
        newest = None if fresh and create else self._newest(scope)
        if newest is None:
            return self._first(scope) if create else None
        key = self._loaded(newest)
        return self._following(key, AGE) if self._is_old(newest.stored) else key

    def _valid(self, scope: Scope) -> SealingKey | None:
        key = self._keys.get(scope)
        if key is None or key.until_s <= self._monotonic_s():
            return None
        key.used = True
        return key

    def _stays(self, there: SealingKey, key: SealingKey) -> bool:
        """Whether the key that is cached goes on: it is the same, or came before this new one and did not go since."""
        if there.key_id == key.key_id:
            return True
        if key.durable or there.generation < key.generation:
            return False
        return not there.durable or there.until_s > self._monotonic_s()

    def _cache(self, key: SealingKey) -> None:
        """Hold the key; at the limit, the key goes that was not used since it was looked at last (second chance)."""
        now_s = self._monotonic_s()
        while self._keys and (first := next(iter(self._keys.values()))).until_s <= now_s and first.durable:
            self._keys.popitem(last=False)
        while len(self._keys) >= self._keys_cached_max and key.scope not in self._keys:
            scope, oldest = self._keys.popitem(last=False)
            if oldest.used:
                oldest.used = False
                self._keys[scope] = oldest
        self._keys[key.scope] = key

    def _adopt(self, winners: Iterable[StoredKey]) -> None:
        """Cache the keys that won, so that the next attempt finds them; where that fails, it looks for itself."""
        for stored in winners:
            with suppress(KeyUnavailable):
                key = self._loaded(self._data_keys.unwrap(stored))
                with self._lock:
                    cached = self._keys.get(key.scope)
                    if cached is None or not cached.durable:
                        self._cache(key)

    # --- keys out of the vault, and new ones ----------------------------------------------------------------------

    def _newest(self, scope: Scope) -> Unwrapped | None:
        stored = self._vault.newest(*scope)
        return None if stored is None else self._data_keys.read(lambda: self._vault.newest(*scope), stored)

    def _loaded(self, found: Unwrapped) -> SealingKey:
        """A key for sealing. A session's later ones digest by its first; an account's, which an erasure makes, not."""
        if found.stored.generation == FIRST_GENERATION or not found.scope.session_id:
            return self._made(found, digest_key_v1(found.key))
        first = self._data_keys.read(lambda: self._vault.first(*found.scope))
        if first is None:
            raise KeyUnavailable(
                f"the vault holds key {found.stored.generation} of a session, but not its first, which tells repeats"
            )
        return self._made(found, digest_key_v1(first.key))

    def _made(self, found: Unwrapped, digest_key: bytes | None) -> SealingKey:
        stored = found.stored
        key = SealingKey(
            found.scope,
            found.scope_bytes,
            stored.key_id,
            found.key,
            durable=True,
            nonce=self._nonce,
            places=self._places,
            generation=stored.generation,
            made_because=RESUMED,
            digest_key=digest_key,
        )
        now_s = self._monotonic_s()
        key.until_s = now_s + self._cached_s
        if found.until_s is not None:
            key.until_s = min(key.until_s, found.until_s)
        if self._age_max_us is not None and found.scope.session_id:
            old_in_us = stored.created_at + self._age_max_us - self._clock_us()
            if old_in_us > 0:
                key.until_s = min(key.until_s, now_s + old_in_us / US_A_SECOND)
        return key

    def _first(self, scope: Scope) -> SealingKey:
        return self._new(scope, scope_data(self._ledger, *scope), FIRST_GENERATION, "", None)

    def _following(self, key: SealingKey, reason: str) -> SealingKey:
        """A key of the next generation."""
        return self._new(key.scope, key.scope_bytes, key.generation + 1, reason, key.digest_key())

    def _is_old(self, stored: StoredKey) -> bool:
        if self._age_max_us is None or not stored.session_id:
            return False
        return self._clock_us() - stored.created_at >= self._age_max_us

    def _new(
        self, scope: Scope, scope_bytes: bytes, generation: int, reason: str, digest_key: bytes | None
    ) -> SealingKey:
        tenant_key = self._tenants.wrapping_key(scope.tenant)
        key = SealingKey(
            scope,
            scope_bytes,
            os.urandom(KEY_ID_BYTES),
            Secret(os.urandom(KEY_BYTES)),
            durable=False,
            nonce=self._nonce,
            places=self._places,
            generation=generation,
            made_because=reason,
            digest_key=digest_key,
        )
        key.wrapping = tenant_key.wrap(self._nonce(), key.secret(), wrapping_data(scope_bytes, key.key_id))
        now_s = self._monotonic_s()
        key.until_s = min(now_s + self._cached_s, tenant_key.until_s)
        if self._age_max_us is not None and scope.session_id:
            key.until_s = min(key.until_s, now_s + self._age_max_us / US_A_SECOND)
        return key

    def _inserted(self, keys: list[SealingKey], now_us: int) -> list[StoredKey]:
        """Put them into the vault; where a tenant's key was rotated meanwhile, wrapped by the new one."""
        for _ in range(WRAPS_MAX):
            try:
                return self._vault.insert_if_absent([self._stored(key, now_us) for key in keys])
            except TenantKeyReplaced as error:
                replaced = error
                for key in keys:
                    self._tenants.refresh(key.scope.tenant)
                for key in keys:
                    key.wrapping = self._wrapped(key)
        raise replaced

    def _wrapped(self, key: SealingKey) -> tuple[str, bytes]:
        associated = wrapping_data(key.scope_bytes, key.key_id)
        return self._tenants.wrap(key.scope.tenant, key.secret(), associated)

    def _stored(self, key: SealingKey, now_us: int) -> StoredKey:
        tenant, user, session_id = key.scope
        name, wrapped = key.wrapping or self._wrapped(key)
        return StoredKey(session_id, tenant, user, key.generation, key.key_id, name, wrapped, now_us)


class NoEnvelope(Envelope):
    """Sealing is off: content stands in the log as it is. Never a default; whoever wants it names it."""

    def __init__(self, pseudonyms: Pseudonyms | None = None) -> None:
        """`pseudonyms`: of a ledger that has some; None: of one that has none."""
        self.pseudonyms = pseudonyms or NoPseudonyms()
        self._key = PlainKey()

    def session_key(
        self, tenant: str, user: str, session_id: bytes, *, create: bool = False, fresh: bool = False
    ) -> DataKey | None:
        return self._key

    def account_key(self, tenant: str, user: str, *, create: bool = False) -> DataKey | None:
        return self._key

    def next_key(self, tenant: str, user: str, session_id: bytes) -> DataKey | None:
        return self._key

    def opening_key(self, tenant: str, user: str, session_id: bytes, key_id: bytes | None) -> DataKey | None:
        return self._key

    def renewed_account_key(self, tenant: str, user: str) -> DataKey:
        return self._key

    def forget(self, tenant: str, user: str, session_id: bytes | None) -> None:
        return None

    def make_durable(self, keys: Iterable[Kept]) -> None:
        return None

    def close(self) -> None:
        return None
