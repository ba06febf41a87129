"""A command under way, and the three ways to answer it: a waiting thread, a future, an event loop's future."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from concurrent.futures import Future
from threading import Lock
from typing import Protocol

from session_ledger.domain.commands import Prepared
from session_ledger.domain.errors import KeyNotStored, OutcomeUnknown
from session_ledger.domain.results import Result
from session_ledger.security.port import Kept

Outcome = Result | BaseException
_logger = logging.getLogger("session_ledger.pending")


class Answer(Protocol):
    """Where the outcome of one command goes. `settle` is called once, from the shard's thread."""

    def settle(self, outcome: Outcome) -> None:
        """Give the result, or the error, to whoever waits."""


class Pending:
    """One queued command."""

    __slots__ = ("answer", "keys", "memory", "prepared", "size")

    def __init__(self, prepared: Prepared, keys: tuple[Kept, ...], size: int, memory: int, answer: Answer) -> None:
        self.prepared = prepared
        self.keys = keys
        self.size = size
        """Bytes that its events may take in the log, estimated from above."""
        self.memory = memory
        """Bytes that it takes while it waits: the command as given, and what was sealed of it."""
        self.answer = answer

    def check_keys(self) -> None:
        """Raise KeyNotStored where what it was sealed by is being destroyed."""
        for key in self.keys:
            if key.revoked:
                raise KeyNotStored("its content was erased while the command waited: nothing was recorded, repeat it")


class Waiter:
    """Lets one thread wait: a bare lock, several times cheaper than a `Future`."""

    __slots__ = ("_lock", "_outcome")

    def __init__(self) -> None:
        self._lock = Lock()
        self._lock.acquire()
        self._outcome: Outcome | None = None

    def settle(self, outcome: Outcome) -> None:
        """Wake the thread that waits."""
        self._outcome = outcome
        self._lock.release()

    def result(self, timeout_s: float | None) -> Result:
        """Wait for the outcome; raises it if it is an error, OutcomeUnknown when the time is over."""
        if not self._lock.acquire(timeout=-1 if timeout_s is None else timeout_s):
            raise OutcomeUnknown(
                f"no answer within {timeout_s} s: the command may or may not be recorded; "
                "repeat it with the same command id to find out"
            )
        outcome = self._outcome
        if isinstance(outcome, BaseException):
            raise outcome
        assert outcome is not None
        return outcome


class FutureAnswer:
    """Settles a `concurrent.futures.Future`."""

    __slots__ = ("future",)

    def __init__(self) -> None:
        self.future: Future[Result] = Future()
        self.future.set_running_or_notify_cancel()  # a command that was taken can not be cancelled

    def settle(self, outcome: Outcome) -> None:
        """Settle the future; its callbacks run in the shard's thread."""
        if isinstance(outcome, BaseException):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


class LoopAnswer:
    """Settles an asyncio future; `settle_all` hands a whole append's answers to the loop in one call."""

    __slots__ = ("_loop", "future")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.future: asyncio.Future[Result] = loop.create_future()

    def settle(self, outcome: Outcome) -> None:
        """Settle the future from another thread."""
        settle_all([(self, outcome)])

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that waits."""
        return self._loop


def settle_all(answers: Iterable[tuple[Answer, Outcome]]) -> None:
    """Answer many: threads and futures one by one, each event loop with one call. One that fails harms no other."""
    loops: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Result], Outcome]]] = {}
    for answer, outcome in answers:
        if type(answer) is LoopAnswer:
            loops.setdefault(answer.loop, []).append((answer.future, outcome))
            continue
        try:
            answer.settle(outcome)
        except BaseException:
            _logger.exception("a callback on the answer to a command failed")
    for loop, settled in loops.items():
        try:
            loop.call_soon_threadsafe(_settle_in_loop, settled)
        except RuntimeError:  # the loop was closed: nobody waits any more
            continue


def _settle_in_loop(settled: list[tuple[asyncio.Future[Result], Outcome]]) -> None:
    for future, outcome in settled:
        if future.done():  # cancelled by its waiter
            continue
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
