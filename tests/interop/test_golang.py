"""Which Go is taken, and what is said where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop import golang


def program(path: Path, says: str) -> Path:
    """A program that prints that."""
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def test_the_go_that_is_named_must_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is too old, or none, fails with what to do; nothing is skipped."""
    old = program(tmp_path / "old", "go version go1.18.1 linux/amd64")
    monkeypatch.setenv(golang.NAMED, str(old))
    with pytest.raises(RuntimeError, match=r"need Go 1\.19 or later, and found .*old \(version go1\.18\).*golang-go"):
        golang.find_go()
    new = program(tmp_path / "new", "go version go1.19 linux/amd64")
    monkeypatch.setenv(golang.NAMED, str(new))
    assert new == golang.find_go()
    monkeypatch.setenv(golang.NAMED, str(tmp_path / "nothing"))
    with pytest.raises(RuntimeError, match="found none"):
        golang.find_go()
