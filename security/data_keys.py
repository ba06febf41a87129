"""Data keys as a vault holds them: wrapped and unwrapped by tenant keys, or by the keyring that once did it itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from session_ledger.domain.errors import KeyUnavailable
from session_ledger.security.keys import Scope
from session_ledger.security.sealing import KEY_ID_BYTES, scope_data, wrapping_data
from session_ledger.security.stored import TENANT_KEY_PREFIX, StoredKey
from session_ledger.security.tenant_keys import TenantKeyGone, TenantKeys


class Unwrapped(NamedTuple):
    """A data key out of the vault."""

    stored: StoredKey
    scope: Scope
    scope_bytes: bytes
    key: bytes
    until_s: float | None
    """Until when its tenant key may be used, of a monotonic clock; None: no tenant key wraps it."""

    def __repr__(self) -> str:
        return f"<Unwrapped generation={self.stored.generation}>"


class DataKeys:
    """Reads data keys of one ledger. Thread-safe; keeps nothing."""

    def __init__(self, ledger: str, tenants: TenantKeys) -> None:
        self._ledger = ledger
        self._tenants = tenants

    def read(self, read: Callable[[], StoredKey | None], stored: StoredKey | None = None) -> Unwrapped | None:
        """What `read` finds in the vault, or has found (`stored`), unwrapped; None where it finds nothing.

        Raises KeyUnavailable. Where its tenant key went between two looks, a rotation may have wrapped it anew: then
        it is read again.
        """
        stored = stored or read()
        if stored is None:
            return None
        try:
            return self.unwrap(stored)
        except TenantKeyGone:
            again = read()
            if again is None or again.wrapping_key_id == stored.wrapping_key_id:
                raise
            return self.unwrap(again)

    def unwrap(self, stored: StoredKey) -> Unwrapped:
        """A stored key, unwrapped. Raises KeyUnavailable."""
        scope = Scope(stored.tenant, stored.user, stored.session_id)
        if not isinstance(stored.key_id, bytes) or len(stored.key_id) != KEY_ID_BYTES:
            raise KeyUnavailable("the vault is damaged: it holds a key id that is not 16 bytes")
        scope_bytes = scope_data(self._ledger, *scope)
        associated = wrapping_data(scope_bytes, stored.key_id)
        name = stored.wrapping_key_id
        if name.startswith(TENANT_KEY_PREFIX):
            tenant_key = self._tenants.named(stored.tenant, name)
            key = tenant_key.unwrap(stored.wrapped, associated)
            return Unwrapped(stored, scope, scope_bytes, key, tenant_key.until_s)
        key = self._tenants.provider.unwrap_data_key(name, stored.wrapped, associated)
        return Unwrapped(stored, scope, scope_bytes, key, None)
