"""Hypothesis strategies for events of every type, made from the shapes of their schemas."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import strategies as st

from session_ledger.domain.events import EVENT_TYPES, Event, QuotaDefault
from session_ledger.schemas.library import Library
from session_ledger.schemas.shape import Shape, record_shape

LIBRARY = Library()
SHAPES: dict[type[Event], Shape] = {cls: record_shape(LIBRARY.of(cls).parsed()) for cls in EVENT_TYPES}

LONGS = st.integers(-(1 << 63), (1 << 63) - 1)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=80)
LAST_DATETIME_US = 253402300799_999999  # 9999-12-31, the last that Python's datetime holds
FIRST_DATETIME_US = -62135596800_000000


def values(shape: Shape, *, datetimes: bool = False) -> st.SearchStrategy[object]:
    """Values of that shape; `datetimes`: times that Python's datetime can hold, and no others."""
    found: st.SearchStrategy[object]
    match shape.kind:
        case "fixed":
            found = st.binary(min_size=shape.size, max_size=shape.size)
        case "string":
            found = TEXTS
        case "bytes":
            found = st.binary(max_size=1500)
        case "long":
            found = LONGS | st.integers(0, 3000)
        case "time":
            recent = st.integers(1_600_000_000_000_000, 2_000_000_000_000_000)
            found = recent | (st.integers(FIRST_DATETIME_US, LAST_DATETIME_US) if datetimes else LONGS)
        case "boolean":
            found = st.booleans()
        case "decimal":
            bound = 10**shape.precision - 1
            found = st.integers(-bound, bound).map(lambda n: Decimal(n).scaleb(-shape.scale))
        case "map":
            found = st.dictionaries(TEXTS, TEXTS, max_size=4)
        case "array":
            assert shape.item is not None
            found = st.lists(values(shape.item), max_size=4).map(tuple)
        case "record":
            parts = {name: values(field) for name, field in shape.fields}
            found = st.builds(QuotaDefault, **parts)
        case _:
            raise AssertionError(shape.kind)
    return st.none() | found if shape.nullable else found


def events(event_type: type[Event], *, datetimes: bool = False) -> st.SearchStrategy[Event]:
    """Events of that type with any values that its schema allows."""
    shape = SHAPES[event_type]
    return st.builds(event_type, **{name: values(field, datetimes=datetimes) for name, field in shape.fields})


def any_event() -> st.SearchStrategy[Event]:
    """Events of every type."""
    return st.one_of(*(events(cls) for cls in EVENT_TYPES))
