"""Golden files: one event of each type and released version, as bytes and as JSON, written once and read for ever.

`python -m tests.schemas.golden` adds the files of versions that have none yet. It never overwrites one: a golden file
that no longer decodes to what its JSON says means that old logs can no longer be read.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

from session_ledger.domain.events import EVENT_TYPES, Event, QuotaDefault
from session_ledger.schemas.check import FOLDER
from session_ledger.schemas.codec import Codec
from session_ledger.schemas.history import read_history
from session_ledger.schemas.shape import Shape, record_shape

GOLDEN = Path(__file__).parent / "golden"
TIME_US = 1_763_705_530_123_456


def example(event_type: type[Event], shape: Shape) -> Event:
    """The same event for the same type and shape, with a value in every field."""
    return event_type(**{name: _value(name, field) for name, field in shape.fields})


def _value(name: str, shape: Shape) -> Any:
    digest = hashlib.sha256(name.encode()).digest()
    match shape.kind:
        case "fixed":
            return digest[: shape.size]
        case "string":
            return f"{name} \N{GREEK SMALL LETTER ALPHA}"
        case "bytes":
            return b"\x01" + digest * 3
        case "long":
            return int.from_bytes(digest[:3], "big")
        case "time":
            return TIME_US + digest[0]
        case "boolean":
            return True
        case "decimal":
            return Decimal(int.from_bytes(digest[:4], "big")).scaleb(-6)
        case "map":
            return {"channel": name, "\N{GREEK SMALL LETTER BETA}": ""}
        case "array" if shape.item is not None and shape.item.kind == "record":
            return (QuotaDefault(**{part: _value(part, field) for part, field in shape.item.fields}),)
        case "array":
            return (f"{name} 1", f"{name} 2")
        case _:
            raise AssertionError(shape.kind)


def as_json(value: object) -> Any:
    """What the `.json` beside the bytes says of a value: bytes as hexadecimal text, decimals as text."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, tuple):
        return [as_json(item) for item in value]
    if dataclasses.is_dataclass(value):
        return {field.name: as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value


def add_missing() -> list[str]:
    """Write the files of the newest released version of each event type, where there are none. Returns the names."""
    codec, history, added = Codec(), read_history(FOLDER), []
    for event_type in EVENT_TYPES:
        name = event_type.__name__
        stem = f"{name}.{max(history.released[name])}"
        if not (GOLDEN / f"{stem}.bin").exists():
            event = example(event_type, record_shape(json.loads(history.current[name])))
            with (GOLDEN / f"{stem}.bin").open("xb") as out:
                out.write(codec.encode(event))
            with (GOLDEN / f"{stem}.json").open("x", encoding="utf-8") as text:
                text.write(json.dumps(as_json(event), indent=2, ensure_ascii=False) + "\n")
            added.append(stem)
    return added


if __name__ == "__main__":
    for stem in add_missing():
        print(f"added {stem}")
