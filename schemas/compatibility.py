"""FULL_TRANSITIVE and more: whether every version of a schema reads every other, in the same meaning.

Avro's own checker (Apache avro) does the resolution both ways. It compares short names only and neither logical types
nor defaults, as fingerprints do not either; these are compared here, nested ones included. Beyond Avro's rules, fields
only ever get appended, with a default: the dataclasses and the generated code follow the schema's order.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from itertools import combinations, permutations
from typing import Any, cast

from session_ledger.domain.errors import Misconfigured

Part = dict[str, object]
_MEANING = ("type", "size", "logicalType", "precision", "scale", "symbols", "aliases")
_MISSING = object()


def incompatibilities(versions: Sequence[tuple[str, str]]) -> list[str]:
    """What keeps those versions (label and text, the oldest first) from being one schema; [] where nothing does.

    Raises Misconfigured where Apache's avro is not installed.
    """
    found = [problem for label, text in versions for problem in _alone(label, json.loads(text))]
    for (reader, reader_text), (writer, writer_text) in permutations(versions, 2):
        found += [f"{reader} can not read {writer}: {reason}" for reason in _unreadable(reader_text, writer_text)]
    for (older, older_text), (newer, newer_text) in combinations(versions, 2):
        found += [f"{newer} against {older}: {reason}" for reason in _changed(older_text, newer_text)]
    return list(dict.fromkeys(found))


def _unreadable(reader: str, writer: str) -> list[str]:
    """Apache's checker."""
    try:
        from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
        from avro.errors import AvroException, IgnoredLogicalType
        from avro.schema import parse
    except ImportError as error:
        raise Misconfigured("the schema check needs the development dependency avro (Apache's)") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IgnoredLogicalType)  # uuid on a fixed is newer than this reader
        checker: Any = ReaderWriterCompatibilityChecker
        try:
            result = checker().get_compatibility(parse(reader), parse(writer))
        except AvroException as error:
            return [f"Apache's avro refuses one of them: {error}"]
    if result.compatibility is SchemaCompatibilityType.compatible:
        return []
    kinds = ", ".join(sorted({kind.name for kind in result.incompatibilities}))
    return [f"{kinds} at {', '.join(sorted(result.locations))} ({'; '.join(sorted(result.messages))})"]


def _alone(label: str, schema: object) -> Iterator[str]:
    """Rules that each version keeps for itself."""
    for path, part in _parts(schema):
        if part.get("type") == "enum" and "default" in part:
            yield f"{label}: {path} is an enum with a default, which Apache's Python reader can not read"
        if part.get("type") == "record":
            if not part.get("doc"):
                yield f"{label}: {path} has no doc"
            for field in _fields(part):
                if not field.get("doc"):
                    yield f"{label}: {path}.{field['name']} has no doc"


def _changed(older: str, newer: str) -> Iterator[str]:
    """What resolution would not notice, or what only our own rules forbid."""
    before, after = dict(_parts(json.loads(older))), dict(_parts(json.loads(newer)))
    for path, old in before.items():
        new = after.get(path)
        if new is None:
            yield f"{path} is gone"
            continue
        for key in ("fullname", *_MEANING):
            if old.get(key) != new.get(key):
                yield f"{path}: {key} was {_show(old.get(key))}, is {_show(new.get(key))}"
        yield from _changed_fields(path, old, new)


def _changed_fields(path: str, old: Part, new: Part) -> Iterator[str]:
    old_fields, new_fields = _fields(old), _fields(new)
    names, new_names = [f["name"] for f in old_fields], [f["name"] for f in new_fields]
    if new_names[: len(names)] != names:
        yield f"{path}: the fields were {names}, and must stay the first {len(names)} in this order"
    by_name = {f["name"]: f for f in new_fields}
    for field in old_fields:
        default = by_name.get(field["name"], field).get("default", _MISSING)
        if default != field.get("default", _MISSING):
            yield f"{path}.{field['name']}: the default changed"
    for field in new_fields[len(names) :]:
        if "default" not in field:
            yield f"{path}.{field['name']}: a new field has no default"


def _fields(part: Part) -> list[Part]:
    return cast(list[Part], part.get("fields", []))


def _parts(
    schema: object, path: str = "event", namespace: str = "", names: dict[str, Part] | None = None
) -> Iterator[tuple[str, Part]]:
    """Every type inside the schema with its path; named types are the same wherever they are used."""
    names = {} if names is None else names
    if isinstance(schema, list):
        yield path, {"type": "union", "symbols": [_kind(branch) for branch in schema]}
        for number, branch in enumerate(schema):
            yield from _parts(branch, f"{path}|{number}", namespace, names)
        return
    if not isinstance(schema, dict):
        yield path, names.get(_full_name(str(schema), namespace), {"type": schema})
        return
    part: Part = dict(schema)
    if "name" in part:
        full = _full_name(str(part["name"]), str(part.get("namespace") or namespace))
        namespace = full.rpartition(".")[0]
        part["fullname"] = full
        names[full] = part
    yield path, part
    for field in _fields(part):
        yield from _parts(field["type"], f"{path}.{field['name']}", namespace, names)
    for key in ("items", "values"):
        if key in part:
            yield from _parts(part[key], f"{path}[]", namespace, names)


def _full_name(name: str, namespace: str) -> str:
    return name if "." in name or not namespace else f"{namespace}.{name}"


def _kind(branch: object) -> object:
    return branch.get("type") if isinstance(branch, dict) else branch


def _show(value: object) -> str:
    return "nothing" if value is None else repr(value)
