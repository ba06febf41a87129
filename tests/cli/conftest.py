"""A shell on a new ledger for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.shell import Shell


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """Commands on a ledger in a new directory; settings of the environment do not count."""
    for name in ("SESSION_LEDGER_URL", "SESSION_LEDGER_TENANT", "SESSION_LEDGER_USER", "SESSION_LEDGER_ENCRYPTION"):
        monkeypatch.delenv(name, raising=False)
    return Shell(tmp_path / "ledger")
