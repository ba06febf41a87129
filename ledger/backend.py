"""Where the facade's commands go: to this process's shards, or over the command socket to the owner's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Protocol

from session_ledger.domain.commands import (
    Command,
    ExpireSessions,
    PublishSchema,
    RegisterAgent,
    RetireAgent,
    SessionCommand,
    SetLimits,
    UserCommand,
)
from session_ledger.domain.errors import InvalidInput, LedgerClosed
from session_ledger.domain.ids import slot_of_id, slot_of_user
from session_ledger.domain.results import Result, SessionsExpired
from session_ledger.ledger.commandsocket import CommandClient
from session_ledger.ledger.edge import Edge
from session_ledger.ledger.folds import PartitionFolds
from session_ledger.ledger.log.port import Log
from session_ledger.ledger.pending import Answer, FutureAnswer, LoopAnswer, Pending, Waiter
from session_ledger.ledger.shard import Shard
from session_ledger.security.port import Envelope

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

    def run(self, command: Command, timeout_s: float | None) -> Result:
        waiter = Waiter()
        self._queue(command, waiter)
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
        if self._closed:
            raise LedgerClosed("the ledger is closed: open it again")
        prepared, keys, size = self._edge.prepare(command)
        self._shard_of(prepared.command).submit(Pending(prepared, keys, size, answer))

    def _shard_of(self, command: Command) -> Shard:
        if isinstance(command, SessionCommand):
            slot = slot_of_id(command.session_id)
        elif isinstance(command, UserCommand):
            slot = slot_of_user(command.tenant, command.user)
        elif isinstance(command, (RegisterAgent, RetireAgent)):
            if command.agent_id is None:
                raise InvalidInput("agent_id", "None", "must be an id that carries its partition")
            slot = slot_of_id(command.agent_id)
        elif isinstance(command, (SetLimits, PublishSchema)):
            return self._control
        else:
            raise InvalidInput("command", f"a {type(command).__name__}", "must be a command of session_ledger.domain")
        return self._shards[slot & self._mask]

    def positions(self) -> list[int]:
        return [shard.position for shard in (*self._shards, self._control)]

    def expire_due(self) -> list[SessionsExpired]:
        expired: list[SessionsExpired] = []
        for shard in self._shards:
            folds = shard.folds
            assert isinstance(folds, PartitionFolds)
            due = shard.call(partial(folds.due_accounts, self._clock()))
            for first in range(0, len(due), SWEEP_COMMANDS):
                under_way = [
                    self.submit(ExpireSessions(tenant=tenant, user=user))
                    for tenant, user in due[first : first + SWEEP_COMMANDS]
                ]
                results = [future.result() for future in under_way]
                expired += [r for r in results if isinstance(r, SessionsExpired) and r.session_ids]
        return expired

    def close(self, timeout_s: float) -> int:
        if self._closed:
            return 0
        self._closed = True
        deadline_s = time.monotonic() + timeout_s
        left = sum(shard.close(deadline_s) for shard in (*self._shards, self._control))
        for close in self._closing:
            close()
        self.log.close()
        return left


class Remote:
    """The backend of a process that does not own the ledger: the owner answers."""

    def __init__(self, client: CommandClient) -> None:
        self._client = client

    def run(self, command: Command, timeout_s: float | None) -> Result:
        return self.submit(command).result(timeout_s)

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
