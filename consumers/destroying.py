"""The step of an erasure that can not be undone: the keys that it covers are found, counted, and destroyed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from session_ledger.consumers.erasure_store import Erasure, ErasureStore
from session_ledger.domain.errors import LogUnavailable, SessionLedgerError
from session_ledger.projections.store import Store
from session_ledger.security.stored import StoredKey
from session_ledger.security.vault import Vault

CONTROL = -1


class Destroying:
    """Of the eraser, in its thread."""

    def __init__(
        self,
        vault: Vault,
        views: Store,
        store: ErasureStore,
        fold: Callable[[], None],
        failed: Callable[[Erasure, SessionLedgerError], None],
        clock_us: Callable[[], int],
    ) -> None:
        """`fold` lets the views catch up; `failed` is told of each erasure that can not go on now, and why."""
        self._vault, self._views, self._store = vault, views, store
        self._fold, self._failed, self._clock_us = fold, failed, clock_us

    def destroy(self, erasures: Sequence[Erasure]) -> None:
        """Destroy the keys of each, then leave no copy of them in the vault's file, once for all."""
        removed: list[Erasure] = []
        thorough = False
        for erasure in erasures:
            try:
                thorough |= self._remove(erasure)
                removed.append(erasure)
            except SessionLedgerError as error:
                self._failed(erasure, error)
        try:
            if removed:
                self._vault.scrub(thorough=thorough)
            for erasure in removed:
                self._store.destroyed(erasure, self._clock_us())
        except SessionLedgerError as error:
            for erasure in removed:
                self._failed(erasure, error)

    def _remove(self, erasure: Erasure) -> bool:
        """Delete its keys; whether some may have been deleted before, by a step that did not come to its end."""
        tenant, user = erasure.tenant, erasure.user
        if erasure.partition == CONTROL:
            self._store.found(erasure, sum(len(self._vault.keys_of(tenant, one)) for one in self._vault.users(tenant)))
            keys = self._vault.destroy_tenant(tenant)
        elif erasure.session_id is not None:
            self._store.found(erasure, len(self._vault.keys_of(tenant, user, erasure.session_id)))
            keys = self._vault.destroy(tenant, user, [erasure.session_id])
        else:
            whole = self._store.of_tenant(tenant)  # then nobody comes back: no key of the account stays
            covered = self._covered(erasure, None if whole else erasure.key_id)
            self._store.found(erasure, len(covered))
            keys = self._vault.destroy(tenant, user, [key.session_id for key in covered])
            keys += self._vault.destroy_account(tenant, user, None if whole else erasure.key_id)
            if user:
                self._vault.tenants.pseudonyms.destroy(tenant, user)
            if whole is not None and whole.destroyed_at is not None:  # asked for after all of it was gone
                self._vault.destroy_tenant(tenant)
        return erasure.keys is not None or keys == 0

    def _covered(self, erasure: Erasure, stays_id: bytes | None) -> list[StoredKey]:
        """The user's keys from before it; `stays_id`: of the account's key that came with it, if that stays.

        Those that no view shows too: of a session that did not come about.
        The vault has a session's key before the log has the session. So the vault is looked at first, then the log.
        """
        keys = self._vault.keys_of(erasure.tenant, erasure.user)
        stays = min((key.generation for key in keys if key.key_id == stays_id), default=0)
        self._fold()
        created = self._created(erasure)
        covered = []
        for key in keys:
            if not key.session_id:
                before = stays_id is None or key.generation < stays
            elif key.session_id in created:
                before = created[key.session_id] < erasure.position
            else:
                before = key.created_at <= erasure.recorded_at
            if before:
                covered.append(key)
        return covered

    def _created(self, erasure: Erasure) -> dict[bytes, int]:
        """The user's sessions that the views show, to where they began."""
        at = self._views.position(erasure.partition)
        if at < erasure.position:
            raise LogUnavailable(f"the views are folded to position {at}, and the erasure is at {erasure.position}")
        query = "SELECT session_id, created_position FROM sessions WHERE tenant = ? AND user = ?"
        with self._views.reading() as db:
            return {row[0]: row[1] for row in db.execute(query, (erasure.tenant, erasure.user))}
