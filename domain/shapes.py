"""The checks that fields share: each takes (value, field, limits) and raises InvalidInput with the value's shape."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping

from session_ledger.domain.errors import InvalidInput

JSON_DEPTH_MAX = 64  # deeper than any tool call; keeps every reader's recursion bounded
INTEGER_MIN, INTEGER_MAX = -(2**63), 2**64 - 1  # what every JSON reader here takes


def shape(value: object) -> str:
    """What a value looks like from outside: its type, and its length where it has one; never its content."""
    name = type(value).__name__
    if value is None:
        return "none"
    if isinstance(value, str | bytes | list | tuple | dict | set | frozenset):
        unit = {str: "characters", bytes: "bytes"}.get(type(value), "items")
        return f"a {name} of {len(value)} {unit}"
    return f"a {name}"


def text(value: object, field: str, bytes_max: int) -> None:
    """A text of at most `bytes_max` in UTF-8, without NUL and lone surrogates; may be empty."""
    if not isinstance(value, str):
        raise InvalidInput(field, shape(value), "must be a text")
    size = len(value)
    if not value.isascii():
        try:
            size = len(value.encode())
        except UnicodeEncodeError as error:
            seen = f"{shape(value)} with a lone surrogate at {error.start}"
            raise InvalidInput(field, seen, "must be text that UTF-8 can encode") from None
    if size > bytes_max:
        raise InvalidInput(field, f"a text of {size} bytes", f"must be at most {bytes_max} bytes of UTF-8")
    if "\x00" in value:
        raise InvalidInput(field, f"{shape(value)} with NUL at {value.index(chr(0))}", "may not contain NUL")


def word(value: object, field: str, bytes_max: int) -> None:
    """A text as above that is not empty."""
    if value.__class__ is str and value.isascii() and 0 < len(value) <= bytes_max and "\x00" not in value:
        return
    text(value, field, bytes_max)
    if not value:
        raise InvalidInput(field, "an empty text", "may not be empty")


def words(value: object, field: str, count_max: int, bytes_max: int) -> None:
    """A tuple (or list) of texts that are not empty."""
    if not isinstance(value, tuple | list):
        raise InvalidInput(field, shape(value), "must be a tuple of texts")
    if len(value) > count_max:
        raise InvalidInput(field, shape(value), f"must be at most {count_max}")
    for index, item in enumerate(value):
        word(item, f"{field}[{index}]", bytes_max)


def among(value: object, field: str, allowed: Collection[str]) -> None:
    """One of a closed set of words."""
    if not isinstance(value, str) or value not in allowed:
        raise InvalidInput(field, shape(value), f"must be one of {', '.join(allowed)}")


def number(value: object, field: str, lowest: int, highest: int) -> None:
    """An int (no bool) between two bounds, both included."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInput(field, shape(value), "must be an int")
    if not lowest <= value <= highest:
        raise InvalidInput(field, "an int out of range", f"must be between {lowest} and {highest}")


def flag(value: object, field: str) -> None:
    """True or False."""
    if not isinstance(value, bool):
        raise InvalidInput(field, shape(value), "must be True or False")


def identifier(value: object, field: str) -> None:
    """An id: 16 bytes."""
    if value.__class__ is not bytes or len(value) != 16:
        raise InvalidInput(field, shape(value), "must be an id of 16 bytes (domain.ids.parse_id makes one)")


def uuid7(value: object, field: str) -> None:
    """An id as above that is a UUIDv7 (RFC 9562): no other kind of stream has such ids."""
    identifier(value, field)
    assert isinstance(value, bytes)
    if value[6] >> 4 != 7 or value[8] >> 6 != 0b10:
        raise InvalidInput(field, "16 bytes that are no UUIDv7", "must be a UUIDv7")


def metadata(value: object, field: str, bytes_max: int) -> None:
    """A mapping of text to text; names are not empty; `bytes_max` is of all names and values together."""
    if not isinstance(value, Mapping):
        raise InvalidInput(field, shape(value), "must map texts to texts")
    size = 0
    for name, item in value.items():
        word(name, f"{field}, a name", bytes_max)
        text(item, f"{field}, a value", bytes_max)
        size += len(name.encode()) + len(item.encode())
    if size > bytes_max:
        raise InvalidInput(
            field, f"{len(value)} entries of {size} bytes", f"must be at most {bytes_max} bytes of UTF-8"
        )


def json_value(value: object, field: str, bytes_max: int) -> None:
    """What JSON can write: finite numbers, integers of 64 bits, texts as above; at most `bytes_max` as JSON."""
    _json_node(value, field, bytes_max, 0)
    size = len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
    if size > bytes_max:
        raise InvalidInput(field, f"JSON of {size} bytes", f"must be at most {bytes_max} bytes as JSON")


def _json_node(value: object, field: str, bytes_max: int, depth: int) -> None:
    if depth > JSON_DEPTH_MAX:
        raise InvalidInput(field, f"nested deeper than {JSON_DEPTH_MAX}", f"may be nested {JSON_DEPTH_MAX} deep")
    if isinstance(value, str):
        text(value, field, bytes_max)
    elif isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str):
                raise InvalidInput(field, f"an object with {shape(name)} as a name", "names must be texts")
            text(name, field, bytes_max)
            _json_node(item, field, bytes_max, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _json_node(item, field, bytes_max, depth + 1)
    elif isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise InvalidInput(field, "a number that is not finite", "numbers must be finite")
    elif isinstance(value, int) and not isinstance(value, bool):
        if not INTEGER_MIN <= value <= INTEGER_MAX:
            raise InvalidInput(field, "an integer beyond 64 bits", "integers must fit into 64 bits")
    elif value is not None and not isinstance(value, bool):
        raise InvalidInput(field, shape(value), "must be what JSON can write")
