"""Ledgers to test on: in memory, in a directory, on a real broker."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(params=["memory", "sqlite", pytest.param("kafka", marks=pytest.mark.kafka)])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path, ledger_name: str) -> str:
    """The URL of a ledger of one's own, on each log."""
    if request.param == "memory":
        return "memory:"
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'ledger'}"
    return f"kafka://{request.getfixturevalue('kafka')}/{ledger_name}?partitions=2&replica={tmp_path / 'ledger'}"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where a ledger of one's own is or will be."""
    return tmp_path / "ledger"


@pytest.fixture
def sqlite_url(directory: Path) -> str:
    """The URL of a ledger in that directory."""
    return f"sqlite:{directory}"
