"""A tenant that was erased stays auditable: what was done, by whom, and what a legal hold keeps of it."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from session_ledger.consumers import erasing
from session_ledger.security.vault import SQLiteVault
from tests.cli.shell import Ran, Shell, chat, jsonl

SAID = "The clinic has refused to pay for it since March, says my daughter Ruth, and the insurance does not answer."


class Erased(NamedTuple):
    """Tenant acme is erased, of whose users one is under a hold; tenant zoo goes on."""

    shell: Shell
    sessions: dict[str, str]
    """Of acme's users, each one's."""


@pytest.fixture(params=["ids", "pseudonyms"])
def erased(request: pytest.FixtureRequest, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Erased:
    """With users by their ids, and by pseudonyms."""
    monkeypatch.setenv("SESSION_LEDGER_PSEUDONYMS", str(request.param == "pseudonyms"))
    monkeypatch.setattr(erasing, "CACHED_S", 0.0)
    for tenant in ("acme", "zoo"):
        chats = [chat(SAID, id=f"{tenant}-{user}", user_id=user) for user in ("ann", "held")]
        assert 0 == shell("import", "-", "--source", "x", "-t", tenant, stdin=jsonl(*chats)).code
    listed = shell("sessions", "list", "-t", "acme", "--status", "imported", "--json").json["sessions"]
    assert 0 == shell("hold", "set", "-t", "acme", "-U", "held", "--matter", "m", "--reason", "r").code
    assert 0 == shell("erase", "tenant", "acme", "--reason", "contract over").code
    shell("erase", "status")
    assert 0 == shell("project", "--once").code
    return Erased(shell, {one["user"]: one["session_id"] for one in listed})


def test_audits_go_on(erased: Erased) -> None:
    """Of everything, of that tenant and of others: each is recorded, and none makes a key of what was erased."""
    shell, ann = erased.shell, erased.sessions["ann"]
    for command in (
        ("audit", "access"),
        ("audit", "access", "-t", "acme"),
        ("audit", "timeline", ann, "--reason", "r"),
        ("audit", "state", ann, "--reason", "r"),
        ("audit", "leaks", "--reason", "r"),
        ("audit", "leaks", "--structure", "--reason", "r"),
        ("audit", "leaks", "-t", "zoo", "--reason", "r"),
        ("audit", "leaks", "-t", "acme", "--reason", "r"),
    ):
        ran = shell(*command, "--json")
        assert ran.code == 0 or command[1] == "leaks", (command, ran.err)
        assert '"error"' not in ran.out, (command, ran.err)
    vault = SQLiteVault(shell.directory / "vault.db", readonly=True)
    assert 1 == len([user for user in vault.users("acme") if user])  # who is held
    vault.close()
    ran = shell("sessions", "create", "-t", "acme", "-U", "ann", "--json")  # whatever serves its users is refused
    assert (1, "content_gone") == (ran.code, ran.json["error"]["code"])


def test_what_a_hold_keeps_is_revealed_on_the_record(erased: Erased) -> None:
    """By each way that opens content, and nothing else of the tenant."""
    shell = erased.shell

    def reveal(user: str) -> Ran:
        by = ("-t", "acme", "-U", user, "--reason", "matter m", "--by", "eve")
        return shell("audit", "reveal", erased.sessions[user], *by)

    shown, refused = reveal("held"), reveal("ann")
    assert (0, True) == (shown.code, SAID in shown.out), shown.err
    assert SAID not in refused.out
    facts = shell("tail", "--type", "ContentRevealed", "--json").lines
    assert [("acme", "eve", "matter m")] == [(one["tenant"], one["revealed_by"], one["reason"]) for one in facts]
    query = "SELECT reveal(content) AS said FROM messages WHERE tenant = 'acme'"
    rows = shell("sql", query, "--reason", "matter m", "--json").json["rows"]
    assert {None, SAID} == {row["said"] for row in rows}
    assert SAID in shell("export", "-t", "acme", "-U", "held").out
