"""The tenant keys of a vault, in a file and in memory: one suite; and files of older versions that are upgraded."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest

from session_ledger.domain.errors import KeyUnavailable
from session_ledger.security.envelope import VaultEnvelope
from session_ledger.security.keyring import Keyring
from session_ledger.security.rotation import Rotation
from session_ledger.security.stored import KeyCount, StoredKey, StoredTenantKey, tenant_key_name
from session_ledger.security.tenant_store import Rewrapped, TenantKeyReplaced
from session_ledger.security.vault import SQLiteVault, Vault
from session_ledger.security.vault_memory import MemoryVault
from tests.security.made import EVENT, FIELD, MESSAGE

OLD = Path(__file__).parent / "golden" / "vault-1"


@pytest.fixture(params=["sqlite", "memory"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Vault]:
    """A new vault of each kind."""
    made: Vault = SQLiteVault(tmp_path / "vault.db") if request.param == "sqlite" else MemoryVault()
    yield made
    made.close()


@pytest.fixture
def old_vault(tmp_path: Path) -> Path:
    """The directory of a vault of version 1, as an earlier release left it, and its keyring."""
    for name in ("vault.db", "keyring.json"):
        shutil.copy(OLD / name, tmp_path / name)
        (tmp_path / name).chmod(0o600)
    return tmp_path


@pytest.fixture(params=[1, 2])
def older_vault(request: pytest.FixtureRequest, old_vault: Path) -> Path:
    """The same, and the same as the release after it made of that: with tenant keys, and without pseudonyms."""
    if request.param == 2:
        SQLiteVault(old_vault / "vault.db").close()
        vault = sqlite3.connect(old_vault / "vault.db", isolation_level=None)
        vault.executescript("DROP TABLE pseudonyms; PRAGMA user_version = 2; VACUUM")
        vault.close()
    return old_vault


def tenant_key(tenant: str = "acme", generation: int = 1) -> StoredTenantKey:
    """One with a fresh id."""
    return StoredTenantKey(tenant, generation, os.urandom(16), "wk-1", os.urandom(61), 1_750_000_000_000_000)


def data_key(by: StoredTenantKey, session_id: bytes = b"s" * 16, user: str = "ann") -> StoredKey:
    """One of the tenant, with a fresh id."""
    return StoredKey(session_id, by.tenant, user, 1, os.urandom(16), by.name, os.urandom(61), 1)


def test_the_first_of_a_generation_stays(either: Vault) -> None:
    """Everybody who inserts it is told what stands there; the highest generation is the newest."""
    first, late, second = tenant_key(), tenant_key(), tenant_key(generation=2)
    assert first == either.tenants.insert_if_absent(first)
    assert first == either.tenants.insert_if_absent(late)
    assert first == either.tenants.newest("acme")
    either.tenants.insert_if_absent(second)
    assert second == either.tenants.newest("acme")
    assert first == either.tenants.find("acme", first.key_id)
    assert None is either.tenants.find("other", first.key_id)
    assert None is either.tenants.newest("other")
    assert [first, second] == either.tenants.all()
    with ThreadPoolExecutor(8) as pool:
        stand = list(pool.map(lambda _: either.tenants.insert_if_absent(tenant_key("race")), range(8)))
    assert 1 == len(set(stand))


def test_a_data_key_joins_the_newest_tenant_key_only(either: Vault) -> None:
    """One wrapped by an older one, by none that is there, or by another tenant's: refused, nothing is stored."""
    first, second, others = tenant_key(), tenant_key(generation=2), tenant_key("other")
    for key in (first, others):
        either.tenants.insert_if_absent(key)
    assert [] == either.insert_if_absent([data_key(first)])
    either.tenants.insert_if_absent(second)
    for wrong in (first, tenant_key(), others._replace(tenant="acme")):
        with pytest.raises(TenantKeyReplaced) as raised:
            either.insert_if_absent([data_key(second, b"n" * 16), data_key(wrong, b"o" * 16)])
        assert raised.value.retriable
    assert None is either.newest("acme", "ann", b"n" * 16)
    assert [] == either.insert_if_absent([data_key(second, b"n" * 16)])


def test_data_keys_that_another_key_wraps_are_found_in_pages(either: Vault) -> None:
    """Of that tenant alone, each once, accounts too, whatever is wrapped anew between two pages."""
    first = tenant_key()
    for key in (first, tenant_key("other")):
        either.tenants.insert_if_absent(key)
    keys = [data_key(first, bytes([i]) * 16, f"user-{i % 3}") for i in range(10)] + [data_key(first, b"")]
    either.insert_if_absent(keys)
    either.insert_if_absent([data_key(cast("StoredTenantKey", either.tenants.newest("other")))])
    second = tenant_key(generation=2)
    either.tenants.insert_if_absent(second)
    found: list[StoredKey] = []
    while page := either.tenants.wrapped_otherwise("acme", second.name, found[-1] if found else None, 4):
        found += page
        assert len(page) == either.tenants.rewrap([Rewrapped(key, second.name, b"new") for key in page])
    assert sorted(keys) == found
    assert [] == either.tenants.wrapped_otherwise("acme", second.name, None, 4)
    assert 11 == len(either.tenants.wrapped_otherwise("acme", first.name, None, 100))
    counts = either.tenants.counts()
    assert KeyCount("acme", second.name, 10, 1) in counts
    assert 2 == len(counts)


def test_a_row_that_changed_or_went_is_not_wrapped_anew(either: Vault) -> None:
    """What another run wrapped stays; what was taken out is not brought back."""
    first, second = tenant_key(), tenant_key(generation=2)
    either.tenants.insert_if_absent(first)
    stored = data_key(first)
    either.insert_if_absent([stored])
    either.tenants.insert_if_absent(second)
    assert 1 == either.tenants.rewrap([Rewrapped(stored, second.name, b"by one")])
    gone = data_key(first, b"g" * 16)
    assert 0 == either.tenants.rewrap([Rewrapped(stored, second.name, b"by two"), Rewrapped(gone, second.name, b"x")])
    assert b"by one" == getattr(either.newest("acme", "ann", b"s" * 16), "wrapped", None)
    assert None is either.newest("acme", "ann", b"g" * 16)


def test_a_tenant_key_is_wrapped_anew_once(either: Vault) -> None:
    """The second of two who try finds it changed."""
    stored = tenant_key()
    either.tenants.insert_if_absent(stored)
    assert either.tenants.replace(stored, "wk-2", b"new")
    assert not either.tenants.replace(stored, "wk-3", b"newer")
    assert [stored._replace(provider_key_id="wk-2", wrapped=b"new")] == either.tenants.all()


def test_only_older_generations_that_wrap_nothing_go(either: Vault) -> None:
    """The newest stays also where it wraps nothing; another tenant's keys are not touched."""
    assert [] == either.tenants.drop_unused("acme")
    generations = []
    for number in (1, 2, 3):
        key = either.tenants.insert_if_absent(tenant_key(generation=number))
        generations.append(key)
        if number == 2:
            either.insert_if_absent([data_key(key)])
    other = either.tenants.insert_if_absent(tenant_key("other"))
    either.tenants.insert_if_absent(tenant_key("other", 2))
    assert generations[:1] == either.tenants.drop_unused("acme")
    assert generations[1:] == [key for key in either.tenants.all() if key.tenant == "acme"]
    assert other in either.tenants.all()


def test_a_removed_tenant_key_leaves_no_copy_in_the_files(tmp_path: Path) -> None:
    """Neither the vault nor its write-ahead log holds its wrapped bytes any more."""
    vault = SQLiteVault(tmp_path / "vault.db")
    first = vault.tenants.insert_if_absent(tenant_key())
    vault.tenants.insert_if_absent(tenant_key(generation=2))
    assert any(first.wrapped in path.read_bytes() for path in tmp_path.iterdir())
    vault.tenants.drop_unused("acme")
    assert not any(first.wrapped in path.read_bytes() for path in tmp_path.iterdir())
    vault.close()


def test_an_older_vault_is_upgraded_and_stays_readable(older_vault: Path) -> None:
    """Its rows stay as they are, what they sealed opens, repeats are known again, and new keys join tenant keys."""
    vault, keyring = SQLiteVault(older_vault / "vault.db"), Keyring.open(older_vault / "keyring.json")
    envelope = VaultEnvelope("support", vault, keyring)
    _opens_everything(envelope)
    assert {keyring.primary} == {count.wrapping_key_id for count in vault.tenants.counts()}
    made = envelope.session_key("acme", "ann", b"n" * 16, create=True)
    assert made is not None
    envelope.make_durable([made])
    newest = vault.tenants.newest("acme")
    assert newest is not None
    assert newest.name in {count.wrapping_key_id for count in vault.tenants.counts()}
    assert (3,) == vault.rows("PRAGMA user_version", ())[0]
    vault.close()


def test_an_old_vault_is_read_without_being_changed(old_vault: Path) -> None:
    """Read-only processes of this release open what a vault of version 1 holds, and see it upgraded under them."""
    reader = SQLiteVault(old_vault / "vault.db", readonly=True)
    envelope = VaultEnvelope("support", reader, Keyring.open(old_vault / "keyring.json"), cached_s=0)
    _opens_everything(envelope)
    assert [] == reader.tenants.all()
    assert None is reader.tenants.newest("acme")
    assert (1,) == reader.rows("PRAGMA user_version", ())[0]
    writer = SQLiteVault(old_vault / "vault.db")
    stored = writer.tenants.insert_if_absent(tenant_key())
    assert [stored] == reader.tenants.all()
    _opens_everything(envelope)
    writer.close()
    reader.close()


def test_an_upgrade_that_is_cut_short_leaves_the_older_vault(older_vault: Path) -> None:
    """Where the disk has no room for the new table, the file stays one of its version, whole."""
    path = older_vault / "vault.db"
    limited = sqlite3.connect(path, isolation_level=None)
    before = limited.execute("PRAGMA user_version").fetchone()
    pages = limited.execute("PRAGMA page_count").fetchone()[0]
    limited.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        limited.executescript(_upgrade())
    limited.close()
    reader = SQLiteVault(path, readonly=True)
    assert before == reader.rows("PRAGMA user_version", ())[0]
    reader.close()
    upgraded = SQLiteVault(path)
    _opens_everything(VaultEnvelope("support", upgraded, Keyring.open(older_vault / "keyring.json")))
    upgraded.close()


def _upgrade() -> str:
    from session_ledger.security import vault

    return vault._UPGRADE


def test_many_who_upgrade_at_once_all_find_it_upgraded(older_vault: Path) -> None:
    """Eight openers of one older vault."""
    with ThreadPoolExecutor(8) as pool:
        vaults = list(pool.map(lambda _: SQLiteVault(older_vault / "vault.db"), range(8)))
    for vault in vaults:
        assert (3,) == vault.rows("PRAGMA user_version", ())[0]
        vault.close()


def test_old_rows_move_to_tenant_keys_with_a_rotation(old_vault: Path) -> None:
    """After a tenant's rotation none of its keys needs the keyring's direct wrapping; the provider's moves the rest."""
    vault, keyring = SQLiteVault(old_vault / "vault.db"), Keyring.open(old_vault / "keyring.json")
    envelope = VaultEnvelope("support", vault, keyring)
    rotation = Rotation("support", vault.tenants, envelope._tenants)
    assert 3 == rotation.rotate_tenant("acme").rewrapped
    assert {"acme": True, "other": False} == {
        count.tenant: count.wrapping_key_id.startswith("tk-") for count in vault.tenants.counts()
    }
    keyring.add_primary()
    rotated = rotation.rotate_provider()
    assert (1, 1) == (rotated.tenant_keys, rotated.data_keys)
    assert all(count.wrapping_key_id.startswith("tk-") for count in vault.tenants.counts())
    _opens_everything(VaultEnvelope("support", vault, Keyring.open(old_vault / "keyring.json")))
    vault.close()


def _opens_everything(envelope: VaultEnvelope) -> None:
    """What the earlier release sealed, and the digests that it remembered."""
    for one in json.loads((OLD / "sealed.json").read_text(encoding="utf-8")):
        scope = one["tenant"], one["user"], bytes.fromhex(one["session_id"])
        key = envelope.opening_key(*scope, bytes.fromhex(one["key_id"]))
        assert key is not None
        assert one["plain"].encode() == key.open(EVENT, MESSAGE, FIELD, bytes.fromhex(one["sealed"]))
        assert one["digest"] == key.digest(b"body").hex()


def test_a_damaged_tenant_key_is_a_typed_error(vault: SQLiteVault, keyring: Keyring) -> None:
    """KeyUnavailable where its bytes are not what was wrapped; where it is another ledger's, the same."""
    vault.tenants.insert_if_absent(tenant_key()._replace(provider_key_id=keyring.primary))
    with pytest.raises(KeyUnavailable, match=keyring.primary):
        VaultEnvelope("support", vault, keyring).session_key("acme", "ann", b"s" * 16, create=True)


def test_names_of_tenant_keys_come_from_their_ids() -> None:
    """So that a data key's row names one key and no other."""
    assert "tk-" + "6b" * 16 == tenant_key_name(b"k" * 16)
