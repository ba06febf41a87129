"""What a vault holds: wrapped data keys, the wrapped tenant keys that wrap them, and what pseudonyms stand for."""

from __future__ import annotations

from typing import NamedTuple

TENANT_KEY_PREFIX = "tk-"


class StoredKey(NamedTuple):
    """A wrapped data key and whose it is. `session_id` is b"" for a user's account key.

    `generation` is 1 for a scope's first data key and counts up with each rotation; `created_at` is in microseconds
    since the epoch. `wrapping_key_id` names a tenant key (`tk-...`), or, in rows of a vault of version 1, the key of
    the keyring that wraps it directly. Time-ordered session ids come first, so that inserts touch few pages.
    """

    session_id: bytes
    tenant: str
    user: str
    generation: int
    key_id: bytes
    wrapping_key_id: str
    wrapped: bytes
    created_at: int


class StoredTenantKey(NamedTuple):
    """A tenant key, wrapped by the key service. `tenant` "": the ledger's own, for what is no tenant's.

    `generation` counts up with each rotation, the highest wraps; `provider_key_id` is the service's name of its key;
    `created_at` is in microseconds since the epoch.
    """

    tenant: str
    generation: int
    key_id: bytes
    provider_key_id: str
    wrapped: bytes
    created_at: int

    @property
    def name(self) -> str:
        """As the data keys that it wraps name it."""
        return tenant_key_name(self.key_id)


class StoredPseudonym(NamedTuple):
    """The way back from a pseudonym: the user's id, sealed by a tenant key. `pseudonym` "": the tenant's pseudonym key.

    `sealed`: of a pseudonym the user's id, else the wrapped key; `wrapping_key_id` names the tenant key.
    """

    tenant: str
    pseudonym: str
    wrapping_key_id: str
    sealed: bytes


class KeyCount(NamedTuple):
    """How many data keys of a tenant one wrapping key wraps."""

    tenant: str
    wrapping_key_id: str
    sessions: int
    accounts: int


def tenant_key_name(key_id: bytes) -> str:
    """`tk-` and the id's 16 bytes in hex."""
    return TENANT_KEY_PREFIX + key_id.hex()
