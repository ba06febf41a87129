"""Charts: what they show is in the numbers, whatever the names are; a page needs nothing from elsewhere."""

from __future__ import annotations

import re
import sys
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from session_ledger.domain.errors import InvalidInput, Misconfigured
from session_ledger.projections.analytics.charts import LINES_MAX, drawn, html_of, svg_of, write_chart
from session_ledger.projections.analytics.trends import TRENDS, TrendTable, read_trend
from tests.projections.analytics.plain_trends import HOUR, PRICES
from tests.projections.analytics.trend_events import BEGIN, connection_of, fact, world


def trend(name: str, seed: int = 5, *, by: str | None = None, compare: bool = False) -> TrendTable:
    """A trend of random events, three days."""
    db = connection_of(world(seed))
    db.executemany(
        "INSERT INTO prices VALUES (?, ?, ?, ?, ?, ?)",
        [(p.model, p.effective_from, p.currency, p.input_per_million, p.cached_input_per_million,
          p.output_per_million) for p in PRICES],
    )  # fmt: skip
    return read_trend(db, name, since=BEGIN, until=BEGIN + timedelta(days=3), every="hour", by=by, compare=compare)


def texts_of(svg: str) -> list[str]:
    """Every text in the picture."""
    root = ElementTree.fromstring(svg)
    return ["".join(one.itertext()) for one in root.iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("name", TRENDS)
def test_every_trend_has_a_chart(name: str) -> None:
    """By each of its dimensions, compared or not; the same trend gives the same bytes."""
    for by in (None, TRENDS[name].dimensions[0]):
        table = trend(name, by=by, compare=by is None)
        svg = svg_of(table)
        assert any(TRENDS[name].title in text for text in texts_of(svg))
        assert svg == svg_of(table)


def test_an_empty_window_has_a_chart() -> None:
    """Of nothing."""
    table = read_trend(connection_of([]), "topics", since=BEGIN, until=BEGIN + HOUR, by="tenant")
    assert () == table.rows
    assert texts_of(svg_of(table))
    assert "<tbody>" in html_of(table)


def test_names_are_shown_as_they_are() -> None:
    """No name is markup, mathematics or a hidden label."""
    names = ["<script>alert(1)</script>", "$x^2$ & co", "_hidden"]
    facts = [fact("SessionCreated", BEGIN, session_id=None, tenant=name) for name in names]
    table = read_trend(connection_of(facts), "sessions_started", since=BEGIN, until=BEGIN + HOUR, by="tenant")
    shown = [text.strip("\u200b") for text in texts_of(svg_of(table))]
    assert set(names) <= set(shown)
    page = html_of(table)
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_a_page_has_every_number_and_loads_nothing() -> None:
    """A row a bucket and series; no address but the names of XML."""
    table = trend("topics")
    page = html_of(table)
    rows: list[str] = []

    class Rows(HTMLParser):
        """Counts rows of the table."""

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            """One."""
            if tag == "tr":
                rows.append(tag)

    Rows().feed(page)
    assert len(table.rows) + 1 == len(rows)
    addresses = set(re.findall(r"https?://[^\"' >]+", page))
    assert all("w3.org" in one or "purl.org" in one or "creativecommons.org" in one for one in addresses)
    assert not re.search(r"<(link|script|img|iframe)", page)


def test_a_chart_shows_the_largest_and_says_so() -> None:
    """At most so many lines; the table has all."""
    facts = [fact("SessionCreated", BEGIN, session_id=None, tenant=f"t-{n}") for n in range(12) for _ in range(n + 1)]
    table = read_trend(connection_of(facts), "sessions_started", since=BEGIN, until=BEGIN + HOUR, by="tenant")
    assert [f"t-{n}" for n in range(11, 11 - LINES_MAX, -1)] == [label for label, _, _ in drawn(table)]
    page = html_of(table)
    assert f"the largest {LINES_MAX} of 12 series" in page
    assert "t-0<" in page


def test_the_name_of_the_file_decides_the_form(tmp_path: Path) -> None:
    """SVG or HTML; nothing else is written."""
    table = trend("messages")
    for name, first in (("a.svg", "<?xml"), ("b.HTML", "<!DOCTYPE html>")):
        write_chart(table, tmp_path / name)
        assert (tmp_path / name).read_text(encoding="utf-8").startswith(first)
    with pytest.raises(InvalidInput):
        write_chart(table, tmp_path / "c.png")


def test_without_the_plotting_library_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(Misconfigured, match=r"session-ledger\[plots\]"):
        svg_of(trend("messages"))
