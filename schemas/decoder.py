"""Decoders generated from the schemas: one Python function an event type, from bytes straight to the frozen dataclass.

The function walks the bytes once. Lengths only move the place forward, so one comparison at the end tells truncated
bytes (a slice that ran short leaves the place beyond the end) and trailing ones; that is why a length may never be
negative. What repeats from record to record is looked up: short texts, the time of a batch, a run of nulls.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from decimal import Context, Decimal
from itertools import groupby
from typing import cast

from session_ledger.schemas.shape import Shape
from session_ledger.schemas.varint import LAST_BITS, MIDDLE_BITS, Damaged, decode_long, decode_zigzag, unpack_pairs

Decoder = Callable[[bytes, int], object]
"""(record value, where the body starts) -> event. Raises Damaged, IndexError or UnicodeDecodeError for any bytes that
the schema does not explain, and nothing else."""

CACHED_TEXT = 64  # bytes; longer texts seldom repeat
CACHE_ENTRIES = 4096  # then a cache starts again: bounds memory
NULLS_AT_ONCE = 3  # neighbours that can all be null are first compared with that many nulls

_CONTEXT = Context(prec=60)


def decode_length(value: bytes, i: int) -> tuple[int, int]:
    """A length of bytes or text at `i`, and the place after it."""
    n, i = decode_long(value, i)
    if n < 0:
        raise Damaged("a length is negative")
    if n > len(value) - i:
        raise Damaged("the bytes are truncated")
    return n, i


def decode_decimal(value: bytes, i: int, scale: int, bound: int) -> tuple[Decimal, int]:
    """The decimal at `i` with exactly `scale` decimals, and the place after it."""
    n, i = decode_length(value, i)
    if n == 0:
        raise Damaged("a decimal has no bytes")
    unscaled = int.from_bytes(value[i : i + n], "big", signed=True)
    if not -bound < unscaled < bound:
        raise Damaged("a decimal has more digits than its precision")
    return Decimal(unscaled).scaleb(-scale, _CONTEXT), i + n


def decode_text(value: bytes, i: int) -> tuple[str, int]:
    """The text at `i`, and the place after it."""
    n, i = decode_length(value, i)
    return value[i : i + n].decode(), i + n


def decode_count(value: bytes, i: int) -> tuple[int, int]:
    """The number of items of a block of a map or an array, and the place after it (and after the size, if given)."""
    n, i = decode_long(value, i)
    if n < 0:
        _, i = decode_length(value, i)
        n = -n
    if n > len(value) - i:  # every item takes a byte at least
        raise Damaged("the bytes are truncated")
    return n, i


def decode_map(value: bytes, i: int) -> tuple[dict[str, str], int]:
    """A map of text to text; its keys differ."""
    found: dict[str, str] = {}
    items = 0
    while True:
        n, i = decode_count(value, i)
        if n == 0:
            break
        items += n
        for _ in range(n):
            key, i = decode_text(value, i)
            found[key], i = decode_text(value, i)
    if len(found) != items:
        raise Damaged("a map has a key twice")
    return found, i


def decode_array(
    value: bytes, i: int, decode_item: Callable[[bytes, int], tuple[object, int]]
) -> tuple[tuple[object, ...], int]:
    """An array as a tuple."""
    found: list[object] = []
    while True:
        n, i = decode_count(value, i)
        if n == 0:
            return tuple(found), i
        for _ in range(n):
            item, i = decode_item(value, i)
            found.append(item)


def end_of_bytes(place: int, size: int) -> None:
    """The place is not the end: raise Damaged with the reason."""
    raise Damaged("the bytes are truncated" if place > size else f"{size - place} trailing bytes")


def negative_length() -> None:
    """Raise Damaged."""
    raise Damaged("a length is negative")


_ZIGZAG = (
    "n = value[i]",
    "i += 1",
    "if n > 127:",
    "    m = value[i]",
    "    if m > 127:",
    "        n, i = zigzag(value, i - 1)",
    "    else:",
    "        n += (m << 7) - 128",
    "        i += 1",
)
"""Reads an integer in zigzag form into `n`; those of two bytes are common: sizes of contents, counts of tokens."""


class _Source:
    def __init__(self, classes: Mapping[str, type]) -> None:
        self.classes = classes
        self.lines: list[str] = []
        self.arguments: list[str] = []
        texts: dict[bytes, str] = {}

        def text(raw: bytes) -> str:
            found = raw.decode()
            if len(raw) <= CACHED_TEXT:
                if len(texts) >= CACHE_ENTRIES:
                    texts.clear()
                texts[raw] = found
            return found

        times: dict[bytes, int] = {}

        def time(value: bytes, i: int) -> tuple[int, int]:
            found, end = decode_long(value, i)
            if end - i == 8:
                if len(times) >= CACHE_ENTRIES:
                    times.clear()
                times[value[i:end]] = found
            return found, end

        self.names: dict[str, object] = {
            "Damaged": Damaged,
            "texts": texts.get,
            "text": text,
            "long": decode_long,
            "zigzag": decode_zigzag,
            "times": times.get,
            "time": time,
            "negative_length": negative_length,
            "decimal": decode_decimal,
            "map_": decode_map,
            "array": decode_array,
            "quad": unpack_pairs,
            "short": struct.error,
            "middle": MIDDLE_BITS,
            "last": LAST_BITS,
            "end_of_bytes": end_of_bytes,
        }

    def add(self, name: str, shape: Shape) -> None:
        """Append the statements that read the next value into the slot `name`."""
        self.arguments.append(f"f_{name}")
        if not shape.nullable:
            self._value(name, shape)
            return
        self.lines += ["n = value[i]", "if n == 0:", f"    f_{name} = None", "    i += 1", "elif n == 2:", "    i += 1"]
        start = len(self.lines)
        self._value(name, shape)
        self.lines[start:] = ["    " + line for line in self.lines[start:]]
        self.lines += ["else:", "    raise Damaged('a branch of a union does not exist')"]

    def add_nullables(self, fields: list[tuple[str, Shape]]) -> None:
        """The same for neighbours that are often all null."""
        targets = "".join(f"f_{name} = " for name, _ in fields)
        self.lines += [f"if value[i : i + {len(fields)}] == {bytes(len(fields))!r}:"]
        self.lines += [f"    {targets}None", f"    i += {len(fields)}", "else:"]
        start = len(self.lines)
        for name, shape in fields:
            self.add(name, shape)
        self.lines[start:] = ["    " + line for line in self.lines[start:]]

    def _value(self, name: str, shape: Shape) -> None:
        add = self.lines.extend
        match shape.kind:
            case "fixed":
                add([f"f_{name} = value[i : i + {shape.size}]", f"i += {shape.size}"])
            case "string" | "bytes":
                add([*_ZIGZAG, "if n & 1: negative_length()", "n >>= 1"])
                if shape.kind == "bytes":
                    add([f"f_{name} = value[i : i + n]", "i += n"])
                else:
                    add(["raw = value[i : i + n]", "i += n", f"f_{name} = texts(raw) or text(raw)"])
            case "long":
                add([*_ZIGZAG, f"f_{name} = ~(n >> 1) if n & 1 else n >> 1"])
            case "time" if name == "recorded_at":  # one a batch, so it is looked up
                add(["raw = value[i : i + 8]", f"f_{name} = times(raw)"])
                add([f"if f_{name} is None:", f"    f_{name}, i = time(value, i)", "else:", "    i += 8"])
            case "time":  # a time of our age takes 8 bytes: four pairs
                add(["try:", "    a, b, c, d = quad(value, i)", "except short:", "    n = -1", "else:"])
                add(["    n = middle[a] | middle[b] << 14 | middle[c] << 28 | last[d] << 42"])
                add(["if n < 0 or n & 1:", f"    f_{name}, i = long(value, i)"])
                add(["else:", f"    f_{name} = n >> 1", "    i += 8"])
            case "boolean":
                add(["n = value[i]", "if n > 1: raise Damaged('a boolean is neither 0 nor 1')"])
                add([f"f_{name} = n == 1", "i += 1"])
            case "decimal":
                add([f"f_{name}, i = decimal(value, i, {shape.scale}, {10**shape.precision})"])
            case "map":
                add(["if value[i] == 0:", f"    f_{name} = {{}}", "    i += 1"])
                add(["else:", f"    f_{name}, i = map_(value, i)"])
            case "array":
                assert shape.item is not None
                self.names[f"item_{name}"] = _item_decoder(shape.item, self.classes)
                add([f"f_{name}, i = array(value, i, item_{name})"])
            case _:
                raise AssertionError(shape.kind)

    def function(self, *, whole: bool) -> Callable[[bytes, int], object]:
        body = list(self.lines)
        if whole:
            body += ["if i != len(value): end_of_bytes(i, len(value))"]
        body += [f"event = event_type({', '.join(self.arguments)})", "return event" if whole else "return event, i"]
        source = "def decode(value, i):\n" + "".join(f"    {line}\n" for line in body)
        exec(compile(source, "<avro decoder>", "exec"), self.names)
        decode = self.names["decode"]
        assert callable(decode)
        return decode


def _item_decoder(shape: Shape, classes: Mapping[str, type]) -> Callable[[bytes, int], tuple[object, int]]:
    if shape.kind == "record":
        return cast(Callable[[bytes, int], tuple[object, int]], _compile(shape, classes, whole=False))
    if shape.kind == "string" and not shape.nullable:
        return decode_text
    raise AssertionError(shape.kind)


def _compile(shape: Shape, classes: Mapping[str, type], *, whole: bool) -> Callable[[bytes, int], object]:
    source = _Source(classes)
    cls = classes[shape.name]
    source.names["event_type"] = cls
    for nullable, group in groupby(shape.fields, key=lambda field: field[1].nullable):
        fields = list(group)
        if nullable and len(fields) >= NULLS_AT_ONCE:
            source.add_nullables(fields)
        else:
            for name, field in fields:
                source.add(name, field)
    return source.function(whole=whole)


def compile_decoder(shape: Shape, classes: Mapping[str, type]) -> Decoder:
    """The decoder of a record of that shape into the dataclass (with slots) that `classes` has for its name.

    The shape's fields must be exactly the dataclass's.
    """
    return _compile(shape, classes, whole=True)
