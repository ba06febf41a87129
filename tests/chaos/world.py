"""The world of a run: brokers with proxies before them (or a directory), and workers on one ledger."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from session_ledger.domain.errors import NotOwner, SessionLedgerError
from session_ledger.ledger.ledger import Ledger
from tests.broker.broker import Broker
from tests.broker.cluster import Cluster
from tests.chaos.history import Recorder
from tests.chaos.processes import Guard, Worker
from tests.chaos.workload import setting_up
from tests.log_kafka.proxy import Proxy

NAME = "chaos"
WORKERS = 3
PAUSE_MS = 15  # a caller's mean pause: a load that two cores bear
SERVE_S = 60.0  # within this the ledger serves again when nothing hinders it
STOP_S = 90.0  # what a worker may take to hear its last answers and to close
POLL_S = 0.02


class NotServing(Exception):
    """The ledger did not serve within the time that it has: a violation of liveness."""


class World:
    """A context manager; whatever it started has ended when it is left."""

    def __init__(self, directory: Path, seed: str, log: str, brokers: int, partitions: int, callers: int) -> None:
        """`log`: "kafka" or "sqlite"; `brokers`: 1 or 3; `callers` of each worker."""
        self.directory, self.log, self.partitions = directory, log, partitions
        self.replica = directory / "ledger"
        self.brokers: list[Broker] = []
        self.proxies: list[Proxy] = []
        self.workers: list[Worker] = []
        self.cluster: Cluster | None = None
        self._seed, self._callers, self._broker_count = seed, callers, brokers
        self._closing = ExitStack()

    def __enter__(self) -> World:
        with ExitStack() as closing:
            closing.enter_context(Guard())
            closing.callback(self._kill_brokers)
            if self.log == "kafka":
                self._start_brokers(closing)
            closing.callback(self._kill_workers)
            for number in range(WORKERS):
                url = self.url(behind_proxy=number != 0)
                name = f"worker-{number}"
                self.workers.append(Worker(name, url, self.directory, self._seed, self.partitions, self._callers))
            self._closing = closing.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def _start_brokers(self, closing: ExitStack) -> None:
        if self._broker_count == 1:
            self.brokers = [Broker(self.directory / "broker")]
            self.brokers[0].start()
        else:
            self.cluster = Cluster(self.directory)
            self.brokers = list(self.cluster.brokers.values())
            self.cluster.start()
        self.proxies = [closing.enter_context(Proxy(broker)) for broker in self.brokers]

    def _kill_brokers(self) -> None:
        for broker in self.brokers:
            broker.kill()

    def _kill_workers(self) -> None:
        for worker in self.workers:
            worker.kill()

    def url(self, *, behind_proxy: bool = False) -> str:
        """The ledger's; behind the proxy for all that goes to a broker."""
        if self.log == "sqlite":
            return f"sqlite:{self.replica}"
        ports = [broker.behind_proxy_port if behind_proxy else broker.port for broker in self.brokers]
        addresses = ",".join(f"127.0.0.1:{port}" for port in ports)
        return f"kafka://{addresses}/{NAME}?partitions={self.partitions}&replica={self.replica}"

    # --- beginning and ending -------------------------------------------------------------------------------------

    def set_up(self, recorder: Recorder) -> None:
        """Make the ledger, and start the workers on it."""
        with self.open() as ledger:
            for command in setting_up(self.partitions):
                with recorder.trying(command) as answer:
                    answer.result = ledger.submit(command).result()
        for worker in self.workers:
            worker.start(PAUSE_MS)

    def open(self, clock_us: Callable[[], int] | None = None) -> Ledger:
        """A fresh owner in this process. Raises NotServing."""
        deadline_s = time.monotonic() + SERVE_S
        while True:
            try:
                ledger = Ledger.open(self.url(), clock_us=clock_us)
            except SessionLedgerError as error:
                if not error.retriable or time.monotonic() > deadline_s:
                    raise NotServing(f"the ledger could not be opened for {SERVE_S:g} s: {error}") from error
                time.sleep(0.1)
                continue
            if ledger.is_owner:
                return ledger
            ledger.close()
            raise NotOwner("a worker is still there")

    def heal(self) -> None:
        """End whatever hinders: brokers run, nothing is lost on the way, clocks are right, workers run."""
        for proxy in self.proxies:
            proxy.lose = None
            proxy.dark.clear()
        for broker in self.brokers:
            if broker.running:
                broker.resume()
            else:
                broker.start()
        for worker in self.workers:
            worker.go_on()
            if not worker.running:
                worker.start(PAUSE_MS)
            worker.tell(do="clock", offset_s=0)

    def stop_workers(self) -> list[str]:
        """Let every worker end in order; the names of those that did not."""
        for worker in self.workers:
            worker.tell(do="stop")
        return [worker.name for worker in self.workers if not worker.stop(STOP_S)]

    # --- looking on -------------------------------------------------------------------------------------------------

    def owner(self, timeout_s: float = SERVE_S) -> Worker:
        """The worker that owns the ledger and serves. Raises NotServing."""
        found: list[Worker] = []

        def served() -> bool:
            nonlocal found
            found = [one for one in self.workers if one.running and one.owner_since_ns is not None]
            found.sort(key=lambda one: one.owner_since_ns or 0)
            return bool(found) and found[-1].served_as_owner_ns >= (found[-1].owner_since_ns or 0)

        self.wait(served, "no worker became the owner and acknowledged a command", timeout_s)
        return found[-1]

    def served_since(self, since_ns: int, timeout_s: float = SERVE_S) -> int:
        """When an owner that came after that time acknowledged its first command. Raises NotServing."""
        self.wait(
            lambda: any((one.owner_since_ns or 0) > since_ns and one.served_as_owner_ns > since_ns
                        for one in self.workers if one.running),
            "nobody took over and served", timeout_s,
        )  # fmt: skip
        return min(
            one.served_as_owner_ns
            for one in self.workers
            if (one.owner_since_ns or 0) > since_ns and one.served_as_owner_ns > since_ns
        )

    def wait(self, condition: Callable[[], bool], otherwise: str, timeout_s: float) -> None:
        """Until it holds; NotServing when it does not in time."""
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline_s:
                raise NotServing(f"{otherwise} within {timeout_s:g} s")
            time.sleep(POLL_S)
