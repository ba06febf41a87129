"""`verify`: the log against its own rules, and the views and the analytics, row for row, against the log.

The log is read once, from position 1, into fresh views in files beside; every table is then compared with the views
as they were when the check began. Nothing is changed, and neither writers nor readers are held up. Partitions are
checked side by side by processes of their own, and a check that was interrupted can go on where it was.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from session_ledger.consumers.analytics_parts import shares_of
from session_ledger.consumers.apart import run_apart, told
from session_ledger.consumers.comparing import Comparison
from session_ledger.consumers.comparing_analytics import AnalyticsComparison
from session_ledger.consumers.findings import Findings
from session_ledger.consumers.rules import duplicates
from session_ledger.consumers.sole import sole_writer
from session_ledger.consumers.verify_part import SCRATCH_FILE, Task, run_part, take_part
from session_ledger.consumers.wiring import VIEWS_FILE
from session_ledger.domain.errors import ProjectionOutdated
from session_ledger.ledger.log.port import Log
from session_ledger.ledger.open import open_codec, open_log
from session_ledger.ledger.settings import Settings
from session_ledger.ledger.url import parse_url
from session_ledger.projections.store import Store
from session_ledger.projections.temporary import temporary_directory
from session_ledger.schemas.codec import Codec
from session_ledger.security.files import replace_private

_logger = logging.getLogger("session_ledger.verify")

FOLDER = "verify"  # in the ledger's directory: what a check that may be resumed has done so far
PLAN_FILE = "plan.json"
PROCESSES_MAX = 8  # SQLite attaches ten files at once
RECORDS_APART = 50_000  # a process more starts in half a second; below this many it does not pay


@dataclass(frozen=True, slots=True, kw_only=True)
class Apart:
    """Where other processes find the log, and how many may work side by side (None: one a core)."""

    url: str
    settings: Settings
    processes: int | None = None


def verify(
    log: Log,
    codec: Codec,
    store: Store,
    *,
    to: Mapping[int, int] | None = None,
    analytics: Path | None = None,
    apart: Apart | None = None,
    resume: Path | None = None,
    on_progress: Callable[[int], None] = lambda records: None,
) -> Findings:
    """Check the whole log and the views in `store`; the views may be behind the log, and go on meanwhile.

    `to`: positions that must be there (partition to position, -1 the control log), such as those that the owner has
    acknowledged; None: each log's end as it is seen here. `analytics`: the ledger's directory, whose newest analytics
    snapshot, if there is one, is compared as well. `apart`: a log of many records and partitions is checked by several
    processes. `resume`: a directory that keeps how far the check is until it ends; where an earlier one was
    interrupted, this one goes on. Then each record was compared with the views as they are at the end, and with the
    log and the analytics as they were when it was read. `on_progress` is told the records read so far.

    Raises ProjectionOutdated where the views are of another version of the projecting code, ProjectionInUse (another
    check keeps its state there), LogUnavailable.
    """
    if store.outdated:
        raise ProjectionOutdated(f"{store.path} was built by another version of the projections: rebuild it first")
    findings, acknowledged = Findings(), to or {}
    logs = {one.partition: one for one in (log.control, *log.partitions)}
    with ExitStack() as closing:
        rows = closing.enter_context(AnalyticsComparison(analytics, log.log_id, findings))
        comparison = Comparison(store.path)
        closing.callback(comparison.close)
        compared = _compared(comparison, findings)
        ends = {
            number: max(one.end(), acknowledged.get(number, 0), compared.get(number, 0)) for number, one in logs.items()
        }
        over = {number: {r.position: r.reason for r in store.quarantined(number)} for number in logs}
        place = closing.enter_context(_temporary(store.directory) if resume is None else _kept(resume))
        shares = shares_of(ends, _processes(apart, ends))
        if resume is not None:
            identity: list[object] = [log.log_id, store.fold_version, over]
            shares, findings.begun = _planned(place, shares, identity, ends, compared)
        tasks = [
            Task(
                place=place / f"part-{number}",
                ends=share,
                compared={one: compared.get(one, 0) for one in share},
                over={one: over[one] for one in share},
                analytics=analytics if rows.compares else None,
                lasting=resume is not None,
            )
            for number, share in enumerate(shares)
        ]
        _run(tasks, log, codec, apart, on_progress)
        for task in tasks:
            take_part(task.place, findings)
        findings.records = sum(findings.ends.values())
        duplicates([task.place / SCRATCH_FILE for task in tasks], findings)
        _compare_ends(acknowledged, compared, findings)
        rows.finish(findings.ends)
        tables = [table for projection in store.projections for table in projection.tables]
        comparison.compare([task.place / VIEWS_FILE for task in tasks], tables, findings)
        if resume is not None:
            (place / PLAN_FILE).unlink()
    return findings


def _compared(comparison: Comparison, findings: Findings) -> dict[int, int]:
    """Partition to the position at which the views are compared."""
    reached: dict[int, set[int]] = {}
    for (_, partition), (position, _) in comparison.positions.items():
        reached.setdefault(partition, set()).add(position)
    for partition, positions in reached.items():
        if len(positions) > 1:
            findings.add("position", f"the projections stand at {sorted(positions)}", partition)
    return {partition: min(positions) for partition, positions in reached.items()}


def _compare_ends(acknowledged: Mapping[int, int], compared: Mapping[int, int], findings: Findings) -> None:
    for partition, end in findings.ends.items():
        if end < acknowledged.get(partition, 0):
            message = f"the log ends at {end}, positions up to {acknowledged[partition]} are acknowledged"
            findings.add("lost", message, partition, end + 1)
        if end < compared.get(partition, 0):
            message = f"the views are at {compared[partition]}, the log ends at {end}"
            findings.add("ahead", message, partition, end)
        findings.compared[partition] = min(compared.get(partition, 0), end)


# --- where and by whom ----------------------------------------------------------------------------------------------


def _processes(apart: Apart | None, ends: Mapping[int, int]) -> int:
    """How many parts: as asked, else one a core where that pays; never more than there are partitions but control."""
    if apart is None:
        return 1
    wanted = apart.processes or ((os.cpu_count() or 1) if sum(ends.values()) > RECORDS_APART else 1)
    return min(wanted, PROCESSES_MAX, max(len(ends) - 1, 1))


@contextmanager
def _temporary(directory: str) -> Iterator[Path]:
    with temporary_directory(directory) as place:
        yield Path(place)


@contextmanager
def _kept(place: Path) -> Iterator[Path]:
    """The directory of a check that may be resumed; it goes when its plan was deleted, which is when the check ends."""
    with ExitStack() as closing:
        closing.callback(sole_writer(place, "lock", f"how far a check is, in {place},"))
        yield place
        if not (place / PLAN_FILE).exists():
            shutil.rmtree(place)


def _planned(
    place: Path,
    shares: list[dict[int, int]],
    identity: list[object],
    ends: Mapping[int, int],
    compared: Mapping[int, int],
) -> tuple[list[dict[int, int]], str | None]:
    """(the shares, when the check began that this one goes on with); a plan for another log or other code is void.

    So is one whose views stood further than they do at `compared`: what was folded for them is beyond these.
    """
    identity = json.loads(json.dumps(identity))
    plan = place / PLAN_FILE
    found = _found(plan, ends)
    if found is not None and found["identity"] == identity and not _behind(compared, found.get("compared")):
        shares, begun = [{one: ends[one] for one in share} for share in found["shares"]], found["begun"]
    else:
        for part in place.glob("part-*"):
            shutil.rmtree(part)
        found, begun = None, datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    shared = [list(share) for share in shares]
    written = {"identity": identity, "begun": begun, "shares": shared, "compared": compared}
    replace_private(plan, json.dumps(written).encode())
    return shares, None if found is None else begun


def _behind(compared: Mapping[int, int], before: Mapping[int, int] | None) -> bool:
    """The views stand nearer to the beginning than they did before, or nobody noted where they did."""
    return before is None or any(compared.get(one, 0) < position for one, position in before.items())


def _found(plan: Path, ends: Mapping[int, int]) -> dict[str, Any] | None:
    """The plan of a check that was interrupted; None where there is none, or none that can be used: that is told."""
    try:
        found = json.loads(plan.read_bytes())
        shares = sorted(one for share in found["shares"] for one in share)
        if shares != sorted(ends) or not isinstance(found["begun"], str) or "identity" not in found:
            raise ValueError("it is no plan of the partitions that there are")
        if found.get("compared") is not None:
            found["compared"] = {int(one): int(position) for one, position in found["compared"].items()}
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        why = f"{type(error).__name__}: {error}"
        _logger.warning("%s can not be used (%s): the check begins anew", plan, why)
        return None
    return dict(found)


def _run(
    tasks: Sequence[Task], log: Log, codec: Codec, apart: Apart | None, on_progress: Callable[[int], None]
) -> None:
    if len(tasks) == 1 or apart is None:
        for task in tasks:
            run_part(task, log, codec, on_progress)
        return
    done = dict.fromkeys(range(len(tasks)), 0)

    def on_line(which: int, line: str) -> None:
        done[which] = int(line)
        on_progress(sum(done.values()))

    common = {"url": apart.url, "settings": apart.settings.model_dump(mode="json")}
    run_apart(__name__, [{**common, "task": task.told()} for task in tasks], on_line, what="the check")


def main() -> None:
    """Do the part that the standard input tells; prints the records that are done, a line each time."""
    given = told()
    settings = Settings(**given["settings"])
    with ExitStack() as closing:
        log = open_log(parse_url(given["url"]), settings, write=False)
        closing.callback(log.close)
        codec, close_codec = open_codec(log, settings)
        closing.callback(close_codec)
        run_part(Task.of(given["task"]), log, codec, lambda records: print(records, flush=True))


if __name__ == "__main__":
    main()
