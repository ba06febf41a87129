"""The shard: the single writer of one partition.

Its thread takes whatever commands wait, decides them in order against the folded state, appends all their events at
once, and only then answers. So one append's cost is shared by every caller that waited for the one before it.
"""

from __future__ import annotations

import contextlib
import copy
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar, cast

from session_ledger.domain.commands import Prepared, RecordRefusals
from session_ledger.domain.decide import Decision
from session_ledger.domain.errors import (
    AppendFailed,
    LedgerClosed,
    LogUnavailable,
    NotOwner,
    OutcomeUnknown,
    Overloaded,
    SessionLedgerError,
)
from session_ledger.domain.events import TOPIC_BY_EVENT, ContentErased
from session_ledger.domain.ids import new_id
from session_ledger.ledger.answering import NOBODY, error_for, outcome_of, stopped
from session_ledger.ledger.clocks import append_time
from session_ledger.ledger.folds import Folds
from session_ledger.ledger.log.port import PartitionLog, Record
from session_ledger.ledger.pending import Pending, settle_all
from session_ledger.ledger.settings import Settings
from session_ledger.schemas.codec import Codec
from session_ledger.security.port import Envelope, Kept

TICK_S = 0.5  # how often an idle shard looks for coalesced refusals and behind checkpoints
SETTLE_PAUSE_S = 0.2  # between two looks for an append of unknown outcome
REFUSALS_EVERY_S = 1.0  # at most one QuotaRefused a second, a user and resource
STOP_S = 5.0  # how long a closed shard may take to notice that its deadline is over

T = TypeVar("T")


class Shard:
    """One partition's loop. `start` recovers the state and begins to serve; `submit` is thread-safe."""

    def __init__(
        self,
        log: PartitionLog,
        folds: Folds,
        codec: Codec,
        envelope: Envelope,
        settings: Settings,
        clock: Callable[[], int],
    ) -> None:
        """`clock` gives microseconds since the epoch, UTC."""
        self._log = log
        self._folds = folds
        self._codec = codec
        self._envelope = envelope
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()  # guards the queue against its end
        self._queue: deque[Pending] = deque()
        self._queued_bytes = 0
        self._calls: deque[tuple[Callable[[], object], Future[object]]] = deque()
        self._bell = threading.Lock()  # held: nothing has been rung. A bare lock costs a fraction of an Event
        self._bell.acquire()
        self._service = threading.Lock()  # held by who decides and appends: the loop, or a caller who found it idle
        self._failure: SessionLedgerError | None = None  # met by such a caller; it ends the loop
        self._closing = False
        self._abandoned = False
        self._ended_by: SessionLedgerError | None = None
        self._acknowledged = 0
        self._stale = False  # the states hold events that may not be in the log
        self._unsettled: tuple[bytes, int] | None = None  # an append whose outcome is not known yet
        self._refusals_at_s = time.monotonic()
        self._told_last = False  # the refusals that were left when the shard was closed
        name = "control" if log.partition < 0 else str(log.partition)
        self._thread = threading.Thread(target=self._run, name=f"session-ledger-shard-{name}", daemon=True)

    def start(self) -> None:
        """Fold the state up to the end of the log, then serve. Raises what the log raises."""
        self._folds.recover()
        self._acknowledged = self._folds.position
        self._now()
        self._thread.start()

    # --- the callers' side ----------------------------------------------------------------------------------------

    def submit(self, pending: Pending) -> None:
        """Queue a command. Raises Overloaded, LedgerClosed, or what ended the shard: then nothing was recorded."""
        settings = self._settings
        with self._lock:
            if self._ended_by is not None or self._closing:
                raise error_for(pending, self._ended_by or LedgerClosed("the ledger is closed: open it again"))
            if len(self._queue) >= settings.queue_commands_max or self._queued_bytes >= settings.queue_bytes_max:
                overloaded = Overloaded(
                    f"partition {self._log.partition} has {len(self._queue)} commands of {self._queued_bytes} bytes "
                    "waiting; nothing was recorded: repeat the command in a moment"
                )
                raise error_for(pending, overloaded)
            self._queued_bytes += pending.memory
            self._queue.append(pending)
        self._ring()

    def serve_now(self, pending: Pending) -> bool:
        """Serve one command in the caller's thread, where nothing waits and the loop is idle; False: `submit` it.

        A single caller is spared two changes of threads that way, about a quarter of its time. Its answer must be a
        `Waiter`, so that nobody else's code runs in here.
        """
        if self._queue or not self._service.acquire(blocking=False):
            return False
        try:
            if self._queue or self._closing or self._ended_by or self._failure or self._stale or self._folds.damaged:
                return False
            self._serve([pending])
            if not self._stale:
                self._folds.maintain(idle=False)
        except SessionLedgerError as error:  # everybody has been answered
            self._failure = error
        except Exception as error:  # noqa: BLE001 - likewise
            self._failure = stopped(self._log.partition, error)
        finally:  # an interrupt of the caller goes to the caller; what it left in doubt is settled by the loop
            self._service.release()
            if self._failure is not None or self._stale:
                self._ring()
        return True

    def call(self, function: Callable[[], T]) -> T:
        """Run a function in the shard's thread, between two appends, and return what it returns."""
        future: Future[T] = Future()
        with self._lock:
            if self._ended_by is not None or self._closing:
                raise copy.copy(self._ended_by) or LedgerClosed("the ledger is closed: open it again")
            self._calls.append((function, cast("Future[object]", future)))
        self._ring()
        return future.result()

    @property
    def position(self) -> int:
        """The position of the last event that is durable and acknowledged."""
        return self._acknowledged

    @property
    def folds(self) -> Folds:
        """The folded state; look at it inside `call` only."""
        return self._folds

    def proven_position(self) -> int:
        """`position`, told only if this process owned the partition a moment ago. Raises NotOwner, LogUnavailable."""

        def proven() -> int:
            self._log.prove_ownership()
            return self._acknowledged

        return self.call(proven)

    def take_no_more(self) -> None:
        """Refuse commands from now on, and let the loop end when what is queued is served."""
        with self._lock:
            self._closing = True
        self._ring()

    def close(self, deadline_s: float) -> int:
        """Take no more commands, serve what is queued, stop. `deadline_s`: of time.monotonic().

        Returns how many commands were not served; each was answered with LedgerClosed, nothing of it recorded. Those
        in an append that hangs past the deadline stay unanswered until it ends.
        """
        self.take_no_more()
        if self._thread.ident is None:  # never started
            self._folds.close(keep=False)
            return 0
        self._thread.join(max(deadline_s - time.monotonic(), 0))
        if self._thread.is_alive():
            self._abandoned = True
            left = self._reject(
                LedgerClosed("the ledger was closed before this command was taken; nothing was recorded")
            )
            self._thread.join(STOP_S)
            return left
        return 0

    def _ring(self) -> None:
        """Wake the loop if it waits, or keep it from waiting next."""
        if self._bell.locked():
            with contextlib.suppress(RuntimeError):  # somebody else rang at the same moment
                self._bell.release()

    # --- the loop -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while True:
                batch = self._take()
                with self._service:
                    if self._stale or self._folds.damaged or self._failure:
                        self._restore(batch)
                    if batch:
                        self._serve(batch)
                    if self._stale:
                        continue  # nothing may look at these states, nor write them to the state file
                    self._run_calls()
                    self._folds.maintain(idle=not batch)
                    self._record_refusals()
                    if self._closing and not self._queue:
                        break
        except SessionLedgerError as error:
            self._end(error)
        except BaseException as error:
            self._end(stopped(self._log.partition, error))
            raise
        else:
            self._end(LedgerClosed("the ledger is closed: open it again"))

    def _end(self, error: SessionLedgerError) -> None:
        with self._lock:
            self._ended_by = error
        self._reject(error)
        self._folds.close(keep=not self._stale)

    def _reject(self, error: SessionLedgerError) -> int:
        with self._lock:
            rejected, self._queue = self._queue, deque()
            self._queued_bytes = 0
            calls, self._calls = self._calls, deque()
        settle_all((pending.answer, error_for(pending, error)) for pending in rejected)
        for _, future in calls:
            future.set_exception(copy.copy(error))
        return len(rejected)

    def _take(self) -> list[Pending]:
        """What waits now, in order, up to the limits of one append; [] when nothing came within a tick."""
        while not (self._queue or self._calls or self._closing) and self._bell.acquire(timeout=TICK_S):
            continue  # rung for what was taken with the batch before
        batch: list[Pending] = []
        size = 0
        commands_max, bytes_max = self._settings.batch_commands_max, self._settings.batch_bytes_max
        with self._lock:
            queue = self._queue
            while queue and len(batch) < commands_max:
                size += queue[0].size
                if size > bytes_max and batch:
                    break
                batch.append(queue.popleft())
            self._queued_bytes -= sum(pending.memory for pending in batch)
        return batch

    def _run_calls(self) -> None:
        while self._calls:
            function, future = self._calls.popleft()
            try:
                future.set_result(function())
            except Exception as error:  # noqa: BLE001 - handed to the caller who waits
                future.set_exception(error)

    def _record_refusals(self) -> None:
        uncounted = self._folds.uncounted
        if not uncounted or self._told_last:
            return
        if self._closing:
            self._told_last = True
            time.sleep(REFUSALS_EVERY_S)
        elif time.monotonic() - self._refusals_at_s < REFUSALS_EVERY_S:
            return
        self._refusals_at_s = time.monotonic()
        now = self._clock()
        for tenant, user in list(uncounted):
            command = RecordRefusals(tenant=tenant, user=user)
            self._queue.append(Pending(Prepared(command, new_id(now), b""), (), 0, 0, NOBODY))

    def _now(self) -> int:
        return append_time(self._log, self._folds.recorded_at, self._clock(), self._settings.clock_skew_max_s)

    # --- one batch ------------------------------------------------------------------------------------------------

    def _serve(self, batch: list[Pending]) -> None:
        try:
            now = self._now()
        except BaseException as error:
            told = error if isinstance(error, SessionLedgerError) else stopped(self._log.partition, error)
            settle_all((pending.answer, error_for(pending, told)) for pending in batch)
            if isinstance(error, SessionLedgerError) and not isinstance(error, NotOwner):
                return
            raise
        batch_id = os.urandom(16)
        records: list[Record] = []
        served: list[tuple[Pending, Decision, int]] = []
        keys: list[Kept] = []
        try:
            for pending in batch:
                decision = self._decide(pending, now, batch_id, records)
                if decision.events:
                    keys.extend(key for key in pending.keys if not key.durable)
                served.append((pending, decision, self._folds.position))
            if records:
                if keys:
                    self._envelope.make_durable(keys)
                self._append(records, batch_id)
                self._folds.appended(batch_id)
                self._acknowledged = records[-1].position
            else:
                self._log.prove_ownership()
        except SessionLedgerError as error:
            if records:
                self._unsettled = (batch_id, records[0].position) if isinstance(error, OutcomeUnknown) else None
                self._stale = True
            settle_all((pending.answer, error_for(pending, error)) for pending in batch)
            if isinstance(error, NotOwner):
                raise
            return
        except BaseException as error:  # a defect: the shard ends; or the caller's interrupt. Nobody is left waiting
            self._unsettled = (batch_id, records[0].position) if records else None
            self._stale = True
            unknown = OutcomeUnknown(f"the shard failed ({error!r}); repeat the command with the same id to find out")
            settle_all((pending.answer, error_for(pending, unknown)) for pending in batch)
            raise
        settle_all(
            [
                (pending.answer, outcome_of(self._log, self._codec, pending, decision, end))
                for pending, decision, end in served
            ]
        )

    def _decide(self, pending: Pending, now: int, batch_id: bytes, records: list[Record]) -> Decision:
        """Decide one command, fold its events in and add their records; a command that fails adds nothing."""
        folds = self._folds
        try:
            pending.check_keys()
            decision = folds.decide(pending.prepared, now, lambda: new_id(now))
            if not decision.events:
                return decision
            encode = self._codec.encode
            values = [encode(event) for event in decision.events]
        except SessionLedgerError as error:
            return Decision([], error)
        except Exception as error:  # noqa: BLE001 - a defect in one command must not end the others'
            return Decision([], AppendFailed(f"the command could not be decided: {error!r}; nothing was recorded"))
        position = folds.position
        for event, value in zip(decision.events, values, strict=True):
            position += 1
            key = f"{event.tenant}/{event.user}"
            topic = TOPIC_BY_EVENT[type(event)]
            records.append(Record(position, batch_id, event.originator_id, event.version, topic, value, key))
            folds.evolve(event, position)
            if type(event) is ContentErased:  # what comes next is sealed anew, even if this append fails
                self._envelope.forget(event.tenant, event.user, event.session_id)
        return decision

    def _append(self, records: list[Record], batch_id: bytes) -> None:
        try:
            self._log.append(records)
        except OutcomeUnknown as unknown:
            if not self._settled(batch_id, records[0].position, unknown):
                raise AppendFailed("the log did not take the append: nothing was recorded, repeat it") from unknown

    def _settled(self, batch_id: bytes, first_position: int, unknown: OutcomeUnknown) -> bool:
        deadline_s = time.monotonic() + self._settings.settle_timeout_s
        while True:
            try:
                return self._log.settle(batch_id, first_position)
            except LogUnavailable:
                if time.monotonic() > deadline_s or self._abandoned:
                    raise unknown from None
                time.sleep(SETTLE_PAUSE_S)
            except SessionLedgerError as error:  # losing the ledger makes nothing known; the next look ends the shard
                raise unknown from error

    def _restore(self, batch: list[Pending]) -> None:
        """After a failed append the states hold events that are not in the log: drop them and fold again.

        While the log can not be reached, commands (those of `batch`, which is emptied, and what is queued) are answered
        at once with a retriable error.
        """
        while True:
            try:
                if self._failure is not None:
                    raise self._failure
                if self._unsettled is not None:
                    self._log.settle(*self._unsettled)
                    self._unsettled = None
                self._folds.recover()
                self._acknowledged = self._folds.position
                self._stale = False
                return
            except BaseException as error:  # a defect, too: nobody is left waiting
                told = error if isinstance(error, SessionLedgerError) else stopped(self._log.partition, error)
                settle_all([(pending.answer, error_for(pending, told)) for pending in batch])
                batch.clear()
                if self._closing or not isinstance(error, LogUnavailable) or self._failure is not None:
                    raise
                self._reject(error)
                time.sleep(SETTLE_PAUSE_S)
