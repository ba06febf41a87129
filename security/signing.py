"""Signed notes: a text with Ed25519 signatures under it, which anybody can check who has the public key.

The format is C2SP's signed-note (https://c2sp.org/signed-note): the text ends with a newline; an empty line follows,
and a line ``— NAME BASE64`` a signature, where the base64 holds a key id of four bytes and the signature of the text.
The key id is the beginning of SHA-256(NAME + "\\n" + 0x01 + public key); a public key is told as
``NAME+KEYID+BASE64`` with 0x01 before the 32 bytes.
"""

from __future__ import annotations

import base64
import hashlib
import re
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from session_ledger.domain.errors import InvalidInput, KeyUnavailable
from session_ledger.security.files import create_private, open_to_others

ED25519 = b"\x01"
KEY_ID_BYTES, KEY_BYTES = 4, 32
FILE = "signing.key"
_NAME = re.compile(r"[^\s+]+")
_PRIVATE = "PRIVATE+KEY"


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key."""

    name: str
    key: bytes
    """32 bytes."""

    @property
    def key_id(self) -> bytes:
        """Four bytes that tell keys of one name apart."""
        return hashlib.sha256(self.name.encode() + b"\n" + ED25519 + self.key).digest()[:KEY_ID_BYTES]

    def __str__(self) -> str:
        """As it is given to others: ``NAME+KEYID+BASE64``."""
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(ED25519 + self.key).decode()}"

    def named(self, name: str) -> Verifier:
        """The same key under another name."""
        return Verifier(name, self.key)

    @classmethod
    def parse(cls, text: str) -> Verifier:
        """The key of such a text. Raises InvalidInput."""
        name, _, rest = text.strip().partition("+")
        key_id, _, encoded = rest.partition("+")
        try:
            key = base64.b64decode(encoded, validate=True)
        except ValueError:
            key = b""
        found = cls(name, key[1:])
        if not _NAME.fullmatch(name) or key[:1] != ED25519 or len(key) != 1 + KEY_BYTES or found.key_id.hex() != key_id:
            raise InvalidInput("key", f"{len(text)} characters", "must be a public key: NAME+KEYID+BASE64")
        return found

    def text_of(self, note: str) -> str:
        """The text of a note that this key has signed. Raises InvalidInput where it has not, or it was changed."""
        text, separator, signatures = note.rpartition("\n\n")
        text += "\n"
        for line in signatures.splitlines() if separator else ():
            mark, _, rest = line.partition(" ")
            name, _, encoded = rest.partition(" ")
            if mark != "—" or name != self.name:
                continue
            try:
                signed = base64.b64decode(encoded, validate=True)
                if signed[:KEY_ID_BYTES] != self.key_id:
                    continue
                Ed25519PublicKey.from_public_bytes(self.key).verify(signed[KEY_ID_BYTES:], text.encode())
            except (ValueError, InvalidSignature):
                break
            return text
        raise InvalidInput("note", f"{len(note)} characters", f"must be signed by {self.name}, and not changed since")


class Signer:
    """A private key in a file of mode 0600, made where there is none."""

    def __init__(self, path: Path, name: str, *, create: bool = True) -> None:
        """`name`: whose it is, without spaces and plus signs. `create`: make one where there is none.

        Raises KeyUnavailable, InvalidInput.
        """
        if not _NAME.fullmatch(name):
            raise InvalidInput("name", f"{len(name)} characters", "must hold no space and no plus sign")
        try:
            if create and not path.exists():
                seed = Ed25519PrivateKey.generate().private_bytes_raw()
                with suppress(FileExistsError):  # another process made it meanwhile
                    create_private(path, f"{_PRIVATE}+{name}+{base64.b64encode(ED25519 + seed).decode()}\n".encode())
            if (wrong := open_to_others(path.stat().st_mode)) is not None:
                raise KeyUnavailable(
                    f"the signing key {path} {wrong}: make a new one, or chmod 600 it if nobody read it"
                )
            kind, _, rest = path.read_text(encoding="utf-8").strip().rpartition(f"{_PRIVATE}+")
            told, _, encoded = rest.partition("+")
            seed = base64.b64decode(encoded, validate=True)
            if kind or not told or seed[:1] != ED25519:
                raise ValueError("it is no private key")
            self._key = Ed25519PrivateKey.from_private_bytes(seed[1:])
        except (OSError, ValueError) as error:
            raise KeyUnavailable(f"the signing key {path} can not be read: {error}") from error
        if told != name:
            raise KeyUnavailable(f"the signing key {path} is {told}'s, not {name}'s")
        self.verifier = Verifier(told, self._key.public_key().public_bytes_raw())

    def named(self, name: str) -> Signer:
        """The same key under another name, such as the origin of a tree; a verifier tells the two apart."""
        if not _NAME.fullmatch(name):
            raise InvalidInput("name", f"{len(name)} characters", "must hold no space and no plus sign")
        other = copy(self)
        other.verifier = Verifier(name, self.verifier.key)
        return other

    def sign(self, text: str) -> str:
        """The note: the text, which ends with a newline, and the signature under it."""
        if not text.endswith("\n"):
            raise ValueError("the text of a note ends with a newline")
        signed = self.verifier.key_id + self._key.sign(text.encode())
        return f"{text}\n— {self.verifier.name} {base64.b64encode(signed).decode()}\n"
