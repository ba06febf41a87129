"""Lines of files: plain, gzip, arrays, marks of byte order, lines that are too long, damage."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_ledger.cli import import_source
from session_ledger.cli.import_source import Line, _Cutter, open_source
from session_ledger.domain.errors import InvalidInput


def read(path: Path) -> list[tuple[int, bytes | str]]:
    """(number, its bytes, or why there are none)."""
    with open_source(str(path), None) as source:
        return [
            (line.number, line.data.strip() if line.problem is None else str(line.problem)) for line in source.lines()
        ]


def test_lines_are_numbered_as_they_stand_and_blank_ones_are_passed_over(tmp_path: Path) -> None:
    """Number 3 is the third line of the file, whatever was blank before; the last needs no line end."""
    path = tmp_path / "chats.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a":1}\n\n{"b":2}\r\n   \n{"c":3}')
    assert [(1, b'{"a":1}'), (3, b'{"b":2}'), (5, b'{"c":3}')] == read(path)


def test_gzip_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    """Whatever the file is called, and where several members follow each other; its name counts without `.gz`."""
    path = tmp_path / "chats.jsonl.gz"
    path.write_bytes(gzip.compress(b"{}\n") + gzip.compress(b"[]\n"))
    assert [(1, b"{}"), (2, b"[]")] == read(path)
    with open_source(str(path), None) as source:
        assert source.name == "chats.jsonl"


def test_damaged_gzip_is_told_and_what_came_before_is_kept(tmp_path: Path) -> None:
    """A file that was cut short ends with a problem that says so."""
    path = tmp_path / "chats.gz"
    path.write_bytes(gzip.compress(b"{}\n" * 5)[:-9])
    *lines, (number, problem) = read(path)
    assert all(data == b"{}" for _, data in lines)
    assert number == len(lines) + 1
    assert "damaged gzip" in str(problem)


def test_an_empty_file_has_no_lines(tmp_path: Path) -> None:
    """And is no error."""
    path = tmp_path / "empty"
    path.write_bytes(b"")
    assert [] == read(path)


def test_a_line_that_is_too_long_is_passed_over_without_being_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is reported with its number and the limit; the lines around it are read."""
    monkeypatch.setattr(import_source, "LINE_BYTES_MAX", 100)
    monkeypatch.setattr(import_source, "CHUNK_BYTES", 16)
    path = tmp_path / "chats.jsonl"
    path.write_bytes(b'{"a":1}\n' + b"x" * 1000 + b"\n" + b"y" * 99 + b'\n{"b":2}\n' + b"z" * 500)
    first, long, fits, after, last = read(path)
    assert [(1, b'{"a":1}'), (3, b"y" * 99), (4, b'{"b":2}')] == [first, fits, after]
    assert [(2, "line: more than 100 bytes; must be at most 100 bytes")] == [long]
    assert 5 == last[0]
    assert "more than 100 bytes" in str(last[1])


def test_a_json_array_is_read_element_by_element(tmp_path: Path) -> None:
    """As ShareGPT dumps come; each element counts as a line."""
    path = tmp_path / "sharegpt.json"
    path.write_bytes(b' \n [ {"a": "],[}\\""},\n [1, 2] , 3]\n')
    assert [(1, b'{"a": "],[}\\""}'), (2, b"[1, 2]"), (3, b"3")] == read(path)


@pytest.mark.parametrize(
    ("data", "problem"), [(b'[{"a":1}', "does not end"), (b'[{"a":1}] {}', "data after the array")]
)
def test_an_array_that_is_cut_or_followed_by_more_is_told(tmp_path: Path, data: bytes, problem: str) -> None:
    """The elements before are read."""
    path = tmp_path / "sharegpt.json"
    path.write_bytes(data)
    assert problem in str(read(path)[-1][1])


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(elements=st.lists(_JSON, max_size=6), indent=st.sampled_from([None, 1]), size=st.integers(1, 40))
def test_an_array_is_cut_the_same_however_it_arrives(elements: list[object], indent: int | None, size: int) -> None:
    """Whatever the elements hold, and wherever a chunk ends."""
    data = json.dumps(elements, indent=indent).encode()
    cutter = _Cutter()
    found: list[Line] = []
    for start in range(0, len(data), size):
        found.extend(cutter.feed(data[start : start + size]))
    assert elements == [json.loads(line.data) for line in found]
    assert cutter.rest == b""


def test_a_file_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    """A missing file, and a directory."""
    with pytest.raises(InvalidInput, match="missing"), open_source(str(tmp_path / "missing"), None):
        pass
    with pytest.raises(InvalidInput, match="directory"), open_source(str(tmp_path), None) as source:
        list(source.lines())
