"""`python -m bench [--quick] [--json] [--readme]`: every figure beside its floor, from one run."""

from __future__ import annotations

import argparse
import json
import platform
import re
from pathlib import Path

from bench import analytics, audit, folding, kafka, leakage, memory, proofs, reads, takeover, writes
from bench.report import Line, table
from session_ledger.ledger.collector import quiet_collector

MARKS = re.compile(r"(<!-- figures -->\n).*?(<!-- /figures -->)", re.DOTALL)


def main() -> None:
    """Run, print, and write the table into README.md where asked."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a twentieth of the work: shows that it runs")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    parser.add_argument("--readme", action="store_true", help="put the table into README.md")
    parser.add_argument(
        "--only",
        choices=("writes", "folding", "reads", "memory", "kafka", "analytics", "leakage", "proofs", "takeover"),
        help="one group",
    )
    parser.add_argument(
        "--kills", type=int, help=f"of --only takeover: {takeover.KILLS}, a quarter of an hour; else none"
    )
    options = parser.parse_args()
    quiet_collector()  # as `session-ledger serve` and `import` do; the floors run under it as well
    scale = 0.05 if options.quick else 1.0
    lines: list[Line] = []
    parts = ""
    if options.only in (None, "writes"):
        lines += writes.lines(scale)
    if options.only in (None, "folding"):
        lines.append(folding.decode_and_fold(int(4000 * scale)))
        line, parts = folding.disk(int(4000 * scale))
        lines.append(line)
    if options.only in (None, "reads"):
        lines += reads.lines(scale)
    if options.only in (None, "memory"):
        lines += memory.lines(scale)
    if options.only in (None, "kafka"):
        lines += kafka.lines(scale)
    if options.only in (None, "analytics"):
        lines += analytics.lines(scale)
        lines += audit.lines(scale)
    if options.only in (None, "leakage"):
        lines += leakage.lines(scale)
    if options.only in (None, "proofs"):
        lines += proofs.lines(scale)
    if options.only == "takeover" or options.kills:
        lines += takeover.lines(options.kills or takeover.KILLS)
    if options.json:
        print(json.dumps({"python": platform.python_version(), "lines": [line.as_json() for line in lines]}, indent=1))
        return
    text = table(lines) + (f"\n\nDisk: {parts}." if parts else "")
    print(text)
    if options.readme:
        readme = Path("README.md")
        readme.write_text(MARKS.sub(lambda found: f"{found[1]}{text}\n{found[2]}", readme.read_text()))


if __name__ == "__main__":
    main()
