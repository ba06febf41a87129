"""Commands on a ledger with a schema registry, which the environment names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from session_ledger import Ledger
from tests.cli.shell import Shell
from tests.schemas.http_registry import HttpRegistry


@pytest.fixture
def registry(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpRegistry]:
    """A registry with which a session was recorded; the environment names it."""
    with HttpRegistry() as server:
        monkeypatch.setenv("SESSION_LEDGER_SCHEMA_REGISTRY", server.url)
        with Ledger.open(shell.url, schema_registry=server.url) as ledger:
            ledger.create_session("acme", "ada", title="Order 42")
        yield server


def test_every_way_of_reading_asks_the_registry(shell: Shell, registry: HttpRegistry) -> None:
    """The log itself, the views, the check, the rebuilding."""
    assert ["SessionCreated"] == [line["type"] for line in shell("tail", "--json").lines]
    assert 1 == shell("stats", "--json").json["sessions"]
    assert shell("verify", "--json").json["ok"]
    assert 0 == shell("rebuild").code
    assert "Order 42" in shell("sessions", "list", "-t", "acme").out


def test_a_registry_that_is_away_is_told_and_condemns_nothing(shell: Shell, registry: HttpRegistry) -> None:
    """Exit code 3 and the error's code, not a finding; afterwards the same commands answer."""
    registry.stop()
    for command in ("tail", "stats", "verify", "rebuild"):
        ran = shell(command, "--json")
        assert (3, "registry_unavailable") == (ran.code, ran.json["error"]["code"]), command
        assert ran.json["error"]["retriable"], command
    registry.start()
    assert shell("verify", "--json").json["ok"]
