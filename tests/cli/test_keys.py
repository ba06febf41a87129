"""`keys`: made, shown without a byte of theirs, and rotated beside a running owner."""

from __future__ import annotations

import base64
import json
import sqlite3
from pathlib import Path

import pytest

from session_ledger.cli.keys_shown import age
from session_ledger.ledger.ledger import Ledger
from tests.cli.shell import Shell

WHO = ("acme", "ann")


@pytest.fixture
def used(shell: Shell) -> str:
    """A ledger of two tenants; a live session of the first one's."""
    with Ledger.open(shell.url) as ledger:
        session = ledger.create_session(*WHO, title="hello").session_id
        ledger.create_session(*WHO)
        ledger.create_session("other", "bob")
    return session


def test_a_keyring_is_made_where_the_ledger_will_look_for_it(shell: Shell) -> None:
    """In the new ledger's directory, private; the ledger then uses it; a second one is refused."""
    made = shell("keys", "init", "--json").json
    path = shell.directory / "keyring.json"
    assert str(path) == made["keyring"]
    assert 0o600 == path.stat().st_mode & 0o777
    with Ledger.open(shell.url) as ledger:
        ledger.create_session(*WHO)
    assert {made["primary"]} == {key["wrapped_by"] for key in shell("keys", "list", "--json").json["keys"]}
    again = shell("keys", "init")
    assert (3, True) == (again.code, "exists already" in again.err)


def test_a_keyring_is_made_elsewhere(shell: Shell, tmp_path: Path) -> None:
    """`--path`; where that can not be, it says why."""
    assert 0 == shell("keys", "init", "--path", tmp_path / "mine.json").code
    assert (tmp_path / "mine.json").exists()
    assert 3 == shell("keys", "init", "--path", tmp_path / "nowhere" / "mine.json").code


def test_no_keyring_is_made_over_keys_that_another_one_wraps(shell: Shell, used: str) -> None:
    """A lost keyring is to be brought back; a new one would open nothing and look as if it did."""
    (shell.directory / "keyring.json").unlink()
    refused = shell("keys", "init")
    assert (3, True) == (refused.code, "bring that one back" in refused.err)
    assert not (shell.directory / "keyring.json").exists()


def test_keys_are_shown_by_generation_age_and_count(shell: Shell, used: str) -> None:
    """A row a tenant key, the ledger's own too, also without the keyring; the totals agree."""
    keys = {key["tenant"]: key for key in shell("keys", "list", "--json").json["keys"]}
    assert {"", "acme", "other"} == keys.keys()
    assert (1, 2, 1, True) == tuple(keys["acme"][name] for name in ("generation", "sessions", "accounts", "wraps"))
    assert keys["acme"]["age_s"] >= 0
    assert "acme" in shell("keys", "list").out
    (shell.directory / "keyring.json").unlink()
    status = shell("keys", "status", "--json").json
    assert (3, 3, 3, 3, [], 0, None) == tuple(
        status[name]
        for name in ("tenants", "tenant_keys", "session_keys", "account_keys", "unfinished", "direct", "keyring")
    )


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0 s"), (59, "59 s"), (60, "1 min"), (7200, "2 h"), (10**6, "12 d")]
)
def test_an_age_is_told_in_its_largest_unit(seconds: float, shown: str) -> None:
    """From seconds to days."""
    assert shown == age(seconds)


def test_no_command_shows_a_key(shell: Shell, used: str) -> None:
    """Neither the keyring's keys nor what is wrapped, in any form."""
    content = json.loads((shell.directory / "keyring.json").read_text(encoding="utf-8"))
    secrets = [base64.b64decode(key) for key in content["keys"].values()]
    printed = ""
    for command in (["list"], ["status"], ["rotate", "tenant", "acme"], ["rotate", "provider"]):
        for form in ([], ["--json"]):
            ran = shell("keys", *command, *form)
            assert 0 == ran.code, ran.err
            printed += ran.out + ran.err
    for secret in secrets:
        assert not any(form in printed for form in (secret.hex(), base64.b64encode(secret).decode(), repr(secret)))


def test_a_tenants_key_is_rotated_beside_the_owner(shell: Shell, used: str) -> None:
    """Its next generation wraps everything; the owner goes on; what was said is read again."""
    with Ledger.open(shell.url) as ledger:
        ledger.add_message(*WHO, used, role="user", content="before")
        rotated = shell("keys", "rotate", "tenant", "acme", "--json").json
        assert (2, False, 3, 1, 0) == tuple(
            rotated[name] for name in ("generation", "resumed", "rewrapped", "dropped", "kept")
        )
        ledger.create_session(*WHO)
        ledger.add_message(*WHO, used, role="user", content="after")
    (acme,) = [key for key in shell("keys", "list", "--json").json["keys"] if key["tenant"] == "acme"]
    assert (2, 3) == (acme["generation"], acme["sessions"])
    history = shell("sessions", "history", used, "--tenant", "acme", "--user", "ann").out
    assert "before" in history
    assert "after" in history


def test_the_keyrings_key_is_rotated_beside_the_owner(shell: Shell, used: str) -> None:
    """A new primary wraps every tenant key; the old one stays in the keyring; an unfinished one is finished first."""
    with Ledger.open(shell.url, keys_cached_s=0.001) as ledger:
        before = shell("keys", "status", "--json").json["wrapped_by"]
        rotated = shell("keys", "rotate", "provider", "--json").json
        assert 3 == rotated["tenant_keys"]
        status = shell("keys", "status", "--json").json
        assert ({rotated["provider_key_id"]: 3}, 2) == (status["wrapped_by"], status["wrapping_keys"])
        assert before != status["wrapped_by"]
        ledger.add_message(*WHO, used, role="user", content="after")
        ledger.create_session("third", "eve")
    keyring = Path(status["keyring"])
    content = json.loads(keyring.read_text(encoding="utf-8"))
    content["keys"]["wk-next"] = base64.b64encode(b"n" * 32).decode()  # a rotation that was cut short here
    keyring.write_text(json.dumps({**content, "primary": "wk-next"}), encoding="utf-8")
    again = shell("keys", "rotate", "provider", "--json").json
    assert ("wk-next", 4) == (again["provider_key_id"], again["tenant_keys"])
    assert 3 == shell("keys", "status", "--json").json["wrapping_keys"]


def test_a_sessions_key_is_rotated_through_the_owner(shell: Shell, used: str) -> None:
    """As a command like any other, recorded with its reason."""
    with Ledger.open(shell.url):
        rotated = shell("keys", "rotate", "session", used, "-t", "acme", "-U", "ann", "--reason", "leak", "--json").json
    assert (2, used) == (rotated["generation"], rotated["session_id"])
    assert 0 == shell("verify").code
    events = shell("tail", "--json").lines
    assert "leak" in [event.get("reason") for event in events if "KeyRotated" in json.dumps(event)]
    missing = shell("keys", "rotate", "session", used, "-U", "nobody")
    assert missing.code != 0


def test_what_has_no_vault_is_told(shell: Shell) -> None:
    """Where no ledger is, and for one in memory."""
    for command in (["list"], ["status"], ["rotate", "tenant", "acme"], ["rotate", "provider"]):
        assert 3 == shell("keys", *command).code
    assert not shell.directory.exists()


@pytest.mark.parametrize("what", [("tenant", "acme"), ("provider",)])
def test_no_wrapping_of_before_is_left_in_the_vaults_files(shell: Shell, used: str, what: tuple[str, ...]) -> None:
    """Also beside a process that has the vault open; nor is a draft of a keyring that somebody was killed over."""
    draft = shell.directory / ".keyring.json.0123456789abcdef"
    draft.write_bytes((shell.directory / "keyring.json").read_bytes())
    with Ledger.open(shell.url) as ledger:
        ledger.create_session(*WHO)
        with sqlite3.connect(shell.directory / "vault.db") as db:
            tables = ("keys",) if what[0] == "tenant" else ("tenant_keys",)
            query = " UNION ".join(f"SELECT wrapped FROM {table} WHERE tenant = 'acme'" for table in tables)
            before = [row[0] for row in db.execute(query)]
        db.close()
        assert before
        assert 0 == shell("keys", "rotate", *what).code
        files = b"".join(path.read_bytes() for path in shell.directory.glob("vault.db*"))
        assert not [wrapped for wrapped in before if wrapped[-32:] in files]
    assert draft.exists() == (what[0] == "tenant")


def test_a_tenant_that_nobody_knows_is_not_erased(shell: Shell, used: str) -> None:
    """A mistyped one would be closed for ever."""
    refused = shell("erase", "tenant", "acmee", "--reason", "typo")
    assert (2, True) == (refused.code, "recorded something of" in refused.err)
    assert "TenantErased" not in shell("tail", "--partition", "-1").out
