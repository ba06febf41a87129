"""`session-ledger audit`: recorded, for people and machines, and as a report that can be filed."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from tests.cli.shell import Shell

HOSTILE = "<script>alert('x')</script>\x1b[31m"


@pytest.fixture
def shell(directory: Path) -> Shell:
    """A ledger of one session, by a user with a hostile name."""
    shell = Shell(directory)
    made = shell("sessions", "create", "--user", "<b>ada</b>", "--title", "t", "--json").json
    session = made["session_id"]
    for _ in range(2):
        shell("sessions", "message", session, "hello", "--user", "<b>ada</b>", "--role", "user")
    return shell


def session_of(shell: Shell) -> str:
    """Its id."""
    found: str = shell("sessions", "list", "--json").json["sessions"][0]["session_id"]
    return found


@pytest.mark.parametrize("indexed", [False, True])
def test_each_command_shows_and_records(shell: Shell, indexed: bool) -> None:
    """Timeline, state, difference, access; with an index or without; who looked is in the ledger after."""
    session = session_of(shell)
    if indexed:
        assert 0 == shell("project", "--once").code
    by = ("--by", "eve", "--reason", "case 7")
    timeline = shell("audit", "timeline", session, *by, "--json").json
    assert ["SessionCreated", "MessageAdded", "MessageAdded"] == [fact["type"] for fact in timeline["facts"]]
    assert indexed == timeline["by_index"]
    assert 3 <= len(shell("audit", "timeline", "--user", "<b>ada</b>", *by, "--json").json["facts"])
    state = shell("audit", "state", session, "--at", "2", *by, "--json").json["state"]
    assert (1, "live") == (len(state["messages"]), state["status"])
    changed = shell("audit", "diff", session, "1", "2", *by, "--json").json
    assert 1 == len(changed["facts"])
    told = shell("audit", "access", "--json").json["accesses"]
    assert ["timeline", "timeline", "state", "diff"] == [one["action"] for one in told]
    assert {("eve", "case 7", "<b>ada</b>")} == {(one["who"], one["reason"], one["user"]) for one in told}
    for option in ("-t", "--tenant"):
        assert 0 == shell("audit", "state", session, option, "default").code
        assert 0 == shell("audit", "diff", session, "1", "2", option, "default").code
    for arguments in (("timeline", session), ("state", session), ("diff", session, "1", "3"), ("access",)):
        ran = shell("audit", *arguments)
        assert (0, True) == (ran.code, bool(ran.out))
        assert indexed is not ("without an index" in ran.err)


def test_a_report_is_whole_and_escaped(shell: Shell, tmp_path: Path) -> None:
    """It needs nothing else, runs nothing, and carries the digest of what it shows."""
    session, file = session_of(shell), tmp_path / "report.html"
    ran = shell("audit", "state", session, "--report", file, "--reason", HOSTILE, "--by", "eve")
    assert 2 == ran.code or "\x1b" not in file.read_text()
    ran = shell("audit", "state", session, "--report", file, "--reason", "<script>alert(1)</script>", "--json")
    text = file.read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "<b>ada" not in text
    assert not re.search(r"(src|href)=|url\(|@import", text)


DIGESTED = {
    "timeline {session}": ["facts"],
    "state {session}": ["state"],
    "diff {session} 1 2": ["changes", "facts"],
    "access": ["accesses"],
}


@pytest.mark.parametrize("command", DIGESTED)
def test_a_report_beside_json_leaves_one_document_that_gives_its_digest(
    shell: Shell, tmp_path: Path, command: str
) -> None:
    """Stdout holds the document alone; it names the file, and the members whose canonical JSON has that SHA-256."""
    file = tmp_path / "report.html"
    shell("audit", "timeline", session_of(shell))
    given = shell("audit", *command.format(session=session_of(shell)).split(), "--report", file, "--json").json
    members = DIGESTED[command]
    canonical = json.dumps(
        {one: given[one] for one in members}, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    assert {"file": str(file), "sha256_of": members, "sha256": digest} == given["report"]
    assert digest in file.read_text()
    assert " and ".join(members) + " as canonical JSON" in file.read_text()


def test_a_report_for_people_is_named_last(shell: Shell, tmp_path: Path) -> None:
    """Without --json the path is told after what is shown; the state at a point has one digest whenever it is made."""
    command, file = ("audit", "state", session_of(shell), "--at", "2", "--report"), tmp_path / "report.html"
    assert f"report written to {file}" == shell(*command, file).out.splitlines()[-1]
    assert shell(*command, file, "--json").json["report"]["sha256"] in file.read_text()
    first = file.read_text()
    shell("sessions", "message", session_of(shell), "later", "--user", "<b>ada</b>")
    assert shell(*command, file, "--json").json["report"]["sha256"] in first


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("timeline",), 2),
        (("timeline", "x", "--user", "y"), 2),
        (("state", "nonsense"), 2),
        (("state", "01a21cbb-1ba1-78b5-97a2-18dbe1393623"), 1),
        (("state", "{session}", "--at", "yesterday"), 2),
        (("state", "{session}", "--at", "0"), 1),
        (("diff", "{session}", "3", "1"), 2),
    ],
)
def test_mistakes_are_told(shell: Shell, arguments: tuple[str, ...], code: int) -> None:
    """What is missing, wrong, unknown or the wrong way round; nothing is recorded then."""
    session = session_of(shell)
    ran = shell("audit", *(argument.format(session=session) for argument in arguments))
    assert code == ran.code, ran.err
    assert "Traceback" not in ran.err
    assert [] == shell("audit", "access", "--json").json["accesses"]
