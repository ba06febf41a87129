"""Checkpoints of a partition's tree, and statements about sessions that rest on one: texts of signed notes.

A checkpoint is C2SP's tlog-checkpoint (https://c2sp.org/tlog-checkpoint): three lines, the origin, the number of
leaves in decimal, the root in base64; lines that follow are passed over. It is signed (`signing`) under the origin's
name.

A statement says which version a session had reached in the tree of a checkpoint. It is signed by the same key, and its
first line, which holds spaces, can be no origin, so neither can be taken for the other:

    session-ledger session statement v1
    ORIGIN
    SIZE
    ROOT
    SESSION VERSION
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from urllib.parse import quote
from uuid import UUID

from session_ledger.domain.errors import InvalidInput
from session_ledger.security.merkle import HASH_BYTES
from session_ledger.security.signing import Verifier

PRODUCT = "session-ledger"
STATEMENT = "session-ledger session statement v1"
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")


def origin_of(ledger: str, partition: int) -> str:
    """The name of a partition's tree: of its checkpoints, and of the key that signs them."""
    return f"{PRODUCT}/{quote(ledger, safe='')}/{partition}"


def named_by_ledger(verifier: Verifier) -> Verifier:
    """The key of a partition's checkpoints under the ledger's name, which signs notes; every other key as it is."""
    product, _, rest = verifier.name.partition("/")
    ledger = rest.rpartition("/")[0]
    return verifier.named(ledger) if product == PRODUCT and ledger else verifier


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The root of the first `size` records of a partition."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """What is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @property
    def partition(self) -> int:
        """Of the origin."""
        return int(self.origin.rpartition("/")[2])

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """The checkpoint of a note's text. Raises InvalidInput."""
        lines = text.split("\n")
        if len(lines) < 4 or lines[-1] or not all(lines[:-1]) or not _NUMBER.fullmatch(lines[1]):
            raise _no_checkpoint(text)
        return cls(lines[0], int(lines[1]), _root(lines[2], text))

    @classmethod
    def of_text(cls, note: str) -> Checkpoint:
        """What a note says, whoever signed it: for looking it up, not for believing it. Raises InvalidInput."""
        return cls.parse(note.rpartition("\n\n")[0] + "\n")

    @classmethod
    def of_note(cls, note: str, verifier: Verifier) -> Checkpoint:
        """The checkpoint of a note that this key has signed under its own name. Raises InvalidInput."""
        found = cls.parse(verifier.text_of(note))
        if found.origin != verifier.name:
            raise InvalidInput("checkpoint", f"one of {found.origin}", f"must be one of {verifier.name}")
        return found


@dataclass(frozen=True, slots=True)
class SessionStatement:
    """The session had reached this version, and no later one, in the tree of the checkpoint."""

    checkpoint: Checkpoint
    session_id: bytes
    version: int

    @property
    def text(self) -> str:
        """What is signed."""
        return f"{STATEMENT}\n{self.checkpoint.text}{UUID(bytes=self.session_id)} {self.version}\n"

    @classmethod
    def of_note(cls, note: str, verifier: Verifier) -> SessionStatement:
        """The statement of a note that this key has signed. Raises InvalidInput."""
        text = verifier.text_of(note)
        lines = text.split("\n")
        session, _, version = lines[4].partition(" ") if len(lines) == 6 else ("", "", "")
        try:
            if lines[0] != STATEMENT or lines[1] != verifier.name or not _NUMBER.fullmatch(version):
                raise ValueError("another form")
            found = cls(Checkpoint.parse("\n".join(lines[1:4]) + "\n"), UUID(session).bytes, int(version))
            if found.text != text:
                raise ValueError("written another way")
        except ValueError as error:
            raise InvalidInput("statement", f"{len(text)} characters", "must be a statement of its origin") from error
        return found


def _root(encoded: str, text: str) -> bytes:
    try:
        root = base64.b64decode(encoded, validate=True)
    except ValueError:
        root = b""
    if len(root) != HASH_BYTES or base64.b64encode(root).decode() != encoded:
        raise _no_checkpoint(text)
    return root


def _no_checkpoint(text: str) -> InvalidInput:
    return InvalidInput("checkpoint", f"{len(text)} characters", "must be an origin, a size and a root, a line each")
