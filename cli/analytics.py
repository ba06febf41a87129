"""`session-ledger project` and `sql`: the analytics database, written by one process and read from snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from session_ledger.cli.options import AsJson, Url

if TYPE_CHECKING:
    import pyarrow as pa

    from session_ledger.projections.analytics.snapshots import Snapshot

FORMATS = ("table", "json", "csv", "parquet")
ROWS_SHOWN = 200  # of a table for people

Reason = Annotated[
    str | None,
    typer.Option(
        "--reason", metavar="TEXT", show_default=False, help="Why content is revealed; it is recorded, and readable."
    ),
]
By = Annotated[
    str | None, typer.Option("--by", metavar="NAME", show_default=False, help="Who asks. Default: the system's user.")
]


def project(
    once: Annotated[bool, typer.Option("--once", help="Catch up, publish a snapshot, and leave.")] = False,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="First make the database again from the log, a process a core.")
    ] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Bring every event into the analytics database and publish snapshots of it, until SIGINT or SIGTERM.

    One process does this for a ledger. With --once everything that was acknowledged before is in the snapshot.
    """
    from session_ledger.cli.opening import acknowledged, settings, url_of
    from session_ledger.cli.output import say, write_json
    from session_ledger.cli.signals import until_stopped
    from session_ledger.consumers.analytics import Analytics

    place = url_of(url)
    to = acknowledged(place) if once else None
    with Analytics(place, settings=settings()) as analytics:
        if rebuild:
            records = analytics.rebuild()
            say(f"made again from {records:,} records") if not as_json else write_json({"rebuilt": records})
        if once:
            try:
                records = analytics.catch_up(to)
            finally:
                path = analytics.publish()
            _told(path, records, analytics.store.positions(), as_json)
            return
        with until_stopped() as stop:
            stopped = analytics.run(stop, lambda path: _told(path, None, analytics.store.positions(), as_json))
        for error in stopped.values():
            raise error


def _told(path: Path, records: int | None, positions: dict[int, int], as_json: bool) -> None:
    from session_ledger.cli.output import say, write_json

    if as_json:
        write_json({"snapshot": str(path), "records": records, "positions": positions})
    else:
        came = "" if records is None else f"{records:,} records came in; "
        say(f"{came}published {path.name}: {_places(positions)}")


def _places(positions: dict[int, int]) -> str:
    names = ("control log" if number < 0 else f"partition {number}" for number in sorted(positions))
    return ", ".join(f"{name} to {positions[number]:,}" for name, number in zip(names, sorted(positions), strict=True))


def sql(
    query: Annotated[
        str | None, typer.Argument(metavar="QUERY", show_default=False, help="One statement; - reads it from stdin.")
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Show every table, view and column, and what it is.")
    ] = False,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", metavar="NAME=VALUE", show_default=False, help="The text for $NAME in QUERY."),
    ] = None,
    form: Annotated[
        str, typer.Option("--format", "-f", metavar="FORMAT", help="table, json, csv or parquet.")
    ] = "table",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", show_default=False, help="Default: stdout.")
    ] = None,
    timeout: Annotated[str, typer.Option(metavar="TIME", help="How long the query may take.")] = "60s",
    memory: Annotated[str, typer.Option(metavar="SIZE", help="How much memory the query may take.")] = "2GB",
    reason: Reason = None,
    by: By = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Ask the newest snapshot of the analytics database. Its age and positions are told on stderr.

    A query reads; it changes nothing and reaches no other file and no network. reveal(content) in its result shows
    what was said: that needs --reason, and is recorded by the ledger's owner first.
    """
    from session_ledger.cli.opening import settings, url_of
    from session_ledger.cli.output import warn
    from session_ledger.cli.values import metadata_of, seconds_of, text_or_stdin
    from session_ledger.consumers.analytics import open_snapshot
    from session_ledger.consumers.sql import TIMEOUT_S, revealing, run_query
    from session_ledger.domain.errors import InvalidInput

    chosen = "json" if as_json else form
    if chosen not in FORMATS:
        raise InvalidInput("--format", f"{form!r}", f"must be one of {', '.join(FORMATS)}")
    if (query is None) is not schema:
        raise InvalidInput("QUERY", "none" if query is None else "one beside --schema", "give a query or --schema")
    place = url_of(url)
    with open_snapshot(place, settings=settings(), memory=memory) as snapshot:
        if query is None:
            _show_schema(snapshot, chosen == "json")
            return
        text = text_or_stdin(query)
        limit_s = seconds_of(timeout, "--timeout") or TIMEOUT_S
        table = run_query(snapshot, text, metadata_of(param), timeout_s=limit_s)
        asked = revealing(table)
        if asked:
            table = _revealed(table, place, snapshot.ledger, text, reason, by)
        warn(f"as of {snapshot.published_at:%Y-%m-%d %H:%M:%S} UTC ({snapshot.age_s:.0f} s ago), "
             f"{_places(snapshot.positions)}")  # fmt: skip
        _write(table, chosen, output, snapshot)


def _revealed(table: pa.Table, url: str, name: str, query: str, reason: str | None, by: str | None) -> pa.Table:
    """`name`: the ledger's, which a client of its owner does not know."""
    from session_ledger.cli.opening import settings
    from session_ledger.cli.who import who
    from session_ledger.consumers.sql import reveal
    from session_ledger.domain.errors import InvalidInput
    from session_ledger.ledger.ledger import Ledger
    from session_ledger.ledger.open import open_envelope
    from session_ledger.ledger.url import parse_url

    if not reason:
        raise InvalidInput("--reason", "none", "must say why content is revealed: it is recorded")
    chosen = settings()
    with Ledger.open(url, settings=chosen) as ledger:
        envelope, close = open_envelope(parse_url(url).directory, name, chosen, readonly=True)
        try:
            return reveal(table, ledger, envelope, query=query, revealed_by=who(by), reason=reason)
        finally:
            close()


def _show_schema(snapshot: Snapshot, as_json: bool) -> None:
    from session_ledger.cli.output import say, table, write_json
    from session_ledger.projections.analytics.described import described

    found = described(snapshot.connection)
    if as_json:
        write_json({"objects": found})
        return
    for one in found:
        say(f"{one.kind} {one.name}{one.parameters}: {one.comment}")
        if one.columns:
            table(("column", "type", "what it is"), [(c.name, c.type, c.comment) for c in one.columns], whole=True)
        say()


def _write(found: pa.Table, form: str, output: Path | None, snapshot: Snapshot) -> None:
    import sys

    from session_ledger.cli.output import write_file
    from session_ledger.domain.errors import InvalidInput

    if form == "parquet":
        import pyarrow.parquet

        if output is None and sys.stdout.isatty():
            raise InvalidInput("--output", "none", "must name a file: Parquet is not for a terminal")
        pyarrow.parquet.write_table(found, sys.stdout.buffer if output is None else str(output))
        return
    if output is not None:
        text = _as_json(found, snapshot) if form == "json" else _as_csv(found)
        write_file(output, text)
        return
    if form == "table":
        _show(found)
    else:
        sys.stdout.write(_as_json(found, snapshot) if form == "json" else _as_csv(found))


def _as_json(found: pa.Table, snapshot: Snapshot) -> str:
    from session_ledger.cli.output import json_line

    document = {"snapshot": snapshot.path.name, "published_at": snapshot.published_at, "positions": snapshot.positions}
    return json_line({**document, "rows": found.to_pylist()}) + "\n"


def _as_csv(found: pa.Table) -> str:
    import csv
    import io

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(found.column_names)
    for row in _rows(found):
        writer.writerow(["" if value is None else _cell(value) for value in row])
    return out.getvalue()


def _rows(found: pa.Table) -> list[Sequence[Any]]:
    return list(zip(*(column.to_pylist() for column in found.columns), strict=True)) if found.num_columns else []


def _cell(value: object) -> object:
    """For people and CSV: sealed values by their size, the rest as JSON says it."""
    from session_ledger.cli.output import as_json, json_line

    if isinstance(value, dict) and "sealed" in value:
        return None if value["sealed"] is None else f"sealed, {len(value['sealed']):,} bytes"
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if isinstance(value, (dict, list)):
        return json_line(value)
    return value if isinstance(value, (str, int, float, bool)) else as_json(value)


def _show(found: pa.Table) -> None:
    from datetime import datetime
    from decimal import Decimal

    import pyarrow as pa

    from session_ledger.cli.output import say, table

    right = [pa.types.is_integer(f.type) or pa.types.is_floating(f.type) or pa.types.is_decimal(f.type)
             for f in found.schema]  # fmt: skip
    names = [f"{name}>" if number else name for name, number in zip(found.column_names, right, strict=True)]
    rows = [
        [v if v is None or isinstance(v, (datetime, Decimal)) else _cell(v) for v in row]
        for row in _rows(found.slice(0, ROWS_SHOWN))
    ]
    table(names, rows, whole=True)
    more = found.num_rows - ROWS_SHOWN
    count = f"{found.num_rows:,} row{'' if found.num_rows == 1 else 's'}"
    say(f"({count})" if more <= 0 else f"({count}, the first {ROWS_SHOWN} shown: --format csv gives all)")
