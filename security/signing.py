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

from session_ledger.domain.errors import InvalidInput, ProofInvalid, SigningKeyUnavailable
from session_ledger.security.files import create_private, open_to_others

ED25519 = b"\x01"
KEY_ID_BYTES, KEY_BYTES = 4, 32
FILE = "signing.key"
NAME_SHOWN = 80  # characters of a name that a note brings
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
        text, wrong = self._judged(note)
        if wrong is not None:
            raise InvalidInput("note", wrong, f"must be signed by {self.name}, and not changed since")
        return text

    def proven_text(self, note: bytes, what: str) -> str:
        """The text of a note that somebody brought, `what` it is; ProofInvalid says what does not hold."""
        try:
            text, wrong = self._judged(note.decode())
        except UnicodeDecodeError:
            raise ProofInvalid(f"{what} is no signed note: it is no text") from None
        if wrong is not None:
            raise ProofInvalid(f"{what} does not hold: it is {wrong}; compared with the key {self._told}")
        return text

    @property
    def _told(self) -> str:
        return f"{self.name}+{self.key_id.hex()}"

    def _judged(self, note: str) -> tuple[str, str | None]:
        """The text, and what is wrong with the note: None where this key has signed that text."""
        text, separator, below = note.rpartition("\n\n")
        text += "\n"
        signatures = [found for line in below.splitlines() if separator and (found := _signature(line)) is not None]
        if not signatures:
            return text, f"a file of {len(note)} characters without a signature under it"
        ours = [signed for name, signed in signatures if name == self.name]
        if not ours:
            names = _listed([name for name, _ in signatures])
            same = any(signed[:KEY_ID_BYTES] == self.named(name).key_id for name, signed in signatures)
            return text, f"a note signed by {names}{', by this key under another name' if same else ''}"
        matching = [signed for signed in ours if signed[:KEY_ID_BYTES] == self.key_id]
        if not matching:
            others = [f"{self.name}+{signed[:KEY_ID_BYTES].hex()}" for signed in ours]
            return text, f"a note signed by another key of that name, {_listed(others)}"
        try:
            Ed25519PublicKey.from_public_bytes(self.key).verify(matching[0][KEY_ID_BYTES:], text.encode())
        except (ValueError, InvalidSignature):
            return text, "a note whose text or signature was changed since it was signed"
        return text, None


def _signature(line: str) -> tuple[str, bytes] | None:
    """Whose it says that it is, key id and signature; None where the line holds none."""
    mark, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    try:
        signed = base64.b64decode(encoded, validate=True)
    except ValueError:
        signed = b""
    return (name, signed) if mark == "—" and len(signed) > KEY_ID_BYTES else None


def _listed(names: list[str]) -> str:
    """The first few of what others wrote."""
    return ", ".join(name[:NAME_SHOWN] for name in names[:3]) + (", ..." if len(names) > 3 else "")


class Signer:
    """A private key in a file of mode 0600, made where there is none."""

    def __init__(self, path: Path, name: str, *, create: bool = True) -> None:
        """`name`: whose it is, without spaces and plus signs. `create`: make one where there is none.

        Raises SigningKeyUnavailable, InvalidInput.
        """
        if not _NAME.fullmatch(name):
            raise InvalidInput("name", f"{len(name)} characters", "must hold no space and no plus sign")
        try:
            if create and not path.exists():
                seed = Ed25519PrivateKey.generate().private_bytes_raw()
                with suppress(FileExistsError):  # another process made it meanwhile
                    create_private(path, f"{_PRIVATE}+{name}+{base64.b64encode(ED25519 + seed).decode()}\n".encode())
            if (wrong := open_to_others(path.stat().st_mode)) is not None:
                raise SigningKeyUnavailable(
                    f"the signing key {path} {wrong}: chmod 600 it. Where one of them may have read it, they can sign "
                    "as this ledger: from then on only what was kept elsewhere before, such as a mirror, is evidence"
                )
            kind, _, rest = path.read_text(encoding="utf-8").strip().rpartition(f"{_PRIVATE}+")
            told, _, encoded = rest.partition("+")
            seed = base64.b64decode(encoded, validate=True)
            if kind or not told or seed[:1] != ED25519:
                raise ValueError("it is no private key")
            self._key = Ed25519PrivateKey.from_private_bytes(seed[1:])
        except FileNotFoundError as error:
            raise SigningKeyUnavailable(
                f"there is no signing key {path}: the first signature makes it (`session-ledger checkpoint --once`); "
                "where something was signed before, bring it back from its copy"
            ) from error
        except OSError as error:
            raise SigningKeyUnavailable(
                f"the signing key {path} can not be read: {error.strerror or error}; see that this user may"
            ) from error
        except ValueError as error:  # of UTF-8, base64 and the key itself: none would help to mend it
            raise SigningKeyUnavailable(
                f"the signing key {path} is no key file, or a damaged one: bring it back from its copy"
            ) from error
        if told != name:
            raise SigningKeyUnavailable(
                f"the signing key {path} is {told}'s, not {name}'s: bring this ledger's own key back"
            )
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
