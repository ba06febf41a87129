"""What is typed on a command line becomes values, or an error that names the option."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from session_ledger.cli.values import json_of, metadata_of, quotas_of, seconds_of, time_of
from session_ledger.domain.errors import InvalidInput


@pytest.mark.parametrize(
    ("seconds", "text"), [(90, "90"), (0.25, "250ms"), (30, "30s"), (900, "15m"), (28_800, "8 h"), (604_800, "7d")]
)
def test_durations_are_seconds_or_carry_a_unit(seconds: float, text: str) -> None:
    """A bare number is seconds; ms, s, m, h and d multiply it."""
    assert seconds == seconds_of(text, "--ttl")


@pytest.mark.parametrize("text", ["", "x", "-1", "1w", "1h30m", "nan"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """The error names the option and shows a form that is right."""
    with pytest.raises(InvalidInput, match=r"^--ttl: .*such as"):
        seconds_of(text, "--ttl")


def test_metadata_are_pairs_and_values_may_hold_an_equals_sign() -> None:
    """The first '=' divides; none given is None, so that an update leaves metadata alone."""
    assert {"a": "b=c", "d": ""} == metadata_of(["a=b=c", "d="])
    assert metadata_of(None) is None


@pytest.mark.parametrize("pairs", [["a"], ["=b"], ["a=1", "a=2"]])
def test_metadata_without_a_key_or_with_one_twice_is_refused(pairs: list[str]) -> None:
    """Nothing is guessed and nothing is overwritten."""
    with pytest.raises(InvalidInput):
        metadata_of(pairs)


def test_times_need_a_zone() -> None:
    """A time without a zone could be any of many; it is refused."""
    assert datetime(2026, 1, 31, 11, tzinfo=UTC) == time_of("2026-01-31T12:00:00+01:00")
    with pytest.raises(InvalidInput, match="time zone"):
        time_of("2026-01-31T12:00:00")
    with pytest.raises(InvalidInput, match="ISO 8601"):
        time_of("yesterday")


@pytest.mark.parametrize("text", ["{", "NaN", "[" * 100_000])
def test_what_is_no_json_is_refused(text: str) -> None:
    """Also what Python's own parser would take, and what is nested without end."""
    with pytest.raises(InvalidInput, match="--parts"):
        json_of(text, "--parts")


def test_default_quotas_name_resource_limit_and_period() -> None:
    """RESOURCE=LIMIT/PERIOD, several times."""
    assert {"tokens": ("1000", 86_400.0), "api_calls": ("2.5", 60.0)} == quotas_of(
        ["tokens=1000/24h", "api_calls=2.5/60"]
    )
    for text in ("tokens", "tokens=5", "=5/1h", "tokens=/1h", "tokens=5/"):
        with pytest.raises(InvalidInput, match="--quota"):
            quotas_of([text])
