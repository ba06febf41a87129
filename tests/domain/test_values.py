"""Amounts and times as callers give them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_ledger.domain.errors import InvalidInput
from session_ledger.domain.values import AMOUNT_MAX, TIME_US_MAX, amount, check_amount, time_us


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"),
        (7, "7"),
        (0.1, "0.1"),
        (1e6, "1000000.0"),
        ("2.50", "2.50"),
        (Decimal("1E+3"), "1000"),
        (Decimal("1.50000000"), "1.500000"),
        (Decimal("-0"), "0"),
        (10**12, "1000000000000"),
        ("0.000001", "0.000001"),
    ],
)
def test_numbers_become_exact_amounts(value: int | float | str | Decimal, expected: str) -> None:
    """A float counts as its shortest text; the exponent is between -6 and 0."""
    assert expected == str(amount(value, "amount"))


@pytest.mark.parametrize(
    "value",
    [
        -1,
        "-0.000001",
        float("nan"),
        float("inf"),
        Decimal("sNaN"),
        Decimal("-Infinity"),
        0.1 + 0.2,
        1e-7,
        Decimal("1e-1000000"),
        Decimal("1e1000000"),
        10**12 + 1,
        "0.0000001",
        "",
        "ten",
        "1_0,0",
        True,
        None,
        [],
        b"1",
        "\ud800",
    ],
)
def test_what_is_no_amount_is_invalid_input(value: object) -> None:
    """Never another error, and the field is named."""
    with pytest.raises(InvalidInput, match=r"^limit: "):
        amount(value, "limit")  # type: ignore[arg-type]


@given(st.decimals(min_value=0, max_value=AMOUNT_MAX, places=6))
def test_every_amount_stays_itself(number: Decimal) -> None:
    """As a Decimal and as its text."""
    assert number == amount(number, "amount") == amount(str(number), "amount")
    check_amount(amount(number, "amount"), "amount")


@given(st.floats())
def test_a_float_is_its_text_or_invalid(number: float) -> None:
    """No float is rounded."""
    try:
        made = amount(number, "amount")
    except InvalidInput:
        return
    assert number == float(made)


@given(st.integers(0, TIME_US_MAX))
def test_a_time_is_the_same_in_every_zone(microseconds: int) -> None:
    """A datetime with a zone becomes its microseconds since the epoch, exactly."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    assert microseconds == time_us(moment, "occurred_at") == time_us(microseconds, "occurred_at")
    if 86_400_000_000 < microseconds < TIME_US_MAX - 86_400_000_000:
        assert microseconds == time_us(moment.astimezone(timezone(timedelta(hours=-9))), "occurred_at")


@pytest.mark.parametrize(
    "value", [datetime(2026, 1, 1), datetime(1969, 12, 31, tzinfo=UTC), -1, TIME_US_MAX + 1, 1.5, True, "now", None]
)
def test_what_is_no_time_is_invalid_input(value: object) -> None:
    """No zone, out of range, or another type."""
    with pytest.raises(InvalidInput, match=r"^occurred_at: "):
        time_us(value, "occurred_at")  # type: ignore[arg-type]
