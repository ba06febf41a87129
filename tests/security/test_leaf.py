"""The leaf of a record: its bytes, what they tell apart, and what is no leaf."""

from __future__ import annotations

import hashlib
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_ledger.domain.errors import InvalidInput
from session_ledger.security.leaf import Leaf, hash_of, tail_of
from session_ledger.security.merkle import leaf_hash

IDS = st.binary(min_size=16, max_size=16)
NUMBERS = st.integers(1, 2**63 - 1)
LEAVES = st.builds(
    Leaf, NUMBERS, IDS, IDS, NUMBERS, st.binary(min_size=32, max_size=32), st.text(max_size=20), st.binary(max_size=50)
)


def test_the_bytes_are_those_of_the_specification() -> None:
    """Version 1 of the encoding is fixed for ever: every checkpoint that was signed rests on it."""
    leaf = Leaf(258, bytes(range(16)), bytes(range(16, 32)), 3, bytes(range(32, 64)), "a.é", b"\xc3\x01value")
    expected = (
        "01" "0000000000000102" "000102030405060708090a0b0c0d0e0f" "101112131415161718191a1b1c1d1e1f"
        "0000000000000003" "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f"
        "0004" "612ec3a9" "c30176616c7565"
    )  # fmt: skip
    assert expected == leaf.encode().hex()
    assert hashlib.sha256(b"\x00" + bytes.fromhex(expected)).digest() == leaf_hash(leaf.encode())


@given(leaf=LEAVES)
def test_a_leaf_is_read_as_it_was_written(leaf: Leaf) -> None:
    """Any record comes back, and the fast way to hash it gives the same hash."""
    assert leaf == Leaf.decode(leaf.encode())
    tail = tail_of(leaf.topic, leaf.schema)
    found = hash_of(leaf.position, leaf.batch_id, leaf.originator_id, leaf.version, tail, leaf.value)
    assert leaf_hash(leaf.encode()) == found


@given(leaf=LEAVES, other=LEAVES)
def test_no_two_records_have_one_leaf(leaf: Leaf, other: Leaf) -> None:
    """Whatever field differs, the bytes differ."""
    for field in fields(Leaf):
        changed = replace(leaf, **{field.name: getattr(other, field.name)})
        assert (changed == leaf) == (changed.encode() == leaf.encode())


@pytest.mark.parametrize("data", [b"", b"\x01" * 40, b"\x02" + bytes(82), b"\x01" + bytes(80) + b"\x00\x09abc"])
def test_other_bytes_are_no_leaf(data: bytes) -> None:
    """Too short, of another version, or with a topic that is cut off."""
    with pytest.raises(InvalidInput):
        Leaf.decode(data)


def test_an_id_of_another_length_is_refused() -> None:
    """It would be cut off or filled up, and two records would have one leaf."""
    leaf = Leaf(1, bytes(16), bytes(16), 1, bytes(32), "t", b"")
    for wrong in (replace(leaf, batch_id=bytes(17)), replace(leaf, originator_id=b""), replace(leaf, schema=b"x")):
        with pytest.raises(ValueError, match="length"):
            wrong.encode()
    with pytest.raises(ValueError, match="16 bytes"):
        hash_of(1, bytes(15), bytes(16), 1, tail_of("t", bytes(32)), b"")
    with pytest.raises(ValueError, match="not 31"):
        tail_of("t", bytes(31))
