"""Where a ledger of one's own is."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where a ledger of one's own will be."""
    return tmp_path / "ledger"


@pytest.fixture
def sqlite_url(directory: Path) -> str:
    """The URL of a ledger in that directory."""
    return f"sqlite:{directory}"
