"""Rotations beside a writer, killed at any instant: everything opens before, between and after."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from session_ledger.domain.errors import InvalidInput, KeyUnavailable
from session_ledger.security.envelope import VaultEnvelope
from session_ledger.security.keyring import Keyring
from session_ledger.security.rotation import Rotation
from session_ledger.security.tenant_keys import TenantKeys
from session_ledger.security.vault import SQLiteVault
from tests.security.made import EVENT, FIELD, MESSAGE, SESSION, TENANT, USER, durable_key, new_key, start
from tests.security.made_services import Clock

ROTATE = """
import sys, time
from pathlib import Path
from session_ledger.security.keyring import Keyring
from session_ledger.security.rotation import Rotation
from session_ledger.security.tenant_keys import TenantKeys
from session_ledger.security.vault import SQLiteVault
directory = Path(sys.argv[1])
vault, keyring = SQLiteVault(directory / "vault.db"), Keyring.open(directory / "keyring.json")
tenants = TenantKeys("support", vault.tenants, keyring, clock_us=lambda: time.time_ns() // 1000)
rotation = Rotation("support", vault.tenants, tenants, batch_keys=7)
print("ready", flush=True)
while True:
    rotation.rotate_tenant("acme")
    keyring.add_primary()
    rotation.rotate_provider()
    print("rotated", flush=True)
"""

WRITE = """
import os, sys
from pathlib import Path
from session_ledger.security.envelope import VaultEnvelope
from session_ledger.security.keyring import Keyring
from session_ledger.security.vault import SQLiteVault
directory = Path(sys.argv[1])
envelope = VaultEnvelope("support", SQLiteVault(directory / "vault.db"), Keyring.open(directory / "keyring.json"))
while True:
    session_id = os.urandom(16)
    key = envelope.session_key("acme", "ann", session_id, create=True, fresh=True)
    sealed = key.seal(bytes(range(16, 32)), "session_ledger.events.MessageAdded", "sealed_content", b"hello")
    envelope.make_durable([key])
    print(session_id.hex(), key.key_id.hex(), sealed.hex(), flush=True)
"""


def rotation_of(vault: SQLiteVault, keyring: Keyring, batch_keys: int = 7) -> Rotation:
    """As a process of its own has it: nothing cached."""
    tenants = TenantKeys("support", vault.tenants, keyring, clock_us=Clock().us)
    return Rotation("support", vault.tenants, tenants, batch_keys)


def test_a_tenants_rotation_wraps_all_its_keys_anew(vault: SQLiteVault, keyring: Keyring) -> None:
    """A second generation wraps them, the first is gone, other tenants' keys are as they were, nothing is resealed."""
    envelope = VaultEnvelope("support", vault, keyring)
    keys = [durable_key(envelope, bytes([i]) * 16) for i in range(20)]
    sealed = keys[0].seal(EVENT, MESSAGE, FIELD, b"hello")
    envelope.make_durable([new_key(envelope, tenant="other")])
    others = [stored for stored in vault.tenants.all() if stored.tenant == "other"]
    told: list[int] = []
    rotated = rotation_of(vault, keyring).rotate_tenant(TENANT, told.append)
    assert (2, False, 20, 1, 0) == (
        rotated.generation, rotated.resumed, rotated.rewrapped, rotated.dropped, rotated.kept
    )  # fmt: skip
    assert [7, 14, 20] == told
    assert [2] == [stored.generation for stored in vault.tenants.all() if stored.tenant == TENANT]
    assert others == [stored for stored in vault.tenants.all() if stored.tenant == "other"]
    reader = VaultEnvelope("support", vault, keyring)
    for key in keys:
        found = reader.opening_key(*key.scope, key.key_id)
        assert found is not None
        assert key.commitment == found.commitment
    first = reader.opening_key(*keys[0].scope, keys[0].key_id)
    assert first is not None
    assert b"hello" == first.open(EVENT, MESSAGE, FIELD, sealed)


def test_a_writer_that_holds_the_old_generation_wraps_by_the_new_one(vault: SQLiteVault, keyring: Keyring) -> None:
    """A key that it made before the rotation and stores after it lands under the new tenant key, unnoticed."""
    writer = VaultEnvelope("support", vault, keyring)
    durable_key(writer)
    under_way = new_key(writer, b"u" * 16)
    rotation_of(vault, keyring).rotate_tenant(TENANT)
    writer.make_durable([under_way])
    later = durable_key(writer, b"l" * 16)
    (only,) = vault.tenants.all()
    assert {only.name} == {count.wrapping_key_id for count in vault.tenants.counts()}
    reader = VaultEnvelope("support", vault, keyring)
    for key in (under_way, later):
        assert reader.opening_key(*key.scope, key.key_id) is not None


def test_a_reader_that_looked_before_the_rotation_looks_again(vault: SQLiteVault, keyring: Keyring) -> None:
    """A row read before, whose tenant key went before it was unwrapped, is read once more."""
    key = durable_key(VaultEnvelope("support", vault, keyring))
    before = vault.find(*key.scope, key.key_id)
    rotation_of(vault, keyring).rotate_tenant(TENANT)
    reader = VaultEnvelope("support", vault, keyring)
    looks = iter([before, vault.find(*key.scope, key.key_id)])
    found = reader._data_keys.read(lambda: next(looks))
    assert found is not None
    assert key.secret() == found.key
    with pytest.raises(KeyUnavailable):
        reader._data_keys.read(lambda: before)


def test_an_unfinished_rotation_is_finished_first(vault: SQLiteVault, keyring: Keyring) -> None:
    """After a run that made a generation and wrapped a part, the next wraps the rest and makes no further one."""
    envelope = VaultEnvelope("support", vault, keyring)
    keys = [durable_key(envelope, bytes([i]) * 16) for i in range(10)]

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rotation_of(vault, keyring).rotate_tenant(TENANT, stop)
    assert 2 == len(vault.tenants.all())
    rotated = rotation_of(vault, keyring).rotate_tenant(TENANT)
    assert (2, True, 3, 1) == (rotated.generation, rotated.resumed, rotated.rewrapped, rotated.dropped)
    reader = VaultEnvelope("support", vault, keyring)
    assert all(reader.opening_key(*key.scope, key.key_id) for key in keys)


def test_a_tenant_without_a_key_is_refused(vault: SQLiteVault, keyring: Keyring) -> None:
    """A name that was mistyped gets no key."""
    with pytest.raises(InvalidInput, match="'acmee', which has no key"):
        rotation_of(vault, keyring).rotate_tenant("acmee")
    assert [] == vault.tenants.all()


def test_a_providers_rotation_wraps_tenant_keys_only(vault: SQLiteVault, keyring: Keyring) -> None:
    """Each is wrapped by the new primary, in place; a second run finds nothing to do; the owner notices nothing."""
    owner = VaultEnvelope("support", vault, Keyring.open(keyring.path), cached_s=0)
    key = durable_key(owner)
    before = vault.newest(*key.scope)
    (old,) = vault.tenants.all()
    new_primary = keyring.add_primary()
    rotation = rotation_of(vault, keyring)
    rotated = rotation.rotate_provider()
    assert (new_primary, 1, 0) == (rotated.provider_key_id, rotated.tenant_keys, rotated.data_keys)
    (stored,) = vault.tenants.all()
    assert (old.name, new_primary) == (stored.name, stored.provider_key_id)
    assert before == vault.newest(*key.scope)
    assert 0 == rotation.rotate_provider().tenant_keys
    assert key is owner.session_key(TENANT, USER, SESSION)
    assert durable_key(owner, b"n" * 16).durable


@pytest.mark.slow
def test_rotations_beside_a_writer_killed_at_any_instant_lose_no_key(tmp_path: Path) -> None:
    """Rotating again and again and killed again and again, while keys are made: all open, and the last run finishes."""
    keyring = Keyring.create(tmp_path / "keyring.json")
    SQLiteVault(tmp_path / "vault.db").close()
    writer = start(WRITE, str(tmp_path))
    assert writer.stdout
    dice = random.Random(7)
    lines: list[str] = []
    rotations = 0
    try:
        for _ in range(12):
            rotating = start(ROTATE, str(tmp_path))
            assert rotating.stdout
            assert "ready\n" == rotating.stdout.readline()
            time.sleep(dice.uniform(0.0, 0.25))
            rotating.kill()
            rotations += rotating.communicate()[0].count("rotated")
            lines += [writer.stdout.readline() for _ in range(3)]
            _all_open(tmp_path, lines)
    finally:
        writer.kill()
    lines += [line for line in writer.stdout if line.endswith("\n")]
    writer.communicate()
    vault = SQLiteVault(tmp_path / "vault.db")
    rotation_of(vault, Keyring.open(keyring.path)).rotate_tenant("acme")
    (only,) = vault.tenants.all()
    assert only.generation > rotations
    assert [(only.name, len(lines))] == [
        (count.wrapping_key_id, min(count.sessions, len(lines))) for count in vault.tenants.counts()
    ]
    vault.close()
    _all_open(tmp_path, lines)
    assert rotations > 0


def _all_open(directory: Path, lines: list[str]) -> None:
    vault = SQLiteVault(directory / "vault.db", readonly=True)
    reader = VaultEnvelope("support", vault, Keyring.open(directory / "keyring.json"))
    for line in lines:
        session_id, key_id, sealed = (bytes.fromhex(part) for part in line.split())
        key = reader.opening_key("acme", "ann", session_id, key_id)
        assert key is not None
        assert b"hello" == key.open(EVENT, MESSAGE, FIELD, sealed)
    vault.close()
