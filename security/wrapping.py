"""Wrapping version 1: a key, or a user's id, encrypted by a key and bound to its place. Nothing in here may change.

A wrapped key is ``0x01 + nonce(12) + AES-256-GCM output`` (the tag, 16 bytes, at its end).
"""

from __future__ import annotations

from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from session_ledger.domain.errors import KeyUnavailable
from session_ledger.security.sealing import KEY_BYTES, NONCE_BYTES, SEALED_BYTES_MIN, TAG_BYTES, prefixed

_WRAPPED_V1 = b"\x01"
_WRAPPED_BYTES = 1 + NONCE_BYTES + KEY_BYTES + TAG_BYTES


class Secret(bytes):
    """A key's bytes, which no repr tells: not in a traceback either that shows local variables."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<a key of {len(self)} bytes>"


class Bound(NamedTuple):
    """What a wrapped tenant key is bound to."""

    ledger: str
    tenant: str
    key_id: bytes

    def associated(self) -> bytes:
        """For AES-GCM: ledger, tenant and key id, each behind its length."""
        of_tenant = prefixed(self.ledger.encode()) + prefixed(self.tenant.encode())
        return b"session-ledger tenant key v1" + of_tenant + prefixed(self.key_id)

    def context(self) -> dict[str, str]:
        """For a service that takes names and values, none of them empty: the ledger's own key names no tenant."""
        context = {"session-ledger": self.ledger, "key-id": self.key_id.hex()}
        return {**context, "tenant": self.tenant} if self.tenant else context


def wrap_v1(cipher: AESGCM, nonce: bytes, key: bytes, associated: bytes) -> bytes:
    """The key, wrapped."""
    return _WRAPPED_V1 + nonce + cipher.encrypt(nonce, key, associated)


def unwrap_v1(cipher: AESGCM, wrapped: object, associated: bytes, by: str) -> bytes:
    """The key. Raises KeyUnavailable that names the wrapping key (`by`) where it does not unwrap."""
    if not isinstance(wrapped, bytes) or len(wrapped) != _WRAPPED_BYTES or wrapped[:1] != _WRAPPED_V1:
        raise KeyUnavailable(f"a key wrapped by {by} is damaged: format or length is wrong")
    try:
        return Secret(cipher.decrypt(wrapped[1 : 1 + NONCE_BYTES], wrapped[1 + NONCE_BYTES :], associated))
    except InvalidTag:
        raise KeyUnavailable(
            f"a key does not unwrap with {by}: it is damaged, belongs to another owner, or the key is another ledger's"
        ) from None


def seal_user_v1(cipher: AESGCM, nonce: bytes, user: str, associated: bytes) -> bytes:
    """A user's id, sealed: the same form, as long as the id is."""
    return _WRAPPED_V1 + nonce + cipher.encrypt(nonce, user.encode(), associated)


def open_user_v1(cipher: AESGCM, sealed: object, associated: bytes, by: str) -> str:
    """The user's id. Raises KeyUnavailable that names the key (`by`) where it does not open."""
    if not isinstance(sealed, bytes) or len(sealed) < SEALED_BYTES_MIN or sealed[:1] != _WRAPPED_V1:
        raise KeyUnavailable(f"a user's id sealed by {by} is damaged: format or length is wrong")
    try:
        return cipher.decrypt(sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :], associated).decode()
    except (InvalidTag, UnicodeDecodeError):
        raise KeyUnavailable(
            f"a user's id does not open with {by}: it is damaged, or of another pseudonym, tenant or ledger"
        ) from None
