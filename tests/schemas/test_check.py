"""`python -m session_ledger.schemas.check`: what it holds, and that it fails where it must."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from session_ledger.domain.errors import InvalidInput
from session_ledger.schemas.check import DOCS, FOLDER, main, problems
from session_ledger.schemas.compatibility import incompatibilities
from session_ledger.schemas.history import release
from session_ledger.schemas.library import parse

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the schemas, to be damaged."""
    copy = tmp_path / "v1"
    shutil.copytree(FOLDER, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def field(schema: dict[str, Any], name: str) -> dict[str, Any]:
    """The field of that name."""
    found: dict[str, Any] = next(each for each in schema["fields"] if each["name"] == name)
    return found


def after(folder: Path, name: str, change: Change) -> list[str]:
    """What the check says once the current text of a schema was changed."""
    path = folder / f"{name}.avsc"
    schema = json.loads(path.read_text(encoding="utf-8"))
    change(schema)
    path.write_text(json.dumps(schema), encoding="utf-8")
    return problems(folder, DOCS)


def test_the_schemas_history_dataclasses_and_docs_agree() -> None:
    """The repository as it stands has no problem."""
    assert [] == problems(FOLDER, DOCS)


def remove(name: str) -> Change:
    return lambda schema: schema["fields"].remove(field(schema, name))


def append(**new: object) -> Change:
    return lambda schema: schema["fields"].append(new)


def set_type(name: str, kind: object) -> Change:
    return lambda schema: field(schema, name).update(type=kind)


TIME = {"type": "long", "logicalType": "timestamp-millis"}
ENUM = {"type": "enum", "name": "Tone", "symbols": ["LOW", "HIGH"], "default": "LOW"}
COARSE = {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 2}


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("SessionExpired", remove("reason"), "SessionExpired.1 can not read SessionExpired: reader_field_missing"),
        ("SessionExpired", remove("command_id"), "event.command_id is gone"),
        ("SessionExpired", append(name="x", type="long", doc="d"), "event.x: a new field has no default"),
        ("SessionExpired", append(name="x", type="long", default=0), "event.x has no doc"),
        ("SessionExpired", lambda schema: schema.update(name="SessionGone"), "name_mismatch"),
        ("SessionExpired", lambda schema: schema.update(namespace="other"), "the full name must be"),
        ("SessionExpired", lambda schema: schema.update(namespace="other"), "fullname was 'session_ledger.events."),
        ("SessionExpired", lambda schema: schema["fields"].insert(0, schema["fields"].pop()), "must stay the first"),
        ("SessionExpired", set_type("due_at", TIME), "event.due_at: logicalType was 'timestamp-micros'"),
        ("SessionExpired", set_type("due_at", "long"), "event.due_at: logicalType was 'timestamp-micros', is nothing"),
        ("SessionCreated", set_type("occurred_at", ["null", TIME]), r"event.occurred_at|1: logicalType was"),
        ("SessionExpired", set_type("due_at", "string"), "type_mismatch"),
        ("SessionExpired", set_type("reason", ["null", "string"]), "can not read"),
        ("SessionCreated", lambda schema: field(schema, "domain").update(default="x"), "event.domain: the default"),
        ("QuotaConsumed", set_type("amount", COARSE), "event.amount: scale was 6, is 2"),
        ("SessionExpired", append(name="x", type=ENUM, default="LOW", doc="d"), "an enum with a default"),
        ("SessionExpired", append(name="x", type="long", default=0, doc="d"), "the dataclass has the fields"),
        ("SessionExpired", append(name="x", type="long", default=0, doc="d"), "is not released"),
    ],
)
def test_a_change_that_would_break_a_reader_fails(folder: Path, name: str, change: Change, reason: str) -> None:
    """Each forbidden change of a schema is named."""
    found = after(folder, name, change)
    assert any(reason in problem for problem in found), found


def quota(schema: dict[str, Any]) -> dict[str, Any]:
    items: dict[str, Any] = field(schema, "quotas")["type"]["items"]
    return items


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda schema: field(quota(schema), "limit").update(type="bytes"), "event.quotas[].limit: logicalType was"),
        (lambda schema: quota(schema).update(name="Quota"), "event.quotas[]: fullname was"),
        (lambda schema: quota(schema).update(namespace="other"), "event.quotas[]: fullname was"),
        (lambda schema: quota(schema)["fields"].pop(), "reader_field_missing_default_value"),
        (lambda schema: quota(schema)["fields"].append({"name": "x", "type": "long", "doc": "d"}), "no default"),
        (lambda schema: field(schema, "event_id")["type"].pop("logicalType"), "event.event_id: logicalType was 'uuid'"),
        (lambda schema: field(schema, "event_id")["type"].update(size=17), "fixed_size_mismatch"),
    ],
)
def test_nested_types_are_compared_too(folder: Path, change: Change, reason: str) -> None:
    """The same holds for records inside an array and for named types."""
    found = after(folder, "LimitsSet", change)
    assert any(reason in problem for problem in found), found


def test_every_pair_of_versions_is_compared_not_only_neighbours() -> None:
    """Transitive: a default that comes, goes and comes back is seen between the first and the last."""

    def version(default: int) -> str:
        fields = [{"name": "a", "type": "long", "default": default, "doc": "d"}]
        return json.dumps({"type": "record", "name": "n.R", "doc": "d", "fields": fields})

    found = incompatibilities([("R.1", version(0)), ("R.2", version(0)), ("R", version(1))])
    assert ["R against R.1: event.a: the default changed", "R against R.2: event.a: the default changed"] == found


def test_a_field_appended_with_a_default_is_compatible() -> None:
    """The one change that schemas are made for."""
    fields = [{"name": "a", "type": "long", "doc": "d"}]
    old = json.dumps({"type": "record", "name": "n.R", "doc": "d", "fields": fields})
    fields.append({"name": "b", "type": ["null", "string"], "default": None, "doc": "d"})  # type: ignore[dict-item]
    new = json.dumps({"type": "record", "name": "n.R", "doc": "d", "fields": fields})
    assert [] == incompatibilities([("R.1", old), ("R", new)])


@pytest.mark.parametrize("text", ["", "{", "[]", '{"type": "record", "name": "SessionEnded"}'])
def test_a_file_that_is_no_schema_is_a_problem_not_a_crash(folder: Path, text: str) -> None:
    """Broken JSON and broken Avro are named like every other problem."""
    (folder / "SessionEnded.avsc").write_text(text, encoding="utf-8")
    assert [f"SessionEnded: {seen}" for seen in seen_in(text)] == problems(folder, DOCS)


def seen_in(text: str) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        parse(text)
    return [caught.value.seen]


def test_stale_documentation_fails(tmp_path: Path) -> None:
    """docs/events.md must be what the schemas make of it."""
    stale = tmp_path / "events.md"
    stale.write_text(DOCS.read_text(encoding="utf-8") + "\nmore\n", encoding="utf-8")
    assert ["events.md is stale; write it anew with --write"] == problems(FOLDER, stale)
    assert ["missing.md is stale; write it anew with --write"] == problems(FOLDER, tmp_path / "missing.md")


def test_released_files_are_never_changed_removed_or_added_by_hand(folder: Path) -> None:
    """The sums beside them tell."""
    released = folder / "released"
    (released / "QuotaSet.1.avsc").unlink()
    shutil.copy(released / "AgentRetired.1.avsc", released / "AgentRetired.3.avsc")
    (released / "SessionEnded.1.avsc").write_text(
        (folder / "SessionEnded.avsc").read_text(encoding="utf-8") + "\n", encoding="utf-8"
    )
    found = problems(folder, DOCS)
    assert "released/SessionEnded.1.avsc was changed after its release; restore it" in found
    assert "released/QuotaSet.1.avsc is in SHA256SUMS and missing; restore it" in found
    assert "released/AgentRetired.3.avsc is not in SHA256SUMS" in found
    assert "AgentRetired: released versions [1, 3], must be 1, 2, 3, ... without a gap" in found


def test_releasing_adds_the_next_version_and_changes_no_file(folder: Path) -> None:
    """Only what differs from the newest release is added; docs alone are no new version."""
    before = {path.name: path.read_bytes() for path in (folder / "released").glob("*.avsc")}
    path = folder / "SessionExpired.avsc"
    schema = json.loads(path.read_text(encoding="utf-8"))
    field(schema, "reason")["doc"] = "Other words."
    path.write_text(json.dumps(schema), encoding="utf-8")
    assert [] == release(folder)
    append(name="x", type="long", default=0, doc="d")(schema)
    path.write_text(json.dumps(schema), encoding="utf-8")
    assert ["SessionExpired.2.avsc"] == release(folder)
    assert [] == release(folder)
    assert before == {name: (folder / "released" / name).read_bytes() for name in before}


def test_the_command_line_tells_by_its_exit_code(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """0 where all agrees, 1 with one line a problem, and --write repairs the docs."""
    docs = tmp_path / "events.md"
    arguments = ["--folder", str(folder), "--docs", str(docs)]
    assert 1 == main(arguments)
    assert "events.md is stale; write it anew with --write\n" == capsys.readouterr().out
    assert 0 == main([*arguments, "--write"])
    assert DOCS.read_text(encoding="utf-8") == docs.read_text(encoding="utf-8")
    assert 3 == main(["--folder", str(folder), "--docs", str(tmp_path / "no" / "events.md"), "--write"])
