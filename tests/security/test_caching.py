"""Keys in memory: for a bounded time and number; and a key service that is slow, fails and comes back."""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from session_ledger.domain.errors import KeyServiceUnavailable, KeyUnavailable
from session_ledger.security.envelope import VaultEnvelope
from session_ledger.security.flights import FLIGHTS_MAX
from session_ledger.security.keyring import Keyring
from session_ledger.security.vault import SQLiteVault
from tests.security.made import EVENT, FIELD, MESSAGE, SESSION, TENANT, USER, durable_key, new_key, start
from tests.security.made_services import Clock, RemoteKeyring, until

HOLDER = """
import sys
from pathlib import Path
from session_ledger.security.envelope import VaultEnvelope
from session_ledger.security.keyring import Keyring
from session_ledger.security.vault import SQLiteVault
directory, session_id, key_id = Path(sys.argv[1]), bytes.fromhex(sys.argv[2]), bytes.fromhex(sys.argv[3])
now = 0.0
vault = SQLiteVault(directory / "vault.db", readonly=True)
keyring = Keyring.open(directory / "keyring.json")
envelope = VaultEnvelope("support", vault, keyring, cached_s=300, monotonic_s=lambda: now)
while line := sys.stdin.readline():
    now = float(line)
    print("none" if envelope.opening_key("acme", "ann", session_id, key_id) is None else "key", flush=True)
"""


@pytest.fixture
def clock() -> Clock:
    """One that the test moves."""
    return Clock()


@pytest.fixture
def service(keyring: Keyring) -> Iterator[RemoteKeyring]:
    """A remote key service; whatever hangs in it when the test is over goes on."""
    made = RemoteKeyring(keyring)
    yield made
    made.answer()


def at(clock: Clock, vault: SQLiteVault, service: Any, **options: Any) -> VaultEnvelope:
    """An envelope by the test's clock, which waits a moment only."""
    given = {"cached_s": 300, "wait_s": 0.05, **options}
    return VaultEnvelope("support", vault, service, monotonic_s=clock.seconds, clock_us=clock.us, **given)


def destroy(vault: SQLiteVault, table: str) -> None:
    """Take the rows out, as another process does."""
    with sqlite3.connect(vault.path) as other:
        other.execute(f"DELETE FROM {table}")
    other.close()


def test_a_destroyed_data_key_seals_and_opens_until_its_time_is_over(
    clock: Clock, vault: SQLiteVault, keyring: Keyring
) -> None:
    """300 s after it was loaded the vault is asked again, for sealing and for opening; never before, never later."""
    envelope = at(clock, vault, keyring)
    key = durable_key(envelope)
    reader = at(clock, vault, keyring)
    assert reader.opening_key(TENANT, USER, SESSION, key.key_id) is not None
    destroy(vault, "keys")
    clock.now_s += 299
    assert key is envelope.session_key(TENANT, USER, SESSION)
    assert reader.opening_key(TENANT, USER, SESSION, key.key_id) is not None
    clock.now_s += 2
    assert None is envelope.session_key(TENANT, USER, SESSION)
    assert None is envelope.opening_key(TENANT, USER, SESSION, key.key_id)
    assert None is reader.opening_key(TENANT, USER, SESSION, key.key_id)
    made_anew = new_key(envelope)
    assert key.key_id != made_anew.key_id


def test_a_destroyed_tenant_key_ends_all_its_data_keys_in_that_time(
    clock: Clock, vault: SQLiteVault, keyring: Keyring
) -> None:
    """A data key that was loaded late does not outlive the tenant key that it was loaded by."""
    writer = at(clock, vault, keyring)
    key = durable_key(writer)
    late = durable_key(writer, b"l" * 16)
    reader = at(clock, vault, keyring)
    assert reader.opening_key(TENANT, USER, SESSION, key.key_id) is not None
    destroy(vault, "tenant_keys")
    clock.now_s += 149
    assert reader.opening_key(TENANT, USER, b"l" * 16, late.key_id) is not None
    clock.now_s += 152
    for session_id, key_id in ((SESSION, key.key_id), (b"l" * 16, late.key_id)):
        with pytest.raises(KeyUnavailable, match="not in the vault"):
            reader.opening_key(TENANT, USER, session_id, key_id)


def test_a_destroyed_key_stops_opening_in_other_processes_too(envelope: VaultEnvelope, vault: SQLiteVault) -> None:
    """Another process that has the key in memory has it no more when its time is over."""
    key = durable_key(envelope)
    holder = start(HOLDER, str(vault.path.parent), SESSION.hex(), key.key_id.hex())
    try:
        assert "key" == _ask(holder, 0)
        destroy(vault, "keys")
        assert "key" == _ask(holder, 299)
        assert "none" == _ask(holder, 301)
    finally:
        holder.kill()
        holder.communicate()


def _ask(process: subprocess.Popen[str], now_s: float) -> str:
    assert process.stdin
    assert process.stdout
    process.stdin.write(f"{now_s}\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def test_a_key_that_is_still_there_stays_the_same_object(clock: Clock, vault: SQLiteVault, keyring: Keyring) -> None:
    """So that its seals go on being counted; what its service wraps is looked at again."""
    envelope = at(clock, vault, keyring)
    key = durable_key(envelope)
    for _ in range(5):
        clock.now_s += 301
        assert key is envelope.session_key(TENANT, USER, SESSION)


def test_a_new_key_that_waits_for_its_append_outlives_its_time(
    clock: Clock, vault: SQLiteVault, keyring: Keyring
) -> None:
    """A key that no vault can know of yet is not asked for in vain, nor made twice."""
    envelope = at(clock, vault, keyring)
    key = new_key(envelope)
    clock.now_s += 1000
    assert key is new_key(envelope)
    envelope.make_durable([key])
    assert key.durable


def test_what_was_opened_is_cached_up_to_a_number(clock: Clock, vault: SQLiteVault, keyring: Keyring) -> None:
    """Every generation and session that is read takes one place; the first loaded goes first."""
    writer = at(clock, vault, keyring)
    keys = [durable_key(writer, bytes([i]) * 16) for i in range(20)]
    reader = at(clock, vault, keyring, keys_cached_max=10)
    for key in keys:
        assert reader.opening_key(*key.scope, key.key_id) is not None
    assert 10 == len(reader._opened._keys)
    destroy(vault, "keys")
    assert None is reader.opening_key(*keys[0].scope, keys[0].key_id)
    assert reader.opening_key(*keys[-1].scope, keys[-1].key_id) is not None


def test_tenant_keys_in_memory_are_bounded(clock: Clock, vault: SQLiteVault, service: RemoteKeyring) -> None:
    """With room for 5, the service is asked again for a tenant whose key had to go."""
    envelope = at(clock, vault, service, keys_cached_max=5)
    for i in range(10):
        envelope.account_key(f"tenant-{i}", USER, create=True)
    assert 5 == len(envelope._tenants._keys)
    assert 10 == service.asked
    envelope.account_key("tenant-0", "bob", create=True)
    assert 11 == service.asked


def test_a_service_that_is_away_matters_only_where_the_tenants_key_is_not_in_memory(
    clock: Clock, vault: SQLiteVault, service: RemoteKeyring
) -> None:
    """Its sessions go on, also new ones; another tenant waits as long as is set, then gets a retriable error."""
    envelope = at(clock, vault, service)
    durable_key(envelope)
    service.hang()
    assert durable_key(envelope, b"n" * 16).durable
    for _ in range(2):
        with pytest.raises(KeyServiceUnavailable, match=r"has not answered within 0\.05 s") as raised:
            envelope.session_key("other", USER, b"o" * 16, create=True, fresh=True)
        assert raised.value.retriable
    assert 2 == service.asked  # the second caller joined the call of the first
    service.answer()
    other = new_key(at(clock, vault, service, wait_s=10), b"o" * 16, tenant="other")
    assert other.seal(EVENT, MESSAGE, FIELD, b"hello")


def test_a_service_that_fails_says_so_and_is_asked_again(
    clock: Clock, vault: SQLiteVault, service: RemoteKeyring
) -> None:
    """Each caller gets an error of its own, retriable; when the service is back the next one gets the key."""
    envelope = at(clock, vault, service, wait_s=10)
    service.failing = True
    with ThreadPoolExecutor(4) as pool:
        errors = [future.exception() for future in [pool.submit(new_key, envelope) for _ in range(8)]]
    assert all(isinstance(error, KeyServiceUnavailable) and error.retriable for error in errors)
    assert 8 == len({id(error) for error in errors})
    assert vault.empty()
    service.failing = False
    assert durable_key(envelope).durable


def test_a_tenants_key_is_fetched_again_before_its_time_is_over(
    clock: Clock, vault: SQLiteVault, service: RemoteKeyring
) -> None:
    """In the background, so that nobody waits; a fetch that fails does no harm while there is time left."""
    envelope = at(clock, vault, service)
    durable_key(envelope)
    service.failing = True
    clock.now_s += 200
    durable_key(envelope, b"a" * 16)  # asks, in vain
    service.failing = False
    clock.now_s += 50
    durable_key(envelope, b"b" * 16)
    until(lambda: [clock.now_s + 300] == [key.until_s for key in envelope._tenants._keys.values()])
    clock.now_s += 290  # 540 s after the first fetch
    service.hang()
    assert durable_key(envelope, b"c" * 16).durable


def test_when_the_time_is_over_and_the_service_away_nothing_is_sealed(
    clock: Clock, vault: SQLiteVault, service: RemoteKeyring
) -> None:
    """Neither by the key in memory nor in plaintext: the caller is told to repeat, and can when it is back."""
    envelope = at(clock, vault, service)
    key = durable_key(envelope)
    service.hang()
    clock.now_s += 301
    calls: tuple[Callable[[], object], ...] = (
        lambda: envelope.session_key(TENANT, USER, SESSION),
        lambda: envelope.session_key(TENANT, USER, SESSION, create=True),
        lambda: envelope.opening_key(TENANT, USER, SESSION, key.key_id),
    )
    for call in calls:
        with pytest.raises(KeyServiceUnavailable):
            call()
    service.answer()
    patient = at(clock, vault, service, wait_s=10)
    found = patient.session_key(TENANT, USER, SESSION)
    assert key.key_id == getattr(found, "key_id", None)


def test_calls_that_hang_are_bounded(clock: Clock, vault: SQLiteVault, service: RemoteKeyring) -> None:
    """Many tenants and a service without an answer: so many threads at most, the rest is told at once."""
    envelope = at(clock, vault, service, wait_s=0.001)
    service.hang()
    for i in range(FLIGHTS_MAX):
        with pytest.raises(KeyServiceUnavailable, match="has not answered"):
            envelope.account_key(f"tenant-{i}", USER, create=True)
    with pytest.raises(KeyServiceUnavailable, match=f"{FLIGHTS_MAX} calls .* hang"):
        envelope.account_key("one more", USER, create=True)


def test_a_slow_service_does_not_keep_other_tenants_waiting(
    clock: Clock, vault: SQLiteVault, service: RemoteKeyring
) -> None:
    """While one tenant's caller waits, another tenant's keys are handed out."""
    envelope = at(clock, vault, service, wait_s=60)
    durable_key(envelope)
    service.hang()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(envelope.session_key, "slow", USER, b"s" * 16, create=True)
        until(lambda: service.asked == 2)
        assert durable_key(envelope, b"n" * 16).durable
        assert not waiting.done()
        service.answer()
        assert waiting.result() is not None


def test_reading_needs_no_table_of_tenant_keys(tmp_path: Path, keyring: Keyring) -> None:
    """A service that never wrapped data keys itself says what is missing where it meets such a one."""
    service = RemoteKeyring(keyring)
    with pytest.raises(KeyUnavailable, match="bring the keyring back"):
        service.unwrap_data_key("wk-1", b"", b"")


def test_keys_whose_time_is_over_do_not_stay_in_memory(clock: Clock, vault: SQLiteVault, keyring: Keyring) -> None:
    """What sealed, what opened, and the tenant keys that unwrapped them: all go when the next one comes."""
    envelope = at(clock, vault, keyring)
    sessions = [bytes([number]) * 16 for number in range(5)]
    keys = [durable_key(envelope, session_id) for session_id in sessions]
    reader = at(clock, vault, keyring)
    for session_id, key in zip(sessions[:4], keys, strict=False):
        assert reader.opening_key(TENANT, USER, session_id, key.key_id) is not None
    clock.now_s += 301
    assert reader.opening_key(TENANT, USER, sessions[4], keys[4].key_id) is not None
    assert [sessions[4]] == [key.scope.session_id for key in reader._opened._keys.values()]
    durable_key(envelope, b"n" * 16)
    new_key(envelope, b"m" * 16)
    assert {b"n" * 16, b"m" * 16} == {scope.session_id for scope in envelope._keys}
    assert [1, 1] == [len(one._tenants._keys) for one in (reader, envelope)]
    assert envelope._tenants.wrapping_key("other").tenant == "other"
    clock.now_s += 301
    envelope._tenants.wrapping_key("another")
    assert ["another"] == [tenant for tenant, _ in envelope._tenants._keys]


def test_a_key_that_is_asked_for_too_late_goes_at_once(clock: Clock, vault: SQLiteVault, keyring: Keyring) -> None:
    """Though no other comes after it."""
    key = durable_key(at(clock, vault, keyring))
    reader = at(clock, vault, keyring)
    reader.opening_key(TENANT, USER, SESSION, key.key_id)
    destroy(vault, "keys")
    clock.now_s += 301
    assert reader.opening_key(TENANT, USER, SESSION, key.key_id) is None
    assert not reader._opened._keys
