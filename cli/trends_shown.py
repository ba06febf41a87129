"""Trends for people and machines: charts made of blocks, totals, anomalies with their evidence, JSON."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

from session_ledger.cli.output import clean, console, duration, moment, say, shown, table, terminal_columns
from session_ledger.projections.analytics.anomalies import (
    ANOMALY,
    HISTORY_MIN,
    INCOMPLETE,
    NO_SPREAD,
    NO_VALUE,
    TOO_LITTLE_HISTORY,
    USUAL,
    Anomalies,
)
from session_ledger.projections.analytics.charts import drawn, largest, notes
from session_ledger.projections.analytics.trends import WIDTHS, Change, Key, Number, TrendRow, TrendTable

BLOCKS = "▁▂▃▄▅▆▇█"
HEIGHT = 8  # rows of a chart of one line
SERIES_SHOWN = 20  # rows of totals
ROWS_SHOWN = 48  # buckets that are listed
ANOMALIES_SHOWN = 20
CENTS = -2  # the exponent of an amount that was rounded to the cent: shown with both places
LABEL_COLUMNS, NUMBER_COLUMNS = 28, 12
COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "red", "bright_cyan", "bright_yellow")


def show(found: TrendTable, total: TrendTable) -> None:
    """A chart, totals of the window, buckets where they are few, and what a reader must know."""
    sliced = f" by {found.by}" if found.by else ""
    say(f"{found.trend.title}{sliced}, {moment(found.since, seconds=False)} to {moment(found.until, seconds=False)} "
        f"UTC, by {found.every}, {found.unit}")  # fmt: skip
    say()
    _chart(found)
    say()
    if found.changes:
        _changes(found)
    else:
        _totals(found, total)
    if len(found.rows) <= ROWS_SHOWN:
        say()
        _rows(found)
    else:
        say(f"({len(found.rows):,} buckets: --json gives all, --plot FILE.html draws and lists them)")
    for note in notes(found):
        say(note.replace("; the table has all of them", ""))


# --- charts -------------------------------------------------------------------------------------------------------


def _chart(found: TrendTable) -> None:
    from rich.text import Text

    lines = drawn(found)
    out = console()
    width = max(20, (terminal_columns() or out.width) - LABEL_COLUMNS - NUMBER_COLUMNS)
    columns = 1
    for place, (label, rows, value) in enumerate(lines):
        values = [_float(row.values[found.of(value)]) for row in rows]
        columns = -(-len(values) // width)
        squeezed = squeeze(values, width)
        top = max((v for v in squeezed if v is not None), default=None)
        if len(lines) == 1:
            for level, text in enumerate(bars(squeezed, HEIGHT)):
                scale = _short(top) if level == 0 else "0" if level == HEIGHT - 1 else ""
                out.print(Text(f"{scale:>{NUMBER_COLUMNS}} "), Text(text, COLOURS[0]), sep="")
            continue
        name = clean(label)
        name = name if len(name) < LABEL_COLUMNS else name[: LABEL_COLUMNS - 2] + "…"
        tail = Text(f" {_short(top)}")
        out.print(
            Text(f"{name:<{LABEL_COLUMNS}}"), Text(bars(squeezed, 1)[0], COLOURS[place % len(COLOURS)]), tail, sep=""
        )
    if lines:
        each = WIDTHS[found.every] * columns
        column = f"a column is {_lasting(each)}" + (", its largest bucket" if columns > 1 else "")
        say(f"({column}{'; beside each line its largest value' if len(lines) > 1 else ''})")


def squeeze(values: Sequence[float | None], width: int) -> list[float | None]:
    """At most so many columns: each the largest of the values that it stands for; None where there is none."""
    size = max(1, -(-len(values) // width))
    found: list[float | None] = []
    for first in range(0, len(values), size):
        known = [value for value in values[first : first + size] if value is not None]
        found.append(max(known, default=None))
    return found


def bars(values: Sequence[float | None], height: int) -> list[str]:
    """Columns of blocks, the top row first. 0 is a line at the bottom, nothing is blank, and little is more than 0."""
    top = max((value for value in values if value is not None), default=0) or 1
    steps = height * len(BLOCKS)
    filled = [0 if value is None else 1 if value <= 0 else max(2, round(steps * value / top)) for value in values]
    rows = []
    for level in range(height - 1, -1, -1):
        rest = [min(len(BLOCKS), count - level * len(BLOCKS)) for count in filled]
        rows.append("".join(BLOCKS[count - 1] if count > 0 else " " for count in rest).rstrip())
    return rows


def _float(value: Number | None) -> float | None:
    return None if value is None else float(value)


def _short(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.3g}"


def _lasting(length: timedelta) -> str:
    return duration(length.total_seconds())


# --- tables -------------------------------------------------------------------------------------------------------


def _headings(found: TrendTable) -> list[str]:
    return ([found.by] if found.by else []) + ([found.trend.part] if found.trend.part else [])


def _cells(key: Key, found: TrendTable) -> list[str]:
    sliced = ["(unknown)" if key[0] is None else key[0]] if found.by else []
    return sliced + (["(unknown)" if key[1] is None else key[1]] if found.trend.part else [])


def _totals(found: TrendTable, total: TrendTable) -> None:
    if found.trend.momentary:
        say("mean, smallest and largest:")
        rows = []
        for key in largest(found, SERIES_SHOWN):
            values = [_float(row.values[0]) or 0.0 for row in found.series[key]]
            rows.append(
                (*_cells(key, found), _value(sum(values) / len(values)), _value(min(values)), _value(max(values)))
            )
        table((*_headings(found), "mean>", "min>", "max>"), rows)
        return
    say("the window as one:")
    keys = largest(total, SERIES_SHOWN)
    rows = [(*_cells(key, found), *map(_value, total.series[key][0].values)) for key in keys]
    table((*_headings(found), *(f"{value}>" for value in found.trend.values)), rows)
    if len(keys) < len(total.series):
        say(f"(the largest {len(keys)} of {len(total.series):,})")


def _changes(found: TrendTable) -> None:
    say(f"the window as one, and the one before, from {moment(found.since - (found.until - found.since))}:")
    shown_keys = set(largest(found, SERIES_SHOWN))
    chosen = [change for change in found.changes if (change.slice, change.part) in shown_keys or not found.by]
    table(
        (*_headings(found), "value", "now>", "before>", "difference>", "%>"),
        [_change(change, found) for change in chosen],
    )


def _change(change: Change, found: TrendTable) -> list[object]:
    percent = "-" if change.percent is None else f"{change.percent:+.1f}"
    values = (change.now, change.before, change.difference)
    return [*_cells((change.slice, change.part), found), change.value, *map(_value, values), percent]


def _rows(found: TrendTable) -> None:
    table(
        ("bucket (UTC)", *_headings(found), *(f"{value}>" for value in found.trend.values)),
        [
            (moment(row.start, seconds=False), *_cells((row.slice, row.part), found), *map(_value, row.values))
            for row in found.rows
        ],
    )


def _value(value: Number | None) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.4g}"
    if isinstance(value, Decimal) and value.as_tuple().exponent == CENTS:
        return f"{value:,}"
    return shown(value)


# --- anomalies ----------------------------------------------------------------------------------------------------


def show_anomalies(judged: Anomalies) -> None:
    """The strongest, with what they were judged by; then how many could not be judged, and why."""
    found, counts = judged.found, judged.counts
    say()
    say(f"{len(found)} anomalies of {judged.value} (|z| > {judged.threshold:g}, against the same time of up to "
        f"{judged.weeks} weeks before):")  # fmt: skip
    if found:
        headings = _headings(judged.table)
        table(
            ("bucket (UTC)", *headings, "value>", "median>", "MAD>", "n>", "z>"),
            [
                (
                    moment(one.start, seconds=False), *_cells((one.slice, one.part), judged.table), _value(one.value),
                    _value(one.median), _value(one.mad), one.n, "-" if one.z is None else f"{one.z:+.1f}",
                )
                for one in found[:ANOMALIES_SHOWN]
            ],
        )  # fmt: skip
        if len(found) > ANOMALIES_SHOWN:
            say(f"(the strongest {ANOMALIES_SHOWN}: --json gives all)")
    said = {
        USUAL: "usual",
        TOO_LITTLE_HISTORY: f"too little history (fewer than {HISTORY_MIN} weeks)",
        NO_SPREAD: "unlike a history that was always the same, which has no spread to judge by",
        INCOMPLETE: "incomplete",
        NO_VALUE: "without a value",
    }
    say(
        f"buckets: {counts[ANOMALY]:,} anomalies; "
        + "; ".join(f"{counts[verdict]:,} {text}" for verdict, text in said.items() if counts[verdict])
    )


# --- JSON ---------------------------------------------------------------------------------------------------------


def document(found: TrendTable, total: TrendTable, judged: Anomalies | None) -> dict[str, Any]:
    """All of it, for machines. Amounts are texts, exact."""
    trend = found.trend
    made: dict[str, Any] = {
        "trend": trend.name,
        "unit": found.unit,
        "since": found.since,
        "until": found.until,
        "every": found.every,
        "by": found.by,
        "more_series": found.more,
        "rows": [_as_object(row, found) for row in found.rows],
        "total": [] if trend.momentary else [_as_object(row, total) for row in total.rows],
    }
    if found.changes:
        made["changes"] = [
            {
                **_key((change.slice, change.part), found),
                "value": change.value,
                "now": change.now,
                "before": change.before,
                "difference": change.difference,
                "percent": change.percent,
            }
            for change in found.changes
        ]
    if judged is not None:
        made["anomalies"] = {
            "value": judged.value,
            "threshold": judged.threshold,
            "weeks": judged.weeks,
            "counts": judged.counts,
            "found": [
                {
                    "start": one.start, **_key((one.slice, one.part), found), "value": one.value,
                    "median": one.median, "mad": one.mad, "n": one.n, "z": one.z,
                }
                for one in judged.found
            ],
        }  # fmt: skip
    return made


def _key(key: Key, found: TrendTable) -> dict[str, str | None]:
    made = {} if found.by is None else {found.by: key[0]}
    return made if found.trend.part is None else {**made, found.trend.part: key[1]}


def _as_object(row: TrendRow, found: TrendTable) -> dict[str, Any]:
    made: dict[str, Any] = {"start": row.start, **_key((row.slice, row.part), found)}
    made |= dict(zip(found.trend.values, row.values, strict=True))
    if row.previous is not None:
        made["previous"] = dict(zip(found.trend.values, row.previous, strict=True))
    return made
