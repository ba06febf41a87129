"""Ledgers to test on: in memory, in a directory, on a real broker."""

from __future__ import annotations

from pathlib import Path

import pytest

KAFKA = pytest.param("kafka", marks=pytest.mark.kafka)


def url_of(request: pytest.FixtureRequest, tmp_path: Path, ledger_name: str) -> str:
    """The URL of a ledger on the log that the fixture's parameter names."""
    if request.param == "memory":
        return "memory:"
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'ledger'}"
    return f"kafka://{request.getfixturevalue('kafka')}/{ledger_name}?partitions=2&replica={tmp_path / 'ledger'}"


@pytest.fixture(params=["memory", "sqlite", KAFKA])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path, ledger_name: str) -> str:
    """The URL of a ledger of one's own, on each log."""
    return url_of(request, tmp_path, ledger_name)


@pytest.fixture(params=["sqlite", KAFKA])
def durable_url(request: pytest.FixtureRequest, tmp_path: Path, ledger_name: str) -> str:
    """The same, on each log that keeps anything."""
    return url_of(request, tmp_path, ledger_name)


@pytest.fixture(params=[KAFKA])
def kafka_url(request: pytest.FixtureRequest, tmp_path: Path, ledger_name: str) -> str:
    """The URL of a ledger on Kafka."""
    return url_of(request, tmp_path, ledger_name)
