"""What a vault destroys is gone from every byte of its file, and nothing else goes with it."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from session_ledger.domain.errors import VaultBusy
from session_ledger.security import vault as vault_module
from session_ledger.security.stored import StoredKey, StoredPseudonym
from session_ledger.security.vault import SQLiteVault, Vault
from session_ledger.security.vault_memory import MemoryVault
from tests.security.made import start

READ = """
import sqlite3, sys
reader = sqlite3.connect(sys.argv[1], isolation_level=None)
reader.execute("BEGIN")
print(reader.execute("SELECT count(*) FROM keys").fetchone()[0], flush=True)
sys.stdin.readline()
"""


@pytest.fixture(params=["sqlite", "memory"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Vault]:
    """A vault of each kind."""
    made: Vault = MemoryVault() if request.param == "memory" else SQLiteVault(tmp_path / "vault.db")
    yield made
    made.close()


def key_of(user: str, session_id: bytes = b"", generation: int = 1, tenant: str = "acme") -> StoredKey:
    """A wrapped key of 61 bytes, as they are."""
    return StoredKey(session_id, tenant, user, generation, os.urandom(16), "wk-1", os.urandom(61), 1)


def filled(vault: SQLiteVault, count: int) -> list[StoredKey]:
    """Keys of users with ids of many lengths, in an order that splits and merges pages all over."""
    chosen = random.Random(6)
    keys = [
        key_of("u" * chosen.randrange(1, 200) + str(n), b"" if chosen.random() < 0.5 else chosen.randbytes(16))
        for n in range(count)
    ]
    for at in range(0, count, 7):
        vault.insert_if_absent(keys[at : at + 7])
    return keys


def destroy(vault: SQLiteVault, keys: list[StoredKey]) -> None:
    """Each of them, as an erasure does."""
    for key in keys:
        if key.session_id:
            assert 1 == vault.destroy(key.tenant, key.user, [key.session_id])
        else:
            assert 1 == vault.destroy_account(key.tenant, key.user, None)


def left_of(vault: SQLiteVault, keys: list[StoredKey]) -> int:
    """How many of them stand in the file or its log, whole or in pieces."""
    found = b"".join(path.read_bytes() for path in vault.path.parent.glob("vault.db*"))
    return sum(key.key_id in found or any(key.wrapped[at : at + 16] in found for at in (0, 16, 32)) for key in keys)


@pytest.mark.parametrize("at_once", [8, 96], ids=["looked for", "too many to look for"])
def test_no_copy_of_a_destroyed_key_is_left_in_pages_that_were_split(vault: SQLiteVault, at_once: int) -> None:
    """Of 96 keys of many users, destroyed in some steps, no piece is in any byte; the others stay."""
    keys = filled(vault, 700)
    for at in range(0, 96, at_once):
        destroy(vault, keys[at : at + at_once])
        vault.scrub()
    assert 0 == left_of(vault, keys[:96])
    assert 604 == left_of(vault, keys[96:])
    assert 604 == sum(len(vault.keys_of(key.tenant, key.user)) for key in keys[96:])


def test_what_another_process_has_destroyed_is_scrubbed_too(vault: SQLiteVault) -> None:
    """One that ended before it came to that: the next does not know what to look for, and leaves nothing."""
    keys = filled(vault, 700)
    other = SQLiteVault(vault.path)
    destroy(other, keys[:96])
    other.close()
    destroy(vault, keys[96:97])
    vault.scrub(thorough=True)
    assert 0 == left_of(vault, keys[:97])


def test_ways_back_and_a_whole_tenant_leave_no_copy_either(vault: SQLiteVault) -> None:
    """What a pseudonym stands for, and all that a tenant had, in a file that they share with others."""
    store = vault.tenants.pseudonyms
    rows = [
        StoredPseudonym("acme", f"p-{os.urandom(40).hex()[: 5 + n % 60]}", "wk-1", os.urandom(61)) for n in range(1000)
    ]
    for at in range(0, len(rows), 7):
        store.insert_if_absent(rows[at : at + 7])
    for row in rows[:96]:
        assert store.destroy("acme", row.pseudonym)
    assert not store.destroy("acme", rows[0].pseudonym)
    vault.scrub()
    found = b"".join(path.read_bytes() for path in vault.path.parent.glob("vault.db*"))
    assert not [row for row in rows[:96] if row.sealed in found]
    vault.destroy_tenant("acme")
    vault.scrub()
    found = b"".join(path.read_bytes() for path in vault.path.parent.glob("vault.db*"))
    assert not [row for row in rows if row.sealed in found]


def test_a_reader_is_waited_for_and_then_told_as_an_obstacle_that_passes(
    vault: SQLiteVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another process reads, old bytes may stand in the log: that is said, and repeated when it is gone."""
    monkeypatch.setattr(vault_module, "BUSY_TIMEOUT_S", 0.2)
    vault.rows("PRAGMA busy_timeout = 100", ())
    keys = filled(vault, 300)
    with start(READ, str(vault.path)) as reader:
        assert reader.stdout is not None
        assert "300\n" == reader.stdout.readline()
        destroy(vault, keys[:100])
        with pytest.raises(VaultBusy) as busy:
            vault.scrub()
        assert busy.value.retriable
        reader.communicate("\n")
    vault.scrub()
    assert 0 == left_of(vault, keys[:100])


def test_a_writer_keeps_the_file_from_being_rewritten(vault: SQLiteVault, monkeypatch: pytest.MonkeyPatch) -> None:
    """An obstacle that passes too; nothing is forgotten meanwhile of what is to be looked for."""
    assert vault._writer is not None
    vault._writer.execute("PRAGMA busy_timeout = 100")
    keys = filled(vault, 96)
    destroy(vault, keys[:96])
    monkeypatch.setattr(vault, "_empty_log", lambda: None)
    writer = sqlite3.connect(vault.path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    with pytest.raises(VaultBusy):
        vault.scrub()
    writer.close()
    monkeypatch.undo()
    vault.scrub()
    assert 0 == left_of(vault, keys)


def test_keys_after_the_one_that_an_erasure_left_are_not_its_own(either: Vault) -> None:
    """An older erasure that is repeated finds its key gone, by a later one, and destroys nothing."""
    old, left, live = (key_of("ann", generation=generation) for generation in (1, 2, 3))
    either.insert_if_absent([old, left])
    assert 1 == either.destroy_account("acme", "ann", left.key_id)
    either.insert_if_absent([live])
    assert 1 == either.destroy_account("acme", "ann", live.key_id)
    assert 0 == either.destroy_account("acme", "ann", left.key_id)
    assert [live] == either.keys_of("acme", "ann")
    assert 1 == either.destroy_account("acme", "ann", None)
