"""Envelopes: data keys from a vault, wrapped by a key service; and none, which must be chosen explicitly."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import cast

from session_ledger.domain.errors import KeyNotStored, KeyUnavailable
from session_ledger.domain.ids import format_id
from session_ledger.security.keyring import KeyProvider
from session_ledger.security.keys import Places, PlainKey, Scope, SealingKey
from session_ledger.security.port import DataKey, Envelope
from session_ledger.security.sealing import KEY_BYTES, KEY_ID_BYTES, Nonces, scope_data, wrapping_data
from session_ledger.security.vault import StoredKey, Vault

KEYS_CACHED_MAX = 20_000
FIRST_GENERATION = 1


def _now_us() -> int:
    return time.time_ns() // 1000


class VaultEnvelope(Envelope):
    """Seals by data keys that are kept in a vault, wrapped by a key service.

    A scope's key is the same object for all threads as long as it is cached. The cache is only a cache: where it
    drops a key that is not durable yet and another one is made for the same scope, the vault takes the first that is
    inserted, and the other raises KeyNotStored before anything sealed by it can be appended.

    It does not close the vault that it was given.
    """

    def __init__(
        self,
        ledger: str,
        vault: Vault,
        provider: KeyProvider,
        *,
        keys_cached_max: int = KEYS_CACHED_MAX,
        clock_us: Callable[[], int] = _now_us,
    ) -> None:
        self._ledger = ledger
        self._vault = vault
        self._provider = provider
        self._clock_us = clock_us
        self._keys_cached_max = keys_cached_max
        self._keys: OrderedDict[Scope, SealingKey] = OrderedDict()
        self._lock = threading.Lock()
        self._nonces = Nonces()
        self._places = Places()

    def session_key(
        self, tenant: str, user: str, session_id: bytes, *, create: bool = False, fresh: bool = False
    ) -> DataKey | None:
        key = cast("dict[tuple[str, str, bytes], SealingKey]", self._keys).get((tenant, user, session_id))
        if key is not None:  # found without making a Scope, which is this tuple
            key.used = True
            return key
        return self._key(Scope(tenant, user, session_id), create, fresh)

    def account_key(self, tenant: str, user: str, *, create: bool = False) -> DataKey | None:
        return self._key(Scope(tenant, user, b""), create, False)

    def opening_key(self, tenant: str, user: str, session_id: bytes, key_id: bytes | None) -> DataKey | None:
        if key_id is None:
            return None
        key = self._key(Scope(tenant, user, session_id), False, False)
        if key is None or key.key_id == key_id:
            return key
        stored = self._vault.find(tenant, user, session_id, key_id)
        return None if stored is None else self._unwrap(stored)

    def make_durable(self, keys: Iterable[DataKey]) -> None:
        fresh = {id(key): key for key in keys if isinstance(key, SealingKey) and not key.durable}
        if not fresh:
            return
        now = self._clock_us()
        lost = self._vault.insert_if_absent([self._wrap(key, now) for key in fresh.values()])
        winners = {Scope(stored.tenant, stored.user, stored.session_id): stored for stored in lost}
        losers: list[SealingKey] = []
        with self._lock:
            for key in fresh.values():
                if key.scope in winners:
                    key.abandon()
                    losers.append(key)
                    if self._keys.get(key.scope) is key:
                        del self._keys[key.scope]
                else:
                    key.durable = True
                    self._cache(key)
        if losers:
            self._adopt(winners.values())
            raise KeyNotStored(
                f"{len(losers)} data keys were made elsewhere first, as {format_id(losers[0].key_id)} of one session "
                "or account: seal those commands again"
            )

    def renewed_account_key(self, tenant: str, user: str) -> DataKey:
        raise NotImplementedError

    def forget(self, tenant: str, user: str, session_id: bytes | None) -> None:
        with self._lock:
            for scope in [scope for scope in self._keys if scope[:2] == (tenant, user)]:
                if session_id is None or scope.session_id == session_id:
                    self._keys.pop(scope).revoked = True

    def close(self) -> None:
        with self._lock:
            self._keys.clear()
            self._nonces.forget()

    def _key(self, scope: Scope, create: bool, fresh: bool) -> SealingKey | None:
        key = self._keys.get(scope)
        if key is not None:
            key.used = True
            return key
        with self._lock:
            key = self._keys.get(scope)
            if key is not None:
                return key
            stored = None if fresh and create else self._vault.newest(*scope)
            if stored is not None:
                key = self._unwrap(stored)
            elif create:
                random = os.urandom(KEY_ID_BYTES + KEY_BYTES)
                scope_bytes = scope_data(self._ledger, *scope)
                key = self._sealing_key(scope, scope_bytes, random[:KEY_ID_BYTES], random[KEY_ID_BYTES:], durable=False)
            else:
                return None
            self._cache(key)
            return key

    def _cache(self, key: SealingKey) -> None:
        """Hold the key; at the limit, the key goes that was not used since it was looked at last (second chance)."""
        while len(self._keys) >= self._keys_cached_max and key.scope not in self._keys:
            scope, oldest = self._keys.popitem(last=False)
            if oldest.used:
                oldest.used = False
                self._keys[scope] = oldest
        self._keys[key.scope] = key

    def _adopt(self, winners: Iterable[StoredKey]) -> None:
        """Cache the keys that won, so that the next attempt finds them."""
        for stored in winners:
            key = self._unwrap(stored)
            with self._lock:
                cached = self._keys.get(key.scope)
                if cached is None or not cached.durable:
                    self._cache(key)

    def _sealing_key(self, scope: Scope, scope_bytes: bytes, key_id: bytes, key: bytes, *, durable: bool) -> SealingKey:
        return SealingKey(
            scope, scope_bytes, key_id, key, durable=durable, nonce=self._nonces.take, places=self._places
        )

    def _wrap(self, key: SealingKey, now_us: int) -> StoredKey:
        tenant, user, session_id = key.scope
        wrapping_key_id, wrapped = self._provider.wrap(key.secret(), wrapping_data(key.scope_bytes, key.key_id))
        return StoredKey(session_id, tenant, user, FIRST_GENERATION, key.key_id, wrapping_key_id, wrapped, now_us)

    def _unwrap(self, stored: StoredKey) -> SealingKey:
        scope = Scope(stored.tenant, stored.user, stored.session_id)
        if not isinstance(stored.key_id, bytes) or len(stored.key_id) != KEY_ID_BYTES:
            raise KeyUnavailable("the vault is damaged: it holds a key id that is not 16 bytes")
        scope_bytes = scope_data(self._ledger, *scope)
        associated = wrapping_data(scope_bytes, stored.key_id)
        return self._sealing_key(
            scope,
            scope_bytes,
            stored.key_id,
            self._provider.unwrap(stored.wrapping_key_id, stored.wrapped, associated),
            durable=True,
        )


class NoEnvelope(Envelope):
    """Sealing is off: content stands in the log as it is. Never a default; whoever wants it names it."""

    def __init__(self) -> None:
        self._key = PlainKey()

    def session_key(
        self, tenant: str, user: str, session_id: bytes, *, create: bool = False, fresh: bool = False
    ) -> DataKey | None:
        return self._key

    def account_key(self, tenant: str, user: str, *, create: bool = False) -> DataKey | None:
        return self._key

    def opening_key(self, tenant: str, user: str, session_id: bytes, key_id: bytes | None) -> DataKey | None:
        return self._key

    def renewed_account_key(self, tenant: str, user: str) -> DataKey:
        return self._key

    def forget(self, tenant: str, user: str, session_id: bytes | None) -> None:
        return None

    def make_durable(self, keys: Iterable[DataKey]) -> None:
        return None

    def close(self) -> None:
        return None
