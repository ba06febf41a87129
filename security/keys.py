"""Data keys: one that seals and one for where sealing is off."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import NamedTuple, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from session_ledger.domain.errors import ContentUnreadable, InvalidInput, KeyExhausted, KeyNotStored, KeyUnavailable
from session_ledger.domain.ids import format_id
from session_ledger.security.port import DataKey
from session_ledger.security.sealing import (
    EVENT_ID_BYTES,
    FORMAT_PLAIN,
    FORMAT_SEALED,
    NONCE_BYTES,
    SEALED_BYTES_MIN,
    SEALS_MAX,
    commitment_v1,
    digest_key_v1,
    digest_v1,
    place_data,
    plain_digest,
    prefixed,
)

_EVENT_ID_LENGTH = EVENT_ID_BYTES.to_bytes(4, "big")
_NONCE_END = 1 + NONCE_BYTES
_PLACES_MAX = 4096  # the event types have about a hundred sealed fields; more come only from wrong input


AGE, REQUESTED, RESUMED = "age", "requested", "resumed"
"""Why a key was made: the one before was too old, somebody asked, or (of one that was found) nobody knows any more."""


class Scope(NamedTuple):
    """Whose a data key is: one session's, or the user's account (session_id b"")."""

    tenant: str
    user: str
    session_id: bytes


class Places(dict[tuple[str, str], bytes]):
    """(event type, field) to that part of the associated data, made on first use and shared by all keys."""

    def __missing__(self, place: tuple[str, str]) -> bytes:
        if len(self) >= _PLACES_MAX:
            self.clear()
        data = self[place] = place_data(*place)
        return data


class SealingKey(DataKey):
    """A data key that seals with AES-256-GCM, version 1. Thread-safe. Its bytes never show in a repr or a pickle.

    Seals are counted since the key was loaded: KeyExhausted at 2^32. `scope_bytes` is the scope as
    `sealing.scope_data` gives it; `used` and `until_s` (of a monotonic clock) are for the cache that holds the key.
    Bodies are digested by the subkey of the scope's first key, so that a repeat is known again after a rotation.
    """

    __slots__ = (
        "_aes", "_digest_key", "_key", "_nonce", "_places", "_seals", "_tail", "durable",
        "generation", "key_id", "made_because", "revoked", "scope", "scope_bytes", "until_s", "used", "wrapping",
    )  # fmt: skip

    key_id: bytes

    def __init__(
        self,
        scope: Scope,
        scope_bytes: bytes,
        key_id: bytes,
        key: bytes,
        *,
        durable: bool,
        nonce: Callable[[], bytes],
        places: Places,
        generation: int = 1,
        made_because: str = RESUMED,
        digest_key: bytes | None = None,
    ) -> None:
        """`digest_key`: of the scope's first key, where this is another; without it a later key only opens."""
        self.generation = generation
        self.made_because = made_because
        self.until_s = 0.0
        self.wrapping: tuple[str, bytes] | None = None  # of a key that is not in the vault yet
        self.scope = scope
        self.key_id = key_id
        self.durable = durable
        self.used = self.revoked = False
        self._key = key
        self._aes: AESGCM | None = None  # 2.5 kB each: many keys only digest, as most users' account keys do
        self._digest_key = digest_key
        self._nonce = nonce
        self._places = places
        self.scope_bytes = scope_bytes
        self._tail = b""
        self._seals = count()

    def seal(self, event_id: bytes, event_type: str, field: str, plaintext: bytes) -> bytes:
        """The ciphertext for that field of that event. Raises KeyExhausted, KeyNotStored (see `abandon`)."""
        if len(event_id) != EVENT_ID_BYTES:
            raise InvalidInput("event_id", f"{len(event_id)} bytes", "must be 16 bytes")
        if next(self._seals) >= SEALS_MAX:
            raise KeyExhausted(f"data key {format_id(self.key_id)} has sealed 2^32 times; it must be rotated")
        nonce = self._nonce()
        cipher = self._aes or self._cipher()
        associated = b"".join((self.scope_bytes, self._places[event_type, field], self._tail, event_id))
        return FORMAT_SEALED + nonce + cipher.encrypt(nonce, plaintext, associated)

    def open(self, event_id: bytes, event_type: str, field: str, sealed: bytes) -> bytes:
        """The plaintext. Raises ContentUnreadable where key, place or bytes are wrong."""
        if sealed[:1] == FORMAT_PLAIN:
            raise self._unreadable(field, "it is plain text under a data key; a sealed field is never read unsealed")
        if sealed[:1] != FORMAT_SEALED:
            raise self._unreadable(field, f"its format byte is {sealed[:1].hex() or 'missing'}, known is 01")
        if len(sealed) < SEALED_BYTES_MIN:
            raise self._unreadable(field, f"it has {len(sealed)} bytes, the shortest ciphertext {SEALED_BYTES_MIN}")
        cipher = self._aes or self._cipher()
        associated = b"".join((self.scope_bytes, self._places[event_type, field], self._tail, event_id))
        try:
            return cipher.decrypt(sealed[1:_NONCE_END], sealed[_NONCE_END:], associated)
        except InvalidTag:
            reason = "it is damaged, or was sealed by another key or for another event, field or owner"
            raise self._unreadable(field, reason) from None

    def _cipher(self) -> AESGCM:
        self._tail = prefixed(self.key_id) + _EVENT_ID_LENGTH
        self._aes = cipher = AESGCM(self._key)
        return cipher

    @property
    def commitment(self) -> bytes:
        """See `sealing.commitment_v1`."""
        return commitment_v1(self.key_id, self._key)

    def digest(self, body: bytes) -> bytes:
        """The keyed digest of a command's body, 16 bytes."""
        return digest_v1(self._digest_key or self.digest_key(), body)

    def digest_key(self) -> bytes:
        """The subkey that bodies are digested with: of a session's first key, of an account's own.

        Raises KeyUnavailable from a session's later key that was loaded to open only.
        """
        if self._digest_key is None:
            if self.generation != 1 and self.scope.session_id:
                raise KeyUnavailable(f"data key {format_id(self.key_id)} was loaded for opening, not for commands")
            self._digest_key = digest_key_v1(self._key)
        return self._digest_key

    def secret(self) -> bytes:
        """The key's 32 bytes, for wrapping only."""
        return self._key

    def abandon(self) -> None:
        """The vault holds another key for this scope: from now on this one refuses to seal."""
        self._nonce = self._refuse

    def _refuse(self) -> NoReturn:
        raise KeyNotStored(f"data key {format_id(self.key_id)} lost against another one; seal again with that")

    def _unreadable(self, field: str, reason: str) -> ContentUnreadable:
        return ContentUnreadable(f"{field} does not open with data key {format_id(self.key_id)}: {reason}")

    def __repr__(self) -> str:
        return f"<SealingKey {format_id(self.key_id)} durable={self.durable}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a data key is not to be copied or pickled")


class PlainKey(DataKey):
    """Seals nothing: ``0x00 + plaintext``."""

    __slots__ = ("durable", "generation", "key_id", "made_because", "revoked")

    def __init__(self) -> None:
        self.generation = 1
        self.made_because = ""
        self.key_id = None
        self.durable = True
        self.revoked = False

    @property
    def commitment(self) -> None:
        """None."""

    def seal(self, event_id: bytes, event_type: str, field: str, plaintext: bytes) -> bytes:
        """The plaintext behind the format byte 0x00."""
        return FORMAT_PLAIN + plaintext

    def open(self, event_id: bytes, event_type: str, field: str, sealed: bytes) -> bytes:
        """The plaintext. Raises ContentUnreadable for what was sealed."""
        if sealed[:1] == FORMAT_PLAIN:
            return sealed[1:]
        if sealed[:1] == FORMAT_SEALED:
            raise ContentUnreadable(
                f"{field} is sealed, and this ledger was opened with sealing off: open it with its keyring and vault"
            )
        raise ContentUnreadable(f"{field}: its format byte is {sealed[:1].hex() or 'missing'}, known are 00 and 01")

    def digest(self, body: bytes) -> bytes:
        """A digest of a command's body without a key, 16 bytes."""
        return plain_digest(body)

    def __repr__(self) -> str:
        return "<PlainKey: sealing is off>"
