"""Bundles of a ledger that lies with its own key: what its signature can not make true."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import pytest

from session_ledger.domain.errors import ProofInvalid
from session_ledger.security.bundles import ENDINGS, check_bundle
from session_ledger.security.checkpoint import Checkpoint, SessionStatement, origin_of
from session_ledger.security.leaf import NO_SCHEMA, Leaf
from session_ledger.security.merkle import Nodes, fold, inclusion_proof, leaf_hash, root_at
from session_ledger.security.signing import Signer

SESSION = UUID(int=7)
ENDING = min(ENDINGS)


def text(data: bytes) -> str:
    """As a bundle holds bytes."""
    return base64.b64encode(data).decode()


class Liar:
    """A ledger of these leaves, each at its place in the tree, whatever it says of itself."""

    def __init__(self, directory: Path, leaves: Sequence[Leaf]) -> None:
        self.data = [leaf.encode() for leaf in leaves]
        hashes = [leaf_hash(one) for one in self.data]
        self.nodes: Nodes = lambda level, number: fold(hashes[number << level : (number + 1) << level])
        self.signer = Signer(directory / "signing.key", "liar").named(origin_of("liar", 0))
        self.size = len(leaves)
        self.checkpoint = Checkpoint(origin_of("liar", 0), self.size, root_at(self.size, self.nodes))

    def event(self, index: int) -> dict[str, object]:
        """A leaf and its proof."""
        data, proof = self.data[index], inclusion_proof(index, self.size, self.nodes)
        return {
            "leaf_index": index,
            "leaf_data": text(data),
            "leaf_hash": text(leaf_hash(data)),
            "hashes": [text(one) for one in proof],
        }

    def session(self, *indexes: int, stated: int | None = None) -> dict[str, object]:
        """A bundle of these leaves; `stated`: the last version that is signed, None: nothing is."""
        statement = None if stated is None else SessionStatement(self.checkpoint, SESSION.bytes, stated).text
        return {
            "kind": "session",
            "session_id": str(SESSION),
            "partition": 0,
            "tree_size": self.size,
            "events": [self.event(index) for index in indexes],
            "statement": None if statement is None else self.signer.sign(statement),
            "checkpoint": self.signer.sign(self.checkpoint.text),
            "schemas": {},
        }

    def refused(self, bundle: dict[str, object], why: str) -> None:
        """It does not hold, and that is said."""
        with pytest.raises(ProofInvalid, match=why):
            check_bundle(bundle, self.signer.verifier)


def leaf(position: int, version: int, topic: str = "a topic") -> Leaf:
    """A record of the session."""
    return Leaf(position, bytes(16), SESSION.bytes, version, NO_SCHEMA, topic, b"")


def test_a_sound_bundle_holds(tmp_path: Path) -> None:
    """What the other tests change is refused for what they change."""
    sound = Liar(tmp_path, [leaf(1, 1), leaf(2, 2), leaf(3, 3, ENDING)])
    (told,) = [
        (found.last_version, found.ended) for found in [check_bundle(sound.session(0, 1, 2), sound.signer.verifier)]
    ]
    assert (3, True) == told
    found = check_bundle(sound.session(0, 1, stated=2), sound.signer.verifier)
    assert (2, False) == (found.last_version, found.ended)


def test_a_bundle_of_another_partition_than_its_checkpoint_is_refused(tmp_path: Path) -> None:
    """The partition that a bundle names is that of the checkpoint's origin."""
    liar = Liar(tmp_path, [leaf(1, 1), leaf(2, 2, ENDING)])
    liar.refused({**liar.session(0, 1), "partition": 7}, "partition 7, its checkpoint is session-ledger/liar/0's")
    for partition in (None, "0", False):
        liar.refused({**liar.session(0, 1), "partition": partition}, "partition must be a partition's number")


def test_a_leaf_that_names_another_position_is_refused(tmp_path: Path) -> None:
    """A record is proved at the position that its place in the tree says, or not at all."""
    liar = Liar(tmp_path, [leaf(1, 1), leaf(9, 2, ENDING)])
    liar.refused(liar.session(0, 1), "leaf 1 says that it is the record at position 9")


def test_versions_in_another_order_than_their_positions_are_refused(tmp_path: Path) -> None:
    """A later version can not stand before an earlier one."""
    liar = Liar(tmp_path, [leaf(1, 2, ENDING), leaf(2, 1)])
    liar.refused(liar.session(1, 0), "event 2 of session .* stands before the one that it follows")


def test_a_version_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    """Two records with one number: the session has no one history."""
    liar = Liar(tmp_path, [leaf(1, 1), leaf(2, 1), leaf(3, 2, ENDING)])
    liar.refused(liar.session(0, 1, 2), "event 2 of session .* is missing: the next one is 1")


def test_a_statement_of_another_session_is_refused(tmp_path: Path) -> None:
    """It is about the session that the bundle is about."""
    liar = Liar(tmp_path, [leaf(1, 1)])
    other = SessionStatement(liar.checkpoint, UUID(int=8).bytes, 1).text
    liar.refused({**liar.session(0), "statement": liar.signer.sign(other)}, "is about version 1 of session")


def test_a_leaf_in_another_form_is_refused(tmp_path: Path) -> None:
    """Bytes that are signed and are no record prove nothing about one."""
    liar = Liar(tmp_path, [leaf(1, 1)])
    liar.data[0] = b"\x02" + liar.data[0][1:]
    hashed = leaf_hash(liar.data[0])
    liar.nodes = lambda level, number: hashed
    liar.checkpoint = Checkpoint(liar.checkpoint.origin, 1, hashed)
    liar.refused(liar.session(0, stated=1), "must be a record's leaf of version 1")
