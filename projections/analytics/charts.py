"""Charts of trends: an SVG, or a page of HTML that holds it and its numbers and loads nothing from elsewhere.

matplotlib draws; it comes with the extra `plots`, and nothing else here needs it. The same trend gives the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from html import escape
from pathlib import Path
from typing import Any

from session_ledger.domain.errors import InvalidInput, Misconfigured
from session_ledger.projections.analytics.trends import WIDTHS, Key, Number, TrendRow, TrendTable
from session_ledger.security.files import naming

FORMS = (".svg", ".html")
LINES_MAX = 8  # series in one chart that an eye tells apart
INCHES = (10.0, 4.5)
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "session-ledger",  # ids in the SVG, the same each time
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # a topic may hold a $
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
}
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{title}</title>
<style>
body {{ font-family: sans-serif; margin: 2em; color: #222; }}
svg {{ max-width: 100%; height: auto; }}
table {{ border-collapse: collapse; font-size: 0.9em; }}
th, td {{ padding: 0.2em 0.8em; border-bottom: 1px solid #ddd; text-align: right; }}
th.text, td.text {{ text-align: left; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{subtitle}</p>
{svg}
{notes}
<table>
<thead><tr>{heading}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
</body>
</html>
"""


def assert_drawable() -> None:
    """Raises Misconfigured without matplotlib: before a query is run whose answer could not be drawn."""
    try:
        import matplotlib.backends.backend_svg
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise Misconfigured(
            "charts are drawn by matplotlib, of the extra `plots`: pip install 'session-ledger[plots]'"
        ) from error


def write_chart(table: TrendTable, path: Path) -> None:
    """The chart as an SVG or an HTML page, by the name's end. Raises InvalidInput, Misconfigured without matplotlib."""
    form = path.suffix.lower()
    if form not in FORMS:
        raise InvalidInput("--plot", f"{path.name!r}", f"must end in {' or '.join(FORMS)}")
    text = svg_of(table) if form == ".svg" else html_of(table)
    with naming(path):
        path.write_text(text, encoding="utf-8")


def svg_of(table: TrendTable) -> str:
    """The chart: a line a series and plotted value; where there is no value, no line. Raises Misconfigured."""
    assert_drawable()
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=INCHES, layout="constrained")
        FigureCanvasSVG(figure)
        axes: Any = figure.add_subplot()
        dates = _dates()
        for label, rows, value in drawn(table):
            _draw(axes, table, label, rows, value)
        axes.set_title(f"{table.trend.title}{_sliced(table)}, by {table.every}", loc="left")
        axes.set_ylabel(table.unit)
        axes.set_xlim(table.rows[0].start if table.rows else table.since, table.until)
        axes.set_ylim(bottom=0)
        locator = dates.AutoDateLocator(tz=UTC)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, tz=UTC))
        axes.set_xlabel("UTC")
        handles, labels = axes.get_legend_handles_labels()
        if len(handles) > 1:  # handles are given: matplotlib itself leaves out labels that begin with "_"
            axes.legend(handles, labels, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Title": table.trend.title})
    return out.getvalue()


def _draw(axes: Any, table: TrendTable, label: str, rows: Sequence[TrendRow], value: str) -> None:
    """A step a bucket, as wide as it is, so that a gap and a single bucket are seen."""
    place = table.of(value)
    heights = [_height(row.values[place]) for row in rows]
    width = WIDTHS.get(table.every, table.until - table.since)
    edges = [row.start for row in rows] + ([min(rows[-1].start + width, table.until)] if rows else [])
    step = axes.stairs(heights, _numbers(edges), baseline=None, label=_spelled(label), linewidth=1.4)
    if any(row.previous is not None for row in rows):
        before = [_height(row.previous[place]) if row.previous else float("nan") for row in rows]
        axes.stairs(
            before, _numbers(edges), baseline=None, label=_spelled(f"{label}, window before"), linewidth=1,
            linestyle=":", color=step.get_edgecolor(),
        )  # fmt: skip


def _numbers(edges: Sequence[datetime]) -> Any:
    return _dates().date2num(edges)


def _dates() -> Any:  # the module, of which half has no types
    from matplotlib import dates

    return dates


def _height(value: Number | None) -> float:
    return float("nan") if value is None else float(value)


def _spelled(label: str) -> str:
    return f"\u200b{label}" if label.startswith("_") else label  # matplotlib hides labels that begin so


def _sliced(table: TrendTable) -> str:
    return f" by {table.by.replace('_', ' ')}" if table.by else ""


def drawn(table: TrendTable) -> list[tuple[str, Sequence[TrendRow], str]]:
    """What a chart shows: label, rows and value of the largest series."""
    ranked = largest(table, max(1, LINES_MAX // len(table.trend.plotted)))
    single = len(table.series) == 1 and ranked == [(None, None)]
    found: list[tuple[str, Sequence[TrendRow], str]] = []
    for key in ranked:
        for value in table.trend.plotted:
            words = [] if single else [named(key, table)]
            if single or len(table.trend.plotted) > 1:
                words.append(value.replace("_ms", "").replace("_", " "))
            found.append((", ".join(words), table.series[key], value))
    return found


def largest(table: TrendTable, most: int) -> list[Key]:
    """The keys of the series with the most in them, the largest first."""
    size = {key: sum(abs(float(row.values[0] or 0)) for row in rows) for key, rows in table.series.items()}
    return sorted(size, key=lambda key: (-size[key], key[0] or "", key[1] or ""))[:most]


def named(key: Key, table: TrendTable) -> str:
    """A series by its slice and part; what has no value is unknown."""
    words = [] if table.by is None else [_known(key[0])]
    if table.trend.part is not None:
        words.append(_known(key[1]))
    return " / ".join(words) or "all"


def _known(value: str | None) -> str:
    return "(unknown)" if value is None else value


# --- the page -----------------------------------------------------------------------------------------------------


def html_of(table: TrendTable) -> str:
    """A page with the chart and every number of it. Raises Misconfigured."""
    svg = svg_of(table)
    svg = svg[svg.index("<svg") :]  # without the declaration and the document type of a file of its own
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(table.trend.title)}"', 1)
    title = f"{table.trend.title}{_sliced(table)}"
    texts = ["bucket (UTC)", *([table.by] if table.by else []), *([table.trend.part] if table.trend.part else [])]
    compared = any(row.previous is not None for row in table.rows)
    numbers = [*table.trend.values, *(f"{value} before" for value in table.trend.values if compared)]
    heading = "".join(f'<th class="text">{escape(name)}</th>' for name in texts)
    heading += "".join(f"<th>{escape(name)}</th>" for name in numbers)
    return _PAGE.format(
        title=escape(title),
        subtitle=escape(f"{_minute(table.since)} to {_minute(table.until)} UTC, by {table.every}; {table.unit}"),
        svg=svg,
        notes="".join(f"<p>{escape(note)}</p>" for note in notes(table)),
        heading=heading,
        rows="\n".join(_row(row, table, compared) for row in table.rows),
    )


def notes(table: TrendTable) -> list[str]:
    """What a reader of the chart must know."""
    found = []
    shown, there = len({id(rows) for _, rows, _ in drawn(table)}), len(table.series)
    if shown < there:
        found.append(f"The chart shows the largest {shown} of {there} series; the table has all of them.")
    if table.more:
        found.append("There are more series: these are the largest.")
    if table.trend.name == "cost":
        unpriced = sum(int(row.values[table.of("unpriced_tokens")] or 0) for row in table.rows)
        if unpriced:
            found.append(f"{unpriced:,} tokens have no price and are in no cost.")
    return found


def _row(row: TrendRow, table: TrendTable, compared: bool) -> str:
    texts = [_minute(row.start)]
    texts += [_known(row.slice)] if table.by else []
    texts += [_known(row.part)] if table.trend.part else []
    values: list[Number | None] = list(row.values)
    if compared:
        values += list(row.previous or [None] * len(row.values))
    cells = "".join(f'<td class="text">{escape(text)}</td>' for text in texts)
    return f"<tr>{cells}{''.join(f'<td>{_shown(value)}</td>' for value in values)}</tr>"


def _minute(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def _shown(value: Number | None) -> str:
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return f"{value:,}" if value.as_tuple().exponent == -2 else f"{value.normalize():,f}"  # cents keep both places
    return f"{value:,.4g}" if isinstance(value, float) and abs(value) < 1000 else f"{value:,.0f}"
