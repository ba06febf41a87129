"""The eraser: carries out what the log says was erased, and collects who has acted on it.

An erasure is a fact first (`ContentErased`). Then, each step taken again after a crash until it is noted as done:

1. the views fold up to it, which takes the ciphertext out of their rows and tells the sessions it covers;
2. the data keys are destroyed in the vault, physically, and of a user the way back from the pseudonym;
3. every store confirms: the views, the analytics' snapshot, and the caches of keys, which no process holds longer
   than `cached_s` after the keys are gone;
4. the receipt is signed.

A tenant's erasure appends one for each user first. Any number of erasers may run; each step is idempotent.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from session_ledger.consumers.erasure_receipt import receipt_of
from session_ledger.consumers.erasure_store import Erasure, ErasureStore
from session_ledger.consumers.projector import Projector
from session_ledger.consumers.tail import Tail
from session_ledger.domain.errors import Forbidden, LogUnavailable, Misconfigured, SessionLedgerError, UnderLegalHold
from session_ledger.domain.ids import is_pseudonym
from session_ledger.ledger.ledger import Ledger
from session_ledger.ledger.log.port import Log
from session_ledger.projections import reading
from session_ledger.projections.analytics.snapshots import latest, open_latest
from session_ledger.projections.store import Store
from session_ledger.schemas.codec import Codec
from session_ledger.security.signing import Signer
from session_ledger.security.vault import Vault

VAULT, CACHES, VIEWS, ANALYTICS = "vault", "key caches", "views", "analytics"
STORES = (VAULT, CACHES, VIEWS, ANALYTICS)
CONTROL = -1
NO_WAY_BACK = "; the way back from the pseudonym too"
US_A_SECOND = 1_000_000
ERASE_EVERY_S = 1.0  # how soon what was erased by another process is carried out


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an erasure is."""

    erasure: Erasure
    confirmed: dict[str, tuple[str, int]]
    """Store to (detail, when), microseconds since the epoch."""
    waiting: dict[str, str]
    """Store to what is waited for."""
    held: tuple[str, ...] = ()
    """Users of an erased tenant whose content a legal hold keeps."""


class Eraser:
    """Use from one thread at a time; a context manager that closes its store."""

    def __init__(
        self,
        log: Log,
        codec: Codec,
        views: Store,
        vault: Vault,
        directory: Path,
        signer: Signer,
        *,
        cached_s: float,
        clock_us: Callable[[], int],
        ledger: Ledger | None = None,
    ) -> None:
        """`cached_s`: how long any process may go on opening with a key that is gone. `clock_us`: UTC.

        `directory`: the ledger's. `ledger`: where the erasures of a tenant's users are appended; None: others do that.
        Raises ProjectionForeign, Misconfigured.
        """
        self._vault, self._signer = vault, signer
        self._directory = directory
        self._cached_us = round(cached_s * US_A_SECOND)
        self._clock_us = clock_us
        self._ledger = None if ledger is None else ledger.itself  # an erasure that stands in the log was allowed
        self._log = log
        self._views = views
        self._projector = Projector(log, codec, views)
        self.store = ErasureStore(directory / "erasures.db", log.log_id)
        self._tail = Tail([log.control, *log.partitions], codec, self.store, stepped_over=self._stepped_over)

    def _stepped_over(self, partition: int) -> frozenset[int]:
        return frozenset(record.position for record in self._views.quarantined(partition))

    def __enter__(self) -> Eraser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the record of erasures. Idempotent."""
        self.store.close()

    def step(self) -> list[Progress]:
        """Note what was erased since, take every erasure as far as it goes now; those that are not complete.

        Raises LogUnavailable, KeyUnavailable, PartitionStopped.
        """
        self._tail.catch_up()
        unfinished = self.store.erasures(unfinished=True)
        if unfinished:
            self._projector.catch_up()
        progress = [self._carry_out(erasure) for erasure in unfinished]
        return [one for one in progress if one.waiting or one.held]

    def run(self, stop: threading.Event, on_error: Callable[[SessionLedgerError], None]) -> None:
        """Go on until `stop` is set; an error that may pass is told and the step is taken again."""
        while not stop.wait(ERASE_EVERY_S):
            try:
                self.step()
            except SessionLedgerError as error:
                if not error.retriable:
                    raise
                on_error(error)

    def _carry_out(self, erasure: Erasure) -> Progress:
        held: tuple[str, ...] = ()
        if erasure.partition == CONTROL:
            held = self._erase_users(erasure)
        elif erasure.destroyed_at is None:
            self._destroy(erasure)
        found = self._found(erasure)
        waiting = {} if held else self._confirm(found)
        confirmed = self.store.confirmations(found)
        if not waiting and not held:
            now = self._clock_us()
            receipt = receipt_of(found, confirmed, self.store.reveals(found), now)
            self.store.completed(found, self._signer.sign(receipt), now)
        return Progress(self._found(erasure), confirmed, waiting, held)

    def _found(self, erasure: Erasure) -> Erasure:
        found = self.store.erasure(erasure.event_id)
        assert found is not None, "nothing deletes one"
        return found

    def progress(self, partition: int, position: int) -> Progress | None:
        """How far the erasure is that stands there, as of the last step."""
        shown = [
            one for one in self.all_progress() if (one.erasure.partition, one.erasure.position) == (partition, position)
        ]
        return shown[0] if shown else None

    def all_progress(self) -> list[Progress]:
        """Of every erasure, as of the last step."""
        return [
            Progress(
                erasure,
                self.store.confirmations(erasure),
                {} if erasure.completed_at is not None or erasure.destroyed_at is None else self._confirm(erasure),
            )
            for erasure in self.store.erasures()
        ]

    # --- keys ---------------------------------------------------------------------------------------------------------

    def _destroy(self, erasure: Erasure) -> None:
        if erasure.session_id is not None:
            keys = self._vault.destroy(erasure.tenant, erasure.user, [erasure.session_id])
        else:
            sessions = self._sessions_before(erasure)
            keys = self._vault.destroy(erasure.tenant, erasure.user, sessions)
            keys += self._vault.destroy_account(erasure.tenant, erasure.user, erasure.key_id)
            if erasure.user:
                self._vault.tenants.pseudonyms.destroy(erasure.tenant, erasure.user)
        self._vault.scrub()
        self.store.destroyed(erasure, keys, self._clock_us())

    def _sessions_before(self, erasure: Erasure) -> list[bytes]:
        with self._views.reading() as db:
            return [
                row[0]
                for row in db.execute(
                    "SELECT session_id FROM sessions WHERE tenant = ? AND user = ? AND created_position < ?",
                    (erasure.tenant, erasure.user, erasure.position),
                )
            ]

    def _erase_users(self, erasure: Erasure) -> tuple[str, ...]:
        """An erasure for each user of the tenant who has keys; those whose content is held, each of them once.

        The tenant takes no command any more, so a user who was erased since needs no second one.
        """
        erased = {
            one.user
            for one in self.store.erasures()
            if one.tenant == erasure.tenant and one.session_id is None and one.recorded_at >= erasure.recorded_at
        }
        with self._views.reading() as db:
            held = {row["user"] for row in reading.legal_holds(db, erasure.tenant)}
        users = [user for user in self._vault.users(erasure.tenant) if user and user not in erased]
        kept = [user for user in users if user in held or "" in held]
        for user in users:
            if user in kept:
                continue
            if self._ledger is None:
                raise LogUnavailable(
                    f"the users of tenant {erasure.tenant!r} are erased by who may append to the ledger"
                )
            try:
                self._ledger.erase_user(erasure.tenant, user, requested_by=erasure.requested_by, reason=erasure.reason)
            except UnderLegalHold:  # set since the views were read
                kept.append(user)
            except Forbidden as error:  # another process owns the ledger, and asks who sends what
                raise LogUnavailable(
                    f"the users of tenant {erasure.tenant!r} are erased by the ledger's owner, whose service goes on "
                    f"with it: {error}"
                ) from error
        self._tail.catch_up()
        self._projector.catch_up()
        for one in self.store.erasures(unfinished=True):
            if one.tenant == erasure.tenant and one.partition != CONTROL and one.destroyed_at is None:
                self._destroy(one)
        if not kept and erasure.destroyed_at is None:
            keys = self._vault.destroy_tenant(erasure.tenant)
            self._vault.scrub()
            self.store.destroyed(erasure, keys, self._clock_us())
        return tuple(kept)

    # --- confirmations ------------------------------------------------------------------------------------------------

    def _confirm(self, erasure: Erasure) -> dict[str, str]:
        """Let every store that has acted confirm; those that have not, and what is waited for."""
        now = self._clock_us()
        waiting: dict[str, str] = {}
        there = self.store.confirmations(erasure)
        for store in STORES:
            if store in there:
                continue
            done, detail = self._acted(store, erasure, now)
            if done:
                self.store.confirm(erasure, store, detail, now)
            else:
                waiting[store] = detail
        return waiting

    def _acted(self, store: str, erasure: Erasure, now: int) -> tuple[bool, str]:
        assert erasure.destroyed_at is not None
        if store == VAULT:
            no_way_back = erasure.session_id is None and is_pseudonym(erasure.user)
            return True, f"data keys destroyed: {erasure.keys}{NO_WAY_BACK if no_way_back else ''}"
        if store == CACHES:
            until = erasure.destroyed_at + self._cached_us
            seconds = self._cached_us // US_A_SECOND
            if now < until:
                return False, f"{-(-(until - now) // US_A_SECOND)} s, until no process has a key that it opened before"
            return True, f"no process opens with a key for longer than {seconds} s after it was destroyed"
        if store == VIEWS:
            at = self._views.position(erasure.partition)
            return at >= erasure.position, f"folded to position {at}"
        return self._analytics(erasure)

    def _analytics(self, erasure: Erasure) -> tuple[bool, str]:
        place = self._directory / "analytics"
        if latest(place) is None:
            return True, "none were made"
        try:
            snapshot = open_latest(place)
        except (LogUnavailable, Misconfigured) as error:
            return False, str(error)
        with snapshot:
            at = snapshot.positions.get(erasure.partition, 0)
        return at >= erasure.position, f"published to position {at}"
