"""`python -m session_ledger.schemas.check`: the schemas, their history, the dataclasses and docs/events.md agree.

Options: `--release` adds the current texts that are new to the released ones, `--write` writes docs/events.md anew.
Exit code 0: all agree; 1: they do not, one line a problem; 3: the check could not run.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import types
import typing
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path

from session_ledger.domain import events
from session_ledger.domain.errors import InvalidInput, SessionLedgerError
from session_ledger.domain.events import EVENT_TYPES, TOPIC_PREFIX, Event
from session_ledger.schemas.compatibility import incompatibilities
from session_ledger.schemas.documentation import render
from session_ledger.schemas.history import History, read_history, release, same_but_docs
from session_ledger.schemas.library import parse
from session_ledger.schemas.shape import Shape, UnsupportedSchema, record_shape

FOLDER = Path(__file__).resolve().parent / "v1"
DOCS = FOLDER.parent.parent / "docs" / "events.md"

_KINDS: dict[object, tuple[str, ...]] = {
    bytes: ("bytes", "fixed"),
    str: ("string",),
    int: ("long", "time"),
    bool: ("boolean",),
    Decimal: ("decimal",),
    dict[str, str]: ("map",),
}


def problems(folder: Path, docs: Path) -> list[str]:
    """Everything that is wrong, one sentence each; [] where nothing is. Raises Misconfigured without Apache's avro."""
    history = read_history(folder)
    found = [*history.problems, *_unparsable(history)]
    if found:
        return found
    found += _names(history)
    for name, text in history.current.items():
        versions = sorted(history.released.get(name, {}).items())
        found += incompatibilities([*((f"{name}.{n}", old) for n, old in versions), (name, text)])
        if not versions or not same_but_docs(text, versions[-1][1]):
            found.append(f"{name}: the current text is not released; add it with --release")
    for event_type in EVENT_TYPES:
        if event_type.__name__ in history.current:
            found += _dataclass(event_type, json.loads(history.current[event_type.__name__]))
    if not found and (not docs.exists() or docs.read_text(encoding="utf-8") != render(history)):
        found.append(f"{docs.name} is stale; write it anew with --write")
    return found


def _unparsable(history: History) -> Iterator[str]:
    for name, text in history.current.items():
        try:
            parse(text)
        except InvalidInput as error:
            yield f"{name}: {error.seen}"


def _names(history: History) -> Iterator[str]:
    wanted = {cls.__name__ for cls in EVENT_TYPES}
    for name in sorted(wanted - set(history.current)):
        yield f"{name}: no schema"
    for name in sorted((set(history.current) | set(history.released)) - wanted):
        yield f"{name}: a schema without an event type"
    for name, text in history.current.items():
        schema = json.loads(text)
        if f"{schema.get('namespace')}.{schema.get('name')}" != TOPIC_PREFIX + name:
            yield f"{name}: the full name must be {TOPIC_PREFIX}{name}"


def _dataclass(event_type: type[Event], schema: dict[str, object]) -> Iterator[str]:
    """The dataclass has exactly the schema's fields, in order, with types that the schema's can hold."""
    try:
        shape = record_shape(schema)
    except UnsupportedSchema as error:
        yield f"{event_type.__name__}: {error}"
        return
    yield from _fields(event_type, shape)


def _fields(cls: type, shape: Shape) -> Iterator[str]:
    assert dataclasses.is_dataclass(cls)
    name = cls.__name__
    hints = typing.get_type_hints(cls)
    ours, theirs = [field.name for field in dataclasses.fields(cls)], [field for field, _ in shape.fields]
    if ours != theirs:
        yield f"{name}: the dataclass has the fields {ours}, the schema {theirs}"
        return
    for field, field_shape in shape.fields:
        if not _holds(hints[field], field_shape):
            yield f"{name}.{field}: {hints[field]} in the dataclass, {field_shape.kind} in the schema"
        if field_shape.item is not None and field_shape.item.kind == "record":
            nested = getattr(events, field_shape.item.name, None)
            if nested is None:
                yield f"{name}.{field}: domain/events.py has no {field_shape.item.name}"
            else:
                yield from _fields(nested, field_shape.item)


def _holds(hint: object, shape: Shape) -> bool:
    if isinstance(hint, types.UnionType):
        inner = [part for part in typing.get_args(hint) if part is not types.NoneType]
        return shape.nullable and len(inner) == 1 and shape.kind in _kinds(inner[0])
    return not shape.nullable and shape.kind in _kinds(hint)


def _kinds(hint: object) -> tuple[str, ...]:
    return ("array",) if typing.get_origin(hint) is tuple else _KINDS.get(hint, ())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m session_ledger.schemas.check", description=__doc__)
    parser.add_argument("--release", action="store_true", help="add new texts to the released ones, then check")
    parser.add_argument("--write", action="store_true", help="write docs/events.md anew, then check")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="the schemas (default: %(default)s)")
    parser.add_argument("--docs", type=Path, default=DOCS, help="the documentation (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        if options.release:
            for file in release(options.folder):
                print(f"released {file}")
        if options.write:
            options.docs.write_text(render(read_history(options.folder)), encoding="utf-8")
        found = problems(options.folder, options.docs)
    except (SessionLedgerError, OSError) as error:
        print(f"the check could not run: {error}", file=sys.stderr)
        return 3
    for problem in found:
        print(problem)
    if not found:
        print(f"{len(EVENT_TYPES)} schemas agree with their history, the dataclasses and {options.docs.name}")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
