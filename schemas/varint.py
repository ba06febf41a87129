"""Avro's integers: zigzag, then seven bits a byte, lowest first (Avro specification, "Binary Encoding").

Times of our age, in microseconds, take exactly eight bytes; tables of byte pairs code those in four steps.
"""

from __future__ import annotations

import struct
from array import array


class Damaged(ValueError):
    """The bytes are not what the schema says; the text says how."""


def encode_long(value: int) -> bytes:
    """1 to 10 bytes. Raises ValueError outside 64 bits, TypeError for no integer."""
    if not -0x8000_0000_0000_0000 <= value <= 0x7FFF_FFFF_FFFF_FFFF:
        raise ValueError("integer outside 64 bits")
    n = (value << 1) ^ (value >> 63)
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def decode_long(value: bytes, i: int) -> tuple[int, int]:
    """The integer at `i`, and the place after it. Raises Damaged, IndexError at the end of the bytes."""
    n, i = decode_zigzag(value, i)
    return (n >> 1) ^ -(n & 1), i


def decode_zigzag(value: bytes, i: int) -> tuple[int, int]:
    """The same, still in zigzag form: even for 0, 1, 2, ..., odd for negative integers."""
    n = shift = 0
    while True:
        byte = value[i]
        i += 1
        n |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 63:
            raise Damaged("an integer is longer than 10 bytes")
    if n > 0xFFFF_FFFF_FFFF_FFFF:
        raise Damaged("an integer is outside 64 bits")
    return n, i


def _pair(bits: int, *, ends: bool) -> int:
    """14 bits as two bytes of a variable-length integer, read as a little-endian number."""
    return bits & 0x7F | 0x80 | (bits >> 7 | (0 if ends else 0x80)) << 8


_MIDDLE = array("H", [_pair(bits, ends=False) for bits in range(1 << 14)])
_LAST = array("H", [_pair(bits, ends=True) for bits in range(1 << 14)])
_pack_pairs = struct.Struct("<4H").pack

unpack_pairs = struct.Struct("<4H").unpack_from
"""(bytes, place) -> four pairs; raises struct.error where fewer than eight bytes are left."""


def _bits_of(pairs: array[int]) -> array[int]:
    table = array("i", [-1]) * 0x10000
    for bits, pair in enumerate(pairs):
        table[pair] = bits
    return table


MIDDLE_BITS = _bits_of(_MIDDLE)
"""A pair whose two bytes both continue, to its 14 bits; -1: another pair."""
LAST_BITS = _bits_of(_LAST)
"""A pair whose second byte ends the integer, to its 14 bits; -1: another pair."""


def encode_time(value: int) -> bytes:
    """The same as `encode_long`, faster for times between 1978 and 3111."""
    n = value << 1
    if 1 << 49 <= n < 1 << 56:
        return _pack_pairs(_MIDDLE[n & 0x3FFF], _MIDDLE[n >> 14 & 0x3FFF], _MIDDLE[n >> 28 & 0x3FFF], _LAST[n >> 42])
    return encode_long(value)
