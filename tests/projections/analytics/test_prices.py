"""Prices: a list is taken whole and exact or not at all, and costs are right to the cent."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import pytest

from session_ledger.domain.errors import InvalidInput, Misconfigured
from session_ledger.projections.analytics import prices
from session_ledger.projections.analytics.prices import Price
from session_ledger.projections.analytics.trends import read_total, read_trend
from tests.projections.analytics.trend_events import connection_of, fact

HEADING = "model,effective_from,currency,input_per_million,cached_input_per_million,output_per_million\n"
DAY = datetime(2026, 3, 1, tzinfo=UTC)


def test_a_list_is_the_same_from_csv_and_json() -> None:
    """Dates are midnights in UTC, times have zones, amounts stay what was written: no float comes in between."""
    text = HEADING + "m-2,2026-03-01,EUR,0.1,0,1e1\n\nm-1,2026-03-01T01:00:00+01:00,EUR,0.300000001,0.05,999999999.5\n"
    listed = """{"prices": [
        {"model": "m-2", "effective_from": "2026-03-01", "currency": "EUR", "input_per_million": 0.1,
         "cached_input_per_million": 0, "output_per_million": 10},
        {"model": "m-1", "effective_from": "2026-03-01T00:00:00Z", "currency": "EUR",
         "input_per_million": 0.300000001, "cached_input_per_million": "0.05", "output_per_million": 999999999.5}]}"""
    expected = (
        Price("m-1", DAY, "EUR", Decimal("0.300000001"), Decimal("0.05"), Decimal("999999999.5")),
        Price("m-2", DAY, "EUR", Decimal("0.1"), Decimal(0), Decimal(10)),
    )
    assert expected == prices.parse(text, "csv")
    assert expected == prices.parse(listed, "json")


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ("m,2026-03-01,USD,1,1,-1", "line 3, output_per_million"),
        ("m,2026-03-01,USD,1,1,NaN", "line 3, output_per_million"),
        ("m,2026-03-01,USD,1,0.1234567891,1", "line 3, cached_input_per_million"),
        ("m,2026-03-01,USD,1000000000,1,1", "line 3, input_per_million"),
        ("m,2026-03-01,USD,,1,1", "line 3, input_per_million"),
        ("m,2026-03-01,usd,1,1,1", "line 3, currency"),
        ("m,2026-03-01,EUR,1,1,1", "line 3, currency"),
        ("m,2026-03-01T00:00:00,USD,1,1,1", "line 3, effective_from"),
        ("m,2026-02-30,USD,1,1,1", "line 3, effective_from"),
        (",2026-03-01,USD,1,1,1", "line 3, model"),
        ("first,2026-01-01T00:00:00Z,USD,1,1,1", "line 3, effective_from"),
        ("m,2026-03-01,USD,1,1", "line 3"),
        ('"m,2026-03-01,USD,1,1', "line 3"),
    ],
)
def test_a_wrong_line_is_named_with_its_field(row: str, field: str) -> None:
    """Nothing is taken from a list that has one."""
    with pytest.raises(InvalidInput) as caught:
        prices.parse(f"{HEADING}first,2026-01-01,USD,1,1,1\n{row}\n", "csv")
    assert field == caught.value.field


@pytest.mark.parametrize(
    ("text", "form", "field"),
    [
        ("model,currency\n", "csv", "line 1, effective_from"),
        (HEADING.replace("model", "model,note"), "csv", "line 1, 'note'"),
        ("[", "json", "line 1"),
        ("{}", "json", "FILE"),
        ("[1]", "json", "price 1"),
        ('[{"model": "m"}]', "json", "price 1, effective_from"),
    ],
)
def test_what_is_no_list_is_refused(text: str, form: str, field: str) -> None:
    """Fields that are missing or unknown, and documents of another shape."""
    with pytest.raises(InvalidInput) as caught:
        prices.parse(text, form)
    assert field == caught.value.field


def test_a_file_has_a_form_that_its_name_tells(tmp_path: Path) -> None:
    """CSV or JSON, in UTF-8."""
    path = tmp_path / "list.csv"
    path.write_text("\ufeff" + HEADING + "m,2026-03-01,USD,1,1,1\n", encoding="utf-8")
    assert 1 == len(prices.load(path))
    path.write_bytes(b"\xff")
    with pytest.raises(InvalidInput):
        prices.load(path)
    with pytest.raises(InvalidInput):
        prices.load(tmp_path / "list.xlsx")


def test_what_was_saved_is_read_and_replaces_what_was_there(tmp_path: Path) -> None:
    """The file is readable by its owner alone; where there is none there are no prices; a damaged one is said."""
    directory = tmp_path / "analytics"
    assert () == prices.read(directory / prices.FILE)
    first = prices.parse(HEADING + "m,2026-03-01T12:00:00.5Z,USD,1.10,0,0.000000001\n", "csv")
    path = prices.save(directory, first)
    assert (first, 0o600) == (prices.read(path), path.stat().st_mode & 0o777)
    second = prices.parse(HEADING + "n,2026-03-01,USD,1,0,1\n", "csv")
    prices.save(directory, second)
    db = connection_of([])
    for _ in range(2):
        prices.install(db, path)
        assert [("n", 1)] == db.execute("SELECT model, input_per_million::INTEGER FROM prices").fetchall()
    assert [prices.FILE] == [path.name for path in directory.iterdir()]
    path.write_text("{", encoding="utf-8")
    with pytest.raises(Misconfigured):
        prices.install(db, path)


def test_an_invoice_is_matched_to_the_cent_over_a_change_of_prices() -> None:
    """The price in effect when a message was written counts, to the microsecond; only the sum is rounded."""
    source = random.Random(7)
    change = DAY + timedelta(hours=10, minutes=30)
    old, new = (Decimal("0.15"), Decimal("0.075"), Decimal("0.6")), (Decimal("0.149999999"), Decimal(0), Decimal("0.7"))
    rows = [("m", DAY - timedelta(days=9), old), ("m", change, new), ("other", DAY, new)]
    listed = [Price(model, begins, "USD", *amounts) for model, begins, amounts in rows]
    times = [change - timedelta(microseconds=1), change, change + timedelta(microseconds=1)]
    times += [DAY + timedelta(seconds=source.randrange(86_400)) for _ in range(500)]
    facts, owed = [], Decimal(0)
    for at in times:
        read, cached, written = source.randrange(5, 3000), source.randrange(5), source.randrange(3000)
        facts.append(
            fact("MessageAdded", at, model="m", role="assistant", tokens_in=read, tokens_cached=cached,
                 tokens_out=written)
        )  # fmt: skip
        amounts = new if at >= change else old
        owed += sum(n * a for n, a in zip((read - cached, cached, written), amounts, strict=True)) / Decimal(1_000_000)
    db = connection_of(facts)
    prices.install_rows(db, listed)
    window: dict[str, Any] = {"since": DAY, "until": DAY + timedelta(days=1)}
    table = read_total(db, "cost", **window)
    cost, rounded, _, unpriced = table.rows[0].values
    assert (owed, owed.quantize(Decimal("0.01"), ROUND_HALF_UP), 0, "USD") == (cost, rounded, unpriced, table.currency)
    hours = [row.values[0] for row in read_trend(db, "cost", **window).rows]
    assert owed == sum((value for value in hours if isinstance(value, Decimal)), Decimal(0))


def test_half_a_cent_is_rounded_up() -> None:
    """As invoices do."""
    db = connection_of([fact("MessageAdded", DAY, model="m", role="assistant", tokens_in=5000)])
    prices.install_rows(db, [Price("m", DAY, "USD", Decimal(1), Decimal(0), Decimal(0))])
    (row,) = read_trend(db, "cost", since=DAY, until=DAY + timedelta(hours=1)).rows
    assert (Decimal("0.005"), Decimal("0.01")) == row.values[:2]


def test_tokens_without_a_price_are_told_and_cost_no_zero() -> None:
    """A model that the list does not have, a time before its first price, a message without a model."""
    facts = [
        fact("MessageAdded", DAY, model="unknown", role="assistant", tokens_in=10, tokens_out=5),
        fact("MessageAdded", DAY - timedelta(microseconds=1), model="m", role="assistant", tokens_in=7),
        fact("MessageAdded", DAY, model=None, role="user", tokens_in=1),
        fact("MessageAdded", DAY + timedelta(hours=1), model="m", role="assistant", tokens_in=1_000_000),
        fact("MessageAdded", DAY, model="unknown", role="user"),
    ]
    db = connection_of(facts)
    prices.install_rows(db, [Price("m", DAY, "USD", Decimal(2), Decimal(0), Decimal(0))])
    rows = read_trend(db, "cost", since=DAY - timedelta(hours=1), until=DAY + timedelta(hours=3)).rows
    expected = [(None, None, 0, 7), (None, None, 0, 16), (2, 2, 1_000_000, 0), (0, 0, 0, 0)]
    assert expected == [row.values for row in rows]


def test_a_new_list_reprices_history() -> None:
    """The same events, another list, another cost: no event changes."""
    db = connection_of([fact("MessageAdded", DAY, model="m", role="assistant", tokens_out=1_000_000)])
    for amount in (3, 4):
        prices.install_rows(db, [Price("m", DAY, "USD", Decimal(0), Decimal(0), Decimal(amount))])
        (row,) = read_total(db, "cost", since=DAY, until=DAY + timedelta(hours=1)).rows
        assert amount == row.values[0]
