"""Commands on a ledger whose log is a real Kafka broker's: what reads make, and what they do without the owner."""

from __future__ import annotations

from pathlib import Path

import pytest

from session_ledger import Ledger
from tests.cli.shell import Shell

pytestmark = pytest.mark.kafka


@pytest.fixture
def away(shell: Shell, kafka: str, ledger_name: str) -> Shell:
    """Commands on a Kafka ledger that is not there yet, with a replica's directory of their own."""
    shell.url = f"kafka://{kafka}/{ledger_name}?partitions=2&replica={shell.directory}"
    return shell


def test_reads_of_a_kafka_ledger_that_is_not_there_make_none(away: Shell) -> None:
    """Neither topics nor local files: exit code 3, whatever is asked, and so it is the next time."""
    for command in ("stats", "verify", "rebuild", "export", "lag", "limits show", "agents list", "expire"):
        ran = away(*command.split(), "--json")
        assert (3, "log_unavailable") == (ran.code, ran.json["error"]["code"]), command
        assert not away.directory.exists(), command


def test_reads_go_on_where_the_owner_can_not_be_asked(
    away: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An owner that no socket leads to: reads answer from what the log shows, and say so; commands are refused."""
    monkeypatch.setenv("SESSION_LEDGER_ENCRYPTION", "none")
    away.directory.mkdir()
    elsewhere = away.url.replace(str(away.directory), str(tmp_path / "elsewhere"))
    with Ledger.open(elsewhere, encryption="none") as ledger:
        ledger.create_session("default", "alice")
        for command in ("verify", "stats"):
            ran = away(*command.split(), "--json")
            assert 0 == ran.code, (command, ran.err)
            assert "as of what the log shows: its owner could not be asked" in ran.err
        assert 1 == ran.json["sessions"]
        assert 3 == away("sessions", "create", "-U", "bob").code


def test_reads_go_on_after_the_owner_was_killed(away: Shell) -> None:
    """Its place is not free at once; what it acknowledged is read all the same."""
    with away.started("serve", "--json") as service:
        assert service.stdout is not None
        assert service.stdout.readline().startswith(b'{"serving":')
        assert 0 == away("sessions", "create", "-U", "alice").code
        service.kill()
        service.wait(30)
        ran = away("stats", "--json")
        assert (0, 1) == (ran.code, ran.json["sessions"]), ran.err
