"""Checking a proof with nothing but a public key: no ledger, no vault, no network.

A bundle is a JSON object as `session-ledger proof` writes it; docs/proofs.md describes the three kinds. Bytes are
base64.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from uuid import UUID

from session_ledger.domain.errors import InvalidInput, ProofInvalid
from session_ledger.domain.events import TOPIC_BY_EVENT, SessionEnded, SessionEvicted, SessionExpired
from session_ledger.security.checkpoint import Checkpoint, SessionStatement
from session_ledger.security.leaf import NO_SCHEMA, Leaf
from session_ledger.security.merkle import includes, is_consistent, leaf_hash
from session_ledger.security.signing import Verifier

ENDINGS = frozenset(TOPIC_BY_EVENT[cls] for cls in (SessionEnded, SessionExpired, SessionEvicted))


@dataclass(frozen=True, slots=True)
class Proven:
    """What a bundle proves."""

    kind: str
    """inclusion, consistency or session."""
    origin: str
    tree_size: int
    root: bytes
    summary: str
    """A sentence."""
    leaves: tuple[Leaf, ...] = ()
    """The records that are proved to stand in the log, in its order."""
    session_id: str | None = None
    last_version: int | None = None
    """Of a session: events 1 to this one are all there, and are all that the ledger says there are."""
    ended: bool | None = None
    """Of a session: its end is among them."""


def check_bundle(document: object, verifier: Verifier) -> Proven:
    """What the bundle proves, by that key. Raises ProofInvalid, which says what does not hold."""
    bundle = _Fields(document, "the bundle")
    kind = bundle.text("kind")
    check = {"inclusion": _inclusion, "consistency": _consistency, "session": _session}.get(kind)
    if check is None:
        raise ProofInvalid(f"the bundle is of the kind {kind[:40]!r}: inclusion, consistency and session are known")
    return check(bundle, verifier)


def _inclusion(bundle: _Fields, verifier: Verifier) -> Proven:
    checkpoint = _checkpoint(bundle, "checkpoint", "tree_size", verifier)
    leaf = _included(bundle, checkpoint)
    if leaf.position != bundle.number("position"):
        raise ProofInvalid(f"the bundle says position {bundle.number('position')}, its leaf is of {leaf.position}")
    summary = (
        f"the record at position {leaf.position} ({leaf.topic}) stands in the log of {checkpoint.origin}, as it was "
        f"signed over {checkpoint.size} records"
    )
    return Proven("inclusion", checkpoint.origin, checkpoint.size, checkpoint.root, summary, (leaf,))


def _consistency(bundle: _Fields, verifier: Verifier) -> Proven:
    from_ = _checkpoint(bundle, "checkpoint_from", "tree_size_from", verifier)
    to = _checkpoint(bundle, "checkpoint", "tree_size", verifier)
    if not is_consistent(from_.size, to.size, from_.root, to.root, bundle.many("hashes")):
        raise ProofInvalid(
            f"the log signed over {to.size} records is not shown to begin with that signed over {from_.size}: "
            "these are two histories, or the proof is not theirs"
        )
    summary = f"the log of {to.origin}, signed over {to.size} records, begins with what was signed over {from_.size}"
    return Proven("consistency", to.origin, to.size, to.root, summary)


def _session(bundle: _Fields, verifier: Verifier) -> Proven:
    checkpoint = _checkpoint(bundle, "checkpoint", "tree_size", verifier)
    session_id = bundle.session_id()
    leaves = tuple(_included(event, checkpoint) for event in bundle.objects("events"))
    for expected, leaf in enumerate(leaves, 1):
        if leaf.originator_id != session_id.bytes:
            raise ProofInvalid(f"the record at position {leaf.position} is not of session {session_id}")
        if leaf.version != expected:
            raise ProofInvalid(f"event {expected} of session {session_id} is missing: the next one is {leaf.version}")
        if expected > 1 and leaf.position <= leaves[expected - 2].position:
            raise ProofInvalid(f"event {expected} of session {session_id} stands before the one that it follows")
    ended = any(leaf.topic in ENDINGS for leaf in leaves)
    _assert_complete(bundle, checkpoint, session_id, len(leaves), ended, verifier)
    _assert_schemas(bundle, leaves)
    upto = "to its end" if ended else "so far; it had not ended"
    summary = (
        f"session {session_id}: events 1 to {len(leaves)} stand in the log of {checkpoint.origin}, none is missing, as "
        f"signed over {checkpoint.size} records ({upto})"
    )
    return Proven(
        "session", checkpoint.origin, checkpoint.size, checkpoint.root, summary, leaves, str(session_id), len(leaves),
        ended,
    )  # fmt: skip


def _assert_complete(
    bundle: _Fields, checkpoint: Checkpoint, session_id: UUID, last: int, ended: bool, verifier: Verifier
) -> None:
    note = bundle.text_or_none("statement")
    if note is None:
        if not ended:
            raise ProofInvalid(
                f"session {session_id} is not shown to end with event {last}: it has no end there, and no statement "
                "says so"
            )
        return
    try:
        statement = SessionStatement.of_note(note, verifier)
    except InvalidInput as error:
        raise ProofInvalid(f"the statement about the session does not hold: {error}") from error
    if statement.checkpoint != checkpoint:
        raise ProofInvalid("the statement about the session rests on another checkpoint than the bundle")
    if statement.session_id != session_id.bytes or statement.version != last:
        raise ProofInvalid(
            f"the statement is about version {statement.version} of session {UUID(bytes=statement.session_id)}, the "
            f"bundle holds {last} events of {session_id}"
        )


def _assert_schemas(bundle: _Fields, leaves: Sequence[Leaf]) -> None:
    """Every value can be read: the text of its schema is there, and is the one that the leaf names."""
    texts = bundle.texts("schemas")
    for name, text in texts.items():
        if sha256(text.encode()).hexdigest() != name:
            raise ProofInvalid(f"the schema under {name[:64]} is another text")
    for leaf in leaves:
        if leaf.schema != NO_SCHEMA and leaf.schema.hex() not in texts:
            raise ProofInvalid(f"the schema of the record at position {leaf.position} is missing: {leaf.schema.hex()}")


def _checkpoint(bundle: _Fields, field: str, size_field: str, verifier: Verifier) -> Checkpoint:
    try:
        found = Checkpoint.of_note(bundle.text(field), verifier)
    except InvalidInput as error:
        raise ProofInvalid(f"{field} does not hold: {error}") from error
    if found.size != bundle.number(size_field):
        raise ProofInvalid(f"{field} is signed over {found.size} records, the bundle says {bundle.number(size_field)}")
    partition = bundle.partition()
    if found.origin.rpartition("/")[2] != f"{partition}":
        raise ProofInvalid(f"the bundle says partition {partition}, its {field} is {found.origin}'s")
    return found


def _included(event: _Fields, checkpoint: Checkpoint) -> Leaf:
    index, data = event.number("leaf_index"), event.data("leaf_data")
    if leaf_hash(data) != event.data("leaf_hash"):
        raise ProofInvalid(f"leaf {index}: leaf_hash is not the hash of leaf_data")
    if not includes(index, checkpoint.size, leaf_hash(data), event.many("hashes"), checkpoint.root):
        raise ProofInvalid(
            f"leaf {index}: the hashes do not lead to the root that is signed over {checkpoint.size} records"
        )
    try:
        leaf = Leaf.decode(data)
    except InvalidInput as error:
        raise ProofInvalid(f"leaf {index}: {error}") from error
    if leaf.position != index + 1:
        raise ProofInvalid(f"leaf {index} says that it is the record at position {leaf.position}")
    return leaf


class _Fields:
    """A JSON object's fields, of the types that they must have."""

    def __init__(self, document: object, what: str) -> None:
        if not isinstance(document, Mapping):
            raise ProofInvalid(f"{what} is no JSON object")
        self._fields, self._what = document, what

    def _wrong(self, name: str, must: str) -> ProofInvalid:
        return ProofInvalid(f"{self._what}: {name} {'must be ' + must if name in self._fields else 'is not there'}")

    def text(self, name: str) -> str:
        value = self._fields.get(name)
        if not isinstance(value, str):
            raise self._wrong(name, "a text")
        return value

    def text_or_none(self, name: str) -> str | None:
        return None if self._fields.get(name) is None else self.text(name)

    def number(self, name: str) -> int:
        value = self._fields.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self._wrong(name, "a whole number")
        return value

    def partition(self) -> int:
        value = self._fields.get("partition")
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong("partition", "a partition's number")
        return value

    def data(self, name: str) -> bytes:
        return self._decoded(name, self.text(name))

    def many(self, name: str) -> list[bytes]:
        return [self._decoded(name, one) for one in self._list(name)]

    def objects(self, name: str) -> list[_Fields]:
        return [_Fields(one, f"{name}[{at}]") for at, one in enumerate(self._list(name))]

    def texts(self, name: str) -> Mapping[str, str]:
        value = self._fields.get(name)
        if not isinstance(value, Mapping) or not all(isinstance(one, str) for one in (*value, *value.values())):
            raise self._wrong(name, "an object of texts")
        return value

    def session_id(self) -> UUID:
        try:
            return UUID(self.text("session_id"))
        except ValueError as error:
            raise self._wrong("session_id", "a UUID") from error

    def _list(self, name: str) -> list[object]:
        value = self._fields.get(name)
        if not isinstance(value, list):
            raise self._wrong(name, "a list")
        return value

    def _decoded(self, name: str, value: object) -> bytes:
        try:
            return base64.b64decode(value if isinstance(value, str) else "\0", validate=True)
        except ValueError as error:
            raise self._wrong(name, "base64") from error
