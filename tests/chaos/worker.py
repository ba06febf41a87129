"""A process of the run: opens the ledger, as its owner or as the owner's client, and calls it from threads and tasks.

python -m tests.chaos.worker URL HISTORY SEED PARTITIONS CALLERS PAUSE_MS

It obeys its standard input, a JSON object a line: ``{"do": "reopen", "take_over": true}``, ``{"do": "hush", "seconds":
2}`` (callers who write are silent for so long), ``{"do": "clock", "offset_s": 30}``, ``{"do": "stop"}``. It says on its
standard output what it became (``{"opened": "owner"}``) and when the first command of that time was acknowledged. It
ends at once when its standard input does: its runner is gone.
"""

from __future__ import annotations

import asyncio
import faulthandler
import json
import os
import random
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

from session_ledger.domain import errors
from session_ledger.domain.commands import Command
from session_ledger.domain.errors import SessionLedgerError
from session_ledger.domain.results import Result
from session_ledger.ledger.clocks import machine_clock_us
from session_ledger.ledger.ledger import Ledger
from tests.chaos.history import Answer, Outcome, Recorder, read
from tests.chaos.workload import Known, Workload

CLOSE_S = 5.0  # for what is queued in a ledger that is given up
AGAIN_S = 0.1  # between two tries to open
REPEATS_MAX = 200  # commands that wait to be repeated; beyond that the oldest stay as they are
SWEEP_EVERY_S = 1.0
SWEEPER = -1  # its number among the callers
EXPECTED_OF_OPEN = (errors.NotOwner, errors.LogUnavailable, errors.ClockUnreliable, errors.LedgerClosed)
_saying = threading.Lock()


def say(**fields: object) -> None:
    """A line for the runner."""
    with _saying:
        print(json.dumps(fields | {"at": time.monotonic_ns()}), flush=True)


class Holder:
    """Keeps a ledger open: whoever meets an error that only a new open ends says so by `renew`."""

    def __init__(self, url: str, recorder: Recorder) -> None:
        self._url, self._recorder = url, recorder
        self._changed = threading.Condition()
        self._ledger: Ledger | None = None
        self._generation = 0
        self._served = 0
        self._stale = threading.Event()
        self._closing = threading.Event()
        self._take_over = False
        self.offset_us = 0
        self.stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep)
        self._thread.start()

    def _clock(self) -> int:
        return machine_clock_us() + self.offset_us

    def _keep(self) -> None:
        while not self.stopping.is_set():
            with self._changed:  # what is asked for from now on, also while this opens, is done after it
                self._stale.clear()
                take_over, self._take_over = self._take_over, False
            try:
                ledger = Ledger.open(self._url, clock_us=self._clock, take_over=take_over, close_timeout_s=CLOSE_S)
            except EXPECTED_OF_OPEN as error:
                say(refused=error.code)
                time.sleep(AGAIN_S)
                continue
            except Exception as error:  # noqa: BLE001 - told, and the run fails by it
                self._recorder.problem(f"opening: {error!r}")
                time.sleep(1.0)
                continue
            with self._changed:
                self._ledger, self._generation = ledger, self._generation + 1
                say(opened="owner" if ledger.is_owner else "client")
                self._changed.notify_all()
            while not self._stale.wait(AGAIN_S) and not self._closing.is_set():
                continue
            with self._changed:
                self._ledger = None
            try:
                ledger.close()
            except errors.LedgerClosed:
                say(refused="not all was served")
            except Exception as error:  # noqa: BLE001 - likewise
                self._recorder.problem(f"closing: {error!r}")
            say(closed=True)

    def get(self) -> tuple[int, Ledger] | None:
        """The open ledger and its number; waits for it. None: the process is to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._ledger is not None or self.stopping.is_set())
            return None if self._ledger is None or self.stopping.is_set() else (self._generation, self._ledger)

    def now(self) -> tuple[int, Ledger] | None:
        """The same without waiting; None also where nothing is open."""
        ledger = self._ledger
        return None if ledger is None or self.stopping.is_set() else (self._generation, ledger)

    def heard(self, generation: int, ledger: Ledger, answer: Answer) -> None:
        """Judge by an answer whether the ledger is of any more use, and tell of the first that was acknowledged."""
        if answer.outcome is Outcome.ACKNOWLEDGED and self._served != generation:
            self._served = generation
            say(served="owner" if ledger.is_owner else "client")
        code = "" if answer.error is None else answer.error.code
        over = {"not_owner", "ledger_closed"}
        if not ledger.is_owner:
            over |= {"log_unavailable", "outcome_unknown"}  # the owner went away
        elif answer.error is not None and "open the ledger again" in str(answer.error):
            over.add("log_unavailable")
        if code in over:
            self.renew(generation)

    def renew(self, generation: int | None = None, *, take_over: bool = False) -> None:
        """Close what is open (if it is still that one) and open again."""
        with self._changed:
            if generation is None or (generation == self._generation and self._ledger is not None):
                self._take_over |= take_over
                self._stale.set()

    def stop(self) -> None:
        """Open no more; whoever waits for a ledger is let go."""
        self.stopping.set()
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Close what is open, or is being opened."""
        self._closing.set()
        self._thread.join()


class Callers:
    """Threads, and tasks of one event loop, that call and repeat what they got no clear answer to."""

    def __init__(self, holder: Holder, recorder: Recorder, seed: str, partitions: int, pause_s: float) -> None:
        self._holder, self._recorder = holder, recorder
        self._seed, self._partitions, self._pause_s = seed, partitions, pause_s
        self._known = Known()
        self.repeats: deque[Command] = deque(maxlen=REPEATS_MAX)
        self._threads: list[threading.Thread] = []
        self.hushed_until_s = 0.0
        """Until then (of time.monotonic()) only reads are sent."""

    def start(self, callers: int) -> None:
        """Half of them are threads, half are tasks."""
        targets: list[Callable[[], None]] = [partial(self._call, number) for number in range(callers // 2)]
        targets.append(lambda: asyncio.run(self._tasks(range(callers // 2, callers))))
        targets.append(self._sweep)
        self._threads = [threading.Thread(target=target) for target in targets]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait until each has the answer that it waits for."""
        for thread in self._threads:
            thread.join()

    def _workload(self, number: int, luck: random.Random) -> Workload:
        """The first caller of a process only reads: it would hear an owner that has been followed answer."""
        return Workload(luck, self._known, self._partitions, reads=number == 0)

    def _hush_s(self, number: int) -> float:
        """How long that caller has to be silent."""
        return max(self.hushed_until_s - time.monotonic(), 0) if number else 0

    def _next(self, number: int, luck: random.Random, workload: Workload) -> Command:
        if number and self.repeats and luck.random() < 0.5:
            try:
                return self.repeats.popleft()
            except IndexError:
                return workload.next()
        return workload.next()

    def _after(self, luck: random.Random, generation: int, ledger: Ledger, command: Command, answer: Answer) -> float:
        """Learn, repeat what is open (and some of what failed); how long to pause."""
        self._holder.heard(generation, ledger, answer)
        if answer.result is not None:
            self._known.learn(command, answer.result)
        if answer.outcome is Outcome.UNKNOWN or (answer.outcome is Outcome.FAILED and luck.random() < 0.3):
            self.repeats.append(command)
        return luck.uniform(0, 2 * self._pause_s) + (0.1 if answer.outcome is Outcome.FAILED else 0)

    def _call(self, number: int) -> None:
        luck = random.Random(f"{self._seed}-{number}")
        workload = self._workload(number, luck)
        while (held := self._holder.get()) is not None:
            if (hush_s := self._hush_s(number)) > 0:
                time.sleep(hush_s)
                continue
            generation, ledger = held
            command = self._next(number, luck, workload)
            with self._recorder.trying(command) as answer:
                answer.result = ledger._run(command, Result)  # as every method of the facade does
            time.sleep(self._after(luck, generation, ledger, command, answer))

    async def _tasks(self, numbers: range) -> None:
        await asyncio.gather(*(self._task(number) for number in numbers))

    async def _task(self, number: int) -> None:
        luck = random.Random(f"{self._seed}-{number}")
        workload = self._workload(number, luck)
        while (held := self._holder.now() or await asyncio.to_thread(self._holder.get)) is not None:
            if (hush_s := self._hush_s(number)) > 0:
                await asyncio.sleep(hush_s)
                continue
            generation, ledger = held
            command = self._next(number, luck, workload)
            with self._recorder.trying(command) as answer:
                answer.result = await ledger.asubmit(command)
            await asyncio.sleep(self._after(luck, generation, ledger, command, answer))

    def _sweep(self) -> None:
        while (held := self._holder.get()) is not None:
            generation, ledger = held
            if (hush_s := self._hush_s(SWEEPER)) > 0:
                time.sleep(hush_s)
                continue
            try:
                ledger.expire_due()
            except SessionLedgerError as error:
                answer = Answer(error=error, outcome=Outcome.FAILED)
                self._holder.heard(generation, ledger, answer)
            self._holder.stopping.wait(SWEEP_EVERY_S)


def main(url: str, history: str, seed: str, partitions: str, callers: str, pause_ms: str) -> None:
    """Run until told to stop."""
    faulthandler.register(signal.SIGUSR1)
    path = Path(history)
    output = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
    by = f"{path.stem}/{os.getpid()}"
    recorder = Recorder(output, by)
    before = read([path])
    os.write(output, b"\n")  # ends a line that a kill cut off
    holder = Holder(url, recorder)
    calling = Callers(holder, recorder, f"{seed}-{os.getpid()}", int(partitions), int(pause_ms) / 1000)
    calling.repeats.extend(one.command() for one in before.unsettled())
    calling.start(int(callers))
    for text in sys.stdin:
        told = json.loads(text)
        if told["do"] == "reopen":
            holder.renew(take_over=told["take_over"])
        elif told["do"] == "clock":
            holder.offset_us = int(told["offset_s"] * 1_000_000)
        elif told["do"] == "hush":
            calling.hushed_until_s = time.monotonic() + told["seconds"]
        else:
            holder.stop()
            calling.join()
            holder.close()
            say(ended=True)
            return
    os._exit(1)  # nobody is there any more


if __name__ == "__main__":
    main(*sys.argv[1:])
