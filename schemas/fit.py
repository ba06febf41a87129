"""Why a value does not fit its place in a schema: the words of an error, found after an encoder refused."""

from __future__ import annotations

from decimal import Decimal, DecimalException

from session_ledger.schemas.shape import Shape

_TYPES: dict[str, type] = {
    "fixed": bytes,
    "string": str,
    "bytes": bytes,
    "long": int,
    "time": int,
    "boolean": bool,
    "decimal": Decimal,
    "map": dict,
    "array": tuple,
}


def misfit(shape: Shape, value: object) -> tuple[str, str] | None:
    """What was seen (its shape, never itself) and the rule that it breaks; None: it fits."""
    if value is None and shape.nullable:
        return None
    seen = f"a {type(value).__name__}"
    if shape.kind == "record":
        for name, field in shape.fields:
            found = misfit(field, getattr(value, name, None))
            if found is not None:
                return f"{seen} with {name} {found[0]}", found[1]
        return None
    wanted = _TYPES[shape.kind]
    if not isinstance(value, wanted):
        return seen, f"must be a {wanted.__name__}"
    match value:
        case bytes() if shape.kind == "fixed" and len(value) != shape.size:
            return f"{len(value)} bytes", f"must be {shape.size} bytes"
        case str() if not _encodable(value):
            return f"{len(value)} characters, a lone surrogate among them", "must be Unicode text"
        case int() if not -(1 << 63) <= value < 1 << 63:
            return f"an integer of {value.bit_length()} bits", "must fit 64 bits"
        case Decimal() if not _fits(value, shape):
            return (
                "a decimal that is not finite, too large or too fine",
                f"must have at most {shape.precision} digits, {shape.scale} of them decimals",
            )
        case dict():
            return _first(Shape("string"), (part for item in value.items() for part in item), seen)
        case tuple():
            assert shape.item is not None
            return _first(shape.item, value, seen)
    return None


def _first(shape: Shape, values: object, seen: str) -> tuple[str, str] | None:
    assert hasattr(values, "__iter__")
    for value in values:
        found = misfit(shape, value)
        if found is not None:
            return f"{seen} that holds {found[0]}", found[1]
    return None


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _fits(value: Decimal, shape: Shape) -> bool:
    try:
        scaled = value.scaleb(shape.scale)
        return scaled == int(scaled) and abs(scaled) < 10**shape.precision
    except (DecimalException, ValueError, OverflowError):
        return False
