"""`session-ledger stats`, `verify`, `rebuild`, `lag`, `position`: the state of the ledger and of its views."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from session_ledger.cli.options import AsJson, Url

if TYPE_CHECKING:
    from session_ledger.consumers.findings import Findings
    from session_ledger.consumers.views import Views


def stats(
    tenant: Annotated[
        str | None, typer.Option("--tenant", "-t", metavar="NAME", show_default=False, help="Default: all tenants.")
    ] = None,
    busiest: Annotated[int, typer.Option(metavar="N", min=0, max=1000, help="How many of the busiest users.")] = 10,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Count sessions, endings by reason, messages, refusals and agents, and name the busiest users."""
    from session_ledger.cli.opening import open_views
    from session_ledger.cli.output import write_json
    from session_ledger.cli.stats_report import document_of, show_stats

    with open_views(url) as views:
        found = views.stats(tenant, busiest=busiest)
    if as_json:
        write_json(document_of(found))
    else:
        show_stats(found)


def verify(
    sample: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, show_default=False, help="Only so many sessions, replayed; drawn by --seed."),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the sample; the same draws the same.")] = 1,
    processes: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=8, show_default=False, help="Side by side; default: one a core."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep how far the check is, and go on where one was interrupted.")
    ] = False,
    sign: Annotated[
        Path | None,
        typer.Option(metavar="FILE", show_default=False, help="Write the outcome there, as a note that is signed."),
    ] = None,
    check_note: Annotated[
        Path | None,
        typer.Option("--check", metavar="FILE", show_default=False, help="Only check such a note: needs --key."),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY", show_default=False, help="The public key that signed the note, or the checkpoints."
        ),
    ] = None,
    log: Annotated[
        bool, typer.Option("--log", help="Only the log, against every checkpoint that is signed over it.")
    ] = False,
    mirror: Annotated[
        Path | None,
        typer.Option(metavar="DIR", show_default=False, help="With --log: a copy of the mirror of `checkpoint`."),
    ] = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", show_default=False, help="With --log: a checkpoint that somebody kept."),
    ] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Check the whole log against its own rules, and views and analytics against the log, row for row.

    Exit code 1 and the differences when anything is not as it must be. Nothing but the views' lag is changed. The note
    of --sign is in the signed-note format, by the Ed25519 key signing.key in the ledger's directory, which is made
    where there is none; its public key is told. With --log: Merkle trees against checkpoints, and nothing else;
    that there is no checkpoint is a finding.
    """
    if check_note is not None:
        _check_note(check_note, key, as_json)
        return
    from session_ledger.domain.errors import InvalidInput

    if sample is not None and (resume or processes is not None):
        raise InvalidInput("--sample", str(sample), "goes with neither --processes nor --resume: it takes seconds")
    if log or mirror is not None or checkpoint:
        from session_ledger.cli.proofs import verify_the_log

        if not log or sample is not None or sign is not None or resume or processes is not None:
            raise InvalidInput(
                "--log", "mixed with what it does not go with", "goes with --mirror, --checkpoint and --key"
            )
        verify_the_log(url, mirror, checkpoint, key, as_json)
    from session_ledger.cli.opening import acknowledged, settings, url_of
    from session_ledger.cli.output import say, write_json
    from session_ledger.consumers.tail import PartitionStopped
    from session_ledger.consumers.verify import FOLDER, Apart
    from session_ledger.consumers.verify import verify as check
    from session_ledger.consumers.views import Views
    from session_ledger.ledger.url import parse_url

    place = url_of(url)
    to = acknowledged(place)
    with (
        Views.open(place, settings=settings()) as views,
        counting("records checked", _records(views), as_json) as on_progress,
    ):
        with suppress(PartitionStopped):  # the check says what it is, and where
            views.refresh(to)
        directory = parse_url(place).directory
        if sample is None:
            if resume and directory is None:
                raise InvalidInput("--resume", "given", "needs a ledger with a directory: one in memory has none")
            found = check(
                views.log,
                views.codec,
                views.store,
                to=to,
                analytics=directory,
                apart=None if directory is None else Apart(url=place, settings=settings(), processes=processes),
                resume=directory / FOLDER if resume and directory is not None else None,
                on_progress=on_progress,
            )
        else:
            found = _sampled(views, place, sample, seed)
        public_key = None if sign is None else _signed(sign, found, views, place)
    if as_json:
        fields = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
        write_json({"ok": found.ok, **fields, "public_key": public_key})
    else:
        _show_findings(found)
        if public_key is not None:
            say(f"signed as {sign}; its public key: {public_key}")
    raise typer.Exit(0 if found.ok else 1)


def _sampled(views: Views, place: str, count: int, seed: int) -> Findings:
    from session_ledger.cli.opening import settings
    from session_ledger.consumers.analytics import open_snapshot
    from session_ledger.consumers.verify_sample import verify_sample
    from session_ledger.domain.errors import LogUnavailable, Misconfigured

    try:
        snapshot = open_snapshot(place, settings=settings())
    except (LogUnavailable, Misconfigured):  # none yet, or of another version: partitions are read whole
        return verify_sample(views, None, count, seed)
    with snapshot:
        return verify_sample(views, snapshot, count, seed)


def _signed(file: Path, found: Findings, views: Views, url: str) -> str:
    """Write the signed outcome; the public key."""
    from datetime import UTC, datetime

    from session_ledger.cli.opening import settings
    from session_ledger.cli.output import write_file
    from session_ledger.consumers.signing_key import signing_key
    from session_ledger.consumers.verify_summary import summary_of
    from session_ledger.ledger.url import parse_url

    signer = signing_key(parse_url(url), settings(), views.log)
    text = summary_of(found, views.log.name, views.log.log_id, datetime.now(UTC))
    write_file(file, signer.sign(text))
    return str(signer.verifier)


def _check_note(file: Path, key: str | None, as_json: bool) -> None:
    from session_ledger.cli.checked_note import check_note
    from session_ledger.consumers.verify_summary import TITLE
    from session_ledger.domain.errors import InvalidInput

    if key is None:
        raise InvalidInput("--key", "none", "must be the public key that the note was signed by")
    check_note(file, key, TITLE, "the outcome of a check", as_json)


def rebuild(url: Url = None, as_json: AsJson = False) -> None:
    """Throw the views away and make them again from the log; readers see the old ones until the new are complete.

    Damaged views, or those of another log, are deleted first.
    """
    import time

    from session_ledger.cli.opening import acknowledged, settings, url_of
    from session_ledger.cli.output import clean, say, warn, write_json
    from session_ledger.consumers.views import Views
    from session_ledger.consumers.wiring import delete_store
    from session_ledger.domain.errors import ProjectionDamaged, ProjectionForeign
    from session_ledger.ledger.url import parse_url

    place = url_of(url)
    to = acknowledged(place)

    def build() -> tuple[int, dict[int, int]]:
        with (
            Views.open(place, settings=settings()) as views,
            counting("records folded", _records(views), as_json) as on_progress,
        ):
            records = views.projector.rebuild(to, on_progress=on_progress)
            return records, views.projector.positions()

    started = time.perf_counter()
    try:
        records, positions = build()
    except (ProjectionDamaged, ProjectionForeign) as error:
        directory = parse_url(place).directory
        if directory is None:
            raise
        delete_store(directory)
        warn(f"the views were deleted, and with them what was set aside by `quarantine`: {clean(error)}")
        records, positions = build()
    seconds = time.perf_counter() - started
    if as_json:
        write_json({"records": records, "seconds": round(seconds, 3), "positions": positions})
    else:
        say(f"{records:,} records folded in {seconds:.1f} s ({records / seconds:,.0f} a second)")


def quarantine(
    partition: Annotated[int, typer.Argument(metavar="PARTITION", help="Its number; -1: the control log.")],
    position: Annotated[
        int, typer.Argument(metavar="POSITION", help="Of the record that stops it, as every read names it.")
    ],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; it is kept with the record.")],
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Step over a record that can not be read and stops a partition, on purpose; the log is not changed.

    The record is kept in the views, counted by `lag` and reported by `verify` for ever. Restore the log from a backup
    instead, where there is one.
    """
    from session_ledger.cli.opening import settings, url_of
    from session_ledger.cli.output import clean, say, write_json
    from session_ledger.consumers.tail import PartitionStopped
    from session_ledger.consumers.views import Views
    from session_ledger.domain.errors import InvalidInput

    with Views.open(url_of(url), settings=settings()) as views:
        with suppress(PartitionStopped):
            views.refresh()
        stop = views.projector.stopped.get(partition)
        if stop is None or stop.position != position:
            stands = "is not stopped" if stop is None else f"is stopped at position {stop.position}"
            raise InvalidInput(
                "POSITION", f"partition {partition} {stands}", "must be that of the record that stops it"
            )
        views.projector.quarantine(partition, position, reason)
        with suppress(PartitionStopped):
            views.refresh()
        next_stop = views.projector.stopped.get(partition)
        at = views.projector.position(partition)
    if as_json:
        document: dict[str, object] = {"partition": partition, "position": position, "reason": reason}
        write_json({**document, "views_at": at, "stopped": None if next_stop is None else str(next_stop)})
    else:
        say(f"partition {partition}, position {position} is stepped over; the views are at {at:,}")
        if next_stop is not None:
            say(clean(next_stop))
    raise typer.Exit(0 if next_stop is None else 1)


def lag(url: Url = None, as_json: AsJson = False) -> None:
    """Say how far the views are behind the log; nothing is folded. Exit code 1 when a partition is stopped.

    "undecided" (Kafka) is the high watermark less the last stable offset: where it stays, a transaction hangs.
    """
    from session_ledger.cli.opening import settings, url_of
    from session_ledger.cli.output import table, write_json
    from session_ledger.consumers.views import Views

    with Views.open(url_of(url), settings=settings()) as views:
        rows = views.projector.lag()
    if as_json:
        write_json({"partitions": [{**_fields(row), "behind": row.behind} for row in rows]})
    else:
        shown = [(_name(r.partition), r.end, r.position, r.behind, r.undecided, r.quarantined, r.stopped) for r in rows]
        table(("partition", "log ends at>", "views at>", "behind>", "undecided>", "quarantined>", "stopped"), shown)
    raise typer.Exit(1 if any(row.stopped for row in rows) else 0)


def position(url: Url = None, as_json: AsJson = False) -> None:
    """Print a receipt of every projection: position, records folded, and a hash over them."""
    from session_ledger.cli.opening import settings, url_of
    from session_ledger.cli.output import say, table, write_json
    from session_ledger.consumers.views import Views

    with Views.open(url_of(url), settings=settings()) as views:
        receipts = views.projector.receipts()
    if as_json:
        write_json({"receipts": receipts})
    elif not receipts:
        say("nothing is folded yet; any read folds, and so does `session-ledger rebuild`")
    else:
        rows = [(r.projection, _name(r.partition), r.position, r.count, r.root.hex()[:32]) for r in receipts]
        table(("projection", "partition", "position>", "records>", "root (first half)"), rows)


def _show_findings(found: Findings) -> None:
    from session_ledger.cli.output import say, say_findings

    say(f"{found.records:,} records of the log checked against its rules, the last at")
    _say_places(found.ends)
    if found.begun is not None:
        say(f"{found.resumed:,} of them by a check that was interrupted; it began at {found.begun}")
    say(f"{sum(found.rows.values()):,} rows of the views compared with the log, as it was folded at")
    _say_places(found.compared)
    for table, rows in sorted(found.rows.items()):
        say(f"    {table}: {rows:,} rows")
    say_findings(found)


def _say_places(places: Mapping[int, int]) -> None:
    import textwrap

    from session_ledger.cli.output import say

    text = ", ".join(f"{_name(number)}: {at:,}" for number, at in sorted(places.items()))
    for line in textwrap.wrap(text.replace(": ", ":\xa0").replace("partition ", "partition\xa0"), 96):
        say("  " + line.replace("\xa0", " "))


def _name(partition: int) -> str:
    return "control log" if partition < 0 else f"partition {partition}"


def _records(views: Views) -> int:
    return sum(log.end() for log in (views.log.control, *views.log.partitions))


@contextmanager
def counting(what: str, total: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar; what is yielded is told how many are done."""
    from session_ledger.cli.output import progress

    with progress(quiet=quiet) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


def _fields(record: object) -> dict[str, object]:
    assert dataclasses.is_dataclass(record)
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
