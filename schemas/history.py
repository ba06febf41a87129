"""The schema files of a folder: the current ones, and every one that was ever released.

    v1/MessageAdded.avsc                what is written now
    v1/released/MessageAdded.1.avsc     released, read for ever; numbered 1, 2, 3, ... an event type
    v1/released/SHA256SUMS              of the released files, in the form of `sha256sum`

The current text is the newest released one, up to its docs: whatever a build may write, every later build can read.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

SUMS = "SHA256SUMS"
_RELEASED = re.compile(r"(\w+)\.(\d+)\.avsc")


@dataclass(frozen=True, slots=True)
class History:
    """The texts of a folder."""

    current: dict[str, str]
    """By the event type's name."""
    released: dict[str, dict[int, str]]
    """By the event type's name, then by version."""
    problems: tuple[str, ...]
    """Released files that changed, are missing, or are not listed."""


def read_history(folder: Path) -> History:
    """All files of `v1/`."""
    released: dict[str, dict[int, str]] = {}
    problems: list[str] = []
    listed = _read_sums(folder)
    for path in sorted((folder / "released").glob("*.avsc")):
        match = _RELEASED.fullmatch(path.name)
        if match is None:
            problems.append(f"released/{path.name}: the name must be <EventName>.<version>.avsc")
            continue
        text = path.read_text(encoding="utf-8")
        released.setdefault(match[1], {})[int(match[2])] = text
        wanted = listed.pop(path.name, None)
        if wanted is None:
            problems.append(f"released/{path.name} is not in {SUMS}")
        elif wanted != _sum(text):
            problems.append(f"released/{path.name} was changed after its release; restore it")
    problems += [f"released/{name} is in {SUMS} and missing; restore it" for name in listed]
    for name, versions in released.items():
        if sorted(versions) != list(range(1, len(versions) + 1)):
            problems.append(f"{name}: released versions {sorted(versions)}, must be 1, 2, 3, ... without a gap")
    current = {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.avsc"))}
    return History(current, released, tuple(problems))


def release(folder: Path) -> list[str]:
    """Add the current texts that differ from the newest released ones, as new versions. Returns the names of the files.

    Changes no file that is there, except that it appends to SHA256SUMS.
    """
    history = read_history(folder)
    added: list[str] = []
    (folder / "released").mkdir(exist_ok=True)
    for name, text in history.current.items():
        versions = history.released.get(name, {})
        if versions and same_but_docs(text, versions[max(versions)]):
            continue
        file = f"{name}.{max(versions, default=0) + 1}.avsc"
        with (folder / "released" / file).open("x", encoding="utf-8") as out:
            out.write(text)
        with (folder / "released" / SUMS).open("a", encoding="utf-8") as out:
            out.write(f"{_sum(text)}  {file}\n")
        added.append(file)
    return added


def same_but_docs(one: str, other: str) -> bool:
    """The two texts differ in docs and layout at most."""
    return _without_docs(json.loads(one)) == _without_docs(json.loads(other))


def _without_docs(part: object) -> object:
    if isinstance(part, dict):
        return {key: _without_docs(inner) for key, inner in part.items() if key != "doc"}
    return [_without_docs(inner) for inner in part] if isinstance(part, list) else part


def _read_sums(folder: Path) -> dict[str, str]:
    path = folder / "released" / SUMS
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
