"""`session-ledger trends`: named questions over a window, as numbers, a chart in the terminal or a file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from session_ledger.cli.options import AsJson, Url

if TYPE_CHECKING:
    from session_ledger.projections.analytics.anomalies import Anomalies
    from session_ledger.projections.analytics.snapshots import Snapshot
    from session_ledger.projections.analytics.trends import TrendTable

EVERY = ("hour", "day", "week")
MEMORY = "2GB"  # ten million events take half of it


def trends(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", show_default=False, help="Which trend. Without one: list them.")
    ] = None,
    since: Annotated[
        str,
        typer.Option(
            "--since", metavar="TIME", help="From when: a duration before --until, such as 30d, a date or ISO 8601."
        ),
    ] = "7d",
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="TIME", show_default=False, help="Until when. Default: the snapshot's time."),
    ] = None,
    every: Annotated[
        str, typer.Option("--every", metavar="WORD", help="hour, day or week (from Monday), UTC.")
    ] = "hour",
    by: Annotated[
        str | None,
        typer.Option("--by", metavar="WORD", show_default=False, help="tenant, domain, channel, agent_type or model."),
    ] = None,
    tenant: Annotated[
        str | None,
        typer.Option("--tenant", "-t", metavar="NAME", show_default=False, help="Only this tenant. Default: all."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", metavar="WORD=VALUE", show_default=False, help="Only this domain, channel, agent_type or model."
        ),
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="With the window of the same length before.")] = False,
    anomalies: Annotated[
        bool, typer.Option("--anomalies", help="Judge each bucket by the same hour of the weeks before.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            metavar="FILE",
            show_default=False,
            help="Draw it into a .svg or .html file; needs the extra `plots`.",
        ),
    ] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Show a trend of the newest snapshot: a chart, totals, and what changed.

    Its age is told on stderr. Cost needs prices: `session-ledger prices load FILE`.
    """
    if name is None:
        _list(as_json)
        return
    from session_ledger.cli.opening import settings, url_of
    from session_ledger.cli.output import moment, warn
    from session_ledger.consumers.analytics import open_snapshot
    from session_ledger.domain.errors import InvalidInput
    from session_ledger.projections.analytics import charts, prices
    from session_ledger.projections.analytics.anomalies import find_anomalies
    from session_ledger.projections.analytics.trends import read_total, read_trend, trend_of

    trend_of(name)
    if every not in EVERY:
        raise InvalidInput("--every", f"{every[:40]!r}", f"must be one of {', '.join(EVERY)}")
    if plot is not None and plot.suffix.lower() not in charts.FORMS:
        raise InvalidInput("--plot", f"{plot.name!r}", f"must end in {' or '.join(charts.FORMS)}")
    if plot is not None:
        charts.assert_drawable()
    restricted = _restricted(only)
    with open_snapshot(url_of(url), settings=settings(), memory=MEMORY) as snapshot:
        begin, end = window(since, until, every, snapshot.published_at, whole=compare)
        prices.install(snapshot.connection, snapshot.directory / prices.FILE)
        asked = {"since": begin, "until": end, "by": by, "tenant": tenant, "only": restricted}
        table = read_trend(snapshot.connection, name, every=every, compare=compare, **asked)  # type: ignore[arg-type]
        total = read_total(snapshot.connection, name, **asked)  # type: ignore[arg-type]
        judged = find_anomalies(snapshot.connection, name, every=every, **asked) if anomalies else None  # type: ignore[arg-type]
        if plot is not None:
            charts.write_chart(table, plot)
        warn(f"as of {moment(snapshot.published_at)} UTC ({snapshot.age_s:.0f} s ago)")
        _write(table, total, judged, snapshot, plot, as_json)


def _write(
    table: TrendTable, total: TrendTable, judged: Anomalies | None, snapshot: Snapshot, plot: Path | None, as_json: bool
) -> None:
    from session_ledger.cli import trends_shown
    from session_ledger.cli.output import say, write_json

    if as_json:
        document = trends_shown.document(table, total, judged)
        write_json({"published_at": snapshot.published_at, "positions": snapshot.positions, **document})
        return
    trends_shown.show(table, total)
    if judged is not None:
        trends_shown.show_anomalies(judged)
    if plot is not None:
        say(f"drawn into {plot}")


def window(
    since: str, until: str | None, every: str, published_at: datetime, *, whole: bool = False
) -> tuple[datetime, datetime]:
    """The window that is meant. A duration counts back from the beginning of the last bucket.

    `whole`: where until is not given, only buckets that are over. Nothing is known after `published_at`.
    """
    from session_ledger.projections.analytics.trends import floor_of

    end = min(_moment(until, "--until") or published_at, published_at)
    if whole and until is None:
        end = floor_of(end, every)
    length = _length(since)
    if length is not None:
        last = floor_of(end, every)
        return floor_of(last - length, every), end
    begin = _moment(since, "--since")
    assert begin is not None
    return begin, end


def _length(text: str) -> timedelta | None:
    """A duration, of at most a thousand years; None where the text is a time."""
    from session_ledger.cli.values import seconds_of
    from session_ledger.domain.errors import InvalidInput

    if "-" in text:
        return None
    weeks = text.removesuffix("w")
    seconds = 7 * 86_400 * float(weeks) if weeks != text and weeks.isdecimal() else seconds_of(text, "--since")
    if not seconds or seconds > 1000 * 365 * 86_400:
        raise InvalidInput("--since", f"{text[:40]!r}", "must be more than nothing and less than a thousand years")
    return timedelta(seconds=seconds)


def _moment(text: str | None, option: str) -> datetime | None:
    """A time; a date is its midnight, UTC."""
    from session_ledger.cli.values import time_of

    if text is not None and len(text) == len("2026-01-31"):
        text += "T00:00:00+00:00"
    return time_of(text, option)


def _restricted(only: Sequence[str] | None) -> dict[str, str]:
    from session_ledger.domain.errors import InvalidInput

    found = {}
    for pair in only or ():
        dimension, equals, value = pair.partition("=")
        if not equals or not dimension or dimension in found:
            raise InvalidInput("--only", f"{pair[:40]!r}", "must be WORD=VALUE, such as model=m-1, once a word")
        found[dimension] = value
    return found


def _list(as_json: bool) -> None:
    from session_ledger.cli.output import table, write_json
    from session_ledger.projections.analytics.trends import TRENDS

    if as_json:
        names = ("name", "title", "unit", "dimensions", "values", "part")
        write_json({"trends": [{name: getattr(trend, name) for name in names} for trend in TRENDS.values()]})
        return
    rows = [
        (
            trend.name,
            ", ".join((*trend.values, *([f"by {trend.part}"] if trend.part else []))),
            ", ".join(trend.dimensions),
        )
        for trend in TRENDS.values()
    ]
    table(("trend", "values", "--by, --only"), rows, whole=True)
