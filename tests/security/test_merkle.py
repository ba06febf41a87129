"""Merkle trees, held against a recursive implementation that is written down from RFC 9162, section 2.1, alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_ledger.security.merkle import (
    Frontier,
    consistency_proof,
    fold,
    includes,
    inclusion_proof,
    is_consistent,
    leaf_hash,
    root_at,
)

# --- the RFC's own definitions, over whole lists of entries ----------------------------------------------------------


def mth(entries: Sequence[bytes]) -> bytes:
    """2.1.1: the Merkle Tree Hash."""
    if not entries:
        return hashlib.sha256().digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    k = largest_below(len(entries))
    return hashlib.sha256(b"\x01" + mth(entries[:k]) + mth(entries[k:])).digest()


def path(m: int, entries: Sequence[bytes]) -> list[bytes]:
    """2.1.3.1: PATH(m, D_n)."""
    if len(entries) == 1:
        return []
    k = largest_below(len(entries))
    if m < k:
        return [*path(m, entries[:k]), mth(entries[k:])]
    return [*path(m - k, entries[k:]), mth(entries[:k])]


def subproof(m: int, entries: Sequence[bytes], known: bool) -> list[bytes]:
    """2.1.4.1: SUBPROOF(m, D_n, b)."""
    if m == len(entries):
        return [] if known else [mth(entries)]
    k = largest_below(len(entries))
    if m <= k:
        return [*subproof(m, entries[:k], known), mth(entries[k:])]
    return [*subproof(m - k, entries[k:], False), mth(entries[:k])]


def largest_below(n: int) -> int:
    """The largest power of two smaller than n."""
    k = 1
    while 2 * k < n:
        k *= 2
    return k


# --- ours ------------------------------------------------------------------------------------------------------------


class Stored:
    """Nodes of full subtrees, made from all leaves whenever they are asked for."""

    def __init__(self, entries: Sequence[bytes]) -> None:
        self.hashes = [leaf_hash(entry) for entry in entries]

    def node(self, level: int, number: int) -> bytes:
        """See `security.merkle.Nodes`."""
        return fold(self.hashes[number << level : (number + 1) << level])


def entries_of(count: int) -> list[bytes]:
    """So many, all different."""
    return [b"entry %d" % number for number in range(count)]


TREES = st.lists(st.binary(max_size=4), min_size=1, max_size=80)


@given(entries=TREES, data=st.data())
def test_roots_and_proofs_are_those_of_the_rfc(entries: list[bytes], data: st.DataObject) -> None:
    """For any tree, any leaf and any two sizes: roots, inclusion and consistency proofs are byte for byte the RFC's."""
    nodes = Stored(entries).node
    size = data.draw(st.integers(1, len(entries)))
    index = data.draw(st.integers(0, size - 1))
    first = data.draw(st.integers(1, size))
    assert mth(entries[:size]) == root_at(size, nodes)
    assert path(index, entries[:size]) == inclusion_proof(index, size, nodes)
    assert subproof(first, entries[:size], True) == consistency_proof(first, size, nodes)


@given(entries=st.lists(st.binary(max_size=4), max_size=200), data=st.data())
def test_a_frontier_has_the_root_after_every_batch(entries: list[bytes], data: st.DataObject) -> None:
    """However the leaves come in batches, the root is that of all leaves so far."""
    frontier, at = Frontier(), 0
    assert mth([]) == frontier.root()
    while at < len(entries):
        batch = data.draw(st.integers(1, len(entries) - at))
        frontier.extend([leaf_hash(entry) for entry in entries[at : at + batch]])
        at += batch
        assert (at, mth(entries[:at])) == (frontier.size, frontier.root())


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 255, 256, 257])
def test_every_proof_of_a_tree_is_accepted_and_no_other(size: int) -> None:
    """A proof holds for its own leaf, index, size and root, and for no other."""
    entries = entries_of(size)
    nodes, root = Stored(entries).node, mth(entries)
    for index in {0, 1, size // 2, size - 2, size - 1} & set(range(size)):
        leaf, proof = leaf_hash(entries[index]), inclusion_proof(index, size, nodes)
        assert includes(index, size, leaf, proof, root)
        assert not includes(index, size, leaf_hash(b"another"), proof, root)
        assert not includes(index, size, leaf, proof, mth([b"another"]))
        assert not includes(index, size, leaf, [*proof, root], root)
        assert not includes(size, size, leaf, proof, root)
        assert not includes(-1, size, leaf, proof, root)
        if size > 1:
            assert not includes(index ^ 1, size, leaf, proof, root)
            assert not includes(index, size, leaf, proof[:-1], root)
            assert not includes(index, size, leaf, [*proof[:-1], proof[-1][:31]], root)


def test_a_proof_of_a_smaller_tree_is_none_of_a_larger_one() -> None:
    """The size is part of what is proved: a path that ends early does not hold, whatever root it leads to."""
    entries = entries_of(8)
    proof = inclusion_proof(0, 2, Stored(entries).node)
    assert includes(0, 2, leaf_hash(entries[0]), proof, mth(entries[:2]))
    assert not includes(0, 8, leaf_hash(entries[0]), proof, mth(entries[:2]))


@given(first=st.integers(1, 70), more=st.integers(0, 70), data=st.data())
def test_a_consistency_proof_holds_for_its_own_roots_alone(first: int, more: int, data: st.DataObject) -> None:
    """It is refused for another earlier root, another later root, other sizes, and with any of its hashes changed."""
    entries = entries_of(first + more)
    nodes, second = Stored(entries).node, first + more
    root_1, root_2, proof = mth(entries[:first]), mth(entries), consistency_proof(first, second, nodes)
    assert is_consistent(first, second, root_1, root_2, proof)
    other = mth([b"another", *entries[1:first]])
    assert not is_consistent(first, second, other, root_2, proof)
    assert not is_consistent(first, second, root_1, other, proof)
    assert not is_consistent(first, second, root_1, root_2, [*proof, root_1])
    assert not is_consistent(0, second, root_1, root_2, proof)
    assert not is_consistent(second + 1, second, root_1, root_2, proof)
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        changed = [*proof[:at], bytes(32), *proof[at + 1 :]]
        assert not is_consistent(first, second, root_1, root_2, changed)
        assert not is_consistent(first, second, root_1, root_2, proof[:-1])


@given(size=st.integers(2, 60), data=st.data())
def test_no_two_histories_are_consistent(size: int, data: st.DataObject) -> None:
    """No proof made from the later history shows an earlier one that differs in any leaf to be its beginning."""
    entries = entries_of(size)
    first = data.draw(st.integers(1, size - 1))
    at = data.draw(st.integers(0, first - 1))
    forked = [*entries[:at], b"forked", *entries[at + 1 :]]
    proof = consistency_proof(first, size, Stored(forked).node)
    assert not is_consistent(first, size, mth(entries[:first]), mth(forked), proof)


def test_what_is_not_in_the_tree_is_refused() -> None:
    """A proof of a leaf, or from a size, that the tree does not have is no proof."""
    nodes = Stored(entries_of(4)).node
    for index, size in ((4, 4), (-1, 4), (0, 0)):
        with pytest.raises(ValueError, match="has no leaf"):
            inclusion_proof(index, size, nodes)
    for first, second in ((0, 4), (4, 3)):
        with pytest.raises(ValueError, match="no proof leads"):
            consistency_proof(first, second, nodes)
    with pytest.raises(ValueError, match="full subtree"):
        fold([bytes(32)] * 3)
