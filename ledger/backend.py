"""Where the facade's commands go: to this process's shards, or over the command socket to the owner's."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from typing import Protocol

from session_ledger.domain.commands import (
    Command,
    EraseTenant,
    ExpireSessions,
    LiftTenantHold,
    Prepared,
    PublishSchema,
    RegisterAgent,
    RetireAgent,
    SessionCommand,
    SetLimits,
    SetRetention,
    SetTenantHold,
    UserCommand,
)
from session_ledger.domain.decision import EXPIRIES_MAX
from session_ledger.domain.errors import InvalidInput, LedgerClosed, NotOwner, SessionLedgerError
from session_ledger.domain.ids import new_id, slot_of_id, slot_of_user
from session_ledger.domain.results import Result, SessionsExpired
from session_ledger.ledger.commandsocket import CommandClient
from session_ledger.ledger.edge import EVENT_OVERHEAD_BYTES, Edge
from session_ledger.ledger.folds import PartitionFolds
from session_ledger.ledger.log.port import Log
from session_ledger.ledger.pending import Answer, FutureAnswer, LoopAnswer, Outcome, Pending, Waiter
from session_ledger.ledger.shard import Shard
from session_ledger.ledger.statefile import AccountKey
from session_ledger.security.port import Envelope

_logger = logging.getLogger("session_ledger.backend")
SWEEP_COMMANDS = 500  # of a sweep in the queue at a time: callers find room beside them


class Backend(Protocol):
    """Takes commands and gives answers in the three forms that callers need."""

    def run(self, command: Command, timeout_s: float | None) -> Result:
        """Wait for the answer in this thread."""

    def submit(self, command: Command) -> Future[Result]:
        """A future of the answer."""

    def in_loop(self, command: Command) -> asyncio.Future[Result]:
        """A future of the running event loop."""

    def positions(self) -> list[int]:
        """The acknowledged position of each partition, the control log's last."""

    def expire_due(self) -> list[SessionsExpired]:
        """One sweep over every partition."""

    def close(self, timeout_s: float) -> int:
        """Drain and close; how many commands were not served."""


class Shards:
    """The owner's backend."""

    def __init__(
        self,
        log: Log,
        envelope: Envelope,
        edge: Edge,
        shards: Sequence[Shard],
        control: Shard,
        clock: Callable[[], int],
        closing: list[Callable[[], None]],
    ) -> None:
        """`closing`: what else is closed with it, in order; the socket first, the keys last."""
        self.log = log
        self.envelope = envelope
        self._closing = closing
        self._edge = edge
        self._shards = shards
        self._control = control
        self._clock = clock
        self._mask = len(shards) - 1  # the number of partitions is a power of two
        self._closed = False
        self._pid = os.getpid()

    def run(self, command: Command, timeout_s: float | None) -> Result:
        waiter = Waiter()
        self._assert_usable()
        pending = self._edge.prepare(command, waiter)
        shard = self._shard_of(pending.prepared.command)
        if timeout_s is not None or not shard.serve_now(pending):
            shard.submit(pending)
        return waiter.result(timeout_s)

    def submit(self, command: Command) -> Future[Result]:
        answer = FutureAnswer()
        self._queue(command, answer)
        return answer.future

    def in_loop(self, command: Command) -> asyncio.Future[Result]:
        answer = LoopAnswer(asyncio.get_running_loop())
        self._queue(command, answer)
        return answer.future

    def _queue(self, command: Command, answer: Answer) -> None:
        self._assert_usable()
        pending = self._edge.prepare(command, answer)
        self._shard_of(pending.prepared.command).submit(pending)

    def _assert_usable(self) -> None:
        if self._closed:
            raise LedgerClosed("the ledger is closed: open it again")
        if os.getpid() != self._pid:
            raise NotOwner(f"process {self._pid} owns the ledger and forked this one: open the ledger again in it")

    def _shard_of(self, command: Command) -> Shard:
        if isinstance(command, SessionCommand):
            slot = slot_of_id(command.session_id)
        elif isinstance(command, UserCommand):
            slot = slot_of_user(command.tenant, command.user)
        elif isinstance(command, (RegisterAgent, RetireAgent)):
            if command.agent_id is None:
                raise InvalidInput("agent_id", "None", "must be an id that carries its partition")
            slot = slot_of_id(command.agent_id)
            if isinstance(command, RegisterAgent) and slot > self._mask:
                raise InvalidInput("partition", str(slot), f"must be one of the ledger's, 0 to {self._mask}")
        elif isinstance(command, (SetLimits, PublishSchema, SetRetention, EraseTenant, SetTenantHold, LiftTenantHold)):
            return self._control
        else:
            raise InvalidInput("command", f"a {type(command).__name__}", "must be a command of session_ledger.domain")
        return self._shards[slot & self._mask]

    def positions(self) -> list[int]:
        self._assert_usable()
        return [shard.proven_position() for shard in (*self._shards, self._control)]

    def expire_due(self) -> list[SessionsExpired]:
        self._assert_usable()
        expired: list[SessionsExpired] = []
        failed: list[BaseException] = []
        for shard in self._shards:
            folds = shard.folds
            assert isinstance(folds, PartitionFolds)
            due = shard.call(partial(folds.due_accounts, self._clock()))
            while due:
                users, due = due[:SWEEP_COMMANDS], due[SWEEP_COMMANDS:]
                for user, outcome in zip(users, self._sweep(shard, users), strict=True):
                    if isinstance(outcome, BaseException):
                        failed.append(outcome)
                    elif isinstance(outcome, SessionsExpired) and outcome.session_ids:
                        expired.append(outcome)
                        if len(outcome.session_ids) >= EXPIRIES_MAX:
                            due.append(user)  # one decision expires so many at most
        if failed:
            _logger.warning("%d of the users that were due could not be swept; the others were", len(failed))
            raise failed[0]
        return expired

    def _sweep(self, shard: Shard, users: list[AccountKey]) -> list[Outcome]:
        """Expire what is due of some users. The ledger's own command: no key, no digest, nothing to validate."""
        answers = [FutureAnswer() for _ in users]
        for (tenant, user), answer in zip(users, answers, strict=True):
            prepared = Prepared(ExpireSessions(tenant=tenant, user=user), new_id(self._clock()), b"")
            try:
                shard.submit(Pending(prepared, (), EVENT_OVERHEAD_BYTES, EVENT_OVERHEAD_BYTES, answer))
            except SessionLedgerError as error:
                answer.settle(error)
        return [answer.future.exception() or answer.future.result() for answer in answers]

    def close(self, timeout_s: float) -> int:
        if self._closed or os.getpid() != self._pid:
            return 0  # a forked child closes nothing of its parent's
        self._closed = True
        deadline_s = time.monotonic() + timeout_s
        shards = (*self._shards, self._control)
        for shard in shards:
            shard.take_no_more()
        with ExitStack() as closing:
            closing.callback(self.log.close)
            for close in reversed(self._closing):
                closing.callback(close)
            return sum(shard.close(deadline_s) for shard in shards)


class Remote:
    """The backend of a process that does not own the ledger: the owner answers."""

    def __init__(self, client: CommandClient) -> None:
        self._client = client

    def run(self, command: Command, timeout_s: float | None) -> Result:
        return self._client.answer(command) if timeout_s is None else self.submit(command).result(timeout_s)

    def submit(self, command: Command) -> Future[Result]:
        return self._client.submit(command)

    def in_loop(self, command: Command) -> asyncio.Future[Result]:
        return asyncio.wrap_future(self.submit(command))

    def positions(self) -> list[int]:
        return self._client.positions()

    def expire_due(self) -> list[SessionsExpired]:
        return self._client.expire_due()

    def close(self, timeout_s: float) -> int:
        self._client.close()
        return 0
