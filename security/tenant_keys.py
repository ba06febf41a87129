"""Tenant keys: made and unwrapped by the key service, kept for a bounded time, wrapping data keys locally.

So a service that is away matters only for a tenant whose key is not in memory. A key that is used is asked for again
when half of its time is over, in the background where the service is remote; when all of it is over and nobody
answered, it is used no more.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import NoReturn

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from session_ledger.domain.errors import KeyUnavailable, SessionLedgerError
from session_ledger.security.elapsed import CACHED_S, elapsed_s
from session_ledger.security.flights import Flights
from session_ledger.security.provider import KeyProvider
from session_ledger.security.sealing import KEY_BYTES, KEY_ID_BYTES, Nonces
from session_ledger.security.stored import TENANT_KEY_PREFIX, StoredTenantKey
from session_ledger.security.tenant_store import TenantKeyStore
from session_ledger.security.wrapping import Bound, Secret, open_user_v1, seal_user_v1, unwrap_v1, wrap_v1

CACHED_MAX = 20_000
WAIT_S = 5.0  # for the key service; KMS answers in some 10 ms


class TenantKeyGone(KeyUnavailable):
    """The vault has no such tenant key (any more): a data key that names it may be wrapped by another one by now."""


class TenantKey:
    """An unwrapped tenant key. Its bytes never show in a repr or a pickle."""

    __slots__ = ("_cipher", "generation", "name", "refresh_at_s", "tenant", "until_s")

    def __init__(self, stored: StoredTenantKey, key: bytes, now_s: float, cached_s: float) -> None:
        self.tenant = stored.tenant
        self.generation = stored.generation
        self.name = stored.name
        self._cipher = AESGCM(key)
        self.refresh_at_s = now_s + cached_s / 2
        self.until_s = now_s + cached_s

    def wrap(self, nonce: bytes, key: bytes, associated: bytes) -> tuple[str, bytes]:
        """(its name, the wrapped data key)."""
        return self.name, wrap_v1(self._cipher, nonce, key, associated)

    def unwrap(self, wrapped: bytes, associated: bytes) -> bytes:
        """The data key. Raises KeyUnavailable."""
        return unwrap_v1(self._cipher, wrapped, associated, f"tenant key {self.name} of tenant {self.tenant!r}")

    def seal_user(self, nonce: bytes, user: str, associated: bytes) -> tuple[str, bytes]:
        """(its name, the user's id sealed)."""
        return self.name, seal_user_v1(self._cipher, nonce, user, associated)

    def open_user(self, sealed: bytes, associated: bytes) -> str:
        """The user's id. Raises KeyUnavailable."""
        return open_user_v1(self._cipher, sealed, associated, f"tenant key {self.name} of tenant {self.tenant!r}")

    def __repr__(self) -> str:
        return f"<TenantKey {self.name} of {self.tenant!r} generation={self.generation}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a tenant key is not to be copied or pickled")


class TenantKeys:
    """Hands out tenant keys. Thread-safe."""

    def __init__(
        self,
        ledger: str,
        store: TenantKeyStore,
        provider: KeyProvider,
        *,
        cached_s: float = CACHED_S,
        cached_max: int = CACHED_MAX,
        wait_s: float = WAIT_S,
        clock_us: Callable[[], int],
        monotonic_s: Callable[[], float] = elapsed_s,
    ) -> None:
        """`wait_s`: for the key service, where it is remote."""
        self.provider = provider
        self._ledger = ledger
        self._store = store
        self._cached_s = cached_s
        self._cached_max = cached_max
        self._wait_s = wait_s
        self._clock_us = clock_us
        self._monotonic_s = monotonic_s
        self._lock = Lock()
        self._keys: OrderedDict[tuple[str, str], TenantKey] = OrderedDict()
        self._wrapping: dict[str, str] = {}  # tenant to the name of the key that wraps
        self._flights = Flights(wait_s, provider.describe())
        self._nonces = Nonces()

    def wrapping_key(self, tenant: str) -> TenantKey:
        """The key that wraps the tenant's data keys; made, and durable, where there is none.

        Raises KeyUnavailable, KeyServiceUnavailable, Misconfigured.
        """
        name = self._wrapping.get(tenant)
        key = None if name is None else self._cached(tenant, name)
        return key or self._asked(("wrapping", tenant), lambda: self._newest(tenant))

    def named(self, tenant: str, name: str) -> TenantKey:
        """The tenant's key of that name. Raises TenantKeyGone, KeyUnavailable, KeyServiceUnavailable."""
        return self._cached(tenant, name) or self._asked((tenant, name), lambda: self._found(tenant, name))

    def next_generation(self, tenant: str) -> TenantKey:
        """Make a new key of the tenant, durable, which wraps from now on in every process."""
        newest = self._store.newest(tenant)
        generation = 1 if newest is None else newest.generation + 1
        return self._asked(("next", tenant), lambda: self._made(tenant, generation))

    def wrap(self, tenant: str, key: bytes, associated: bytes) -> tuple[str, bytes]:
        """(name of the tenant key, wrapped data key)."""
        return self.wrap_by(self.wrapping_key(tenant), key, associated)

    def wrap_by(self, tenant_key: TenantKey, key: bytes, associated: bytes) -> tuple[str, bytes]:
        """The same, by that tenant key."""
        return tenant_key.wrap(self._nonces.take(), key, associated)

    def seal_user_by(self, tenant_key: TenantKey, user: str, associated: bytes) -> tuple[str, bytes]:
        """(name of that tenant key, the user's id sealed by it)."""
        return tenant_key.seal_user(self._nonces.take(), user, associated)

    def refresh(self, tenant: str) -> None:
        """Forget which key wraps: the vault knows a newer one."""
        self._wrapping.pop(tenant, None)

    def bound(self, stored: StoredTenantKey) -> Bound:
        """What the key service binds it to."""
        return Bound(self._ledger, stored.tenant, stored.key_id)

    def clear(self) -> None:
        """Forget every key."""
        with self._lock:
            self._keys.clear()
            self._wrapping.clear()

    def _cached(self, tenant: str, name: str) -> TenantKey | None:
        key = self._keys.get((tenant, name))
        if key is None:
            return None
        now_s = self._monotonic_s()
        if now_s >= key.until_s:
            return None
        if now_s >= key.refresh_at_s:
            key.refresh_at_s = now_s + self._wait_s  # when a refresh that fails is tried again
            with suppress(SessionLedgerError):  # it is told when the key's time is over
                if self.provider.remote:
                    self._flights.begin((tenant, name), lambda: self._found(tenant, name))
                else:
                    return self._found(tenant, name)
        return key

    def _asked(self, purpose: tuple[str, str], ask: Callable[[], TenantKey]) -> TenantKey:
        return self._flights.call(purpose, ask) if self.provider.remote else ask()

    def _newest(self, tenant: str) -> TenantKey:
        stored = self._store.newest(tenant)
        return self._made(tenant, 1) if stored is None else self._unwrapped(stored, wraps=True)

    def _found(self, tenant: str, name: str) -> TenantKey:
        try:
            key_id = bytes.fromhex(name.removeprefix(TENANT_KEY_PREFIX))
        except ValueError:
            raise KeyUnavailable(f"the vault is damaged: {name!r} names no tenant key") from None
        stored = self._store.find(tenant, key_id)
        if stored is None:
            with self._lock:
                self._keys.pop((tenant, name), None)
            raise TenantKeyGone(f"tenant key {name} of tenant {tenant!r} is not in the vault")
        return self._unwrapped(stored, wraps=False)

    def _made(self, tenant: str, generation: int) -> TenantKey:
        key, key_id = Secret(os.urandom(KEY_BYTES)), os.urandom(KEY_ID_BYTES)
        provider_key_id, wrapped = self.provider.wrap(key, Bound(self._ledger, tenant, key_id))
        mine = StoredTenantKey(tenant, generation, key_id, provider_key_id, wrapped, self._clock_us())
        stands = self._store.insert_if_absent(mine)
        if stands != mine:  # another process was faster
            return self._unwrapped(stands, wraps=True)
        return self._kept(TenantKey(mine, key, self._monotonic_s(), self._cached_s), wraps=True)

    def _unwrapped(self, stored: StoredTenantKey, wraps: bool) -> TenantKey:
        now_s = self._monotonic_s()  # before the service is asked: what it says holds from then on
        key = self.provider.unwrap(stored.provider_key_id, stored.wrapped, self.bound(stored))
        if len(key) != KEY_BYTES:
            raise KeyUnavailable(f"tenant key {stored.name} unwraps to {len(key)} bytes, not {KEY_BYTES}")
        return self._kept(TenantKey(stored, key, now_s, self._cached_s), wraps)

    def _kept(self, key: TenantKey, wraps: bool) -> TenantKey:
        now_s = self._monotonic_s()
        with self._lock:
            while self._keys and next(iter(self._keys.values())).until_s <= now_s:
                self._keys.popitem(last=False)
            while len(self._keys) >= self._cached_max and (key.tenant, key.name) not in self._keys:
                self._keys.popitem(last=False)
            self._keys[key.tenant, key.name] = key
            self._keys.move_to_end((key.tenant, key.name))
            if wraps:
                while len(self._wrapping) >= self._cached_max and key.tenant not in self._wrapping:
                    del self._wrapping[next(iter(self._wrapping))]
                self._wrapping[key.tenant] = key.name
        return key
