"""Where pseudonym keys and the ways back from pseudonyms are kept: the port. It is a part of the vault."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from session_ledger.domain.errors import KeyNotStored
from session_ledger.security.stored import StoredPseudonym


class TenantKeyReplaced(KeyNotStored):
    """Something came wrapped by a tenant key that is not the tenant's newest: wrap it again, by that one."""


class Resealed(NamedTuple):
    """A row as it stands in the vault, and what stands in it under another tenant key."""

    stored: StoredPseudonym
    wrapping_key_id: str
    sealed: bytes


class PseudonymStore(ABC):
    """Thread-safe, and shared by processes. Every failure is KeyUnavailable, or KeyNotStored from a write.

    A row is inserted only under its tenant's newest key, in the same transaction, as data keys are: so a rotation
    leaves none behind.
    """

    @abstractmethod
    def insert_if_absent(self, rows: Sequence[StoredPseudonym]) -> list[StoredPseudonym]:
        """Make them durable in one transaction; where (tenant, pseudonym) is taken, what stands there stays.

        Returns what stands in each place. Raises KeyNotStored: none is known to be durable, inserting them again is
        harmless. Raises TenantKeyReplaced, which is one.
        """

    @abstractmethod
    def find(self, tenant: str, pseudonym: str) -> StoredPseudonym | None:
        """The row of the pseudonym ("": of the tenant's pseudonym key); None where there is none."""

    @abstractmethod
    def any(self) -> bool:
        """Whether there is a row: the ledger has pseudonyms since it was created."""

    @abstractmethod
    def destroy(self, tenant: str, pseudonym: str) -> bool:
        """Destroy the way back from a pseudonym; False where there was none. Never the tenant's key."""

    @abstractmethod
    def wrapped_otherwise(self, tenant: str, wrapping_key_id: str, limit: int) -> list[StoredPseudonym]:
        """The tenant's rows under another tenant key, by pseudonym; `limit` at most."""

    @abstractmethod
    def reseal(self, rows: Sequence[Resealed]) -> int:
        """Replace what they hold, in one transaction; a row that changed or went meanwhile is left. How many it was."""
