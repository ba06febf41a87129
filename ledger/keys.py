"""Wiring of the keys: settings in, key service, vault and envelope out; for the write path, readers and rotations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from session_ledger.domain.errors import KeyUnavailable, Misconfigured
from session_ledger.domain.ids import is_pseudonym
from session_ledger.ledger.clocks import machine_clock_us
from session_ledger.ledger.settings import Settings
from session_ledger.security.envelope import NoEnvelope, VaultEnvelope
from session_ledger.security.keyring import Keyring, MemoryKeyring
from session_ledger.security.port import Envelope
from session_ledger.security.provider import KeyProvider
from session_ledger.security.providers import WithOlder
from session_ledger.security.pseudonyms import LockedPseudonyms, locked
from session_ledger.security.rotation import Rotation
from session_ledger.security.tenant_keys import TenantKeys
from session_ledger.security.vault import SQLiteVault
from session_ledger.security.vault_memory import MemoryVault

KEYRING_FILE = "keyring.json"
VAULT_FILE = "vault.db"


class Keys(NamedTuple):
    """What rotations and reports work on."""

    vault: SQLiteVault
    provider: KeyProvider
    tenants: TenantKeys
    rotation: Rotation


def open_envelope(
    directory: Path | None,
    ledger_name: str,
    settings: Settings,
    *,
    readonly: bool = False,
    recorded: bool = False,
    clock_us: Callable[[], int] = machine_clock_us,
) -> tuple[Envelope, Callable[[], None]]:
    """(the envelope, what closes it). `encryption` "none": nothing is sealed; in memory: the keys are there too.

    `recorded`: the log holds events already, so their vault must be there. Raises Misconfigured, KeyUnavailable.
    """
    if settings.encryption == "none":
        envelope: Envelope = NoEnvelope(
            LockedPseudonyms("sealing is off here") if has_pseudonyms(directory, readonly) else None
        )
        return envelope, envelope.close
    if directory is None:
        envelope = _sealing(ledger_name, MemoryVault(), MemoryKeyring(), settings, clock_us)
        return envelope, envelope.close
    kept = directory / VAULT_FILE
    if recorded and not kept.exists():
        raise Misconfigured(
            f"the ledger {ledger_name} holds events, but the vault of their keys, {kept}, is not there: bring it back, "
            'or name the directory that it is in (a ledger that was made with encryption = "none" needs that setting)'
        )
    vault = SQLiteVault(kept, readonly=readonly)
    try:
        must_exist = readonly or not vault.empty() or bool(vault.tenants.all())
        provider = open_provider(directory, settings, must_exist=must_exist)
    except BaseException:
        vault.close()
        raise
    sealing = _sealing(ledger_name, vault, provider, settings, clock_us)

    def close() -> None:
        sealing.close()
        vault.close()

    return sealing, close


def recorded_as(directory: Path | None, ledger_name: str, settings: Settings, tenant: str, user: str) -> str:
    """The user as the log names it, for who reads the log itself; the vault is asked only where it has to be.

    Raises KeyUnavailable where the ledger has pseudonyms, the user is no pseudonym, and its keys do not open here.
    """
    if is_pseudonym(user) or not has_pseudonyms(directory, readonly=True):
        return user
    try:
        envelope, close = open_envelope(directory, ledger_name, settings, readonly=True)
    except Misconfigured as error:
        raise locked(tenant, error) from error
    try:
        return envelope.pseudonyms.recorded_as(tenant, user)
    finally:
        close()


def has_pseudonyms(directory: Path | None, readonly: bool) -> bool:
    """Whether a vault is there and says that the ledger has pseudonyms; it is not asked for a key.

    Raises Misconfigured, KeyUnavailable; not for a reader, who may be kept from the vault.
    """
    kept = None if directory is None else directory / VAULT_FILE
    if kept is None or not kept.exists():
        return False
    try:
        vault = SQLiteVault(kept, readonly=True)
    except (Misconfigured, KeyUnavailable):
        if readonly:
            return False
        raise
    try:
        return vault.tenants.pseudonyms.any()
    finally:
        vault.close()


def _sealing(
    ledger_name: str,
    vault: SQLiteVault | MemoryVault,
    provider: KeyProvider,
    settings: Settings,
    clock_us: Callable[[], int],
) -> VaultEnvelope:
    return VaultEnvelope(
        ledger_name,
        vault,
        provider,
        keys_cached_max=settings.keys_cached_max,
        cached_s=settings.keys_cached_s,
        wait_s=settings.key_service_wait_s,
        session_key_age_max_s=settings.session_key_age_max_s or None,
        clock_us=clock_us,
    )


def keyring_path(directory: Path, settings: Settings) -> Path:
    """Where the ledger's keyring is, or would be."""
    return settings.keyring or directory / KEYRING_FILE


def open_provider(directory: Path, settings: Settings, *, must_exist: bool) -> KeyProvider:
    """The key service that is set, which still unwraps what the other one wrapped, where that one is there.

    `must_exist`: there are keys already, so no new keyring is made. Raises Misconfigured.
    """
    path = keyring_path(directory, settings)
    if settings.key_service == "keyring":
        keyring = Keyring.open(path) if must_exist else Keyring.open_or_create(path)
        return keyring if settings.kms_key is None else WithOlder(keyring, open_kms(settings))
    kms = open_kms(settings)
    return WithOlder(kms, Keyring.open(path)) if path.exists() else kms


def open_kms(settings: Settings) -> KeyProvider:
    """AWS KMS as it is set; asks it nothing. Raises Misconfigured."""
    if settings.kms_key is None:
        raise Misconfigured('key_service = "kms" needs `kms_key`: the id, ARN or alias of a symmetric key')
    try:
        from session_ledger.security.kms import KmsProvider  # boto3 is imported only where it is used
    except ModuleNotFoundError as error:
        raise Misconfigured(
            f"`kms_key` is set, and the package {error.name} is not there: install session-ledger[kms]"
        ) from error
    return KmsProvider(
        settings.kms_key,
        region=settings.kms_region,
        endpoint=settings.kms_endpoint,
        timeout_s=settings.key_service_wait_s,
    )


def open_vault(directory: Path, *, readonly: bool = False) -> SQLiteVault:
    """The vault of the ledger in that directory. Raises Misconfigured where there is none, KeyUnavailable."""
    kept = directory / VAULT_FILE
    if not kept.exists():
        raise Misconfigured(f"there is no vault at {kept}: a ledger makes it when it is opened to write, sealed")
    return SQLiteVault(kept, readonly=readonly)


@contextmanager
def open_keys(directory: Path, ledger_name: str, settings: Settings, *, readonly: bool = False) -> Iterator[Keys]:
    """Vault, key service and rotations of the ledger in that directory. Raises Misconfigured, KeyUnavailable."""
    vault = open_vault(directory, readonly=readonly)
    try:
        provider = open_provider(directory, settings, must_exist=True)
        tenants = TenantKeys(
            ledger_name,
            vault.tenants,
            provider,
            cached_s=settings.keys_cached_s,
            cached_max=settings.keys_cached_max,
            wait_s=settings.key_service_wait_s,
            clock_us=machine_clock_us,
        )
        yield Keys(vault, provider, tenants, Rotation(ledger_name, vault.tenants, tenants))
    finally:
        vault.close()
