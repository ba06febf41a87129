"""Envelopes: one key a scope, durable before it counts, and nothing that tells a key."""

from __future__ import annotations

import copy
import os
import pickle
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from session_ledger.domain.errors import ContentUnreadable, KeyNotStored, KeyUnavailable
from session_ledger.security.envelope import NoEnvelope, VaultEnvelope
from session_ledger.security.keyring import Keyring
from session_ledger.security.keys import SealingKey
from session_ledger.security.sealing import commitment_v1
from session_ledger.security.tenant_store import TenantKeyReplaced
from session_ledger.security.vault import SQLiteVault, StoredKey
from tests.security.made import EVENT, FIELD, MESSAGE, SESSION, TENANT, USER, durable_key, new_key, raised, start
from tests.security.made_services import RemoteKeyring

WRITER = """
import os, sys
from pathlib import Path
from session_ledger.security.envelope import VaultEnvelope
from session_ledger.security.keyring import Keyring
from session_ledger.security.tenant_store import TenantKeyReplaced
from session_ledger.security.vault import SQLiteVault
directory = Path(sys.argv[1])
envelope = VaultEnvelope("support", SQLiteVault(directory / "vault.db"), Keyring.open(directory / "keyring.json"))
while True:
    session_id = os.urandom(16)
    key = envelope.session_key("acme", "ann", session_id, create=True, fresh=True)
    sealed = key.seal(bytes(16), "type", "field", b"hello")
    envelope.make_durable([key])
    print(session_id.hex(), sealed.hex(), flush=True)
"""


def test_a_key_is_made_only_when_asked(envelope: VaultEnvelope) -> None:
    """None without `create`; then a random key with a random id, not durable, its commitment told."""
    assert None is envelope.session_key(TENANT, USER, SESSION)
    assert None is envelope.account_key(TENANT, USER)
    key, other = new_key(envelope), new_key(envelope, b"o" * 16)
    assert (False, 16, 32) == (key.durable, len(key.key_id), len(key.secret()))
    assert key.commitment == commitment_v1(key.key_id, key.secret())
    assert 2 == len({key.key_id, other.key_id}) == len({key.secret(), other.secret()})


def test_a_durable_key_is_the_same_for_every_process(envelope: VaultEnvelope, vault: SQLiteVault) -> None:
    """After make_durable, an envelope that knows nothing but vault and keyring opens what was sealed before."""
    key = new_key(envelope)
    sealed = key.seal(EVENT, MESSAGE, FIELD, b"hello")
    envelope.make_durable([key])
    assert key.durable
    again = VaultEnvelope("support", vault, Keyring.open(vault.path.parent / "keyring.json"))
    found = again.session_key(TENANT, USER, SESSION)
    assert found is not None
    assert (True, key.key_id, key.commitment) == (found.durable, found.key_id, found.commitment)
    assert b"hello" == found.open(EVENT, MESSAGE, FIELD, sealed)
    assert key.digest(b"body") == found.digest(b"body")


def test_account_and_session_keys_of_a_user_are_different(envelope: VaultEnvelope) -> None:
    """The account's key is a key of its own, under the empty session id."""
    account, session = envelope.account_key(TENANT, USER, create=True), new_key(envelope)
    assert account is not None
    assert account is envelope.session_key(TENANT, USER, b"")
    assert account.key_id != session.key_id
    envelope.make_durable([account, session])
    assert account.durable
    assert session.durable


def test_digests_are_keyed(envelope: VaultEnvelope) -> None:
    """16 bytes, the same for the same key and body, different for another key or body."""
    key, other = new_key(envelope), new_key(envelope, b"o" * 16)
    assert 16 == len(key.digest(b"body"))
    assert key.digest(b"body") == key.digest(b"body")
    assert 3 == len({key.digest(b"body"), key.digest(b"else"), other.digest(b"body")})


def test_concurrent_creators_get_one_key(envelope: VaultEnvelope) -> None:
    """32 callers in 8 threads that create the key of one scope hold the same object."""
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: new_key(envelope), range(32)))
    assert {id(made[0])} == {id(key) for key in made}


def test_concurrent_make_durable_of_one_key_is_harmless(envelope: VaultEnvelope) -> None:
    """The same key in many batches at once is inserted once and durable for all."""
    keys = [new_key(envelope, bytes([i]) * 16) for i in range(20)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: envelope.make_durable(keys), range(8)))
    assert all(key.durable for key in keys)


def test_a_key_whose_command_never_appended_stays_not_durable(envelope: VaultEnvelope, vault: SQLiteVault) -> None:
    """A later command gets the abandoned key, is told that it is not durable, and makes it so itself."""
    new_key(envelope)
    later = new_key(envelope)
    assert not later.durable
    assert vault.empty()
    envelope.make_durable([later])
    assert later.key_id == getattr(vault.newest(TENANT, USER, SESSION), "key_id", None)


def test_a_key_that_lost_is_dropped_and_the_stored_one_is_used_next(vault: SQLiteVault, keyring: Keyring) -> None:
    """KeyNotStored is retriable, the loser refuses to seal, and the next attempt has the winner's key."""
    here, there = VaultEnvelope("support", vault, keyring), VaultEnvelope("support", vault, keyring)
    loser, winner = new_key(here), new_key(there)
    neighbour = new_key(here, b"n" * 16)
    there.make_durable([winner])
    error = raised(lambda: here.make_durable([loser, neighbour]))
    assert (KeyNotStored, True) == (type(error), error.retriable)
    assert (False, True) == (loser.durable, neighbour.durable)
    with pytest.raises(KeyNotStored):
        loser.seal(EVENT, MESSAGE, FIELD, b"hello")
    with pytest.raises(KeyNotStored):
        here.make_durable([loser])
    again = new_key(here)
    assert (True, winner.key_id) == (again.durable, again.key_id)
    assert b"hello" == winner.open(EVENT, MESSAGE, FIELD, again.seal(EVENT, MESSAGE, FIELD, b"hello"))


def test_fresh_is_safe_where_it_is_wrong(vault: SQLiteVault, keyring: Keyring) -> None:
    """`fresh` for a scope that is in the vault: refused by make_durable, and the next attempt works."""
    stored = durable_key(VaultEnvelope("support", vault, keyring))
    envelope = VaultEnvelope("support", vault, keyring)
    wrong = envelope.session_key(TENANT, USER, SESSION, create=True, fresh=True)
    assert wrong is not None
    with pytest.raises(KeyNotStored):
        envelope.make_durable([wrong])
    again = envelope.session_key(TENANT, USER, SESSION, create=True, fresh=True)
    assert again is not None
    assert (True, stored.key_id) == (again.durable, again.key_id)


def test_the_cache_is_bounded_and_forgets_only_what_it_finds_again(vault: SQLiteVault, keyring: Keyring) -> None:
    """With room for 10 keys, 100 scopes all keep their key, durable before or after they were dropped."""
    envelope = VaultEnvelope("support", vault, keyring, keys_cached_max=10)
    keys = [new_key(envelope, bytes([i]) * 16) for i in range(100)]
    assert 10 == len(envelope._keys)
    envelope.make_durable(keys)
    assert 10 == len(envelope._keys)
    assert [key.key_id for key in keys] == [new_key(envelope, bytes([i]) * 16).key_id for i in range(100)]


def test_a_used_key_outlives_unused_ones(vault: SQLiteVault, keyring: Keyring) -> None:
    """A scope that is asked for between others stays the same object while they come and go."""
    envelope = VaultEnvelope("support", vault, keyring, keys_cached_max=10)
    busy = durable_key(envelope)
    for i in range(100):
        new_key(envelope, bytes([i]) * 16)
        assert busy is new_key(envelope)


def test_closing_forgets_every_key(envelope: VaultEnvelope) -> None:
    """After close a key comes from the vault again; closing twice is fine."""
    key = durable_key(envelope)
    envelope.close()
    envelope.close()
    assert key is not envelope.session_key(TENANT, USER, SESSION)


def test_another_ledgers_or_owners_row_does_not_unwrap(
    envelope: VaultEnvelope, vault: SQLiteVault, keyring: Keyring
) -> None:
    """A wrapped key is bound to ledger, tenant, user, session and key id: a copied row opens for nobody else."""
    durable_key(envelope)
    stored = vault.newest(TENANT, USER, SESSION)
    assert stored is not None
    other = VaultEnvelope("sales", vault, keyring)
    with pytest.raises(KeyUnavailable, match=keyring.primary):
        other.session_key(TENANT, USER, SESSION)
    for moved in (
        stored._replace(user="bob"),
        stored._replace(session_id=b"m" * 16),
        stored._replace(generation=2, key_id=b"k" * 16),
    ):
        vault.insert_if_absent([moved])
        fresh = VaultEnvelope("support", vault, keyring)
        with pytest.raises(KeyUnavailable, match=stored.wrapping_key_id):
            fresh.session_key(moved.tenant, moved.user, moved.session_id)


def test_another_tenants_row_does_not_unwrap(envelope: VaultEnvelope, vault: SQLiteVault, keyring: Keyring) -> None:
    """A data key can not be moved to another tenant, not with its tenant key either."""
    durable_key(envelope)
    stored, of_tenant = vault.newest(TENANT, USER, SESSION), vault.tenants.newest(TENANT)
    assert stored is not None
    assert of_tenant is not None
    with pytest.raises(TenantKeyReplaced):
        vault.insert_if_absent([stored._replace(tenant="other")])
    vault.tenants.insert_if_absent(of_tenant._replace(tenant="other"))
    vault.insert_if_absent([stored._replace(tenant="other")])
    with pytest.raises(KeyUnavailable, match=keyring.primary):
        VaultEnvelope("support", vault, keyring).session_key("other", USER, SESSION)


def test_the_wrong_keyring_names_the_wrapping_key(
    envelope: VaultEnvelope, vault: SQLiteVault, keyring: Keyring
) -> None:
    """KeyUnavailable says which wrapping key is not there, before anything is sealed too."""
    durable_key(envelope)
    other = Keyring.create(vault.path.parent / "other.json")
    with pytest.raises(KeyUnavailable, match=keyring.primary):
        VaultEnvelope("support", vault, other).session_key(TENANT, USER, SESSION)
    wrong = VaultEnvelope("support", vault, other)
    with pytest.raises(KeyUnavailable, match=keyring.primary):
        wrong.session_key(TENANT, USER, SESSION, create=True, fresh=True)


def test_damaged_rows_are_a_typed_error(envelope: VaultEnvelope, vault: SQLiteVault, keyring: Keyring) -> None:
    """A key id or wrapped key that can not be what was written is KeyUnavailable."""
    for damaged in (
        StoredKey(b"1" * 16, TENANT, USER, 1, b"short", keyring.primary, b"w" * 61, 0),
        StoredKey(b"2" * 16, TENANT, USER, 1, b"k" * 16, keyring.primary, b"", 0),
        StoredKey(b"3" * 16, TENANT, USER, 1, b"k" * 16, "wk-gone", b"w" * 61, 0),
        StoredKey(b"4" * 16, TENANT, USER, 1, "k" * 16, keyring.primary, b"w" * 61, 0),  # type: ignore[arg-type]
        StoredKey(b"6" * 16, TENANT, USER, 1, b"k" * 16, "tk-no hex", b"w" * 61, 0),
        StoredKey(b"5" * 16, TENANT, USER, 1, b"k" * 16, keyring.primary, "w" * 61, 0),  # type: ignore[arg-type]
    ):
        with vault.writing("a damaged row") as writer:
            writer.execute("INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, ?)", damaged)
        with pytest.raises(KeyUnavailable):
            envelope.session_key(TENANT, USER, damaged.session_id)


def test_a_writer_killed_at_any_instant_leaves_every_durable_key(tmp_path: Path, keyring: Keyring) -> None:
    """After kill -9, whatever was sealed by a key that make_durable returned for opens, for readers too."""
    writer = start(WRITER, str(tmp_path))
    assert writer.stdout
    lines = [writer.stdout.readline() for _ in range(50)]
    writer.kill()
    rest = writer.communicate()[0]
    lines += [line for line in rest.splitlines(keepends=True) if line.endswith("\n")]
    for readonly in (True, False):
        vault = SQLiteVault(tmp_path / "vault.db", readonly=readonly)
        envelope = VaultEnvelope("support", vault, keyring)
        for line in lines:
            session_id, sealed = (bytes.fromhex(part) for part in line.split())
            key = envelope.session_key("acme", "ann", session_id)
            assert key is not None
            assert b"hello" == key.open(bytes(16), "type", "field", sealed)
        vault.close()


def test_the_vaults_files_hold_no_key(envelope: VaultEnvelope, vault: SQLiteVault) -> None:
    """Neither vault.db nor its write-ahead log contains a data key's bytes, before and after closing."""
    keys = [new_key(envelope, bytes([i]) * 16) for i in range(50)]
    envelope.make_durable(keys)
    files = b"".join(path.read_bytes() for path in vault.path.parent.glob("vault.db*"))
    assert all(key.key_id in files for key in keys)
    vault.close()
    files += vault.path.read_bytes()
    assert not any(key.secret() in files for key in keys)


def secret_forms(key: SealingKey) -> tuple[str, ...]:
    """How a key's bytes could be told in text."""
    return bytes.__repr__(key.secret())[2:-1], key.secret().hex(), str(list(key.secret()))


def told(error: BaseException) -> str:
    """Everything that a log or a report might show of an error, the values of local variables included."""
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    return "".join(shown.format()) + str(error) + repr(error) + repr(vars(error))


def failing(vault: SQLiteVault, keyring: Keyring) -> dict[str, tuple[SealingKey, Callable[[], object]]]:
    """Calls that fail around a key, each with that key."""
    envelope = VaultEnvelope("support", vault, keyring)
    key = durable_key(envelope)
    sealed = key.seal(EVENT, MESSAGE, FIELD, b"hello")
    late = VaultEnvelope("support", vault, keyring)
    loser = late.session_key(TENANT, USER, SESSION, create=True, fresh=True)
    assert isinstance(loser, SealingKey)
    other = VaultEnvelope("support", vault, Keyring.create(vault.path.parent / "other.json"))
    return {
        "moved": (key, lambda: key.open(EVENT, MESSAGE, "sealed_parts", sealed)),
        "plain": (key, lambda: key.open(EVENT, MESSAGE, FIELD, b"\x00")),
        "event id": (key, lambda: key.seal(b"", MESSAGE, FIELD, b"hello")),
        "lost": (loser, lambda: late.make_durable([loser])),
        "lost seal": (loser, lambda: loser.seal(EVENT, MESSAGE, FIELD, b"hello")),
        "keyring": (key, lambda: other.session_key(TENANT, USER, SESSION)),
    }


def test_no_error_tells_a_key(vault: SQLiteVault, keyring: Keyring) -> None:
    """Neither text, repr, traceback nor its local variables show a data key."""
    for name, (key, call) in failing(vault, keyring).items():
        text = told(raised(call))
        assert not any(form in text for form in secret_forms(key)), name


def test_no_error_of_the_key_service_tells_a_tenants_key(vault: SQLiteVault, keyring: Keyring) -> None:
    """Nor does its repr, or a pickle."""
    service = RemoteKeyring(keyring)
    service.failing = True
    envelope = VaultEnvelope("support", vault, service)
    text = told(raised(lambda: envelope.session_key(TENANT, USER, SESSION, create=True)))
    (secret,) = service.seen
    assert not any(form in text for form in (repr(secret)[2:-1], secret.hex(), str(list(secret))))
    service.failing = False
    made = envelope._tenants.wrapping_key(TENANT)
    assert service.seen[1].hex() not in repr(made)
    with pytest.raises(TypeError, match="tenant key"):
        pickle.dumps(made)


def test_of_two_new_generations_in_one_batch_the_one_that_lost_is_told(envelope: VaultEnvelope) -> None:
    """The one that came first is durable, and is the session's key."""
    durable_key(envelope)
    first, second = (envelope.next_key(TENANT, USER, SESSION) for _ in range(2))
    assert first is not None
    assert second is not None
    with pytest.raises(KeyNotStored):
        envelope.make_durable([first, second])
    assert (True, False) == (first.durable, second.durable)
    assert first.key_id == new_key(envelope).key_id


def test_a_key_shows_and_gives_away_only_its_id(envelope: VaultEnvelope) -> None:
    """Its repr has the id; it is neither pickled nor copied."""
    key = new_key(envelope)
    assert not any(form in repr(key) + str(key) + f"{key!r}" for form in secret_forms(key))
    for copying in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="data key"):
            copying(key)


def test_without_sealing_content_stands_as_it_is() -> None:
    """Format byte 0x00 and the text; no key id, no commitment, always durable, digests still tell bodies apart."""
    envelope = NoEnvelope()
    key = envelope.session_key(TENANT, USER, SESSION)
    assert key is not None
    assert key is envelope.account_key(TENANT, USER)
    assert (None, None, True) == (key.key_id, key.commitment, key.durable)
    assert b"\x00hello" == key.seal(EVENT, MESSAGE, FIELD, b"hello")
    assert b"hello" == key.open(EVENT, MESSAGE, FIELD, b"\x00hello")
    assert 16 == len(key.digest(b"body"))
    assert key.digest(b"body") != key.digest(b"else")
    envelope.make_durable([key])
    envelope.close()


def test_without_sealing_a_ciphertext_says_what_to_do() -> None:
    """ContentUnreadable that names keyring and vault; an unknown format is said as well."""
    key = NoEnvelope().session_key(TENANT, USER, SESSION)
    assert key is not None
    with pytest.raises(ContentUnreadable, match="open it with its keyring and vault"):
        key.open(EVENT, MESSAGE, FIELD, b"\x01" + os.urandom(40))
    for unknown in (b"", b"\x02hello"):
        with pytest.raises(ContentUnreadable, match="format byte"):
            key.open(EVENT, MESSAGE, FIELD, unknown)


def test_an_envelope_is_always_chosen() -> None:
    """There is no default: a VaultEnvelope can not be made without vault and key service."""
    with pytest.raises(TypeError):
        VaultEnvelope("support")  # type: ignore[call-arg]
