"""One run: load and faults for so long, then heal, let a fresh owner serve, stop, and judge."""

from __future__ import annotations

import json
import os
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from session_ledger.consumers.verify import verify
from session_ledger.consumers.views import Views
from session_ledger.consumers.wiring import open_store
from session_ledger.domain.commands import Command
from session_ledger.domain.errors import SessionLedgerError
from session_ledger.domain.ids import format_id
from session_ledger.ledger.ledger import Ledger
from session_ledger.ledger.open import open_log
from session_ledger.ledger.published import codec_of
from session_ledger.ledger.settings import Settings
from session_ledger.ledger.url import parse_url
from tests.chaos.checker import Violation, check, read_whole
from tests.chaos.history import History, Outcome, Recorder, read
from tests.chaos.nemesis import Fault, Nemesis
from tests.chaos.world import SERVE_S, NotServing, World
from tests.ledger.support import Stored, assert_folds_equal_the_log, keys_in_vault

PARTITIONS = 2
CALLERS = 6  # of each worker
SETTLE_TRIES = 100  # of a command whose outcome is open, at the end
READ_EVERY_S = 0.5


@dataclass(slots=True)
class Report:
    """What came of a run."""

    history: History = field(default_factory=History)
    events: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    takeovers_s: list[float] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)

    def add(self, kind: str, message: str) -> None:
        """One more violation."""
        self.violations.append(Violation(kind, message))

    def assert_it_shows_something(self) -> None:
        """A run without an acknowledgement, or without a fault, is a failure of its own."""
        if not any(one.outcome is Outcome.ACKNOWLEDGED for one in self.history.tries):
            self.add("idle", "nothing was acknowledged: this run shows nothing")
        if not self.faults:
            self.add("idle", "no fault was injected: this run shows nothing")

    def table(self) -> str:
        """The summary."""
        outcomes = Counter(str(one.outcome) for one in self.history.tries)
        rows = [("tries", ", ".join(f"{count} {name}" for name, count in outcomes.most_common()))]
        codes = Counter(one.code for one in self.history.tries if one.outcome in (Outcome.FAILED, Outcome.UNKNOWN))
        rows.append(("not served", ", ".join(f"{n} {code or 'died'}" for code, n in codes.most_common()) or "none"))
        rows.append(("faults", ", ".join(f"{count} {kind}" for kind, count in sorted(self.faults.items())) or "none"))
        if self.takeovers_s:
            middle, most = statistics.median(self.takeovers_s), max(self.takeovers_s)
            rows.append(("takeovers", f"{len(self.takeovers_s)}, median {middle:.1f} s, at most {most:.1f} s"))
        rows.append(("events in the log", str(self.events)))
        rows.append(("violations", str(len(self.violations))))
        return "\n".join(f"{name:>18}  {value}" for name, value in rows)


class Onlooker:
    """Reads the views while the run goes on, so that they were folded in pieces, under every fault."""

    def __init__(self, url: str, recorder: Recorder) -> None:
        self._url, self._recorder = url, recorder
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(READ_EVERY_S):
            try:
                with Views.open(self._url) as views:
                    while not self._stop.wait(READ_EVERY_S):
                        views.refresh()
            except SessionLedgerError as error:
                if not error.retriable:
                    self._recorder.problem(f"the views: {error!r}")
            except Exception as error:  # noqa: BLE001 - told, and the run fails by it
                self._recorder.problem(f"the views: {error!r}")

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def run(directory: Path, seed: str, faults: Iterable[Fault], log: str = "kafka", brokers: int = 1) -> Report:
    """Inject these faults, one after the other, and judge. The directory keeps the evidence; the caller removes it."""
    report = Report()
    wall_us_at_0 = (time.time_ns() - time.monotonic_ns()) // 1000
    partitions = PARTITIONS if log == "kafka" else 1
    with World(directory, seed, log, brokers, partitions, CALLERS) as world:
        recorder = Recorder(os.open(directory / "runner.jsonl", os.O_CREAT | os.O_APPEND | os.O_WRONLY), "runner")
        world.set_up(recorder)
        onlooker = Onlooker(world.url(), recorder)
        nemesis = Nemesis(world)
        try:
            world.owner()
            for fault in faults:
                nemesis.inject(fault)
            _heal(world)
        except (NotServing, RuntimeError) as error:  # of a server that did not start
            report.add("liveness", str(error))
        finally:
            onlooker.stop()
        report.faults, report.takeovers_s = nemesis.injected, nemesis.takeovers_s
        judge(world, recorder, report, wall_us_at_0)
    return report


def _heal(world: World) -> None:
    """When nothing hinders any more, commands are acknowledged again within SERVE_S."""
    world.heal()
    healed_ns = time.monotonic_ns()
    files = [worker.history for worker in world.workers]

    def serves() -> bool:
        tries = read(files).tries
        return any(one.outcome is Outcome.ACKNOWLEDGED and one.invoked_ns > healed_ns for one in tries)

    time.sleep(1.0)
    world.wait(serves, "after all faults had ended nothing was acknowledged", SERVE_S)


def judge(world: World, recorder: Recorder, report: Report, wall_us_at_0: int) -> None:
    """Stop the workers, settle what is open as a fresh owner, and hold the history against the log and the views."""
    for name in world.stop_workers():
        report.add("liveness", f"{name} did not hear its last answers and end in order; see its stderr")
    files = [*(worker.history for worker in world.workers), world.directory / "runner.jsonl"]
    try:
        with world.open() as ledger:
            for one in read(files).unsettled():
                _settle(ledger, one.command(), recorder)
            told = ledger.positions()
            try:
                assert_folds_equal_the_log(ledger)
            except AssertionError as error:
                report.add("state", f"what the owner folded is not what the log holds: {error}")
    except (NotServing, SessionLedgerError) as error:
        report.add("liveness", f"no fresh owner served after the run: {error}")
        told = []
    report.history = read(files)
    found = _judge_log(world, report, told)
    report.violations += check(report.history, found, wall_us_at_0=wall_us_at_0)
    report.events = len(found)
    for problem in report.history.problems:
        report.add("problem", problem)
    for worker in world.workers:
        if "Traceback" in (text := worker.errors.read_text()):
            report.add("problem", f"{worker.name} wrote to its stderr: {text[-2000:]}")
    report.assert_it_shows_something()


def _settle(ledger: Ledger, command: Command, recorder: Recorder) -> None:
    """Repeat it until an answer decides."""
    for _ in range(SETTLE_TRIES):
        with recorder.trying(command) as answer:
            answer.result = ledger.submit(command).result()
        if answer.outcome is not Outcome.FAILED or "command_too" in (answer.error.code if answer.error else ""):
            return
        time.sleep(0.1)


def _judge_log(world: World, report: Report, told: list[int]) -> list[Stored]:
    """What a fresh reader finds; positions, views and keys against it."""
    place = parse_url(world.url())
    log = open_log(place, Settings(), write=False)
    try:
        found, broken = read_whole(log)
        report.violations += broken
        ends = [sum(one.partition == number for one in found) for number in (*range(world.partitions), -1)]
        if told and told != ends:
            report.add("state", f"the owner stood at {told}, the log ends at {ends}")
        store = open_store(log, place.directory)
        try:
            findings = verify(
                log, codec_of(log), store, to=dict(zip((*range(world.partitions), -1), told, strict=False))
            )
        finally:
            store.close()
        for finding in findings.findings:
            report.add("verify", str(finding))
    finally:
        log.close()
    used = {key for one in found if (key := getattr(one.event, "key_id", None)) is not None}
    if lost := used - keys_in_vault(world.replica):
        report.add("keys", f"{len(lost)} data keys that sealed what is in the log are not in the vault")
    _keep(world.directory / "log.jsonl", found)
    return found


def _keep(path: Path, found: list[Stored]) -> None:
    """The log as evidence, one event a line."""
    with path.open("w") as lines:
        for one in found:
            event, record = one.event, one.record
            command = None if event.command_id is None else format_id(event.command_id)
            fields = {"at": f"{one.partition}:{record.position}", "batch": record.batch_id.hex(), "command": command}
            fields |= {"type": type(event).__name__, "user": event.user, "recorded_at": str(event.recorded_at)}
            lines.write(json.dumps(fields) + "\n")
