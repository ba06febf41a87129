"""A real vault, keyring and envelope in a directory of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from session_ledger.security.envelope import VaultEnvelope
from session_ledger.security.keyring import Keyring
from session_ledger.security.vault import SQLiteVault


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    """A new keyring file."""
    return Keyring.create(tmp_path / "keyring.json")


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[SQLiteVault]:
    """A new vault file."""
    made = SQLiteVault(tmp_path / "vault.db")
    yield made
    made.close()


@pytest.fixture
def envelope(vault: SQLiteVault, keyring: Keyring) -> VaultEnvelope:
    """An envelope of the ledger `support`."""
    return VaultEnvelope("support", vault, keyring)
