"""`auth`: tokens are shown once, read from standard input, and refused without saying why."""

from __future__ import annotations

import pytest

from session_ledger.ledger.ledger import Ledger
from tests.cli.shell import Shell

WHO = ("default", "ann")


@pytest.fixture
def session(shell: Shell) -> str:
    """A live session."""
    with Ledger.open(shell.url) as ledger:
        return ledger.create_session(*WHO).session_id


def test_a_token_is_issued_checked_and_rotated(shell: Shell, session: str) -> None:
    """On stdout the token alone; `check` reads it from standard input; the replaced one opens for its grace."""
    issued = shell("auth", "issue", session, "--user", "ann", "--ttl", "8h")
    first = issued.out.strip()
    assert (47, True) == (len(first), "shown this once" in issued.err)
    assert "opens session" in shell("auth", "check", session, "--user", "ann", stdin=f"{first}\n".encode()).out
    again = shell("auth", "issue", session, "--user", "ann")
    assert (1, True) == (again.code, "rotate it" in again.err)
    rotated = shell("auth", "rotate", session, "--user", "ann", "--grace", "30s", "--json").json
    assert first != rotated["token"]
    for token in (first, rotated["token"]):
        checked = shell("auth", "check", session, "--user", "ann", "--json", stdin=token.encode()).json
        assert (session, "ann") == (checked["session_id"], checked["user"])


def test_a_refused_token_is_recorded_with_the_reason_that_nobody_is_told(shell: Shell, session: str) -> None:
    """Exit code 1; the third raises an alert; `auth list` shows all, with how many attempts each tells of."""
    for guess in ("guess", "", "slt_" + "x" * 43):
        refused = shell(
            "auth", "check", session, "--user", "ann", "--ip-address", "192.0.2.7", stdin=f"{guess}\n".encode()
        )
        assert (1, "") == (refused.code, refused.out)
        assert "no_token" not in refused.err
    listed = shell("auth", "list", "--json").json["authentication_failures"]
    assert [("no_token", 1, "192.0.2.7")] * 3 == [(f["reason"], f["attempts"], f["ip_address"]) for f in listed]
    assert "kind=authentication_failures" in shell("tail").out
    assert "no_token" in shell("auth", "list").out
