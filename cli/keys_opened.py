"""What the `keys` commands work on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from session_ledger.cli.opening import settings, url_of
from session_ledger.domain.errors import Misconfigured
from session_ledger.ledger import keys as wiring
from session_ledger.ledger.open import open_log
from session_ledger.ledger.url import parse_url
from session_ledger.security.keyring import Keyring
from session_ledger.security.providers import WithOlder
from session_ledger.security.vault import SQLiteVault


def directory_of(url: str | None) -> Path:
    """Where the ledger's vault is. Raises Misconfigured for a ledger in memory."""
    place = url_of(url)
    directory = parse_url(place).directory
    if directory is None:
        raise Misconfigured(f"{place} is in memory: its keys are gone with its process")
    return directory


@contextmanager
def open_keys(url: str | None) -> Iterator[wiring.Keys]:
    """Vault and key service of the ledger, for a rotation. Raises Misconfigured, LogUnavailable."""
    directory, chosen = directory_of(url), settings()
    log = open_log(parse_url(url_of(url)), chosen, write=False)  # it knows the name that keys are bound to
    name = log.name
    log.close()
    with wiring.open_keys(directory, name, chosen) as keys:
        yield keys


def renewed(keys: wiring.Keys) -> None:
    """Give a keyring a new primary key, unless tenants' keys wait to be wrapped by the one that it has."""
    provider = keys.provider.now if isinstance(keys.provider, WithOlder) else keys.provider
    if not isinstance(provider, Keyring):
        return
    primary = provider.current()
    if all(key.provider_key_id == primary for key in keys.vault.tenants.all()):
        provider.add_primary()


def keyring_to_make(url: str | None, path: Path | None) -> Path:
    """Where `keys init` makes a keyring. Raises Misconfigured where the vault holds keys that another one wraps."""
    if path is not None:
        return path
    directory, chosen = directory_of(url), settings()
    wanted, vault_path = wiring.keyring_path(directory, chosen), directory / wiring.VAULT_FILE
    if vault_path.exists() and not wanted.exists():
        vault = SQLiteVault(vault_path, readonly=True)
        try:
            if not vault.empty() or vault.tenants.all():
                raise Misconfigured(
                    f"the vault {vault_path} holds keys that another keyring wraps: bring that one back to {wanted}"
                )
        finally:
            vault.close()
    if wanted.parent == directory:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return wanted
