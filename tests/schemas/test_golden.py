"""What old logs hold is read for ever."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from session_ledger.domain.events import TOPIC_PREFIX
from session_ledger.schemas.check import FOLDER
from session_ledger.schemas.codec import Codec
from session_ledger.schemas.history import read_history
from tests.schemas.golden import GOLDEN, add_missing, as_json

CODEC = Codec()
FILES = sorted(GOLDEN.glob("*.bin"))


def test_every_released_version_has_its_golden_file() -> None:
    """One file of bytes, and what they mean, for each event type and version."""
    released = {f"{name}.{n}" for name, versions in read_history(FOLDER).released.items() for n in versions}
    assert released == {path.stem for path in FILES}
    assert released == {path.stem for path in GOLDEN.glob("*.json")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_golden_file_decodes_to_what_it_always_meant(path: Path) -> None:
    """Every field that the version had comes back with its value; fields added since are allowed beside them."""
    expected = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    event = CODEC.decode(path.read_bytes(), TOPIC_PREFIX + path.stem.partition(".")[0])
    found = as_json(event)
    assert expected == {name: found[name] for name in expected}


def test_a_golden_file_names_its_released_schema() -> None:
    """The fingerprint in the bytes is that of the released text of the same version."""
    released = read_history(FOLDER).released
    for path in FILES:
        name, _, number = path.stem.partition(".")
        digest = path.read_bytes()[2:10]
        schema = CODEC.library.by_fingerprint(digest)
        assert schema is not None
        assert schema.canonical == CODEC.library.learn(released[name][int(number)]).canonical


def test_golden_files_are_never_written_again() -> None:
    """With a file for each version there is nothing to add."""
    assert [] == add_missing()
