"""The port of a key service: it wraps tenant keys by keys of its own, which never leave it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from session_ledger.domain.errors import KeyUnavailable
from session_ledger.security.wrapping import Bound


class KeyProvider(ABC):
    """Thread-safe. Every call is done, or raises one of

    - KeyServiceUnavailable, retriable: the service can not be asked now;
    - KeyUnavailable: the wrapping key is not there, or does not unwrap; it is named;
    - Misconfigured: the key that is to wrap does not exist, or this process may not use it.
    """

    remote: ClassVar[bool] = False
    """Calls go over a network: they are made in another thread, and waited for so long."""

    @abstractmethod
    def describe(self) -> str:
        """What it is and where, in a few words."""

    @abstractmethod
    def holds(self, provider_key_id: str) -> bool:
        """Whether a key with that name would be this service's."""

    @abstractmethod
    def current(self) -> str:
        """The name of the key that wraps now."""

    @abstractmethod
    def wrap(self, key: bytes, bound: Bound) -> tuple[str, bytes]:
        """(name of the wrapping key, wrapped key), bound to ledger, tenant and key id."""

    @abstractmethod
    def unwrap(self, provider_key_id: str, wrapped: bytes, bound: Bound) -> bytes:
        """The key."""

    def rewrap(self, provider_key_id: str, wrapped: bytes, bound: Bound) -> tuple[str, bytes]:
        """As `wrap`, of a key that is wrapped by an older key of the service."""
        return self.wrap(self.unwrap(provider_key_id, wrapped, bound), bound)

    def unwrap_data_key(self, provider_key_id: str, wrapped: bytes, associated: bytes) -> bytes:
        """A data key that the service wrapped itself, as vaults of version 1 hold them; not every service did."""
        raise KeyUnavailable(
            f"a data key is wrapped by {provider_key_id} itself, as vaults of version 1 hold them, and "
            f"{self.describe()} has no such key: bring the keyring back that the ledger had"
        )
