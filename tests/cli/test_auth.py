"""`auth`: tokens are shown once, read from standard input, and refused without saying why."""

from __future__ import annotations

import pytest

from session_ledger.cli import output
from session_ledger.cli.main import run
from session_ledger.ledger.ledger import Ledger
from tests.cli.shell import Shell, streams

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


def test_failed_attempts_show_how_why_and_from_where_at_eighty_columns(
    shell: Shell, session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Method, reason and address are whole; a long name gives way; the session is told by --json."""
    monkeypatch.setattr(output, "PLAIN_COLUMNS", 80)
    user, address = "a-user-with-a-long-name@example.com", "192.168.100.200"
    for who in (user, "ann"):
        options = ("--method", "access_token", "--reason", "bad_credential", "--ip-address", address)
        assert 0 == shell("auth", "failed", "--user", who, *options).code
    lines = shell("auth", "list").out.splitlines()
    assert 80 >= max(map(len, lines))
    assert 2 == sum(("access_token", "bad_credential", address) == tuple(line.split()[2:5]) for line in lines)
    assert "session" not in lines[0]
    assert "session_id" in shell("auth", "list", "--json").json["authentication_failures"][0]


def test_a_rotated_token_lives_as_its_own_ttl_says(shell: Shell, session: str) -> None:
    """Without --ttl as long as the session may live, although the first had one; the help says so."""
    first = shell("auth", "issue", session, "--user", "ann", "--ttl", "1h", "--json").json["expires_at"]
    short = shell("auth", "rotate", session, "--user", "ann", "--ttl", "1h", "--json").json["expires_at"]
    longer = shell("auth", "rotate", session, "--user", "ann", "--json").json["expires_at"]
    assert first[:13] <= short[:13] < longer
    with streams() as (out, _):
        run(["auth", "rotate", "--help"])
    assert "whatever the replaced one had" in " ".join(out.getvalue().decode().replace("│", " ").split())
