"""Where wrapped tenant keys are kept, and what a rotation does to a vault: the port. It is a part of the vault."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from session_ledger.security.pseudonym_store import PseudonymStore
from session_ledger.security.pseudonym_store import TenantKeyReplaced as TenantKeyReplaced
from session_ledger.security.stored import KeyCount, StoredKey, StoredTenantKey


class Rewrapped(NamedTuple):
    """A data key as it stands in the vault, and its new wrapping."""

    stored: StoredKey
    wrapping_key_id: str
    wrapped: bytes


class TenantKeyStore(ABC):
    """Thread-safe, and shared by processes. Every failure is KeyUnavailable, or KeyNotStored from a write.

    What makes a rotation safe beside writers: a data key is inserted only if its tenant key is the tenant's newest, in
    the same transaction. So once a new generation stands here, no data key joins an older one.
    """

    pseudonyms: PseudonymStore
    """What tenant keys wrap beside data keys."""

    @abstractmethod
    def insert_if_absent(self, key: StoredTenantKey) -> StoredTenantKey:
        """Make it durable; where (tenant, generation) is taken, what stands there stays. Returns what stands there."""

    @abstractmethod
    def newest(self, tenant: str) -> StoredTenantKey | None:
        """The tenant's key of the highest generation, which wraps; None where there is none."""

    @abstractmethod
    def find(self, tenant: str, key_id: bytes) -> StoredTenantKey | None:
        """The tenant's key with that id; None where there is none."""

    @abstractmethod
    def all(self) -> list[StoredTenantKey]:
        """Every tenant key, by tenant and generation."""

    @abstractmethod
    def counts(self) -> list[KeyCount]:
        """How many data keys each wrapping key wraps, by tenant."""

    @abstractmethod
    def wrapped_otherwise(
        self, tenant: str, wrapping_key_id: str, after: StoredKey | None, limit: int
    ) -> list[StoredKey]:
        """The tenant's data keys that another key wraps, in the vault's order, from behind `after`; `limit` at most."""

    @abstractmethod
    def rewrap(self, keys: Sequence[Rewrapped]) -> int:
        """Replace those wrappings in one transaction; a row that changed or went meanwhile is left. How many it was."""

    @abstractmethod
    def replace(self, stored: StoredTenantKey, provider_key_id: str, wrapped: bytes) -> bool:
        """Replace a tenant key's wrapping; False where it changed or went meanwhile."""

    @abstractmethod
    def drop_unused(self, tenant: str) -> list[StoredTenantKey]:
        """Remove the tenant's older generations that wrap nothing, in one transaction; those that went."""
