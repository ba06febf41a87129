"""A key service beside the one that was used before: the new one wraps, both unwrap."""

from __future__ import annotations

from typing import ClassVar

from session_ledger.security.provider import KeyProvider
from session_ledger.security.wrapping import Bound


class WithOlder(KeyProvider):
    """Until a rotation of the provider has wrapped every tenant key by `now`, `older` unwraps what it once wrapped."""

    remote: ClassVar[bool] = True  # one of the two is

    def __init__(self, now: KeyProvider, older: KeyProvider) -> None:
        self.now = now
        self.older = older

    def describe(self) -> str:
        return f"{self.now.describe()} (and, for what it once wrapped, {self.older.describe()})"

    def holds(self, provider_key_id: str) -> bool:
        return self.now.holds(provider_key_id) or self.older.holds(provider_key_id)

    def current(self) -> str:
        return self.now.current()

    def wrap(self, key: bytes, bound: Bound) -> tuple[str, bytes]:
        return self.now.wrap(key, bound)

    def unwrap(self, provider_key_id: str, wrapped: bytes, bound: Bound) -> bytes:
        return self._of(provider_key_id).unwrap(provider_key_id, wrapped, bound)

    def rewrap(self, provider_key_id: str, wrapped: bytes, bound: Bound) -> tuple[str, bytes]:
        if self.now.holds(provider_key_id):
            return self.now.rewrap(provider_key_id, wrapped, bound)
        return super().rewrap(provider_key_id, wrapped, bound)

    def unwrap_data_key(self, provider_key_id: str, wrapped: bytes, associated: bytes) -> bytes:
        return self._of(provider_key_id).unwrap_data_key(provider_key_id, wrapped, associated)

    def _of(self, provider_key_id: str) -> KeyProvider:
        return self.older if self.older.holds(provider_key_id) and not self.now.holds(provider_key_id) else self.now
