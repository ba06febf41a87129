"""Faults against a ledger under load, judged by its history.

python -m tests.chaos --seconds 120 [--seed N] [--brokers 1|3] [--log kafka|sqlite] [--keep]

The seed decides the faults, their order and their parameters; timing is the machine's, so a failure may need several
runs of its seed to come again. Exit code 1: a violation; the directory of the evidence is printed and kept.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
import types
from collections.abc import Iterator
from pathlib import Path

from tests.chaos.nemesis import Fault, kinds_of, plan
from tests.chaos.run import run

SHOWN_MAX = 20


def lasting(faults: Iterator[Fault], seconds: float) -> Iterator[Fault]:
    """As many of them as begin within that time, each told."""
    ends_s = time.monotonic() + seconds
    while (left_s := ends_s - time.monotonic()) > 0:
        fault = next(faults)
        print(f"{left_s:6.0f} s left: {fault.kind}, {fault.seconds:.1f} s", flush=True)
        yield fault


def main() -> int:
    """Run, print the summary, and say where the evidence is."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long faults are injected (default 60)")
    parser.add_argument("--seed", default="", help="of an earlier run; without it one is drawn")
    parser.add_argument("--brokers", type=int, choices=(1, 3), default=1)
    parser.add_argument("--log", choices=("kafka", "sqlite"), default="kafka")
    parser.add_argument("--keep", action="store_true", help="keep the directory also when nothing is wrong")
    given = parser.parse_args()
    seed = given.seed or str(random.SystemRandom().randrange(10**9))

    def end(signum: int, frame: types.FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    directory = Path(tempfile.mkdtemp(prefix=f"session-ledger-chaos-{seed}-"))
    print(f"chaos: seed {seed}, {given.seconds:g} s on {given.log}, evidence in {directory}", flush=True)
    failed = True
    try:
        faults = lasting(plan(seed, kinds_of(given.log, given.brokers)), given.seconds)
        report = run(directory, seed, faults, given.log, given.brokers)
        print(report.table())
        failed = bool(report.violations)
        if failed:
            text = "\n".join(map(str, report.violations))
            (directory / "violations.txt").write_text(text + "\n")
            for violation in report.violations[:SHOWN_MAX]:
                print(f"VIOLATION {violation}")
    except KeyboardInterrupt:
        print("interrupted: nothing was judged")
    finally:
        if failed or given.keep:
            print(f"chaos: seed {seed}; the evidence is in {directory}", flush=True)
        else:
            shutil.rmtree(directory)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
