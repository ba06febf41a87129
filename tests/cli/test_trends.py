"""`session-ledger trends` and `prices`: from a ledger through its snapshot to numbers, charts and files."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from session_ledger.cli import prices
from session_ledger.cli.trends import trends, window
from session_ledger.cli.trends_shown import bars, squeeze
from session_ledger.consumers.analytics import Analytics
from session_ledger.domain.errors import InvalidInput, LogUnavailable, SessionLedgerError
from session_ledger.ledger.ledger import Ledger
from session_ledger.projections.analytics import snapshots
from tests.cli.shell import Shell

PRICES = """model,effective_from,currency,input_per_million,cached_input_per_million,output_per_million
m-1,2020-01-01,USD,2.50,0.25,10
"""


class Asked:
    """Commands on one ledger that has a few messages and a snapshot."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.app = typer.Typer()
        self.app.command()(trends)
        self.app.add_typer(prices.app, name="prices")

    def __call__(self, *arguments: object) -> Result:
        """Run it; errors of ours are raised, as `main` gets them."""
        done = CliRunner().invoke(self.app, [*map(str, arguments), "-u", self.url])
        if isinstance(done.exception, SessionLedgerError):
            raise done.exception
        assert done.exception is None, done.output
        return done

    def json(self, *arguments: object) -> Any:
        """The document on stdout."""
        return json.loads(self(*arguments, "--json").stdout)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Two tenants, three messages, one topic."""
    monkeypatch.delenv("SESSION_LEDGER_URL", raising=False)
    monkeypatch.setattr(snapshots, "VIEWS", tuple(dict.fromkeys((*snapshots.VIEWS, "trends.sql"))))
    url = f"sqlite:{tmp_path / 'ledger'}"
    with Ledger.open(url) as ledger:
        for tenant in ("acme", "[bold]"):
            session = ledger.create_session(tenant, "u", channel="text")
            ledger.add_message(tenant, "u", session.session_id, role="user", content="hello", topic="billing")
        ledger.add_message(
            "[bold]", "u", session.session_id, role="assistant", content="hi", model="m-1", tokens_in=1_000_000,
            tokens_out=100_000, latency_ms=700,
        )  # fmt: skip
    with Analytics(url) as analytics:
        analytics.catch_up()
        analytics.publish()
    return Asked(url)


def test_a_trend_of_a_ledger_is_told_to_people_and_machines(asked: Asked) -> None:
    """The same numbers in a chart with totals, and in JSON."""
    told = asked("trends", "messages", "--since", "1d", "--by", "tenant")
    assert "Messages by tenant" in told.stdout
    assert "[bold]" in told.stdout
    assert "as of" in told.stderr
    found = asked.json("trends", "messages", "--since", "1d", "--by", "tenant")
    assert {("acme", 1), ("[bold]", 2)} == {(row["tenant"], row["messages"]) for row in found["total"]}
    assert 3 == sum(row["messages"] for row in found["rows"])
    assert 1 == asked.json("trends", "messages", "-t", "acme")["total"][0]["messages"]
    assert 1 == asked.json("trends", "messages", "--only", "model=m-1")["total"][0]["messages"]
    topics = asked.json("trends", "topics", "--every", "week", "--since", "1w")["total"]
    assert [("billing", 2), (None, 1)] == sorted(((t["topic"], t["messages"]) for t in topics), key=lambda t: -t[1])


@pytest.mark.parametrize("options", [("--compare",), ("--anomalies",), ("--compare", "--anomalies", "--every", "day")])
def test_every_trend_can_be_shown(asked: Asked, options: tuple[str, ...]) -> None:
    """Compared and judged, as text and as JSON; the list names them."""
    listed = asked.json("trends")["trends"]
    for trend in listed:
        found = asked.json("trends", trend["name"], *options)
        assert trend["name"] == found["trend"]
        assert ("changes" in found) is ("--compare" in options)
        assert ("anomalies" in found) is ("--anomalies" in options)
        assert trend["title"] in asked("trends", trend["name"], *options).stdout
        assert trend["name"] in asked("trends").stdout


def test_prices_are_loaded_and_costs_follow(asked: Asked, tmp_path: Path) -> None:
    """Before, the tokens are told to have none; after, the cost is exact."""
    assert "1,100,000 tokens have no price" in asked("trends", "cost").stdout
    assert "no prices" in asked("prices", "show").stdout
    path = tmp_path / "list.csv"
    path.write_text(PRICES, encoding="utf-8")
    assert {"loaded": 1, "models": 1} == {k: v for k, v in asked.json("prices", "load", path).items() if k != "path"}
    assert "1 price " in asked("prices", "load", path).stdout
    assert "m-1" in asked("prices", "show").stdout
    assert "2.5" == asked.json("prices", "show")["prices"][0]["input_per_million"]
    (total,) = asked.json("trends", "cost")["total"]
    assert ("3.5", 1_100_000, 0) == (total["cost"], total["priced_tokens"], total["unpriced_tokens"])
    with pytest.raises(LogUnavailable):
        Asked(f"sqlite:{tmp_path / 'nowhere'}")("prices", "load", path)


def test_a_chart_is_drawn_into_a_file(asked: Asked, tmp_path: Path) -> None:
    """An SVG or a page."""
    for name in ("a.svg", "a.html"):
        assert f"drawn into {tmp_path / name}" in asked("trends", "messages", "--plot", tmp_path / name).stdout
        assert "</svg>" in (tmp_path / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("nothing",), "trend"),
        (("messages", "--every", "window"), "--every"),
        (("messages", "--by", "user"), "by"),
        (("messages", "--plot", "a.png"), "--plot"),
        (("messages", "--only", "model"), "--only"),
        (("messages", "--since", "soon"), "--since"),
        (("messages", "--since", "0"), "--since"),
        (("messages", "--since", "2020-01-01T00:00:00"), "--since"),
        (("messages", "--since", "2999-01-01"), "since"),
    ],
)
def test_a_mistake_is_named(asked: Asked, arguments: tuple[str, ...], field: str) -> None:
    """By the option, or by what it stands for."""
    with pytest.raises(InvalidInput) as caught:
        asked("trends", *arguments)
    assert field == caught.value.field


def test_a_window_is_counted_back_from_its_last_bucket() -> None:
    """Whole buckets but for the last; --compare takes whole ones alone; the future is not told."""
    now = datetime(2026, 3, 4, 10, 20, tzinfo=UTC)
    hour, day = timedelta(hours=1), timedelta(days=1)
    start = now.replace(minute=0)
    assert (start - day, now) == window("1d", None, "hour", now)
    assert (start - day, start) == window("24h", None, "hour", now, whole=True)
    monday = datetime(2026, 3, 2, tzinfo=UTC)
    assert (monday - 7 * day, now) == window("1w", "2026-12-31", "week", now)
    assert (monday, start - 2 * hour) == window("2026-03-02", "2026-03-04T08:00:00Z", "hour", now)


def test_charts_of_blocks_tell_nothing_from_zero_and_zero_from_little() -> None:
    """Blank, a line at the bottom, and more than that."""
    assert [" ▁▂▄█"] == bars([None, 0, 0.001, 50, 100], 1)
    assert ["  █", " ▁█"] == bars([None, 0, 5], 2)
    assert [2, None, 5] == squeeze([1, 2, None, None, 5], 3)
    assert ["▁▁"] == bars([0, 0], 1)


def test_a_plot_without_the_extra_names_it_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 3 and what to install, although there is not even a ledger."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    ran = Shell(tmp_path / "none")("trends", "messages", "--plot", tmp_path / "a.svg")
    assert (3, True) == (ran.code, "of the extra `plots`: pip install 'session-ledger[plots]'" in ran.err)
