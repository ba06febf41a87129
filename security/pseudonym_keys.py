"""Pseudonyms by keys of a vault: HMAC under a tenant's own key, which is never rotated; the way back beside it.

Version 1, which never changes:

- A pseudonym is `p-` and, in lower-case base32 without padding (RFC 4648), the first 16 bytes of HMAC-SHA256
  (RFC 2104) under the tenant's pseudonym key, over a text that names this use, the tenant and the user.
- The key, 32 random bytes, is wrapped by the tenant's key, bound to ledger and tenant; the user's id is sealed by the
  tenant's key, bound to ledger, tenant and pseudonym. A rotation of the tenant's key wraps both anew.
"""

from __future__ import annotations

import base64
import hmac
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TypeVar

from session_ledger.domain.errors import KeyServiceUnavailable, KeyUnavailable
from session_ledger.domain.ids import is_pseudonym
from session_ledger.security.elapsed import elapsed_s
from session_ledger.security.port import Kept
from session_ledger.security.pseudonym_store import PseudonymStore, Resealed, TenantKeyReplaced
from session_ledger.security.pseudonyms import Pseudonyms, locked
from session_ledger.security.sealing import KEY_BYTES, prefixed
from session_ledger.security.stored import StoredPseudonym
from session_ledger.security.tenant_keys import TenantKey, TenantKeyGone, TenantKeys
from session_ledger.security.wrapping import Secret

PSEUDONYM_BYTES = 16
AWAY_S = 5.0  # how long a key service that did not answer is not asked again for names: a page has many of them
WRAPS_MAX = 3  # tries to store something while its tenant key is being rotated
_OWN = ""  # whose pseudonym key says that the ledger has pseudonyms: the ledger's own

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")
_Place = tuple[str, str]


def pseudonym_v1(key: bytes, tenant: str, user: str) -> str:
    """The user's pseudonym: 28 characters."""
    text = b"session-ledger pseudonym v1" + prefixed(tenant.encode()) + prefixed(user.encode())
    digest = hmac.digest(key, text, "sha256")[:PSEUDONYM_BYTES]
    return "p-" + base64.b32encode(digest).decode().rstrip("=").lower()


def imported_v1(key: bytes, tenant: str, session_id: bytes) -> bytes:
    """What the id of an imported session is made of, 8 bytes, in place of a digest that a guess could be checked by."""
    text = b"session-ledger imported session v1" + prefixed(tenant.encode()) + prefixed(session_id)
    return hmac.digest(key, text, "sha256")[:8]


class WayBack(Kept):
    """The way back from a pseudonym, on its way into the vault. The user's id never shows in a repr.

    It is sealed by who makes it, so that the shard meets the key service only where the key was rotated meanwhile.
    """

    __slots__ = ("durable", "revoked", "row", "until_s", "user")

    def __init__(self, row: StoredPseudonym, user: str) -> None:
        self.row = row
        self.user = user
        self.durable = self.revoked = False
        self.until_s = 0.0

    def __repr__(self) -> str:
        return f"<WayBack {self.row.pseudonym} of {self.row.tenant!r} durable={self.durable}>"


class PseudonymRows:
    """Rows of the vault, made and opened by tenant keys. Keeps nothing."""

    def __init__(self, ledger: str, tenants: TenantKeys) -> None:
        self._ledger = ledger
        self._tenants = tenants

    def made(self, tenant: str, pseudonym: str, content: str | bytes) -> StoredPseudonym:
        """A row under the tenant's newest key: a user's id, or (bytes) the tenant's pseudonym key."""
        tenant_key = self._tenants.wrapping_key(tenant)
        return StoredPseudonym(tenant, pseudonym, *self._sealed(tenant_key, tenant, pseudonym, content))

    def key(self, stored: StoredPseudonym) -> tuple[bytes, float]:
        """(the tenant's pseudonym key, until when its tenant key may be used). Raises KeyUnavailable."""
        tenant_key = self._tenants.named(stored.tenant, stored.wrapping_key_id)
        return tenant_key.unwrap(stored.sealed, self._bound(stored.tenant, "")), tenant_key.until_s

    def user(self, stored: StoredPseudonym) -> tuple[str, float]:
        """(the user's id, likewise). Raises KeyUnavailable."""
        tenant_key = self._tenants.named(stored.tenant, stored.wrapping_key_id)
        bound = self._bound(stored.tenant, stored.pseudonym)
        return tenant_key.open_user(stored.sealed, bound), tenant_key.until_s

    def resealed(self, stored: StoredPseudonym, tenant_key: TenantKey) -> Resealed:
        """The row under that tenant key. Raises KeyUnavailable."""
        content: str | bytes = self.user(stored)[0] if stored.pseudonym else self.key(stored)[0]
        return Resealed(stored, *self._sealed(tenant_key, stored.tenant, stored.pseudonym, content))

    def _sealed(self, tenant_key: TenantKey, tenant: str, pseudonym: str, content: str | bytes) -> tuple[str, bytes]:
        bound = self._bound(tenant, pseudonym)
        if isinstance(content, bytes):
            return self._tenants.wrap_by(tenant_key, content, bound)
        return self._tenants.seal_user_by(tenant_key, content, bound)

    def _bound(self, tenant: str, pseudonym: str) -> bytes:
        """For AES-GCM: what it is, ledger, tenant and pseudonym, each behind its length."""
        what = b"session-ledger way back v1" if pseudonym else b"session-ledger pseudonym key v1"
        return what + b"".join(prefixed(part.encode()) for part in (self._ledger, tenant, pseudonym))


class VaultPseudonyms(Pseudonyms):
    """Of one ledger. What it opened is used for so long as keys are; users' ids stay in memory no longer either."""

    def __init__(
        self,
        ledger: str,
        store: PseudonymStore,
        tenants: TenantKeys,
        *,
        cached_s: float,
        cached_max: int,
        monotonic_s: Callable[[], float] = elapsed_s,
    ) -> None:
        self._store = store
        self._tenants = tenants
        self._rows = PseudonymRows(ledger, tenants)
        self._cached_s = cached_s
        self._cached_max = cached_max
        self._monotonic_s = monotonic_s
        self._lock = threading.Lock()
        self._in_use: bool | None = None
        self._look_again_s = 0.0
        self._keys: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self._away_until_s: OrderedDict[str, float] = OrderedDict()
        self._users: OrderedDict[_Place, tuple[str, float]] = OrderedDict()
        self._ways: OrderedDict[_Place, WayBack] = OrderedDict()

    def in_use(self) -> bool:
        if self._in_use:
            return True
        now_s = self._monotonic_s()
        if self._in_use is None or now_s >= self._look_again_s:  # a ledger that is being created may say so late
            self._in_use = self._store.any()
            self._look_again_s = now_s + self._cached_s
        return self._in_use

    def begin(self) -> None:
        """Make it known, durably, that this ledger has pseudonyms."""
        self._key(_OWN, create=True)
        self._in_use = True

    def recorded_as(self, tenant: str, user: str) -> str:
        if not user or not self.in_use() or is_pseudonym(user):
            return user
        try:
            key = self._key(tenant, create=False)
        except KeyServiceUnavailable:
            raise
        except KeyUnavailable as error:
            raise locked(tenant, error) from error
        return user if key is None else pseudonym_v1(key, tenant, user)

    def user_of(self, tenant: str, recorded: str) -> str:
        if not self.in_use() or not is_pseudonym(recorded):
            return recorded
        found = self._users.get((tenant, recorded))
        now_s = self._monotonic_s()
        if found is not None and found[1] > now_s:
            return found[0]
        if self._away_until_s.get(tenant, 0.0) > now_s:
            return recorded
        try:
            opened = self._read(tenant, recorded, self._rows.user)
        except KeyServiceUnavailable:
            self._keep(self._away_until_s, tenant, self._monotonic_s() + AWAY_S)
            return recorded
        except KeyUnavailable:
            return recorded
        if opened is None:
            return recorded
        self._keep(self._users, (tenant, recorded), (opened[0], min(opened[1], now_s + self._cached_s)))
        return opened[0]

    # --- for the edge of the owner ----------------------------------------------------------------------------------

    def made(self, tenant: str, user: str) -> str:
        """The pseudonym of a user's id; makes the tenant's key where there is none. Raises KeyUnavailable."""
        return pseudonym_v1(self._made_key(tenant), tenant, user)

    def imported(self, tenant: str, session_id: bytes) -> bytes:
        """8 bytes that follow from the id which a client derived for an imported session, for who has the key."""
        return imported_v1(self._made_key(tenant), tenant, session_id)

    def way_back(self, tenant: str, pseudonym: str, user: str) -> WayBack:
        """What has to be in the vault before anything of the user is appended. It may be there already."""
        there = self._ways.get((tenant, pseudonym))
        if there is not None and there.until_s > self._monotonic_s():
            return there
        return WayBack(self._rows.made(tenant, pseudonym, user), user)

    def make_durable(self, ways: Sequence[WayBack]) -> None:
        """Insert those that are not there, in one transaction. Raises KeyNotStored, KeyUnavailable."""
        fresh = list({way.row[:2]: way for way in ways if not way.durable}.values())
        if not fresh:
            return
        again = [(way.row.tenant, way.row.pseudonym, way.user) for way in fresh]
        self._inserted([way.row for way in fresh], lambda: [self._rows.made(*one) for one in again])
        until_s = self._monotonic_s() + self._cached_s
        for way in ways:
            way.durable, way.until_s, way.user = True, until_s, ""
            self._keep(self._ways, (way.row.tenant, way.row.pseudonym), way)

    def forget(self, tenant: str, pseudonym: str) -> None:
        """The user was erased: look into the vault again."""
        with self._lock:
            self._ways.pop((tenant, pseudonym), None)
            self._users.pop((tenant, pseudonym), None)

    def clear(self) -> None:
        """Forget every key and id."""
        with self._lock:
            for cache in (self._keys, self._users, self._ways):
                cache.clear()

    # --- keys ---------------------------------------------------------------------------------------------------------

    def _made_key(self, tenant: str) -> bytes:
        key = self._key(tenant, create=True)
        assert key is not None
        return key

    def _key(self, tenant: str, *, create: bool) -> bytes | None:
        found = self._keys.get(tenant)
        now_s = self._monotonic_s()
        if found is not None and found[1] > now_s:
            return found[0]
        opened = self._read(tenant, "", self._rows.key)
        if opened is None:
            if not create:
                return None
            key = Secret(os.urandom(KEY_BYTES))
            made = [self._rows.made(tenant, "", key)]
            (stands,) = self._inserted(made, lambda: [self._rows.made(tenant, "", key)])
            opened = self._rows.key(stands)
        self._keep(self._keys, tenant, (opened[0], min(opened[1], now_s + self._cached_s)))
        return opened[0]

    def _read(self, tenant: str, pseudonym: str, opened: Callable[[StoredPseudonym], T]) -> T | None:
        """A row, opened; read again where its tenant key went meanwhile, for a rotation may have sealed it anew."""
        stored = self._store.find(tenant, pseudonym)
        if stored is None:
            return None
        try:
            return opened(stored)
        except TenantKeyGone:
            again = self._store.find(tenant, pseudonym)
            if again == stored:
                raise
            return None if again is None else opened(again)

    def _inserted(
        self, rows: list[StoredPseudonym], again: Callable[[], list[StoredPseudonym]]
    ) -> list[StoredPseudonym]:
        """Put rows into the vault; where a tenant's key was rotated meanwhile, under the new one. What stands there."""
        for _ in range(WRAPS_MAX):
            try:
                return self._store.insert_if_absent(rows)
            except TenantKeyReplaced as error:
                replaced = error
                for row in rows:
                    self._tenants.refresh(row.tenant)
                rows = again()
        raise replaced

    def _keep(self, cache: OrderedDict[K, V], place: K, value: V) -> None:
        with self._lock:
            while len(cache) >= self._cached_max and place not in cache:
                cache.popitem(last=False)
            cache[place] = value
