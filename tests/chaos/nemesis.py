"""The faults, drawn from the seed: the same seed draws the same faults in the same order, with the same parameters.

When a fault meets which command is the machine's to decide: timing is not reproducible.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from session_ledger.ledger.log.kafka_producer import Producer
from session_ledger.ledger.log.kafka_records import barrier
from session_ledger.ledger.log.kafka_types import ClientError, ClientOptions
from tests.chaos.processes import Worker
from tests.chaos.world import NAME, PAUSE_MS, SERVE_S, NotServing, World

FAR_S = 90.0  # a clock so far off must not serve
NEAR_S = 45.0
HUSH_S = 1.0
LEASE_S = 6.5  # after which a stopped owner has lost its place


@dataclass(frozen=True, slots=True)
class Fault:
    """`seconds` it lasts, `pause_s` after it, `dice` in [0, 1) for what else it has to choose."""

    kind: str
    seconds: float
    pause_s: float
    dice: float


SECONDS: dict[str, tuple[float, float]] = {
    "kill_owner": (0, 0),
    "kill_client": (0, 1),
    "take_over": (0, 0),
    "pause_owner": (1, 10),
    "kill_broker": (0, 3),
    "pause_broker": (0.5, 8),
    "lose_answer": (0.2, 18),  # a commit is asked for again for 15 s; after that it is settled
    "lose_commit": (0.2, 18),
    "foreign_transaction": (0.5, 12),
    "clock_near": (1, 3),
    "clock_far": (1, 3),
    "kill_leader": (0, 4),
}
_SQLITE = ("kill_owner", "kill_client", "take_over", "pause_owner", "clock_near")


def kinds_of(log: str, brokers: int) -> Sequence[str]:
    """What can happen to a ledger on that log."""
    if log == "sqlite":
        return _SQLITE
    return [kind for kind in SECONDS if brokers > 1 or kind != "kill_leader"]


def plan(seed: str, kinds: Sequence[str]) -> Iterator[Fault]:
    """Faults without end; every kind comes once before any comes again."""
    luck = random.Random(f"faults of {seed}")
    while True:
        bag = list(kinds)
        luck.shuffle(bag)
        for kind in bag:
            yield Fault(kind, luck.uniform(*SECONDS[kind]), luck.uniform(0.2, 2.5), luck.random())


class Nemesis:
    """Injects faults into a world and counts them. Raises NotServing where the ledger must serve first and does not."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.injected: Counter[str] = Counter()
        self.takeovers_s: list[float] = []
        """From each kill of the owner to the first acknowledgement by its successor."""
        self._faults: dict[str, Callable[[Fault], None]] = {
            "kill_owner": self._kill_owner,
            "kill_client": self._kill_client,
            "take_over": self._take_over,
            "pause_owner": self._pause_owner,
            "kill_broker": self._kill_broker,
            "pause_broker": self._pause_broker,
            "lose_answer": self._lose,
            "lose_commit": self._lose,
            "foreign_transaction": self._foreign_transaction,
            "clock_near": self._clock,
            "clock_far": self._clock,
            "kill_leader": self._kill_leader,
        }

    def inject(self, fault: Fault) -> None:
        """Let it happen, and end it."""
        self._faults[fault.kind](fault)
        self.injected[fault.kind] += 1
        time.sleep(fault.pause_s)

    def _other(self, owner: Worker, dice: float) -> Worker:
        others = [worker for worker in self._world.workers if worker is not owner]
        return others[int(dice * len(others))]

    def _kill_owner(self, fault: Fault) -> None:
        """kill -9; somebody else takes over. The killed one comes back at once, or when that is done."""
        owner = self._world.owner()
        killed_ns = owner.kill()
        if fault.dice < 0.5:
            owner.start(PAUSE_MS)
        served_ns = self._world.served_since(killed_ns)
        self.takeovers_s.append((served_ns - killed_ns) / 1e9)
        if fault.dice >= 0.5:
            owner.start(PAUSE_MS)

    def _kill_client(self, fault: Fault) -> None:
        client = self._other(self._world.owner(), fault.dice)
        client.kill()
        time.sleep(fault.seconds)
        client.start(PAUSE_MS)

    def _take_over(self, fault: Fault) -> None:
        """A client puts out an owner that lives and serves."""
        began_ns = time.monotonic_ns()
        self._other(self._world.owner(), fault.dice).tell(do="reopen", take_over=True)
        self._world.served_since(began_ns)

    def _pause_owner(self, fault: Fault) -> None:
        """SIGSTOP, until another is the owner; after SIGCONT it must neither write nor answer.

        Its clients wait for it, so one of them is told to open the ledger anew.
        """
        owner = self._world.owner()
        if fault.dice < 0.5:  # nothing is under way when it stops, and it is only read from when it goes on
            for worker in self._world.workers:
                worker.tell(do="hush", seconds=SERVE_S if worker is owner else 2 * HUSH_S)
            time.sleep(HUSH_S)
        owner.pause()
        paused_ns = time.monotonic_ns()
        over = self._world.log == "kafka" and fault.seconds > LEASE_S
        time.sleep(fault.seconds if over else 0.5)  # where the lease is over, opening is enough
        self._other(owner, fault.dice * 2 % 1).tell(do="reopen", take_over=not over)
        try:
            self._world.served_since(paused_ns, SERVE_S if self._world.log == "kafka" else fault.seconds)
            time.sleep(2 * HUSH_S)  # the successor acknowledges what the stopped one does not know of
        except NotServing:  # one that was stopped within an append keeps SQLite's write lock: it says so
            if self._world.log == "kafka":
                raise
        finally:
            owner.go_on()
            owner.tell(do="hush", seconds=HUSH_S if fault.dice < 0.5 else 0)

    def _kill_broker(self, fault: Fault) -> None:
        broker = self._world.brokers[int(fault.dice * len(self._world.brokers))]
        if fault.dice * 8 % 1 < 0.7:
            self._await_acknowledgement()
        broker.kill()
        time.sleep(fault.seconds)
        broker.start()

    def _await_acknowledgement(self) -> None:
        """Return at the very moment in which a command is acknowledged; at most after a second."""
        files = [worker.history.open("rb") for worker in self._world.workers]
        for file in files:
            file.seek(0, os.SEEK_END)
        deadline_s = time.monotonic() + 1.0
        while time.monotonic() < deadline_s and not any(b'"wrote": true' in file.read() for file in files):
            time.sleep(0)
        for file in files:
            file.close()

    def _kill_leader(self, fault: Fault) -> None:
        """kill -9 of the broker that leads a partition."""
        assert self._world.cluster is not None
        partition = int(fault.dice * self._world.partitions)
        leader = self._world.cluster.leader_of(f"{NAME}.events", partition)
        leader.kill()
        time.sleep(fault.seconds)
        leader.start()

    def _pause_broker(self, fault: Fault) -> None:
        broker = self._world.brokers[int(fault.dice * len(self._world.brokers))]
        broker.pause()
        time.sleep(fault.seconds)
        broker.resume()

    def _lose(self, fault: Fault) -> None:
        """The next commit, or its answer, is lost on the way, and then nothing passes for a while."""
        owner = self._world.owner()
        if owner is self._world.workers[0]:  # not behind the proxies
            began_ns = time.monotonic_ns()
            self._world.workers[1 + int(fault.dice * 2)].tell(do="reopen", take_over=True)
            self._world.served_since(began_ns)
        proxies = self._world.proxies
        for proxy in proxies:
            proxy.lose = "answer" if fault.kind == "lose_answer" else "request"
        try:
            self._world.wait(lambda: any(proxy.dark.is_set() for proxy in proxies), "no commit came", 30.0)
            time.sleep(fault.seconds)
        finally:
            for proxy in proxies:
                proxy.lose = None
                proxy.dark.clear()

    def _foreign_transaction(self, fault: Fault) -> None:
        """Somebody else's transaction stays open in a partition; nothing behind it can be read meanwhile."""
        options = ClientOptions(",".join(broker.bootstrap for broker in self._world.brokers), "foreign")
        partition = int(fault.dice * self._world.partitions)
        try:
            foreign = Producer(options, "foreign", f"{NAME}.events", partition)
        except ClientError:  # the brokers are not quite back from the last fault; then it stands in none's way
            return
        try:
            foreign.send([barrier()])
            time.sleep(fault.seconds)
            foreign.abort()
        except ClientError:
            time.sleep(0)  # its time-out ends it
        finally:
            foreign.discard()

    def _clock(self, fault: Fault) -> None:
        """The owner's clock jumps: within what is allowed, or beyond, where it must not serve."""
        owner = self._world.owner()
        least, most = (5.0, NEAR_S) if fault.kind == "clock_near" else (FAR_S, 4 * FAR_S)
        offset_s = least + (most - least) * (fault.dice * 2 % 1) ** 2
        owner.tell(do="clock", offset_s=offset_s if fault.dice < 0.5 else -offset_s)
        time.sleep(fault.seconds)
        owner.tell(do="clock", offset_s=0)
