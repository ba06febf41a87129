"""Identifiers: the slots that Java clients compute, ids that carry them, texts and bytes."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_ledger.domain import ids
from session_ledger.domain.errors import InvalidInput
from tests.domain.world import START

# from org.apache.kafka.common.utils.UtilsTest.testMurmur2
KAFKA_VECTORS = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("data", "expected"), KAFKA_VECTORS.items())
def test_murmur2_is_that_of_kafkas_java_client(data: bytes, expected: int) -> None:
    """The vectors of Kafka's own tests, which are signed."""
    assert expected & 0xFFFF_FFFF == ids.murmur2(data)


@given(st.integers(0, 2**47), st.integers(0, ids.SLOTS - 1))
def test_an_id_carries_its_time_and_slot(milliseconds: int, slot: int) -> None:
    """And is a UUIDv7 by the letter of RFC 9562."""
    for made in (ids.new_slotted_id(milliseconds * 1000, slot), ids.derived_session_id("x", milliseconds * 1000, slot)):
        uuid = UUID(bytes=made)
        assert (7, "specified in RFC 4122") == (uuid.version, uuid.variant)
        assert (slot, milliseconds * 1000) == (ids.slot_of_id(made), ids.id_time_us(made))


def test_a_derived_id_is_the_same_for_ever() -> None:
    """An import that is repeated in another year, on another machine, finds its session."""
    assert "018bcfe5-6800-7007-8d01-ad71a9ddc9fc" == ids.format_id(ids.derived_session_id("a", START, 7))


@given(st.uuids())
def test_text_and_bytes_are_the_same_id(uuid: UUID) -> None:
    """`format_id` writes what `parse_id` reads, as UUID does."""
    assert str(uuid) == ids.format_id(uuid.bytes)
    assert {uuid.bytes} == {ids.parse_id(value) for value in (str(uuid), uuid, uuid.bytes)}


@pytest.mark.parametrize("value", ["", "x", b"short", "018bcfe5", None, 7])
def test_what_is_no_id_is_invalid_input(value: object) -> None:
    """A typed error that names the field."""
    with pytest.raises(InvalidInput, match="agent_id"):
        ids.parse_id(value, "agent_id")  # type: ignore[arg-type]


def test_an_account_is_of_the_pair_not_of_the_joined_text() -> None:
    """("a", "b/c") and ("a/b", "c") would share a text; they share no stream."""
    assert ids.account_id("a", "bc") != ids.account_id("ab", "c")
    assert 8 == UUID(bytes=ids.account_id("a", "b")).version
    assert 8 == UUID(bytes=ids.tenant_id("a")).version
