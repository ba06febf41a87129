"""Erasures carried out: what could open the content is gone from every byte on the disk, whatever interrupts it."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from session_ledger.cli.main import run
from session_ledger.consumers.analytics import Analytics
from session_ledger.consumers.destroying import Destroying
from session_ledger.consumers.eraser import CACHES, STORES
from session_ledger.consumers.erasing import open_eraser
from session_ledger.consumers.erasure_store import ErasureStore
from session_ledger.consumers.views import Views
from session_ledger.domain.errors import InvalidInput, KeyUnavailable, NotErasable, SessionNotActive
from session_ledger.domain.ids import format_id, parse_id
from session_ledger.ledger.ledger import Ledger
from session_ledger.ledger.open import open_envelope
from session_ledger.ledger.settings import Settings
from session_ledger.security.signing import FILE, Verifier
from session_ledger.security.vault import SQLiteVault
from tests.cli.shell import Shell
from tests.consumers.searched import ASKED, CACHED_S, MARK, STRUCTURE, fill, found_in, secrets_of, step
from tests.ledger.support import Clock


class Stopped(Exception):
    """The process was gone at this point."""


@pytest.fixture
def url(directory: Path) -> str:
    """Of the ledger."""
    return f"sqlite:{directory}"


def test_nothing_that_opens_the_content_is_left_in_any_byte(directory: Path, url: str, tmp_path: Path) -> None:
    """Marked text through every feature; before the erasure its keys are found on the disk, afterwards nowhere."""
    shell = Shell(directory)
    with Ledger.open(url) as ledger:
        sessions = fill(ledger, "ada")
        fill(ledger, "bob")
        with Views.over(ledger.log, ledger.envelope, directory=directory) as views:
            assert MARK + "2" == views.session("t", "ada", sessions[0]).title
        with Analytics(url) as analytics:
            analytics.catch_up()
            analytics.publish()
        assert 0 == shell("archive", tmp_path / "out").code
        assert 0 == shell("audit", "leaks", "-t", "t").code
        assert 0 == shell("verify", "--sign", tmp_path / "note").code
        secrets, others = secrets_of(url, "ada"), secrets_of(url, "bob")
        assert {"vault.db"} <= {name.removesuffix("-wal") for name in found_in(directory, secrets)}
        found = found_in(tmp_path, [STRUCTURE.encode()])
        assert {".db", ".duckdb", ".parquet"} <= {Path(name).suffix for name in found}  # whatever packs what it holds
        ledger.erase_user("t", "ada", **ASKED)
        step(url, ledger)
        assert set() == found_in(directory, secrets)
        with Analytics(url) as analytics:
            analytics.catch_up()
            analytics.publish()
        with Views.over(ledger.log, ledger.envelope, directory=directory) as views:
            session = views.session("t", "ada", sessions[0])
            assert (None, {}, 1) == (session.title, session.metadata, session.messages)
            assert session.erased_at is not None
            (message,) = views.history("t", "ada", sessions[0])
            assert (None, True) == (message.content, "erased" in (message.unreadable or ""))
            assert MARK == views.session("t", "bob", views.sessions("t", "bob").items[0].session_id).title
    assert set() == found_in(tmp_path, [MARK.encode(), *secrets])
    assert set() != found_in(directory, others)
    assert 0 == shell("verify").code


def test_a_receipt_when_no_process_can_have_a_key_any_more(directory: Path, url: str) -> None:
    """Signed once; what has not confirmed is named until then; it is checked offline, and not when it was changed."""
    clock = Clock()
    with Ledger.open(url) as ledger:
        session, _ = fill(ledger, "ada")
        ledger.reveal_content("t", "ada", session_id=session, revealed_by="eve", reason="case", query_digest=bytes(16))
        ledger.erase_session("t", "ada", session, **ASKED)
        (waiting,) = step(url, ledger, clock)
        assert ({CACHES}, set(STORES) - {CACHES}) == (set(waiting.waiting), set(waiting.confirmed))
        assert waiting.erasure.receipt is None
        clock.step(CACHED_S - 1)
        assert [CACHES] == list(step(url, ledger, clock)[0].waiting)
        clock.step(2)
        assert [] == step(url, ledger, clock)
    with open_eraser(url, Settings()) as eraser:
        (erasure,) = eraser.store.erasures()
        eraser.step()
        assert eraser.store.erasures() == [erasure]
    note = erasure.receipt
    assert note is not None
    key = json.loads(Shell(directory)("verify", "--sign", directory.parent / "n", "--json").out)["public_key"]
    text = Verifier.parse(key).text_of(note)
    for expected in (session, "requested by dpo", "data keys destroyed 1", "confirmed vault", "opened before for eve"):
        assert expected in text
    assert MARK not in note
    path = directory.parent / "receipt"
    path.write_text(note)
    shell = Shell(directory)
    assert 0 == run_plain("verify-receipt", path, "--key", key)
    of_checkpoints = shell("keys", "verifier").out.strip()
    assert of_checkpoints != key
    assert 0 == run_plain("verify-receipt", path, "--key", of_checkpoints)
    assert 0 == run_plain("verify", "--check", directory.parent / "n", "--key", of_checkpoints)
    path.write_text(note.replace("dpo", "ceo"))
    assert 1 == run_plain("verify-receipt", path, "--key", key)
    assert note == shell("erase", "receipt", format_id(erasure.event_id)).out
    assert note == shell("erase", "receipt", format_id(erasure.event_id), "--json").json["receipt"]


def run_plain(*arguments: object) -> int:
    """A command that names no ledger; its exit code."""
    return run([*map(str, arguments)])


CALLS = [
    (ErasureStore, "apply"),
    (SQLiteVault, "destroy"),
    (SQLiteVault, "destroy_account"),
    (SQLiteVault, "scrub"),
    (ErasureStore, "destroyed"),
    (ErasureStore, "confirm"),
    (ErasureStore, "completed"),
    (Destroying, "_covered"),
    (ErasureStore, "found"),
]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("owner", "call"), CALLS, ids=[call for _, call in CALLS])
def test_an_erasure_that_stops_at_any_step_goes_on(
    directory: Path, url: str, monkeypatch: pytest.MonkeyPatch, owner: type, call: str, after: bool
) -> None:
    """Before or after each step, once; then again: every key is gone, every store confirmed, one receipt."""
    clock = Clock()
    with Ledger.open(url) as ledger:
        fill(ledger, "ada")
        secrets = secrets_of(url, "ada")
        ledger.erase_user("t", "ada", **ASKED)
        real, stopped = getattr(owner, call), 0

        def once(*arguments: Any, **options: Any) -> Any:
            nonlocal stopped
            stopped += 1
            if stopped == 1 and not after:
                raise Stopped
            result = real(*arguments, **options)
            if stopped == 1:
                raise Stopped
            return result

        monkeypatch.setattr(owner, call, once)
        for _ in range(4):
            try:
                step(url, ledger, clock)
            except Stopped:
                continue
            clock.step(CACHED_S + 1)
        assert stopped
        assert [] == step(url, ledger, clock)
    with open_eraser(url, Settings()) as eraser:
        (erasure,) = eraser.store.erasures()
        assert set(STORES) == set(eraser.store.confirmations(erasure))
        assert erasure.receipt is not None
    assert set() == found_in(directory, secrets)


def test_a_command_that_is_killed_is_carried_out_by_the_next(directory: Path, url: str) -> None:
    """kill -9 of `erase` at many moments: as soon as the log has it, `erase status` destroys the keys."""
    shell = Shell(directory)
    with Ledger.open(url) as ledger:
        sessions = {user: fill(ledger, user) for user in "abcdef"}
    secrets = {user: secrets_of(url, user) for user in sessions}
    noted = directory / "erasures.db"
    for number, user in enumerate(sessions):
        with shell.started("erase", "user", "-t", "t", "-U", user, "--reason", "request") as erasing:
            deadline = time.monotonic() + 30
            while not noted.exists() and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(0.01 * number if number < 2 else 0.3 * number)  # at first it is noted; later ones just begin
            erasing.send_signal(signal.SIGKILL)
            erasing.wait(30)
    ran = shell("erase", "status", "--all", "--json")
    erased = {one["user"] for one in ran.json["erasures"]}
    assert erased
    for user in sessions:
        assert (user in erased) == (set() == found_in(directory, secrets[user]))
    assert 0 == shell("verify").code


def test_who_comes_back_is_new_and_loses_nothing(url: str, directory: Path) -> None:
    """What the user does after the erasure stays readable, also what was done before its keys were destroyed."""
    with Ledger.open(url) as ledger:
        fill(ledger, "ada")
        old, close = open_envelope(directory, directory.name, Settings(), readonly=True)
        ledger.erase_user("t", "ada", **ASKED)
        session = ledger.create_session("t", "ada", title="new").session_id
        ledger.add_message("t", "ada", session, role="user", content="hello")
        ledger.report_authentication_failure("t", "ada", method="token", reason="expired", ip_address="192.0.2.1")
        step(url, ledger)
        ledger.add_message("t", "ada", session, role="user", content="again")
        close()
        with Views.over(ledger.log, ledger.envelope, directory=directory) as views:
            assert "new" == views.session("t", "ada", session).title
            assert ["hello", "again"] == [one.content for one in views.history("t", "ada", session)]
            failures = views.authentication_failures("t", "ada")
            assert {None, "192.0.2.1"} == {failure.ip_address for failure in failures}
        assert old is not None


def test_an_erased_session_takes_nothing_more(url: str) -> None:
    """Also where the command was sealed before."""
    with Ledger.open(url) as ledger:
        session = ledger.create_session("t", "ada", title="x").session_id
        ledger.erase_session("t", "ada", session, **ASKED)
        with pytest.raises(SessionNotActive):
            ledger.add_message("t", "ada", session, role="user", content="late")
        key = ledger.envelope.opening_key("t", "ada", parse_id(session), None)
        assert key is None
        step(url, ledger)
        with pytest.raises((SessionNotActive, KeyUnavailable)):
            ledger.add_message("t", "ada", session, role="user", content="late")


def test_a_tenant_is_erased_user_by_user_but_those_who_are_held(url: str, directory: Path) -> None:
    """What a hold keeps is named until it is lifted; then everything goes, the tenant's own keys last."""
    clock = Clock()
    with Ledger.open(url) as ledger:
        for user in ("ada", "bob"):
            fill(ledger, user)
        ledger.set_limits("t", max_sessions=9)
        other = ledger.create_session("u", "ada", title="stays").session_id
        secrets, held = secrets_of(url, "ada"), secrets_of(url, "bob")
        ledger.set_legal_hold("t", "bob", matter="case", **ASKED)
        ledger.erase_tenant("t", **ASKED)
        shown = step(url, ledger, clock)
        assert [("bob",)] == [one.held for one in shown if one.held]
        assert set() == found_in(directory, secrets)
        assert set() != found_in(directory, held)
        positions = ledger.positions()
        for _ in range(3):
            step(url, ledger, clock)
        assert positions == ledger.positions()  # what is held is asked for once, and who was erased is not again
        ledger.lift_legal_hold("t", "bob", matter="case", **ASKED)
        step(url, ledger, clock)
        clock.step(CACHED_S + 1)
        assert [] == step(url, ledger, clock)
        assert set() == found_in(directory, held)
        with Views.over(ledger.log, ledger.envelope, directory=directory) as views:
            assert "stays" == views.session("u", "ada", other).title
    with open_eraser(url, Settings()) as eraser:
        assert all(one.receipt for one in eraser.store.erasures())
        assert {"ada", "bob", ""} == {one.user for one in eraser.store.erasures()}
    vault = SQLiteVault(directory / "vault.db", readonly=True)
    assert [] == vault.rows("SELECT 1 FROM keys WHERE tenant = 't'", ())
    assert [] == vault.rows("SELECT 1 FROM tenant_keys WHERE tenant = 't'", ())
    vault.close()


def test_two_erasers_do_it_once(url: str) -> None:
    """Whoever comes second finds it done; there is one receipt."""
    clock = Clock()
    with Ledger.open(url) as ledger:
        session, _ = fill(ledger, "ada")
        ledger.erase_session("t", "ada", session, **ASKED)
        with open_eraser(url, Settings(), ledger) as one, open_eraser(url, Settings(), ledger) as other:
            one._clock_us = other._clock_us = clock
            one.step()
            other.step()
            clock.step(CACHED_S + 1)
            other.step()
            one.step()
            (erasure,) = one.store.erasures()
            assert ([erasure], 1) == (other.store.erasures(), erasure.keys)


def test_a_ledger_that_seals_nothing_can_erase_nothing(url: str, directory: Path) -> None:
    """It says so, instead of recording what it can not do."""
    with Ledger.open(url, encryption="none") as ledger:
        session = ledger.create_session("t", "ada", title="x").session_id
        with pytest.raises(NotErasable):
            ledger.erase_session("t", "ada", session, **ASKED)
        with pytest.raises(NotErasable):
            ledger.erase_user("t", "ada", **ASKED)
        with pytest.raises(NotErasable):
            ledger.erase_tenant("t", **ASKED)
    with pytest.raises(NotErasable), open_eraser(url, Settings(encryption="none")):
        pass
    assert not (directory / FILE).exists()


@pytest.fixture(autouse=True)
def _plain_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SESSION_LEDGER_URL", "SESSION_LEDGER_TENANT", "SESSION_LEDGER_USER", "SESSION_LEDGER_ENCRYPTION"):
        monkeypatch.delenv(name, raising=False)


def test_a_receipt_is_not_any_note(directory: Path, url: str, tmp_path: Path) -> None:
    """A note that the same key signed for something else is refused."""
    with Ledger.open(url) as ledger:
        ledger.create_session("t", "ada")
    ran = Shell(directory)("verify", "--sign", tmp_path / "note", "--json")
    assert 1 == run_plain("verify-receipt", tmp_path / "note", "--key", ran.json["public_key"])
    with pytest.raises(InvalidInput):
        Verifier.parse("nonsense")
