"""Commands on a ledger whose log is a real Kafka broker's: what reads make, and what they do without the owner."""

from __future__ import annotations

from pathlib import Path

import pytest
from kafka import KafkaConsumer, TopicPartition

from session_ledger import Ledger
from session_ledger.ledger.url import parse_url
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


def test_reads_go_on_where_no_socket_leads_to_the_owner(
    away: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reads answer from what the log shows, which is all that was acknowledged; commands are refused."""
    monkeypatch.setenv("SESSION_LEDGER_ENCRYPTION", "none")
    away.directory.mkdir()
    elsewhere = away.url.replace(str(away.directory), str(tmp_path / "elsewhere"))
    with Ledger.open(elsewhere, encryption="none") as ledger:
        ledger.create_session("default", "alice")
        for command in ("verify", "stats"):
            ran = away(*command.split(), "--json")
            assert (0, "") == (ran.code, ran.err), command
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


@pytest.mark.slow
def test_reads_need_no_keys_and_no_right_to_write(away: Shell) -> None:
    """Nobody owns the ledger, and keyring and vault are lost: structure is read, and the reader becomes no owner."""
    with Ledger.open(away.url) as ledger:
        session = ledger.create_session("default", "alice", title="x").session_id
        ledger.add_message("default", "alice", session, role="user", content="hello")
    for lost, commands in (
        ("keyring.json", ("stats", "verify", "sessions list -U alice", "project --once")),
        ("vault.db", ("stats", "limits show")),
    ):
        (away.directory / lost).rename(away.directory / f"{lost}.lost")
        before = end_of(away, "control")
        for command in commands:
            ran = away(*command.split(), "--json")
            assert 0 == ran.code, (command, ran.err)
        history = away("sessions", "history", session, "-U", "alice", "--json")
        assert (0, None, True) == (history.code, history.lines[0]["content"], bool(history.lines[0]["unreadable"]))
        assert before == end_of(away, "control")  # a new owner begins with a barrier in each partition


def end_of(shell: Shell, topic: str) -> int:
    """The offset at which the ledger's topic ends, of what no event is too."""
    place = parse_url(shell.url)
    consumer = KafkaConsumer(bootstrap_servers=place.bootstrap)
    at = TopicPartition(f"{place.name}.{topic}", 0)
    try:
        return int(consumer.end_offsets([at])[at])
    finally:
        consumer.close()
