"""Wrapping keys: the port of a key service, and a local keyring file.

The file is JSON, mode 0600, each key 32 random bytes; the primary wraps, all unwrap::

    {"format": "session-ledger keyring", "version": 1, "primary": ID, "keys": {ID: BASE64}}
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import secrets
from abc import ABC, abstractmethod
from pathlib import Path
from typing import NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from session_ledger.domain.errors import KeyUnavailable, Misconfigured
from session_ledger.security.files import create_private, open_to_others
from session_ledger.security.sealing import KEY_BYTES, NONCE_BYTES, TAG_BYTES, Nonces

KEYRING_FORMAT = "session-ledger keyring"
KEYRING_VERSION = 1
_WRAPPED_V1 = b"\x01"
_WRAPPED_BYTES = 1 + NONCE_BYTES + KEY_BYTES + TAG_BYTES


class KeyProvider(ABC):
    """Wraps data keys by keys of its own, which never leave it. Thread-safe. Failures raise KeyUnavailable."""

    @abstractmethod
    def wrap(self, data_key: bytes, associated: bytes) -> tuple[str, bytes]:
        """(wrapping key id, wrapped data key), bound to the associated data (key id and scope)."""

    @abstractmethod
    def unwrap(self, wrapping_key_id: str, wrapped: bytes, associated: bytes) -> bytes:
        """The data key. KeyUnavailable names the wrapping key where it is not here or does not unwrap."""


class Keyring(KeyProvider):
    """Wrapping keys from a local file. A wrapped key is ``0x01 + nonce(12) + AES-256-GCM output``.

    Nonces are random, so one wrapping key should wrap at most 2^32 data keys.
    """

    def __init__(self, path: Path, primary: str, keys: dict[str, bytes]) -> None:
        self.path = path
        self.primary = primary
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self._nonces = Nonces()

    @classmethod
    def create(cls, path: Path) -> Keyring:
        """Write a new keyring with one fresh wrapping key. Raises Misconfigured where the file is there already.

        The file appears whole or not at all, and is on the disk before this returns.
        """
        primary = f"wk-{secrets.token_hex(8)}"
        keys = {primary: base64.b64encode(os.urandom(KEY_BYTES)).decode()}
        content = {"format": KEYRING_FORMAT, "version": KEYRING_VERSION, "primary": primary, "keys": keys}
        try:
            create_private(path, json.dumps(content, indent=2).encode() + b"\n")
        except FileExistsError:
            raise Misconfigured(f"the keyring {path} exists already") from None
        except OSError as error:
            raise Misconfigured(f"the keyring {path} can not be written: {error.strerror}") from error
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> Keyring:
        """Read a keyring. Raises Misconfigured where it is absent, open to others, or not a keyring."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                mode = os.fstat(descriptor).st_mode
                wrong = open_to_others(mode)
                if wrong:
                    raise Misconfigured(f"the keyring {path} {wrong}: chmod 600 {path}")
                content = file.read()
        except FileNotFoundError:
            raise Misconfigured(
                f"there is no keyring at {path}; what was sealed with it can not be opened without it"
            ) from None
        except OSError as error:
            raise Misconfigured(f"the keyring {path} can not be read: {error.strerror}") from error
        primary, keys = _parse(path, content)
        return cls(path, primary, keys)

    @classmethod
    def open_or_create(cls, path: Path) -> Keyring:
        """The keyring at that path, made where it is absent; of several makers at once one wins, all get its."""
        if not path.exists():
            try:
                return cls.create(path)
            except Misconfigured:
                if not path.exists():
                    raise
        return cls.open(path)

    def wrap(self, data_key: bytes, associated: bytes) -> tuple[str, bytes]:
        nonce = self._nonces.take()
        return self.primary, _WRAPPED_V1 + nonce + self._ciphers[self.primary].encrypt(nonce, data_key, associated)

    def unwrap(self, wrapping_key_id: str, wrapped: bytes, associated: bytes) -> bytes:
        cipher = self._ciphers.get(wrapping_key_id)
        if cipher is None:
            raise KeyUnavailable(f"wrapping key {wrapping_key_id} is not in the keyring {self.path}")
        if not isinstance(wrapped, bytes) or len(wrapped) != _WRAPPED_BYTES or wrapped[:1] != _WRAPPED_V1:
            raise KeyUnavailable(f"a data key wrapped by {wrapping_key_id} is damaged: format or length is wrong")
        try:
            return cipher.decrypt(wrapped[1 : 1 + NONCE_BYTES], wrapped[1 + NONCE_BYTES :], associated)
        except InvalidTag:
            raise KeyUnavailable(
                f"a data key does not unwrap with wrapping key {wrapping_key_id} of {self.path}: "
                "it is damaged, belongs to another owner, or the keyring is another ledger's"
            ) from None

    def __repr__(self) -> str:
        return f"<Keyring {self.path} primary={self.primary} keys={len(self._ciphers)}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a keyring is not to be copied or pickled")


def _parse(path: Path, content: bytes) -> tuple[str, dict[str, bytes]]:
    """(primary id, keys by id) of a keyring's JSON. Errors never quote the content."""
    try:
        parsed = json.loads(content)
    except ValueError:
        raise Misconfigured(f"the keyring {path} is not JSON") from None
    if not isinstance(parsed, dict) or parsed.get("format") != KEYRING_FORMAT:
        raise Misconfigured(f"{path} is not a keyring: its format is not {KEYRING_FORMAT!r}")
    if parsed.get("version") != KEYRING_VERSION:
        raise Misconfigured(f"the keyring {path} has another version than {KEYRING_VERSION}, which this release knows")
    primary, encoded = parsed.get("primary"), parsed.get("keys")
    if not isinstance(primary, str) or not isinstance(encoded, dict) or primary not in encoded:
        raise Misconfigured(f"the keyring {path} names no primary key that it holds")
    return primary, {key_id: _decode(path, key_id, value) for key_id, value in encoded.items()}


def _decode(path: Path, key_id: str, value: object) -> bytes:
    try:
        key = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except binascii.Error:
        key = b""
    if len(key) != KEY_BYTES:
        raise Misconfigured(f"wrapping key {key_id} of the keyring {path} is not {KEY_BYTES} bytes in base64")
    return key
