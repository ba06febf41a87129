"""kill -9 of the owner under load on Kafka: how long until its successor acknowledges, and what is lost by it."""

from __future__ import annotations

import random
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.report import Line
from tests.chaos.history import Outcome
from tests.chaos.nemesis import Fault
from tests.chaos.run import run

KILLS = 100
WANTED_S = 10.0


def kills(count: int) -> Iterator[Fault]:
    """So many kills of whoever owns the ledger, each after some load."""
    luck = random.Random()
    for number in range(count):
        if number % 10 == 0:
            print(f"takeover: {number} of {count} kills", file=sys.stderr)
        yield Fault("kill_owner", 0.0, luck.uniform(0.2, 1.5), luck.random())


def lines(count: int) -> list[Line]:
    """The times of that many takeovers, and what the checker of tests/chaos found; 100 take a quarter of an hour."""
    directory = Path(tempfile.mkdtemp(prefix="session-ledger-takeover-"))
    report = run(directory, "takeover", kills(count))
    if report.violations:
        (directory / "violations.txt").write_text("".join(f"{violation}\n" for violation in report.violations))
        print(f"takeover: {len(report.violations)} violations; the evidence is in {directory}", file=sys.stderr)
    else:
        shutil.rmtree(directory)
    acknowledged = sum(one.outcome is Outcome.ACKNOWLEDGED and one.wrote for one in report.history.tries)
    times_s = report.takeovers_s or [float("inf")]
    middle, most, wrong = statistics.median(times_s), max(times_s), len(report.violations)
    done = f"{len(report.takeovers_s)} kills"
    return [
        Line(f"kill -9 of the owner to its successor's first answer, Kafka ({done}), median", middle, "s"),
        Line(f"the same, the longest of {done}", most, "s", wanted=f"< {WANTED_S:g}", holds=most < WANTED_S),
        Line(
            f"violations among {acknowledged:,} acknowledged commands, {done}", wrong, "", wanted="0", holds=wrong == 0
        ),
    ]
