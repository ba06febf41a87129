"""The envelope of a ledger on one machine: a keyring file and an SQLite vault in the ledger's directory."""

from __future__ import annotations

from pathlib import Path

from session_ledger.domain.errors import Misconfigured
from session_ledger.security.envelope import KEYS_CACHED_MAX, VaultEnvelope
from session_ledger.security.keyring import Keyring
from session_ledger.security.vault import SQLiteVault

KEYRING_NAME = "keyring.json"
VAULT_NAME = "vault.db"


class LocalEnvelope(VaultEnvelope):
    """A VaultEnvelope that owns its vault and closes it."""

    def __init__(self, ledger: str, vault: SQLiteVault, keyring: Keyring, *, keys_cached_max: int) -> None:
        super().__init__(ledger, vault, keyring, keys_cached_max=keys_cached_max)
        self._owned_vault = vault

    def close(self) -> None:
        """Forget every key and close the vault. Idempotent."""
        super().close()
        self._owned_vault.close()


def open_local_envelope(
    ledger: str,
    directory: Path,
    *,
    keyring_path: Path | None = None,
    vault_path: Path | None = None,
    readonly: bool = False,
    keys_cached_max: int = KEYS_CACHED_MAX,
) -> LocalEnvelope:
    """Open keyring and vault, by default `keyring.json` and `vault.db` in the directory; make them on first use.

    A keyring is made only where the vault holds no key yet: a new keyring beside an old vault would hide that the old
    one is lost. `readonly` is for processes beside the owner: it makes nothing. Raises Misconfigured, KeyUnavailable.
    """
    keyring_file = keyring_path or directory / KEYRING_NAME
    vault = SQLiteVault(vault_path or directory / VAULT_NAME, readonly=readonly)
    try:
        if readonly or keyring_file.exists():
            keyring = Keyring.open(keyring_file)
        elif vault.empty():
            keyring = Keyring.open_or_create(keyring_file)
        else:
            raise Misconfigured(
                f"the vault {vault.path} holds data keys, but their keyring {keyring_file} is gone: bring it back"
            )
    except BaseException:
        vault.close()
        raise
    return LocalEnvelope(ledger, vault, keyring, keys_cached_max=keys_cached_max)
