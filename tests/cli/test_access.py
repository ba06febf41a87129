"""A session of an auditor at the command line, end to end; and that no command goes around the hook."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from session_ledger.cli.main import app
from session_ledger.cli.permitted import asking, leaves
from session_ledger.ledger.principals import system_user
from tests.cli.shell import Ran, Shell

ME = system_user()
SECRET = "my account is 4711"


class As:
    """Commands by this system's user in a role, as a settings file says."""

    def __init__(self, shell: Shell, file: Path) -> None:
        self._shell, self._file = shell, file

    def __call__(self, role: str, *arguments: object, tenants: str = '["acme"]', user: str = ME) -> Ran:
        self._file.write_text(f'[principals."{user}"]\nrole = "{role}"\ntenants = {tenants}\n')
        return self._shell(*arguments)


@pytest.fixture
def by(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> As:
    """Commands by role."""
    file = tmp_path / "principals.toml"
    file.touch()
    monkeypatch.setenv("SESSION_LEDGER_CONFIG", str(file))
    return As(shell, file)


@pytest.fixture
def session(by: As) -> str:
    """A session that a service has served."""
    found = by("service", "sessions", "create", "-t", "acme", "-U", "u", "--title", SECRET, "--json")
    assert 0 == found.code, found.err
    identifier = str(found.json["session_id"])
    assert 0 == by("service", "sessions", "message", identifier, SECRET, "-t", "acme", "-U", "u").code
    return identifier


def refused(ran: Ran) -> None:
    """Exit code 1, and a line that says who may not do it; nothing of content."""
    assert 1 == ran.code, ran.err
    assert "may not" in ran.err
    assert SECRET not in ran.out + ran.err


def test_a_session_of_an_auditor(by: As, session: str) -> None:
    """Structure, refused content, refused commands, and a reveal with a reason, recorded before."""
    whose = ("-t", "acme", "-U", "u")
    listed = by("auditor", "sessions", "list", "-t", "acme", "--json")
    assert [(session, None)] == [(one["session_id"], one["title"]) for one in listed.json["sessions"]]
    read = by("auditor", "sessions", "history", session, *whose, "--json")
    assert [(None, "user")] == [(one["content"], one["role"]) for one in read.lines]
    assert "content_withheld" in read.out
    shown = by("auditor", "sessions", "history", session, *whose)
    assert "audit reveal" in shown.out
    assert SECRET not in shown.out
    refused(by("auditor", "export", "-t", "acme"))
    refused(by("auditor", "sessions", "message", session, "x", *whose))
    refused(by("auditor", "sessions", "list", "-t", "zoo"))
    refused(by("auditor", "stats"))
    refused(by("auditor", "sql", "SELECT 1"))
    assert 0 == by("auditor", "audit", "timeline", session, "--reason", "a complaint").code

    reveal = ("audit", "reveal", session, *whose)
    assert 2 == by("auditor", *reveal).code  # without a reason
    refused(by("auditor", *reveal, "--reason", "a complaint", "--by", "somebody-else"))
    refused(by("operator", *reveal, "--reason", "a complaint"))
    assert [] == facts(by, "ContentRevealed")
    revealed = by("auditor", *reveal, "--reason", "a complaint")
    assert (0, 2) == (revealed.code, revealed.out.count(SECRET)), revealed.err
    assert [(ME, "a complaint", 2)] == [
        (one["revealed_by"], one["reason"], one["fields"]) for one in facts(by, "ContentRevealed")
    ]
    assert SECRET == by("auditor", *reveal, "--reason", "again", "--json").json["messages"][0]["content"]


def facts(by: As, kind: str) -> list[dict[str, object]]:
    """The facts of that type."""
    return by("owner", "tail", "--type", kind, "--json", tenants='["*"]').lines


def test_an_audit_is_of_an_own_tenant(by: As, session: str) -> None:
    """Where the session tells whose it is, the read is refused before anything is shown."""
    for command in (("timeline", session), ("state", session), ("diff", session, "1", "2")):
        refused(by("auditor", "audit", *command, tenants='["zoo"]'))
    refused(by("auditor", "audit", "timeline", session, "--by", "somebody-else"))
    assert [] == facts(by, "AuditRead")


def test_names_that_are_forged_are_refused(by: As, session: str) -> None:
    """What operators and auditors do is recorded under their own name."""
    why = ("-t", "acme", "-U", "u", "--reason", "r")
    refused(by("operator", "erase", "session", session, *why, "--by", "somebody-else"))
    refused(by("auditor", "hold", "set", "--matter", "m", *why, "--by", "somebody-else"))
    held = by("auditor", "hold", "set", "--matter", "m", *why)
    assert (0, ME) == (
        held.code,
        by("auditor", "hold", "list", "-t", "acme", "--json").json["holds"][0]["requested_by"],
    )


def test_operators_erase_and_sweep_under_their_own_name(by: As, session: str) -> None:
    """The erasure of a tenant goes on to its users; a sweep has its way."""
    assert 0 == by("operator", "retention", "sweep", "-t", "acme").code
    refused(by("operator", "retention", "sweep"))
    erased = by("operator", "erase", "tenant", "acme", "--reason", "r", "--json")
    assert (0, ME) == (erased.code, erased.json["erasures"][0]["requested_by"]), erased.err
    assert [("acme", "u", ME)] == [
        (one["tenant"], one["user"], one["requested_by"]) for one in facts(by, "ContentErased")
    ]


def test_sql_reveals_to_an_auditor_of_every_tenant(by: As, session: str) -> None:
    """`reveal` in SQL passes the same authorization, and is recorded."""
    every = '["*"]'
    refused(by("auditor", "project", "--once", tenants=every))
    assert 0 == by("operator", "project", "--once", tenants=every).code
    query = ("sql", "SELECT reveal(content) AS said FROM messages", "--reason", "r", "--json")
    refused(by("operator", *query, tenants=every))
    refused(by("auditor", *query, "--by", "somebody-else", tenants=every))
    assert [] == facts(by, "ContentRevealed")
    assert [{"said": SECRET}] == by("auditor", *query, tenants=every).json["rows"]
    assert [ME] == [one["revealed_by"] for one in facts(by, "ContentRevealed")]


def test_who_is_not_listed_may_nothing(by: As, shell: Shell, session: str) -> None:
    """Commands and reads, whatever tenant; what is about no ledger is theirs to run."""
    keyring = shell.directory.parent / "other.json"
    assert 0 == by("owner", "keys", "init", "--path", keyring, user="somebody-else").code
    for command in (("stats",), ("sessions", "list", "-t", "acme"), ("verify",), ("serve",)):
        ran = by("owner", *command, "--json", user="somebody-else", tenants='["*"]')
        assert (1, "forbidden") == (ran.code, ran.json["error"]["code"])
        assert f"{ME} is no principal" in ran.json["error"]["message"]


def test_every_command_passes_the_hook() -> None:
    """Each command of the tree asks before it runs."""
    tree = asking(typer.main.get_command(app))
    around = [path for path, leaf in leaves(tree) if getattr(leaf.callback, "func", None).__name__ != "_asked"]  # type: ignore[union-attr]
    assert [] == around
