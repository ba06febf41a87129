"""The envelope's port: one data key a session and one a user, and every seal bound to its place.

Sealing version 1, which never changes:

- AES-256-GCM (NIST SP 800-38D), a fresh random 96-bit nonce a seal, a 128-bit tag.
- A ciphertext is ``b"\\x01" + nonce(12) + AES-GCM output``; ``b"\\x00" + plaintext`` is what `NoEnvelope` writes.
- Event type is the event's topic (``session_ledger.events.MessageAdded``), field its attribute (``sealed_content``).
- Associated data: format byte 0x01, then ledger, tenant, user, session id, event type, field, key id and event id,
  each preceded by its length as 4 bytes big-endian. Session id is empty for account-level data.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

from session_ledger.security.pseudonyms import Pseudonyms


class Kept(ABC):
    """What has to be in the vault before anything that needs it is appended."""

    __slots__ = ()

    durable: bool
    """The vault holds it."""
    revoked: bool
    """What it seals was erased: nothing that it has sealed may be appended any more."""


class DataKey(Kept):
    """A data key bound to its owner: one session's, or one user's account (session_id b"")."""

    __slots__ = ()

    key_id: bytes | None
    """16 random bytes; None: sealing is off."""
    generation: int
    """1 for the scope's first key; counts up with each rotation."""
    made_because: str
    """Why a later key was made: age, requested, or resumed (found in the vault; the log may not know of it)."""

    @property
    @abstractmethod
    def commitment(self) -> bytes | None:
        """SHA-256(b"session-ledger key v1" + key_id + key), 32 bytes; None: sealing is off."""

    @abstractmethod
    def seal(self, event_id: bytes, event_type: str, field: str, plaintext: bytes) -> bytes:
        """The ciphertext for that field of that event."""

    @abstractmethod
    def open(self, event_id: bytes, event_type: str, field: str, sealed: bytes) -> bytes:
        """The plaintext; raises ContentUnreadable where key, place or bytes are wrong."""

    @abstractmethod
    def digest(self, body: bytes) -> bytes:
        """A digest of a command's body, 16 bytes, keyed by a subkey of the scope's first key (BLAKE2b)."""


class Envelope(ABC):
    """Hands out data keys. Thread-safe; keys are cached in memory, bounded in number and time.

    Whatever asks for a key may raise KeyServiceUnavailable, retriable, where its tenant's key is not in memory and the
    key service does not answer.
    """

    pseudonyms: Pseudonyms
    """What users are called in the log, and the way back."""

    @abstractmethod
    def session_key(
        self, tenant: str, user: str, session_id: bytes, *, create: bool = False, fresh: bool = False
    ) -> DataKey | None:
        """The session's key for sealing; None where there is none. `create`: make one (not durable yet) then.

        Where it is older than the policy allows, a key of the next generation is made, not durable yet.
        `fresh`, with `create`: the session's id was just made, so the vault need not be asked. Being wrong is safe:
        `make_durable` then raises KeyNotStored. Raises KeyUnavailable.
        """

    @abstractmethod
    def account_key(self, tenant: str, user: str, *, create: bool = False) -> DataKey | None:
        """The user's own key, likewise."""

    @abstractmethod
    def renewed_account_key(self, tenant: str, user: str) -> DataKey:
        """A new key of the user's account, not durable yet, in whose place none before it digests.

        It is the account's key as soon as it is durable. Raises KeyUnavailable.
        """

    @abstractmethod
    def forget(self, tenant: str, user: str, session_id: bytes | None) -> None:
        """Revoke the cached keys of a session, or (None) of all of a user: the vault is asked again for each.

        A key that is not durable yet is nobody's but its maker's, and stays as it is.
        """

    @abstractmethod
    def next_key(self, tenant: str, user: str, session_id: bytes) -> DataKey | None:
        """A new key of the session, of the next generation, not durable yet; None where it has none.

        It is the session's key as soon as it is durable. Raises KeyUnavailable.
        """

    @abstractmethod
    def opening_key(self, tenant: str, user: str, session_id: bytes, key_id: bytes | None) -> DataKey | None:
        """The key with that id of the session (b"": of the account), for reading; None where there is none.

        `key_id` None means that sealing was off when the event was recorded. Raises KeyUnavailable.
        """

    @abstractmethod
    def make_durable(self, keys: Iterable[Kept]) -> None:
        """Insert into the vault, in one transaction, those that are not durable yet.

        Raises KeyNotStored, retriable: whichever of the keys are `durable` now may be used, what was sealed by the
        others must not be appended (they lost against a key that stands in the vault, or the vault could not write).
        Raises KeyUnavailable where the wrapping key is not to be had.
        """

    @abstractmethod
    def close(self) -> None:
        """Forget every key. Idempotent."""
