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
    content = json.loads(ran.out.splitlines()[0])["state"]
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(canonical.encode()).hexdigest() in text


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
