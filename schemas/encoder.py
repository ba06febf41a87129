"""Encoders generated from the schemas: one Python function an event type, its bytes equal to those of any Avro library.

A generic encoder looks at the schema for every value of every event. Here the schema is looked at once, and becomes
straight-line source that reads the dataclass's attributes and joins their encodings. What repeats (texts such as
tenant and role, times, small numbers) is looked up. Encodings: Avro specification, "Binary Encoding".
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Context, Decimal, Inexact

from session_ledger.schemas.shape import Shape
from session_ledger.schemas.varint import encode_long, encode_time

Encoder = Callable[[object, bytes], bytes]
"""(event, header) -> header + Avro binary body. Raises TypeError, ValueError, AttributeError, ... for a value that
does not fit the schema."""

SMALL = 1024  # numbers below this are looked up: lengths of texts, message numbers, token counts
CACHED_TEXT = 64  # characters; longer texts seldom repeat
CACHE_ENTRIES = 4096  # then a cache starts again: bounds memory at some 1 MB a codec

_CONTEXT = Context(prec=60, traps=[Inexact])


def encode_decimal(value: Decimal, scale: int, bound: int) -> bytes:
    """Length and big-endian two's complement of the unscaled value. Raises ValueError where it does not fit exactly."""
    scaled = value.scaleb(scale, _CONTEXT)
    unscaled = int(scaled)
    if unscaled != scaled or not -bound < unscaled < bound:
        raise ValueError("decimal does not fit precision and scale")
    size = (unscaled.bit_length() + 8) >> 3
    return _SMALL[size] + unscaled.to_bytes(size, "big", signed=True)


def encode_map(value: dict[str, str]) -> bytes:
    """One block of keys and values, then the end."""
    parts = [encode_long(len(value))]
    for key, item in value.items():
        for text in (key.encode(), item.encode()):
            parts += encode_long(len(text)), text
    return b"".join((*parts, b"\x00"))


def encode_array(value: tuple[object, ...], encode_item: Callable[[object], bytes]) -> bytes:
    """One block of items, then the end."""
    if isinstance(value, (str, bytes)):
        raise TypeError("a sequence of items")
    return b"".join((encode_long(len(value)), *map(encode_item, value), b"\x00")) if value else b"\x00"


_SMALL = tuple(map(encode_long, range(SMALL)))


class _Source:
    """The source of one function, and the names it needs."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.parts: list[str] = []
        texts: dict[str, bytes] = {}
        times: dict[int, bytes] = {}

        def text(value: str) -> bytes:
            raw = value.encode()
            encoded = encode_long(len(raw)) + raw
            if len(value) <= CACHED_TEXT:
                if len(texts) >= CACHE_ENTRIES:
                    texts.clear()
                texts[value] = encoded
            return encoded

        def time(value: int) -> bytes:
            encoded = encode_time(value)
            if len(times) >= CACHE_ENTRIES:
                times.clear()
            times[value] = encoded
            return encoded

        self.names: dict[str, object] = {
            "texts": texts.get,
            "times": times.get,
            "text": text,
            "time": time,
            "encode_time": encode_time,
            "small": _SMALL,
            "opt_small": tuple(b"\x02" + encoded for encoded in _SMALL),
            "long": encode_long,
            "decimal": encode_decimal,
            "map_": encode_map,
            "array": encode_array,
            "join": b"".join,
        }

    def add(self, name: str, shape: Shape) -> None:
        """Append the statements that encode the attribute `name`."""
        self.lines.append(f"v = e.{name}")
        if not shape.nullable:
            self._value(name, shape, "")
            return
        tag = "b'\\x02' + "
        if shape.kind in ("bytes", "long"):
            tag = "b'\\x02'"
        self.lines += ["if v is None:", f"    f_{name} = b'\\x00'", "else:"]
        start = len(self.lines)
        self._value(name, shape, tag)
        self.lines[start:] = ["    " + line for line in self.lines[start:]]

    def _value(self, name: str, shape: Shape, tag: str) -> None:
        add = self.lines.append
        match shape.kind:
            case "fixed":
                add(f"if len(v) != {shape.size}: raise ValueError('length of a fixed')")
                add(f"f_{name} = {tag}v")
            case "string":
                add(f"f_{name} = {tag}(texts(v) or text(v))")
            case "time" if name == "recorded_at":  # one a batch, so it is looked up
                add(f"f_{name} = {tag}(times(v) or time(v))")
            case "time":
                add(f"f_{name} = {tag}encode_time(v)")
            case "long":
                table = "opt_small" if tag else "small"
                prefix = tag + " + " if tag else ""
                add(f"f_{name} = {table}[v] if 0 <= v < {SMALL} else {prefix}long(v)")
            case "bytes":
                add("n = len(v)")
                if tag:
                    add(f"f_{name} = (opt_small[n] if n < {SMALL} else {tag} + long(n)) + v")
                else:
                    add(f"f_{name}_size = small[n] if n < {SMALL} else long(n)")
                    add(f"f_{name} = v")
                    self.parts.append(f"f_{name}_size")
            case "boolean":
                add("if v is not True and v is not False: raise TypeError('a boolean')")
                add(f"f_{name} = {tag}(b'\\x01' if v else b'\\x00')")
            case "decimal":
                add(f"f_{name} = {tag}decimal(v, {shape.scale}, {10**shape.precision})")
            case "map":
                add(f"f_{name} = {tag}(map_(v) if len(v) else b'\\x00')")
            case "array":
                assert shape.item is not None
                self.names[f"item_{name}"] = _item_encoder(shape.item)
                add(f"f_{name} = {tag}array(v, item_{name})")
            case _:
                raise AssertionError(shape.kind)
        self.parts.append(f"f_{name}")

    def function(self) -> Encoder:
        body = "".join(f"    {line}\n" for line in self.lines)
        source = f"def encode(e, header):\n{body}    return join((header, {', '.join(dict.fromkeys(self.parts))}))\n"
        exec(compile(source, "<avro encoder>", "exec"), self.names)
        encode = self.names["encode"]
        assert callable(encode)
        return encode


def _item_encoder(shape: Shape) -> Callable[[object], bytes]:
    if shape.kind == "record":
        encode = compile_encoder(shape)
        return lambda item: encode(item, b"")
    if shape.kind == "string" and not shape.nullable:
        return _encode_text
    raise AssertionError(shape.kind)


def _encode_text(value: object) -> bytes:
    if not isinstance(value, str):
        raise TypeError("a text")
    raw = value.encode()
    return encode_long(len(raw)) + raw


def compile_encoder(shape: Shape) -> Encoder:
    """The encoder of a record of that shape."""
    source = _Source()
    for name, field in shape.fields:
        source.add(name, field)
    return source.function()
