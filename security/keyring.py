"""A key service in a local file: the keyring.

The file is JSON, mode 0600, each key 32 random bytes; the primary wraps, all unwrap::

    {"format": "session-ledger keyring", "version": 1, "primary": ID, "keys": {ID: BASE64}}
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import secrets
import threading
from pathlib import Path
from typing import NoReturn

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from session_ledger.domain.errors import KeyUnavailable, Misconfigured
from session_ledger.security.files import create_private, locked_directory, open_to_others, replace_private
from session_ledger.security.provider import KeyProvider
from session_ledger.security.sealing import KEY_BYTES, Nonces
from session_ledger.security.wrapping import Bound, unwrap_v1, wrap_v1

KEYRING_FORMAT = "session-ledger keyring"
KEYRING_VERSION = 1
IN_MEMORY = "memory"
_KEY_PREFIX = "wk-"

_State = tuple[int, int, int]
"""Inode, time of change and size of the file."""


class Keyring(KeyProvider):
    """Wrapping keys from a local file, read again when it has changed; see `wrapping` for a wrapped key's bytes.

    A file that went away harms no process that has read it. Nonces are random, so one key should wrap at most 2^32
    others.
    """

    def __init__(self, path: Path, primary: str, keys: dict[str, bytes], seen: _State | None) -> None:
        """`seen`: what the file looked like before it was read."""
        self.path = path
        self.primary = primary
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self._nonces = Nonces()
        self._lock = threading.Lock()
        self._seen = seen

    @classmethod
    def create(cls, path: Path) -> Keyring:
        """Write a new keyring with one fresh wrapping key. Raises Misconfigured where the file is there already.

        The file appears whole or not at all, and is on the disk before this returns.
        """
        primary = _new_key_id()
        try:
            create_private(path, _content(primary, {primary: os.urandom(KEY_BYTES)}))
        except FileExistsError:
            raise Misconfigured(f"the keyring {path} exists already") from None
        except OSError as error:
            raise Misconfigured(f"the keyring {path} can not be written: {error.strerror}") from error
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> Keyring:
        """Read a keyring. Raises Misconfigured where it is absent, open to others, or not a keyring."""
        seen = _state(path)  # first: what changes while it is read is read again
        return cls(path, *_read(path), seen)

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

    def describe(self) -> str:
        return f"the keyring {self.path}"

    def holds(self, provider_key_id: str) -> bool:
        return provider_key_id.startswith(_KEY_PREFIX) or provider_key_id in self._ciphers

    def current(self) -> str:
        self._reread()
        return self.primary

    def wrap(self, key: bytes, bound: Bound) -> tuple[str, bytes]:
        self._reread()
        primary = self.primary
        return primary, wrap_v1(self._ciphers[primary], self._nonces.take(), key, bound.associated())

    def unwrap(self, provider_key_id: str, wrapped: bytes, bound: Bound) -> bytes:
        return self.unwrap_data_key(provider_key_id, wrapped, bound.associated())

    def unwrap_data_key(self, provider_key_id: str, wrapped: bytes, associated: bytes) -> bytes:
        self._reread()
        cipher = self._ciphers.get(provider_key_id)
        if cipher is None:
            raise KeyUnavailable(f"wrapping key {provider_key_id} is not in {self.describe()}")
        return unwrap_v1(cipher, wrapped, associated, f"wrapping key {provider_key_id} of {self.describe()}")

    def add_primary(self) -> str:
        """Add a fresh key to the file, which wraps from now on; the others stay. Its id.

        Whoever has the keyring open finds it there. Raises Misconfigured.
        """
        path = self.path
        primary = _new_key_id()
        try:
            with locked_directory(path):
                _, keys = _read(path)
                for draft in path.parent.glob(f".{path.name}.*"):  # of who was killed while writing one
                    draft.unlink(missing_ok=True)
                replace_private(path, _content(primary, {**keys, primary: os.urandom(KEY_BYTES)}))
        except OSError as error:
            raise Misconfigured(f"the keyring {path} can not be written: {error.strerror}") from error
        self._reread()
        return primary

    def key_ids(self) -> list[str]:
        """The ids of its keys, in the file's order: the primary is the last that was added."""
        self._reread()
        return list(self._ciphers)

    def _reread(self) -> None:
        """Take in what has changed in the file."""
        state = _state(self.path)
        if state is None or state == self._seen:
            return
        with self._lock:
            try:
                primary, keys = _read(self.path)
            except Misconfigured as error:
                raise KeyUnavailable(f"{error} (it has changed since it was opened)") from error
            self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
            self.primary = primary
            self._seen = state

    def __repr__(self) -> str:
        return f"<Keyring {self.path} primary={self.primary} keys={len(self._ciphers)}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a keyring is not to be copied or pickled")


class MemoryKeyring(KeyProvider):
    """One wrapping key that is gone with the process: for ledgers in memory."""

    def __init__(self) -> None:
        self._cipher = AESGCM(os.urandom(KEY_BYTES))
        self._nonces = Nonces()

    def describe(self) -> str:
        return "a keyring in memory"

    def holds(self, provider_key_id: str) -> bool:
        return provider_key_id == IN_MEMORY

    def current(self) -> str:
        return IN_MEMORY

    def wrap(self, key: bytes, bound: Bound) -> tuple[str, bytes]:
        return IN_MEMORY, wrap_v1(self._cipher, self._nonces.take(), key, bound.associated())

    def unwrap(self, provider_key_id: str, wrapped: bytes, bound: Bound) -> bytes:
        return unwrap_v1(self._cipher, wrapped, bound.associated(), "the keyring in memory")


def _state(path: Path) -> _State | None:
    """What tells one content of the file from another; None where there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _new_key_id() -> str:
    return _KEY_PREFIX + secrets.token_hex(8)


def _content(primary: str, keys: dict[str, bytes]) -> bytes:
    encoded = {key_id: base64.b64encode(key).decode() for key_id, key in keys.items()}
    content = {"format": KEYRING_FORMAT, "version": KEYRING_VERSION, "primary": primary, "keys": encoded}
    return json.dumps(content, indent=2).encode() + b"\n"


def _read(path: Path) -> tuple[str, dict[str, bytes]]:
    """(primary id, keys by id) of the file. Raises Misconfigured where it is absent, open to others, no keyring."""
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
    return _parse(path, content)


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
