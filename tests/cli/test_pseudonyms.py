"""Users by pseudonyms, as their operators and a thief of the files see it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from session_ledger.consumers import erasing
from session_ledger.consumers.views import Views
from session_ledger.domain.errors import KeyUnavailable
from session_ledger.domain.ids import is_pseudonym
from session_ledger.ledger.keys import open_keys
from session_ledger.ledger.ledger import Ledger
from session_ledger.ledger.settings import Settings
from session_ledger.security.envelope import VaultEnvelope
from session_ledger.security.pseudonym_keys import PseudonymRows
from session_ledger.security.stored import StoredPseudonym
from session_ledger.security.tenant_keys import TenantKey
from tests.cli.shell import Shell, chat, jsonl
from tests.ledger.test_pseudonyms import MARK, NEEDLE, OTHER, live

SECRET = "My daughter Ruth has been in the clinic since March and the insurance has refused to pay for it."
ASKED: dict[str, Any] = {"requested_by": "dpo", "reason": "request 7"}


@pytest.fixture(autouse=True)
def _on(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the environment of every command says it; no key stays in memory for long."""
    monkeypatch.setenv("SESSION_LEDGER_PSEUDONYMS", "true")
    monkeypatch.setenv("SESSION_LEDGER_KEYS_CACHED_S", "0.000001")


def found_in(*places: Path) -> list[str]:
    """The files that name a marked user anywhere, in any byte."""
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    return [path.name for path in files if NEEDLE in path.read_bytes()]


def ok(shell: Shell, *arguments: object, stdin: bytes = b"", code: int = 0) -> str:
    """What a command writes that ends so."""
    ran = shell(*arguments, stdin=stdin)
    assert code == ran.code, ran.err
    return ran.out


@pytest.fixture
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Erasures wait for no key in another process: there is none."""
    monkeypatch.setattr(erasing, "CACHED_S", 0.0)


def test_no_byte_at_rest_names_a_user(shell: Shell, tmp_path: Path, no_wait: None) -> None:
    """Whatever is recorded, folded, published, archived, checked, found and erased: in none of it, nor in the vault."""
    with Ledger.open(shell.url) as ledger:
        live(ledger)
        for user, role in ((MARK, "user"), (OTHER, "assistant")):
            session = ledger.create_session("t", user).session_id
            ledger.add_message("t", user, session, role=role, content=SECRET)
        ledger.report_error("t", OTHER, session, component="c", error_type="e", message="m")
    lines = jsonl(chat("hello", id="a", user_id=MARK), chat("hi", id="b", user_id=OTHER))
    ok(shell, "import", "-", "--source", "chats", "-t", "t", stdin=lines)
    ok(shell, "hold", "set", "-t", "t", "-U", OTHER, "--matter", "m", "--reason", "r")
    ok(shell, "project", "--once")
    ok(shell, "audit", "leaks", "-t", "t", code=1)
    shell("monitor", "--once", "--errors", "0", "--record")
    ok(shell, "archive", tmp_path / "parquet")
    ok(shell, "checkpoint", "--once", "--mirror", tmp_path / "mirror")
    ok(shell, "verify", "--sign", tmp_path / "note")
    ok(shell, "audit", "timeline", "-t", "t", "-U", MARK, "--report", tmp_path / "timeline.html")
    ok(shell, "audit", "access", "-t", "t", "-U", MARK, "--report", tmp_path / "access.html")
    told = json.loads(ok(shell, "sql", "SELECT DISTINCT user FROM events WHERE user <> ''", "--json"))
    assert all(is_pseudonym(row["user"]) for row in told["rows"])
    ok(shell, "erase", "user", "-t", "t", "-U", MARK, "--reason", "r")
    shell("erase", "status")
    ok(shell, "project", "--once")
    erased = json.loads(ok(shell, "erase", "status", "--all", "--json"))["erasures"]
    for one in erased:
        (tmp_path / "receipt").write_text(ok(shell, "erase", "receipt", one["erasure"]))
        assert [] == found_in(tmp_path)
    assert {"vault.db", "views.db", "erasures.db", "note", "timeline.html", "access.html", "receipt"} <= {
        path.name for path in tmp_path.rglob("*")
    }
    assert [] == found_in(tmp_path, shell.directory)


def test_options_take_the_id_and_the_pseudonym(shell: Shell) -> None:
    """Each command that takes a user; what is shown of the views names the user, what is shown of the log does not."""
    with Ledger.open(shell.url) as ledger:
        session = live(ledger)
    pseudonym = ok(shell, "keys", "pseudonym", "-t", "t", "-U", MARK).strip()
    assert is_pseudonym(pseudonym)
    for user in (MARK, pseudonym):
        whose = ("-t", "t", "-U", user, "--json")
        assert {MARK} == {one["user"] for one in json.loads(ok(shell, "sessions", "list", *whose))["sessions"]}
        facts = json.loads(ok(shell, "audit", "timeline", *whose))
        assert (f"user t/{pseudonym}", True) == (facts["subject"], len(facts["facts"]) > 20)
        reads = json.loads(ok(shell, "audit", "access", "-U", user, "--json"))["accesses"]
        assert {pseudonym} == {one["user"] for one in reads}
    whose = ("-t", "t", "-U", MARK, "--json")
    assert MARK == json.loads(ok(shell, "audit", "reveal", session, *whose, "--reason", "r"))["session"]["user"]
    assert "hello" in ok(shell, "sessions", "history", session, *whose)
    assert "calls" in ok(shell, "quota", "report", *whose)
    assert "5" in ok(shell, "limits", "show", *whose)
    assert MARK in ok(shell, "auth", "list", *whose)
    assert MARK in ok(shell, "export", "-t", "t", "-U", pseudonym)
    assert pseudonym == json.loads(ok(shell, "keys", "pseudonym", *whose))["recorded_as"]
    assert MARK in ok(shell, "stats")
    assert MARK not in ok(shell, "tail")
    assert pseudonym in ok(shell, "tail")
    assert "\n2 ways back" in ok(shell, "keys", "rotate", "tenant", "t")
    assert MARK in ok(shell, "sessions", "show", session, "-t", "t", "-U", MARK)
    ok(shell, "verify", "--sample", "20")


def test_who_has_no_keys_names_the_pseudonym(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """An auditor without keyring: an id is refused, with what to do; the pseudonym finds everything."""
    with Ledger.open(shell.url) as ledger:
        session = live(ledger)
    pseudonym = ok(shell, "keys", "pseudonym", "-t", "t", "-U", MARK).strip()
    monkeypatch.setenv("SESSION_LEDGER_ENCRYPTION", "none")
    monkeypatch.setenv("SESSION_LEDGER_PSEUDONYMS", "false")
    ran = shell("sessions", "show", session, "-t", "t", "-U", MARK)
    assert (True, True) == (ran.code != 0, "name the user by the pseudonym" in ran.err.replace("\n", " "))
    assert pseudonym in ok(shell, "sessions", "show", session, "-t", "t", "-U", pseudonym)
    ran = shell("audit", "timeline", "-t", "t", "-U", MARK)
    assert (True, True) == (ran.code != 0, "name the user by the pseudonym" in ran.err.replace("\n", " "))


def test_an_export_is_imported_to_the_same_history(shell: Shell, tmp_path: Path) -> None:
    """It names users as they are, so any ledger takes it; importing again adds nothing."""
    lines = jsonl(chat("hello", id="a", user_id=MARK), chat("hi", id="b", user_id=OTHER))
    for added in (2, 0):
        assert added == json.loads(ok(shell, "import", "-", "--json", stdin=lines))["sessions"]
    exported = ok(shell, "export")
    assert {MARK, OTHER} == {json.loads(line)["user_id"] for line in exported.splitlines()}
    other = Shell(tmp_path / "other")
    assert 2 == json.loads(ok(other, "import", "-", "--json", stdin=exported.encode()))["sessions"]
    assert exported == ok(other, "export")
    assert 0 == json.loads(ok(shell, "import", "-", "--json", stdin=exported.encode()))["sessions"]


def test_after_an_erasure_nobody_finds_the_way_back(shell: Shell, no_wait: None) -> None:
    """With the tenant's key in hand, in no byte of vault and write-ahead log; receipt and reads name the pseudonym."""
    with Ledger.open(shell.url) as ledger:  # it has the vault open all the time
        ann, bob = (ledger.create_session("t", user).user for user in (MARK, OTHER))
        key, bound = _tenant_key_of(shell, ann)
        assert opened(shell.directory, key, bound, MARK)
        ok(shell, "erase", "user", "-t", "t", "-U", MARK, "--reason", "r")
        shell("erase", "status")
        (erased,) = json.loads(ok(shell, "erase", "status", "--all", "--json"))["erasures"]
        receipt = ok(shell, "erase", "receipt", erased["erasure"])
        assert f"\nuser {ann}\n" in receipt
        assert "the way back from the pseudonym is destroyed too" in receipt
        assert not opened(shell.directory, key, bound, MARK)
        with Views.open(shell.url, settings=Settings()) as views:
            assert {ann, OTHER} == {view.user for view in views.tenant_sessions("t", status=None)}
        _, others = _tenant_key_of(shell, bob)
        assert opened(shell.directory, key, others, OTHER)
        ok(shell, "erase", "user", "-t", "t", "-U", MARK, "--reason", "once more")
        shell("erase", "status")
        assert not opened(shell.directory, key, bound, MARK)


def test_a_tenant_that_is_erased_takes_its_pseudonyms_along(shell: Shell) -> None:
    """Its key and every way back; another tenant's stay."""
    with Ledger.open(shell.url) as ledger:
        ann = ledger.create_session("t", MARK).user
        other = ledger.create_session("other", MARK).user
    ok(shell, "erase", "tenant", "t", "--reason", "r")
    shell("erase", "status")
    with open_keys(shell.directory, "ledger", Settings(), readonly=True) as keys:
        rows = keys.vault.tenants.pseudonyms
        assert (None, None) == (rows.find("t", ""), rows.find("t", ann))
        names = VaultEnvelope("ledger", keys.vault, keys.provider).vault_pseudonyms
        assert (ann, MARK) == (names.user_of("t", ann), names.user_of("other", other))


def _tenant_key_of(shell: Shell, pseudonym: str) -> tuple[TenantKey, bytes]:
    """The tenant's key, and what the way back from that pseudonym is bound to."""
    with open_keys(shell.directory, "ledger", Settings(), readonly=True) as keys:
        return keys.tenants.wrapping_key("t"), PseudonymRows("ledger", keys.tenants)._bound("t", pseudonym)


def opened(directory: Path, key: TenantKey, bound: bytes, user: str) -> bool:
    """Whether the user's id opens anywhere in the vault's files."""
    length = 1 + 12 + len(user) + 16
    for path in directory.glob("vault.db*"):
        data = path.read_bytes()
        at = data.find(1)
        while at >= 0:
            try:
                return key.open_user(data[at : at + length], bound) == user
            except KeyUnavailable:  # it does not open here
                at = data.find(1, at + 1)
    return False


def test_rows_of_the_vault_name_nobody() -> None:
    """A row's repr, as a traceback may show it, holds ciphertext only."""
    assert MARK not in repr(StoredPseudonym("t", "p-1", "tk-1", b"\x01"))
