"""Pseudonyms of a vault: the same for everybody who has the key, and the way back, which an erasure takes."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from session_ledger.domain.errors import KeyServiceUnavailable, KeyUnavailable
from session_ledger.domain.ids import is_pseudonym, rederived_session_id, slot_of_id
from session_ledger.security.envelope import NoEnvelope, VaultEnvelope
from session_ledger.security.keyring import Keyring, MemoryKeyring
from session_ledger.security.pseudonym_keys import VaultPseudonyms, WayBack, imported_v1, pseudonym_v1
from session_ledger.security.pseudonym_store import Resealed, TenantKeyReplaced
from session_ledger.security.pseudonyms import LockedPseudonyms
from session_ledger.security.rotation import Rotation
from session_ledger.security.stored import StoredPseudonym, StoredTenantKey
from session_ledger.security.tenant_keys import TenantKey, TenantKeys
from session_ledger.security.vault import SQLiteVault, Vault
from session_ledger.security.vault_memory import MemoryVault
from session_ledger.security.wrapping import Secret
from tests.security.made import start
from tests.security.made_services import Clock

RACE = """
import sys
from pathlib import Path
from session_ledger.security.envelope import VaultEnvelope
from session_ledger.security.keyring import Keyring
from session_ledger.security.vault import SQLiteVault
directory = Path(sys.argv[1])
vault, keyring = SQLiteVault(directory / "vault.db"), Keyring.open(directory / "keyring.json")
sys.stdin.readline()
for number in range(40):
    names = VaultEnvelope("support", vault, keyring).vault_pseudonyms
    pseudonym = names.made(f"tenant-{number}", "ann")
    names.make_durable([names.way_back(f"tenant-{number}", pseudonym, "ann")])
    print(pseudonym)
"""

WRITE = """
import itertools, sys
from pathlib import Path
from session_ledger.security.envelope import VaultEnvelope
from session_ledger.security.keyring import Keyring
from session_ledger.security.vault import SQLiteVault
directory = Path(sys.argv[1])
vault, keyring = SQLiteVault(directory / "vault.db"), Keyring.open(directory / "keyring.json")
names = VaultEnvelope("support", vault, keyring).vault_pseudonyms
for number in itertools.count():
    pseudonym = names.made("acme", f"user-{number}")
    names.make_durable([names.way_back("acme", pseudonym, f"user-{number}")])
    print(f"user-{number}", pseudonym, flush=True)
"""

ROTATE = """
import sys, time
from pathlib import Path
from session_ledger.security.keyring import Keyring
from session_ledger.security.rotation import Rotation
from session_ledger.security.tenant_keys import TenantKey, TenantKeys
from session_ledger.security.vault import SQLiteVault
directory = Path(sys.argv[1])
vault, keyring = SQLiteVault(directory / "vault.db"), Keyring.open(directory / "keyring.json")
tenants = TenantKeys("support", vault.tenants, keyring, clock_us=lambda: 1)
rotation = Rotation("support", vault.tenants, tenants, batch_keys=20)
print("ready", flush=True)
while True:
    rotation.rotate_tenant("acme")
    print("rotated", flush=True)
"""


@pytest.fixture(params=["sqlite", "memory"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Vault]:
    """A new vault of each kind."""
    made: Vault = SQLiteVault(tmp_path / "vault.db") if request.param == "sqlite" else MemoryVault()
    yield made
    made.close()


@pytest.fixture
def service() -> MemoryKeyring:
    """What wraps the tenants' keys."""
    return MemoryKeyring()


def names_of(vault: Vault, service: Keyring | MemoryKeyring, ledger: str = "support") -> VaultPseudonyms:
    """As a process of its own has them: nothing cached."""
    return VaultEnvelope(ledger, vault, service).vault_pseudonyms


def named(names: VaultPseudonyms, user: str, tenant: str = "acme") -> str:
    """The user's pseudonym, with its way back in the vault."""
    pseudonym = names.made(tenant, user)
    names.make_durable([names.way_back(tenant, pseudonym, user)])
    return pseudonym


def rotation_of(vault: Vault, service: Keyring | MemoryKeyring) -> Rotation:
    """Of a process of its own."""
    tenants = TenantKeys("support", vault.tenants, service, clock_us=Clock().us)
    return Rotation("support", vault.tenants, tenants, batch_keys=3)


def tenant_key(vault: Vault, generation: int = 1) -> str:
    """The name of a tenant key that is in the vault now."""
    key = StoredTenantKey("acme", generation, bytes([generation]) * 16, "wk", b"w" * 61, 1)
    return vault.tenants.insert_if_absent(key).name


# --- version 1 --------------------------------------------------------------------------------------------------------


def test_version_1_never_changes() -> None:
    """The pseudonym of a user and the id of an imported session, from a key, for ever."""
    key = Secret(bytes(range(32)))
    assert "p-m63leryyfijmx6ff4yw5b5oqz4" == pseudonym_v1(key, "acme", "ann")
    assert "7587d742cfc721bc" == imported_v1(key, "acme", bytes(range(16))).hex()


def test_a_pseudonym_is_of_its_tenant_user_and_key() -> None:
    """Another of either gives another, also where the joined texts are the same; 28 characters that are known again."""
    one, other = bytes(32), bytes([1]) * 32
    made = {
        pseudonym_v1(key, tenant, user)
        for key in (one, other)
        for tenant, user in (("acme", "ann"), ("acme", "bob"), ("acm", "eann"), ("acmea", "nn"))
    }
    assert 8 == len(made)
    assert all(is_pseudonym(one) and len(one) == 28 for one in made)


@pytest.mark.parametrize("user", ["", "ann", "p-", "p-" + "a" * 25, "p-" + "a" * 27, "p-" + "A" * 26, "p-" + "b" * 26])
def test_what_is_no_pseudonym(user: str) -> None:
    """Another length, other characters, or more than 128 bits."""
    assert not is_pseudonym(user)
    assert is_pseudonym("p-" + "b" * 25 + "a")


def test_an_imported_sessions_id_keeps_its_time_only() -> None:
    """It stays a UUIDv7, with the other slot and the other bytes."""
    given = bytes.fromhex("0192b3c4d5e67abc8123456789abcdef")
    made = rederived_session_id(given, 0x123, b"\xff" * 8)
    assert (given[:6], 0x123, 7, 0b10) == (made[:6], slot_of_id(made), made[6] >> 4, made[8] >> 6)
    assert (16, b"\xbf" + b"\xff" * 7) == (len(made), made[8:])


# --- the rows, in a file and in memory ------------------------------------------------------------------------------


def test_the_first_row_stays(either: Vault) -> None:
    """Everybody who inserts is told what stands there, in any interleaving; one batch may hold several."""
    store, by = either.tenants.pseudonyms, tenant_key(either)
    assert not store.any()
    first, other = (StoredPseudonym("acme", name, by, b"1") for name in ("p-1", "p-2"))
    late = first._replace(sealed=b"2")
    assert [first] == store.insert_if_absent([first])
    assert [first, other] == store.insert_if_absent([late, other])
    assert store.any()
    assert (first, None, None) == (store.find("acme", "p-1"), store.find("acme", ""), store.find("other", "p-1"))
    with ThreadPoolExecutor(8) as pool:
        rows = [StoredPseudonym("acme", "", by, bytes([number])) for number in range(8)]
        stand = list(pool.map(lambda row: store.insert_if_absent([row])[0], rows))
    assert 1 == len(set(stand))


def test_a_row_joins_the_newest_tenant_key_only(either: Vault) -> None:
    """One under an older one is refused, and nothing of its batch is stored."""
    store, first = either.tenants.pseudonyms, tenant_key(either)
    second = tenant_key(either, 2)
    rows = [StoredPseudonym("acme", "p-1", second, b"1"), StoredPseudonym("acme", "p-2", first, b"1")]
    with pytest.raises(TenantKeyReplaced):
        store.insert_if_absent(rows)
    assert not store.any()


def test_a_tenant_key_that_seals_a_row_stays(either: Vault) -> None:
    """Until the row is sealed anew, which only happens to what still stands there as it was read."""
    store, first = either.tenants.pseudonyms, tenant_key(either)
    rows = store.insert_if_absent([StoredPseudonym("acme", name, first, b"1") for name in ("", "p-1", "p-2")])
    second = tenant_key(either, 2)
    assert [] == either.tenants.drop_unused("acme")
    assert rows[:2] == store.wrapped_otherwise("acme", second, 2)
    changed = [Resealed(row, second, b"2") for row in rows]
    assert store.destroy("acme", "p-2")
    assert 2 == store.reseal(changed)
    assert 0 == store.reseal(changed)
    assert [] == store.wrapped_otherwise("acme", second, 2)
    assert (b"2", None) == (store.find("acme", "p-1").sealed, store.find("acme", "p-2"))  # type: ignore[union-attr]
    assert [first] == [key.name for key in either.tenants.drop_unused("acme")]


def test_a_tenant_goes_with_its_rows(either: Vault) -> None:
    """The key and every way back; another tenant's stay. One way back goes by itself, the key never does."""
    service = MemoryKeyring()
    names = names_of(either, service)
    ann, bob, other = named(names, "ann"), named(names, "bob"), named(names, "ann", "other")
    store = either.tenants.pseudonyms
    assert store.destroy("acme", ann)
    assert not store.destroy("acme", ann)
    assert (None, "bob") == (store.find("acme", ann), names_of(either, service).user_of("acme", bob))
    with pytest.raises(ValueError, match="with the tenant"):
        store.destroy("acme", "")
    either.destroy_tenant("acme")
    assert (None, None) == (store.find("acme", ""), store.find("acme", bob))
    assert "ann" == names_of(either, service).user_of("other", other)
    assert ann != names_of(either, service).made("acme", "ann")


# --- keys and names ---------------------------------------------------------------------------------------------------


def test_every_process_makes_the_same_pseudonyms(either: Vault, service: MemoryKeyring) -> None:
    """From a user to the pseudonym and back, also for a reader, who makes nothing; each tenant has its own."""
    writer = names_of(either, service)
    reader = names_of(either, service)
    assert not reader.in_use()
    writer.begin()
    reader = names_of(either, service)
    assert reader.in_use()
    assert "ann" == reader.recorded_as("acme", "ann")
    assert None is either.tenants.newest("acme")
    ann = named(writer, "ann")
    assert ann == reader.recorded_as("acme", "ann") == names_of(either, service).made("acme", "ann")
    assert "ann" == reader.user_of("acme", ann)
    assert ann == reader.recorded_as("acme", ann)
    assert "" == reader.recorded_as("acme", "") == reader.user_of("acme", "")
    assert ann != named(writer, "ann", "other")


def test_a_ledger_without_pseudonyms_names_users_as_they_are(either: Vault, service: MemoryKeyring) -> None:
    """Also those whose id has the form of one; and the vault is asked again when a key's time is over."""
    clock = Clock()
    names = VaultEnvelope("support", either, service, monotonic_s=lambda: clock.now_s).vault_pseudonyms
    form = "p-" + "a" * 26
    assert ("ann", form) == (names.recorded_as("acme", "ann"), names.user_of("acme", form))
    names_of(either, service).begin()
    assert not names.in_use()
    clock.now_s += 301
    assert names.in_use()


def test_what_is_looked_up_is_kept_no_longer_than_a_key(either: Vault, service: MemoryKeyring) -> None:
    """A way back that is gone opens within that time, then the pseudonym stands there; a writer makes it again."""
    clock = Clock()
    names = VaultEnvelope("support", either, service, monotonic_s=lambda: clock.now_s).vault_pseudonyms
    names.begin()
    ann = named(names, "ann")
    assert "ann" == names.user_of("acme", ann)
    assert names.way_back("acme", ann, "ann").durable
    either.tenants.pseudonyms.destroy("acme", ann)
    assert "ann" == names.user_of("acme", ann)
    clock.now_s += 301
    assert ann == names.user_of("acme", ann)
    named(names, "ann")
    assert "ann" == names.user_of("acme", ann)
    names.forget("acme", ann)
    assert not names.way_back("acme", ann, "ann").durable
    assert "ann" not in repr(names.way_back("acme", ann, "ann"))


def test_a_row_opens_in_its_place_only(either: Vault, service: MemoryKeyring) -> None:
    """Moved to another pseudonym, or read as another ledger's, a way back does not open; nor what was cut."""
    names = names_of(either, service)
    names.begin()
    ann, bob = named(names, "ann"), names.made("acme", "bob")
    store = either.tenants.pseudonyms
    row = store.find("acme", ann)
    assert row is not None
    store.insert_if_absent([row._replace(pseudonym=bob)])
    reader = names_of(either, service)
    assert ("ann", bob) == (reader.user_of("acme", ann), reader.user_of("acme", bob))
    foreign = names_of(either, service, "another")
    assert ann == foreign.user_of("acme", ann)
    with pytest.raises(KeyUnavailable, match="name the user by the pseudonym"):
        foreign.recorded_as("acme", "ann")
    store.reseal([Resealed(row, row.wrapping_key_id, b"\x01")])
    assert ann == names_of(either, service).user_of("acme", ann)


def test_who_has_no_key_takes_pseudonyms_only() -> None:
    """An id is refused with what to do; what is recorded is told as it is."""
    locked, ann = LockedPseudonyms("it has no keys"), "p-" + "a" * 26
    assert locked.in_use()
    assert (ann, "", ann) == (locked.recorded_as("t", ann), locked.recorded_as("t", ""), locked.user_of("t", ann))
    with pytest.raises(KeyUnavailable, match=r"'t' by pseudonyms.*\(p-\.\.\.\)"):
        locked.recorded_as("t", "ann")
    assert "ann" == NoEnvelope().pseudonyms.recorded_as("t", "ann")


class _Away(MemoryKeyring):
    """A key service that does not answer."""

    asked = 0

    def unwrap(self, key_id: str, wrapped: bytes, bound: object) -> bytes:
        self.asked += 1
        raise KeyServiceUnavailable("away")


def test_a_key_service_that_is_away_may_be_asked_again(either: Vault) -> None:
    """The error stays retriable, and the pseudonym stands where its user would; a page of names asks it once."""
    names_of(either, MemoryKeyring()).begin()
    ann = named(names_of(either, MemoryKeyring()), "ann", "other")
    service = _Away()
    away = names_of(either, service)
    with pytest.raises(KeyServiceUnavailable):
        away.recorded_as("other", "ann")
    asked = service.asked
    assert [ann] * 9 == [away.user_of("other", ann) for _ in range(9)]
    assert asked + 1 == service.asked


def test_processes_that_race_agree_on_the_key(tmp_path: Path) -> None:
    """Four processes that name the same user of 40 new tenants: one pseudonym a tenant."""
    Keyring.create(tmp_path / "keyring.json")
    processes = [start(RACE, str(tmp_path)) for _ in range(4)]
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [process.communicate()[0].split() for process in processes]
    assert [0] * 4 == [process.returncode for process in processes]
    assert [told[0]] * 4 == told
    assert 40 == len(set(told[0]))


def test_who_comes_second_takes_the_key_that_stands(either: Vault, service: MemoryKeyring) -> None:
    """A process that found no key, and makes one while another one's goes into the vault."""
    mine, other = names_of(either, service), names_of(either, service)
    ann = other.made("acme", "ann")
    mine._read = lambda *_: None  # type: ignore[method-assign]  # what it saw before
    assert ann == mine.made("acme", "ann")


# --- rotation and erasure ---------------------------------------------------------------------------------------------


def test_a_rotation_of_the_tenants_key_seals_all_of_it_anew(either: Vault, service: MemoryKeyring) -> None:
    """The pseudonym key stays the same, every way back opens, and nothing is left under the old generation."""
    names = names_of(either, service)
    names.begin()
    made = {user: named(names, user) for user in ("ann", "bob", "cleo", "dan")}
    rotated = rotation_of(either, service).rotate_tenant("acme")
    assert (2, 5, 1, 0) == (rotated.generation, rotated.pseudonyms, rotated.dropped, rotated.kept)
    assert [2] == [key.generation for key in either.tenants.all() if key.tenant == "acme"]
    reader = names_of(either, service)
    assert made == {user: reader.made("acme", user) for user in made}
    assert list(made) == [reader.user_of("acme", pseudonym) for pseudonym in made.values()]
    eve = named(names, "eve")  # by a writer that holds the old generation
    assert "eve" == names_of(either, service).user_of("acme", eve)
    assert 0 == len(either.tenants.drop_unused("acme"))


def test_a_rotation_that_was_cut_short_is_finished(tmp_path: Path) -> None:
    """Killed after a part was sealed anew: all of it opens, and the next run makes no further generation."""
    keyring = Keyring.create(tmp_path / "keyring.json")
    vault = SQLiteVault(tmp_path / "vault.db")
    names = names_of(vault, keyring)
    made = {f"user-{number}": named(names, f"user-{number}") for number in range(8)}
    rotation = rotation_of(vault, keyring)
    unbroken = vault.tenants.pseudonyms.reseal
    left = iter([True])

    def once(rows: list[Resealed]) -> int:
        if next(left, False):
            return unbroken(rows)
        raise KeyboardInterrupt

    vault.tenants.pseudonyms.reseal = once  # type: ignore[method-assign, assignment]
    with pytest.raises(KeyboardInterrupt):
        rotation.rotate_tenant("acme")
    vault.close()
    vault = SQLiteVault(tmp_path / "vault.db")
    assert 2 == len(vault.tenants.all())
    reader = names_of(vault, keyring)
    reader.begin()
    assert list(made) == [reader.user_of("acme", pseudonym) for pseudonym in made.values()]
    rotated = rotation_of(vault, keyring).rotate_tenant("acme")
    assert (2, True, 6, 1) == (rotated.generation, rotated.resumed, rotated.pseudonyms, rotated.dropped)
    assert list(made) == [names_of(vault, keyring).user_of("acme", pseudonym) for pseudonym in made.values()]
    vault.close()


def test_rotations_beside_a_writer_killed_at_any_instant_lose_no_name(tmp_path: Path) -> None:
    """Rotated and killed again and again while users come: each keeps the pseudonym and the way back from it."""
    keyring = Keyring.create(tmp_path / "keyring.json")
    vault = SQLiteVault(tmp_path / "vault.db")
    names_of(vault, keyring).begin()
    writer = start(WRITE, str(tmp_path))
    assert writer.stdout
    dice, rotations = random.Random(7), 1
    lines = [writer.stdout.readline()]
    try:
        for number in range(4):
            rotating = start(ROTATE, str(tmp_path))
            assert rotating.stdout
            assert "ready\n" == rotating.stdout.readline()
            if number == 0:
                assert "rotated\n" == rotating.stdout.readline()
            time.sleep(dice.uniform(0.0, 0.2))
            rotating.kill()
            rotations += rotating.communicate()[0].count("rotated")
            lines += [writer.stdout.readline() for _ in range(3)]
            reader = names_of(vault, keyring)
            assert all(line.split()[0] == reader.user_of("acme", line.split()[1]) for line in lines)
    finally:
        writer.kill()
    lines += [line for line in writer.stdout if line.endswith("\n")]
    writer.communicate()
    rotation_of(vault, keyring).rotate_tenant("acme")
    (only,) = (key for key in vault.tenants.all() if key.tenant == "acme")
    assert only.generation > rotations
    reader = names_of(vault, keyring)
    assert all(line.split() == [user := line.split()[0], reader.made("acme", user)] for line in lines)
    assert all(line.split()[0] == reader.user_of("acme", line.split()[1]) for line in lines)
    vault.close()


def test_of_a_way_back_that_is_destroyed_no_byte_is_left(tmp_path: Path) -> None:
    """With the tenant's key in hand, whoever looks at every place of vault and write-ahead log opens another's only."""
    keyring = Keyring.create(tmp_path / "keyring.json")
    vault = SQLiteVault(tmp_path / "vault.db")
    names = names_of(vault, keyring)
    ann, bob = named(names, "ann"), named(names, "bob")
    rotation_of(vault, keyring).rotate_tenant("acme")  # what was overwritten there counts too
    names._tenants.refresh("acme")
    key = names._tenants.wrapping_key("acme")

    def opened(pseudonym: str) -> bool:
        bound = names._rows._bound("acme", pseudonym)
        return any(_opens(path.read_bytes(), key, bound) for path in tmp_path.glob("vault.db*"))

    assert opened(ann)
    assert opened(bob)
    vault.tenants.pseudonyms.destroy("acme", ann)
    vault.scrub()
    assert not opened(ann)
    assert opened(bob)
    vault.close()


def _opens(data: bytes, key: TenantKey, bound: bytes, length: int = 3) -> bool:
    """Whether a user's id of that length is sealed anywhere in it."""
    for at in range(len(data)):
        if data[at] == 1:
            try:
                key.open_user(data[at : at + 1 + 12 + length + 16], bound)
            except KeyUnavailable:
                continue
            return True
    return False


def test_a_vault_before_version_3_that_is_only_read_has_none(tmp_path: Path) -> None:
    """A reader beside an owner of an earlier release names users as they are."""
    keyring = Keyring.create(tmp_path / "keyring.json")
    SQLiteVault(tmp_path / "vault.db").close()
    old = sqlite3.connect(tmp_path / "vault.db")
    old.executescript("DROP TABLE pseudonyms; PRAGMA user_version = 2")
    old.close()
    vault = SQLiteVault(tmp_path / "vault.db", readonly=True)
    assert "ann" == names_of(vault, keyring).recorded_as("acme", "ann")
    vault.close()


def test_ways_back_become_durable_with_the_keys(either: Vault, service: MemoryKeyring) -> None:
    """What an append needs is given to the envelope in one list; a second of the same user changes nothing."""
    envelope = VaultEnvelope("support", either, service)
    envelope.vault_pseudonyms.begin()
    ann = envelope.vault_pseudonyms.made("acme", "ann")
    account = envelope.account_key("acme", ann, create=True)
    assert account is not None
    ways = [envelope.vault_pseudonyms.way_back("acme", ann, "ann") for _ in range(2)]
    envelope.make_durable([account, *ways])
    assert [True] * 3 == [one.durable for one in (account, *ways)]
    assert ["", ""] == [way.user for way in ways]
    assert "ann" == names_of(either, service).user_of("acme", ann)
    envelope.forget("acme", ann, None)
    assert isinstance(again := envelope.vault_pseudonyms.way_back("acme", ann, "ann"), WayBack)
    assert not again.durable
