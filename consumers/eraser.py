"""The eraser: carries out what the log says was erased, and collects who has acted on it.

An erasure is a fact first (`ContentErased`). Then, each step taken again after a crash until it is noted as done:

1. the views fold up to it, which takes the ciphertext out of their rows and tells the sessions it covers;
2. the data keys are destroyed in the vault, physically, and of a user the way back from the pseudonym;
3. every store confirms: the views, the analytics' snapshot, and the caches of keys, which no process holds longer
   than `cached_s` after the keys are gone;
4. the receipt is signed.

A tenant's erasure appends one for each user first, and is complete after those. Any number of erasers may run; each
step is idempotent. What is in the way of one erasure keeps no other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import duckdb

from session_ledger.consumers.destroying import CONTROL, Destroying
from session_ledger.consumers.erasure_receipt import keys_destroyed, receipt_of
from session_ledger.consumers.erasure_store import FILE, Erasure, ErasureStore
from session_ledger.consumers.projector import Projector
from session_ledger.consumers.sole import sole_writer
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
USERS, RECEIPT = "users", "receipt"  # waited for too, though they are no stores
NONE_MADE = "none are in the ledger's directory"
LOCK_FILE = "erasing.lock"  # held by who appends the erasures of a tenant's users
Published = tuple[dict[int, int] | None, str]
NO_WAY_BACK = "; the way back from the pseudonym is destroyed too"
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
        signer: Callable[[], Signer],
        *,
        cached_s: float,
        clock_us: Callable[[], int],
        ledger: Ledger | None = None,
    ) -> None:
        """`cached_s`: how long any process may go on opening with a key that is gone. `clock_us`: UTC.

        `directory`: the ledger's. `signer` gives what signs receipts, once there is one to sign. `ledger`: where the
        erasures of a tenant's users are appended; None: others do that.
        Raises ProjectionForeign, Misconfigured.
        """
        self._vault, self._signer = vault, signer
        self._directory = directory
        self._cached_us = round(cached_s * US_A_SECOND)
        self._clock_us = clock_us
        self._ledger = None if ledger is None else ledger.itself  # an erasure that stands in the log was allowed
        self._views = views
        self._projector = Projector(log, codec, views)
        self.store = ErasureStore(directory / FILE, log.log_id)
        self._tail = Tail([log.control, *log.partitions], codec, self.store, stepped_over=self._stepped_over)
        self._destroying = Destroying(vault, views, self.store, self._fold, self._fail, self._now)
        self.obstacles: list[SessionLedgerError] = []
        """What kept the last step from going further; what it is not about went on."""
        self._failed: dict[bytes, SessionLedgerError] = {}
        self._held: dict[bytes, tuple[str, ...]] = {}
        self._published: Published | None = None  # as of this step

    def _now(self) -> int:
        return self._clock_us()

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

        What keeps one of them, or a partition, is in `obstacles`, and in what is shown as waiting; the others go on.
        Raises LogUnavailable where the record of erasures can not be used.
        """
        self.obstacles, self._failed, self._held, self._published = [], {}, {}, None
        self._follow()
        unfinished = self.store.erasures(unfinished=True)
        tenants = [one for one in unfinished if one.partition == CONTROL]
        if tenants:
            for tenant in tenants:
                self._erase_users(tenant)
            self._follow()
            unfinished = self.store.erasures(unfinished=True)
        elif unfinished:
            self._fold()
        keyed = [one for one in unfinished if one.destroyed_at is None]
        self._destroying.destroy([one for one in keyed if one.partition != CONTROL])
        self._destroying.destroy([one for one in keyed if one.partition == CONTROL and self._is_next(one)])
        unfinished.sort(key=lambda one: one.partition == CONTROL)  # after those of its users
        progress = [self._carry_out(erasure) for erasure in unfinished]
        return [one for one in progress if one.waiting or one.held]

    def run(self, stop: threading.Event, on_error: Callable[[SessionLedgerError], None]) -> None:
        """Go on until `stop` is set; what is in the way is told, and the step is taken again, whatever it was."""
        while not stop.wait(ERASE_EVERY_S):
            try:
                self.step()
            except SessionLedgerError as error:
                on_error(error)
            for obstacle in self.obstacles:
                on_error(obstacle)

    def find(self, event_id: bytes) -> Erasure | None:
        """The erasure that the event of that id records; where it is not noted yet, the log is followed first.

        Nothing is carried out. What keeps a partition from being read is in `obstacles`. Raises LogUnavailable.
        """
        found = self.store.erasure(event_id)
        if found is None:
            self.obstacles = []
            self._follow()
            found = self.store.erasure(event_id)
        return found

    def _follow(self) -> None:
        """Note what the log says, of every partition that can be read."""
        try:
            self._tail.catch_up(raise_stopped=False)
        except SessionLedgerError as error:
            self._meet(error)
        for stop in self._tail.stopped.values():
            self._meet(stop)

    def _fold(self) -> None:
        try:
            self._projector.catch_up()
        except SessionLedgerError as error:  # the others are folded; who needs this one looks at its position
            self._meet(error)

    def _meet(self, error: SessionLedgerError) -> None:
        if str(error) not in map(str, self.obstacles):
            self.obstacles.append(error)

    def _fail(self, erasure: Erasure, error: SessionLedgerError) -> None:
        self._failed[erasure.event_id] = error
        self._meet(error)

    def _carry_out(self, erasure: Erasure) -> Progress:
        try:
            shown = self._shown(self._found(erasure))
            if not shown.waiting and not shown.held:
                now = self._clock_us()
                reveals = self.store.reveals(shown.erasure)
                receipt = receipt_of(shown.erasure, shown.confirmed, reveals, now)
                self.store.completed(erasure, self._signer().sign(receipt), now)
            return Progress(self._found(erasure), shown.confirmed, shown.waiting, shown.held)
        except SessionLedgerError as error:
            self._fail(erasure, error)
            return self._shown(self._found(erasure))

    def _found(self, erasure: Erasure) -> Erasure:
        found = self.store.erasure(erasure.event_id)
        assert found is not None, "nothing deletes one"
        return found

    def progress(self, partition: int, position: int) -> Progress | None:
        """How far the erasure is that stands there, as of the last step."""
        found = self.store.at(partition, position)
        return None if found is None else self._shown(found)

    def waits_for(self, erasure: Erasure) -> dict[str, str]:
        """What keeps it from being complete, without a step: store to what is waited for."""
        return self._shown(erasure).waiting or {RECEIPT: "to be signed by the next step, which says what keeps it"}

    def all_progress(self) -> list[Progress]:
        """Of every erasure, as of the last step."""
        return [self._shown(erasure) for erasure in self.store.erasures()]

    def _shown(self, erasure: Erasure) -> Progress:
        held, failed = self._held.get(erasure.event_id, ()), self._failed.get(erasure.event_id)
        waiting: dict[str, str] = {}
        if erasure.completed_at is None and not held:
            if erasure.destroyed_at is None:
                others = " after those of its users" if erasure.partition == CONTROL else ", by the next step"
                waiting[VAULT] = str(failed or f"its keys are destroyed{others}")
            else:
                waiting = self._confirm(erasure) or ({} if failed is None else {RECEIPT: str(failed)})
        return Progress(erasure, self.store.confirmations(erasure), waiting, held)

    # --- tenants ------------------------------------------------------------------------------------------------------

    def _erase_users(self, erasure: Erasure) -> None:
        """An erasure for each user of the tenant who has keys. Beside another eraser, one of them does it."""
        try:
            give_up = sole_writer(self._directory, LOCK_FILE, f"erasures of the users of tenant {erasure.tenant!r}")
            try:
                self._follow()
                self._fold()
                self._held[erasure.event_id] = self._ask_for_users(erasure)
            finally:
                give_up()
        except SessionLedgerError as error:
            self._fail(erasure, error)

    def _ask_for_users(self, erasure: Erasure) -> tuple[str, ...]:
        """Append them; who is held, and not erased yet. The tenant takes no command, so nobody needs a second one."""
        of_tenant = [one for one in self.store.erasures() if one.tenant == erasure.tenant and one.session_id is None]
        erased = {one.user for one in of_tenant if one.recorded_at >= erasure.recorded_at}
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
        return tuple(kept)

    def _is_next(self, tenant: Erasure) -> bool:
        """Whether its users were asked for in this step, none is held, and their keys are gone: so its own can go."""
        return self._held.get(tenant.event_id) == () and all(one.destroyed_at for one in self._of_users(tenant))

    def _of_users(self, tenant: Erasure) -> list[Erasure]:
        unfinished = self.store.erasures(unfinished=True)
        return [one for one in unfinished if one.tenant == tenant.tenant and one.partition != CONTROL]

    # --- confirmations ------------------------------------------------------------------------------------------------

    def _confirm(self, erasure: Erasure) -> dict[str, str]:
        """Let every store that has acted confirm; those that have not, and what is waited for."""
        now = self._clock_us()
        waiting: dict[str, str] = {}
        there = self.store.confirmations(erasure)
        if erasure.partition == CONTROL and (others := len(self._of_users(erasure))):
            waiting[USERS] = f"{others} erasures of its users are not complete"
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
            return True, keys_destroyed(erasure) + (NO_WAY_BACK if no_way_back else "")
        if store == CACHES:
            until = erasure.destroyed_at + self._cached_us
            seconds = self._cached_us // US_A_SECOND
            if now < until:
                return False, f"{-(-(until - now) // US_A_SECOND)} s, until no process has a key that it opened before"
            return (
                True,
                f"{seconds} s are over, for which a process may use a key that it opened before",
            )
        if store == VIEWS:
            at = self._views.position(erasure.partition)
            return at >= erasure.position, f"folded to position {at}"
        return self._analytics(erasure)

    def _analytics(self, erasure: Erasure) -> tuple[bool, str]:
        if self._published is None:
            self._published = self._look()
        positions, detail = self._published
        if positions is None:
            return detail == NONE_MADE, detail
        at = positions.get(erasure.partition, 0)
        return at >= erasure.position, f"published to position {at}"

    def _look(self) -> Published:
        """The positions of the newest snapshot; None: there is none to be had, and why."""
        place = self._directory / "analytics"
        if latest(place) is None:
            return None, NONE_MADE
        try:
            with open_latest(place) as snapshot:
                return snapshot.positions, ""
        except (LogUnavailable, Misconfigured, duckdb.Error) as error:
            return None, str(error)
