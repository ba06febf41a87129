"""The SQLite vault: the first insert wins, whatever the interleaving or crash, and damage has a typed error."""

from __future__ import annotations

import os
import random
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from session_ledger.domain.errors import KeyNotStored, KeyUnavailable, Misconfigured
from session_ledger.security.vault import SQLiteVault, StoredKey
from tests.security.made import raised, start

RACE = """
import os, sys
from pathlib import Path
from session_ledger.security.vault import SQLiteVault, StoredKey
sys.stdin.readline()
vault = SQLiteVault(Path(sys.argv[1]))
for batch in range(20):
    keys = [StoredKey(bytes([batch, i]) * 8, "acme", "ann", 1, os.urandom(16), "wk", b"w" * 61, 0) for i in range(10)]
    lost = {stored.session_id: stored.key_id for stored in vault.insert_if_absent(keys)}
    for key in keys:
        print(key.session_id.hex(), lost.get(key.session_id, key.key_id).hex(), key.session_id not in lost)
"""

MAKE = """
import sys
from pathlib import Path
from session_ledger.security.vault import SQLiteVault
sys.stdin.readline()
for number in range(200):
    SQLiteVault(Path(sys.argv[1]) / f"vault-{number}.db").close()
"""


def stored_key(session_id: bytes = b"s" * 16, user: str = "ann", generation: int = 1) -> StoredKey:
    """A wrapped key with a fresh key id."""
    return StoredKey(
        session_id, "acme", user, generation, os.urandom(16), "wk-1", os.urandom(61), 1_700_000_000_000_000
    )


def test_what_is_inserted_is_found(vault: SQLiteVault) -> None:
    """By scope and by key id, whole; None for every other tenant, user, session or key id."""
    key = stored_key()
    assert [] == vault.insert_if_absent([key])
    assert key == vault.newest("acme", "ann", b"s" * 16) == vault.find("acme", "ann", b"s" * 16, key.key_id)
    assert None is vault.newest("acme", "bob", b"s" * 16)
    assert None is vault.newest("other", "ann", b"s" * 16)
    assert None is vault.newest("acme", "ann", b"")
    assert None is vault.find("acme", "ann", b"s" * 16, b"x" * 16)
    assert None is vault.find("acme", "bob", b"s" * 16, key.key_id)


def test_the_newest_generation_is_the_scopes_key(vault: SQLiteVault) -> None:
    """A later generation goes before, and the earlier one is still found by its id."""
    first, second = stored_key(), stored_key(generation=2)
    vault.insert_if_absent([second, first])
    assert second == vault.newest("acme", "ann", b"s" * 16)
    assert first == vault.find("acme", "ann", b"s" * 16, first.key_id)


def test_the_first_insert_stays(vault: SQLiteVault) -> None:
    """A second key of the scope is told the first; its neighbours in the batch are inserted."""
    first, second, neighbour = stored_key(), stored_key(), stored_key(b"n" * 16)
    vault.insert_if_absent([first])
    assert [first] == vault.insert_if_absent([second, neighbour])
    assert first == vault.newest("acme", "ann", b"s" * 16)
    assert neighbour == vault.newest("acme", "ann", b"n" * 16)


def test_inserting_again_is_harmless(vault: SQLiteVault) -> None:
    """The same key twice, in one batch or two, has not lost."""
    key = stored_key()
    assert [] == vault.insert_if_absent([key, key])
    assert [] == vault.insert_if_absent([key])
    assert [] == vault.insert_if_absent([])


def test_a_vault_file_is_private_and_says_whether_it_is_empty(vault: SQLiteVault) -> None:
    """vault.db and what SQLite keeps beside it have mode 0600."""
    assert vault.empty()
    vault.insert_if_absent([stored_key()])
    assert not vault.empty()
    assert {0o600} == {path.stat().st_mode & 0o777 for path in vault.path.parent.glob("vault.db*")}


def test_a_vault_that_others_can_read_is_refused(vault: SQLiteVault) -> None:
    """Misconfigured says how to repair it."""
    vault.close()
    vault.path.chmod(0o644)
    with pytest.raises(Misconfigured, match="chmod 600"):
        SQLiteVault(vault.path)


def test_threads_that_race_agree_on_the_winners(vault: SQLiteVault) -> None:
    """Eight threads insert keys of the same 50 scopes: each scope has one winner, and every loser is told it."""
    scopes = [bytes([i]) * 16 for i in range(50)]

    def insert(_: int) -> dict[bytes, bytes]:
        keys = [stored_key(scope) for scope in random.sample(scopes, len(scopes))]
        lost = {stored.session_id: stored.key_id for stored in vault.insert_if_absent(keys)}
        return {key.session_id: lost.get(key.session_id, key.key_id) for key in keys}

    with ThreadPoolExecutor(8) as pool:
        views = list(pool.map(insert, range(8)))
    assert [views[0]] * 8 == views


def test_processes_that_race_agree_on_the_winners(tmp_path: Path) -> None:
    """Four processes that make the vault and insert keys of the same scopes: one winner a scope."""
    processes = [start(RACE, str(tmp_path / "vault.db")) for _ in range(4)]
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    lines = [line.split() for process in processes for line in process.communicate()[0].splitlines()]
    assert [0] * 4 == [process.returncode for process in processes]
    assert 4 * 200 == len(lines)
    assert 200 == len({scope for scope, _, _ in lines}) == len({(scope, key_id) for scope, key_id, _ in lines})
    assert 200 == len([won for _, _, won in lines if won == "True"])


def test_processes_that_make_vaults_at_once_all_succeed(tmp_path: Path) -> None:
    """SQLite refuses some of several switches of a new file to WAL at once, without waiting."""
    processes = [start(MAKE, str(tmp_path)) for _ in range(4)]
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [process.communicate()[1] for process in processes]
    assert [0] * 4 == [process.returncode for process in processes], told


def test_readers_follow_the_owner_and_can_not_write(vault: SQLiteVault) -> None:
    """A read-only vault sees what is inserted later, refuses inserts, and opens after the owner closed it."""
    reader = SQLiteVault(vault.path, readonly=True)
    key = stored_key()
    vault.insert_if_absent([key])
    assert key == reader.newest("acme", "ann", b"s" * 16)
    with pytest.raises(KeyUnavailable, match="read-only"):
        reader.insert_if_absent([stored_key()])
    reader.close()
    vault.close()
    late = SQLiteVault(vault.path, readonly=True)
    assert key == late.newest("acme", "ann", b"s" * 16)
    late.close()


def test_a_reader_makes_no_vault(tmp_path: Path) -> None:
    """Where there is none, a reader says so and leaves nothing behind."""
    with pytest.raises(Misconfigured, match="there is no vault"):
        SQLiteVault(tmp_path / "vault.db", readonly=True)
    assert [] == list(tmp_path.iterdir())


def test_a_directory_that_is_not_there_is_said(tmp_path: Path) -> None:
    """Misconfigured or a reason from the system, never a bare OSError."""
    with pytest.raises(Misconfigured, match="there is no vault"):
        SQLiteVault(tmp_path / "nowhere" / "vault.db")
    with pytest.raises(Misconfigured, match="no file"):
        SQLiteVault(tmp_path)


def test_a_closed_vault_says_so(vault: SQLiteVault) -> None:
    """Closing twice is fine; using it after is KeyUnavailable."""
    vault.close()
    vault.close()
    with pytest.raises(KeyUnavailable, match="closed"):
        vault.newest("acme", "ann", b"s" * 16)


def test_a_vault_is_refused_after_a_fork(vault: SQLiteVault) -> None:
    """An SQLite connection does not survive a fork; a child that uses it is told, and closing harms nobody."""
    child = os.fork()
    if child == 0:
        error = raised(lambda: vault.newest("acme", "ann", b"s" * 16))
        vault.close()
        os._exit(0 if "before a fork" in str(error) else 1)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert [] == vault.insert_if_absent([stored_key()])


def test_a_full_disk_is_a_retriable_error_and_nothing_is_half_stored(vault: SQLiteVault) -> None:
    """KeyNotStored; none of the batch is there, and it goes in when there is room again."""
    writer = vault._writer
    assert writer is not None
    pages = writer.execute("PRAGMA page_count").fetchone()[0]
    writer.execute(f"PRAGMA max_page_count = {pages}")
    keys = [stored_key(os.urandom(16)) for _ in range(200)]
    error = raised(lambda: vault.insert_if_absent(keys))
    assert (KeyNotStored, True) == (type(error), error.retriable)
    assert vault.empty()
    writer.execute("PRAGMA max_page_count = 1000000")
    assert [] == vault.insert_if_absent(keys)


@dataclass
class Damage:
    """Bytes written over a closed vault's file."""

    offset: int
    data: bytes


@pytest.mark.parametrize(
    "damage",
    [Damage(0, b"not SQLite at all"), Damage(100, b"\xff" * 400), Damage(4096, b"\xff" * 4096)],
    ids=["header", "schema", "rows"],
)
def test_a_damaged_vault_is_a_typed_error(vault: SQLiteVault, damage: Damage) -> None:
    """KeyUnavailable that names the file, when opening or when reading."""
    vault.insert_if_absent([stored_key()])
    vault.close()
    with vault.path.open("r+b") as file:
        file.seek(damage.offset)
        file.write(damage.data)
    with pytest.raises(KeyUnavailable, match=r"vault\.db"):
        SQLiteVault(vault.path).newest("acme", "ann", b"s" * 16)


def test_another_sqlite_file_is_no_vault(tmp_path: Path) -> None:
    """A database of something else is refused and left as it was."""
    path = tmp_path / "vault.db"
    path.touch(0o600)
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE notes (text)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(Misconfigured, match="no vault"):
        SQLiteVault(path)
    assert before == path.read_bytes()


def test_another_programs_file_with_a_version_is_not_upgraded(tmp_path: Path) -> None:
    """A database that numbers its versions as a vault does is refused, and gets no table."""
    path = tmp_path / "vault.db"
    path.touch(0o600)
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE notes (text)")
        other.execute("PRAGMA user_version = 1")
    other.close()
    with pytest.raises(Misconfigured, match="no vault"):
        SQLiteVault(path)
    with sqlite3.connect(path) as other:
        assert [("notes",)] == other.execute("SELECT name FROM sqlite_master").fetchall()
    other.close()


def test_a_vault_of_a_newer_version_is_refused(vault: SQLiteVault) -> None:
    """Misconfigured names both versions."""
    vault.close()
    newer = sqlite3.connect(vault.path)
    newer.execute("PRAGMA user_version = 4")
    newer.close()
    with pytest.raises(Misconfigured, match="version 4, this release knows up to 3"):
        SQLiteVault(vault.path)


def test_100_keys_are_one_cheap_transaction(vault: SQLiteVault) -> None:
    """A batch of 100 takes milliseconds, not one fsync a key (bound ten times above what was measured)."""
    began = time.perf_counter()
    for _ in range(10):
        vault.insert_if_absent([stored_key(os.urandom(16)) for _ in range(100)])
    assert 1.0 > time.perf_counter() - began
