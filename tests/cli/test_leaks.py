"""`session-ledger audit leaks`: found once, recorded, shown without text, acknowledged with a reason."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import threading
from contextlib import nullcontext
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from session_ledger.consumers.analytics import Analytics
from session_ledger.domain.events import AuditRead, LeakAcknowledged, LeakFound
from session_ledger.ledger.ledger import Ledger
from tests.cli.shell import PROGRAM, Shell, environment
from tests.ledger.support import events

SECRET = "My daughter Ruth has been in the clinic since March and the insurance has refused to pay for it."


@pytest.fixture
def shell(directory: Path) -> Shell:
    """A ledger in which one user's words came to light in two others' sessions, one of another tenant."""
    with Ledger.open(f"sqlite:{directory}") as ledger:
        sessions = {}
        for tenant, user in (("acme", "ada"), ("acme", "bob"), ("globex", "eve")):
            sessions[user] = ledger.create_session(tenant, user).session_id
        ledger.add_message("acme", "ada", sessions["ada"], role="user", content=SECRET + " Call +49 30 1234567.")
        ledger.add_message("acme", "bob", sessions["bob"], role="assistant", content=f"Did you know? {SECRET}")
        ledger.add_message("globex", "eve", sessions["eve"], role="tool", content="dial 0049 30 123 4567")
    shell = Shell(directory)
    assert 0 == shell("project", "--once").code
    return shell


def test_leaks_are_found_recorded_once_and_acknowledged(shell: Shell) -> None:
    """Exit code 1 while something is open; who looked stands in the ledger; what was said is not shown."""
    for _ in range(2):
        ran = shell("audit", "leaks", "--json", "--by", "eve", "--reason", "weekly")
        assert 1 == ran.code
        assert SECRET[:20] not in ran.out
        found = ran.json["findings"]
        assert {("text", "bob", "ada"), ("phone", "eve", "ada")} == {
            (row["kind"], row["user"], row["source_user"]) for row in found
        }
        assert (3, 0, 2) == (ran.json["messages"], ran.json["unreadable"], ran.json["open"])
    facts = [event for event in events(shell.url) if isinstance(event, LeakFound)]
    assert {("text", "error"), ("phone", "critical")} == {(fact.kind, fact.severity) for fact in facts}
    assert 2 == len(facts)
    reads = [event for event in events(shell.url) if isinstance(event, AuditRead)]
    assert [("acme", "leaks", "weekly"), ("globex", "leaks", "weekly")] * 2 == [
        (read.tenant, read.action, read.reason) for read in reads
    ]
    for row in found:
        assert 0 == shell("audit", "acknowledge", row["finding_id"], "--reason", "a test of ours").code
    assert 2 == len([event for event in events(shell.url) if isinstance(event, LeakAcknowledged)])
    ran = shell("audit", "leaks")
    assert (0, True) == (ran.code, "0 open findings" in ran.out)
    assert 2 == len(shell("audit", "leaks", "--known", "--all", "--json").json["findings"])


def test_findings_are_chosen_by_tenant_kind_and_time(shell: Shell) -> None:
    """Of one tenant, of a kind, by structure alone, from a time on."""
    assert ["eve"] == [row["user"] for row in shell("audit", "leaks", "-t", "globex", "--json").json["findings"]]
    assert ["bob"] == [row["user"] for row in shell("audit", "leaks", "--kind", "text", "--json").json["findings"]]
    ran = shell("audit", "leaks", "--structure", "--json", "--since", "2999-01-01T00:00:00Z")
    assert (0, [], 0) == (ran.code, ran.json["findings"], ran.json["messages"])


def test_what_can_not_be_opened_is_counted(shell: Shell, directory: Path) -> None:
    """A session whose key is gone is no source any more, and the check says how many it could not read."""
    import sqlite3

    vault = sqlite3.connect(directory / "vault.db")
    vault.execute("DELETE FROM keys WHERE user = 'ada'")
    vault.commit()
    vault.close()
    ran = shell("audit", "leaks", "--json")
    assert (0, 2, 1) == (ran.code, ran.json["messages"], ran.json["unreadable"])


@pytest.mark.parametrize(("finding", "code"), [("zz", 2), ("00" * 16, 1)])
def test_an_unknown_finding_is_told(shell: Shell, finding: str, code: int) -> None:
    """What is none, and one that nobody recorded."""
    assert code == shell("audit", "acknowledge", finding, "--reason", "x").code


def test_leaks_are_told_as_they_come(shell: Shell, directory: Path) -> None:
    """`--follow` tells what is there, then what a later snapshot brings, each once, and records it."""
    command = [*PROGRAM, "audit", "leaks", "--follow", "--json", "-u", shell.url]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = [json.loads(process.stdout.readline()) for _ in range(2)]
        assert {"text", "phone"} == {told["kind"] for told in first}
        session = shell("sessions", "create", "-t", "acme", "-U", "zoe", "--json").json["session_id"]
        said = ("sessions", "message", session, SECRET, "-t", "acme", "-U", "zoe", "--role", "assistant")
        assert 0 == shell(*said).code
        assert 0 == shell("project", "--once").code
        told = json.loads(process.stdout.readline())
        assert ("text", "zoe", "ada") == (told["kind"], told["place"]["user"], told["source"]["user"])
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(30)
    assert 3 == len([event for event in events(shell.url) if isinstance(event, LeakFound)])


def test_imported_sessions_are_named_as_they_were(directory: Path, tmp_path: Path) -> None:
    """A finding between imported histories carries the ids that they had in their source."""
    chats = tmp_path / "chats.jsonl"
    lines = [
        {"id": "chat-1", "user": "ada", "created_at": 1_700_000_000, "messages": [{"role": "user", "content": SECRET}]},
        {"id": "chat-2", "user": "bob", "created_at": 1_700_100_000,
         "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": SECRET}]},
    ]  # fmt: skip
    chats.write_text("".join(json.dumps(line) + "\n" for line in lines))
    shell = Shell(directory)
    assert 0 == shell("import", chats).code
    assert 0 == shell("project", "--once").code
    [found] = shell("audit", "leaks", "--json").json["findings"]
    assert ("chat-2", "chat-1") == (found["imported_id"], found["source_imported_id"])


@pytest.mark.parametrize("owned", [False, True])
def test_reveal_export_and_check_work_beside_the_owner(shell: Shell, tmp_path: Path, owned: bool) -> None:
    """Whoever owns the ledger: this process for the moment, or another one, which records for it."""
    with Ledger.open(shell.url) if owned else nullcontext():
        query = "SELECT reveal(content) AS said FROM messages WHERE role = 'user'"
        ran = shell("sql", query, "--reason", "case 7", "--json")
        assert [{"said": SECRET + " Call +49 30 1234567."}] == ran.json["rows"]
        assert 0 == shell("archive", tmp_path / "out", "--contents", "--reason", "case 7").code
        assert 2 == shell("audit", "leaks", "--json").json["open"]
    files = (tmp_path / "out").rglob("*.parquet")
    said = [row.get("content") for path in files for row in pq.ParquetFile(path).read().to_pylist()]
    assert SECRET + " Call +49 30 1234567." in said


def test_a_key_that_does_not_unwrap_is_an_error(shell: Shell, directory: Path) -> None:
    """It is not gone, so the value is not NULL and the session not passed over."""
    keyring = directory / "keyring.json"
    text = json.loads(keyring.read_text())
    text["keys"] = {name: base64.b64encode(bytes(32)).decode() for name in text["keys"]}
    keyring.write_text(json.dumps(text))
    query = "SELECT reveal(content) AS said FROM messages"
    for arguments in (("sql", query, "--reason", "case 7"), ("audit", "leaks")):
        ran = shell(*arguments)
        assert (3, True) == (ran.code, "unwrap" in ran.err)


def test_a_check_beside_a_running_projector_waits_for_its_snapshot(shell: Shell) -> None:
    """What was found is shown all the same."""
    with Analytics(shell.url) as analytics:
        stop = threading.Event()
        running = threading.Thread(target=analytics.run, args=(stop,))
        running.start()
        try:
            assert 2 == shell("audit", "leaks", "--json").json["open"]
        finally:
            stop.set()
            running.join()
