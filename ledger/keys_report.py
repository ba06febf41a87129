"""What a vault holds, in numbers: nothing in here unwraps a key."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from session_ledger.domain.errors import Misconfigured
from session_ledger.ledger.keys import VAULT_FILE, keyring_path
from session_ledger.ledger.settings import Settings
from session_ledger.security.keyring import Keyring
from session_ledger.security.stored import TENANT_KEY_PREFIX, KeyCount, StoredTenantKey
from session_ledger.security.vault import SQLiteVault

US_A_SECOND = 1_000_000


@dataclass(frozen=True, slots=True)
class TenantKeyView:
    """A tenant key. `generation` 0: data keys of the tenant that the keyring wraps itself, in a vault of version 1."""

    tenant: str
    """"": the ledger's own."""
    generation: int
    key: str
    """Its name, as data keys name it."""
    wrapped_by: str | None
    """The key service's name of its key."""
    created_at: datetime | None
    age_s: float | None
    sessions: int
    """Data keys of sessions that it wraps; a session that was rotated has several."""
    accounts: int
    wraps: bool
    """It wraps the tenant's new data keys."""


@dataclass(frozen=True, slots=True)
class KeysStatus:
    """The vault and the key service."""

    key_service: str
    keyring: str | None
    """The keyring's file, where it is there."""
    wrapping_keys: int | None
    """In the keyring, the older ones included."""
    vault: str
    tenants: int
    tenant_keys: int
    session_keys: int
    account_keys: int
    oldest_tenant_key_age_s: float | None
    unfinished: tuple[str, ...]
    """Tenants whose rotation is not finished."""
    wrapped_by: dict[str, int]
    """The key service's keys, to how many tenant keys they wrap."""
    direct: int
    """Data keys that the keyring wraps itself."""


def tenant_keys(directory: Path, now_us: int) -> list[TenantKeyView]:
    """Every tenant key, by tenant and generation. Raises Misconfigured, KeyUnavailable."""
    keys, counts = _read(directory)
    by_name = {(count.tenant, count.wrapping_key_id): count for count in counts}
    newest = {key.tenant: key.generation for key in keys}
    found = [_view(key, by_name.get((key.tenant, key.name)), newest[key.tenant], now_us) for key in keys]
    for count in counts:
        if not count.wrapping_key_id.startswith(TENANT_KEY_PREFIX):
            tenant, name, sessions, accounts = count
            found.append(TenantKeyView(tenant, 0, name, None, None, None, sessions, accounts, wraps=False))
    return sorted(found, key=lambda view: (view.tenant, view.generation))


def status_of(directory: Path, settings: Settings, now_us: int) -> KeysStatus:
    """The whole in numbers. Raises Misconfigured, KeyUnavailable."""
    keys, counts = _read(directory)
    path = keyring_path(directory, settings)
    wrapped_by: dict[str, int] = {}
    for key in keys:
        wrapped_by[key.provider_key_id] = wrapped_by.get(key.provider_key_id, 0) + 1
    generations: dict[str, int] = {}
    for key in keys:
        generations[key.tenant] = generations.get(key.tenant, 0) + 1
    direct = [count for count in counts if not count.wrapping_key_id.startswith(TENANT_KEY_PREFIX)]
    return KeysStatus(
        key_service=settings.key_service,
        keyring=str(path) if path.exists() else None,
        wrapping_keys=len(Keyring.open(path).key_ids()) if path.exists() else None,
        vault=str(directory / VAULT_FILE),
        tenants=len({key.tenant for key in keys} | {count.tenant for count in counts}),
        tenant_keys=len(keys),
        session_keys=sum(count.sessions for count in counts),
        account_keys=sum(count.accounts for count in counts),
        oldest_tenant_key_age_s=max((_age_s(key, now_us) for key in keys), default=None),
        unfinished=tuple(sorted(tenant for tenant, number in generations.items() if number > 1)),
        wrapped_by=wrapped_by,
        direct=sum(count.sessions + count.accounts for count in direct),
    )


def _read(directory: Path) -> tuple[list[StoredTenantKey], list[KeyCount]]:
    path = directory / VAULT_FILE
    if not path.exists():
        raise Misconfigured(f"there is no vault at {path}: a ledger makes it when it is opened to write, sealed")
    vault = SQLiteVault(path, readonly=True)
    try:
        return vault.tenants.all(), vault.tenants.counts()
    finally:
        vault.close()


def _view(key: StoredTenantKey, count: KeyCount | None, newest: int, now_us: int) -> TenantKeyView:
    return TenantKeyView(
        tenant=key.tenant,
        generation=key.generation,
        key=key.name,
        wrapped_by=key.provider_key_id,
        created_at=datetime.fromtimestamp(key.created_at / US_A_SECOND, UTC),
        age_s=_age_s(key, now_us),
        sessions=0 if count is None else count.sessions,
        accounts=0 if count is None else count.accounts,
        wraps=key.generation == newest,
    )


def _age_s(key: StoredTenantKey, now_us: int) -> float:
    return max(now_us - key.created_at, 0) / US_A_SECOND
