"""What is in the way of an erasure keeps no other, is told, and passes; receipts say what is so."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from session_ledger.cli.owning import _erasing
from session_ledger.consumers import eraser as eraser_module
from session_ledger.consumers.analytics import Analytics
from session_ledger.consumers.checkpointer import Checkpointer
from session_ledger.consumers.eraser import ANALYTICS, CACHES, RECEIPT, USERS, VAULT, VIEWS, Eraser
from session_ledger.consumers.erasing import open_eraser
from session_ledger.domain.errors import (
    AppendFailed,
    ContentGone,
    LogUnavailable,
    Misconfigured,
    ProjectionInUse,
    SessionLedgerError,
    SigningKeyUnavailable,
    VaultBusy,
)
from session_ledger.domain.ids import format_id, parse_id
from session_ledger.ledger.ledger import Ledger
from session_ledger.ledger.settings import Settings
from session_ledger.ledger.shard import Shard
from session_ledger.projections.analytics.snapshots import open_latest
from session_ledger.security import vault as vault_module
from session_ledger.security.signing import FILE
from session_ledger.security.vault import SQLiteVault
from tests.cli.shell import Shell
from tests.ledger.support import Clock

ASKED: dict[str, Any] = {"requested_by": "dpo", "reason": "request 7"}
CACHED_S = 300.0


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Of the ledger."""
    return tmp_path / "ledger"


@pytest.fixture
def ledger(directory: Path) -> Iterator[Ledger]:
    """A ledger that is served."""
    with Ledger.open(f"sqlite:{directory}") as opened:
        yield opened


@pytest.fixture
def eraser(ledger: Ledger) -> Iterator[Eraser]:
    """Its eraser, with a clock to set."""
    with open_eraser(ledger.url, Settings(), ledger) as opened:
        opened._clock_us = Clock()
        yield opened


def later(eraser: Eraser, seconds: float = CACHED_S + 1) -> list[Any]:
    """A step when no process can have a key any more; what is not complete."""
    clock = eraser._clock_us
    assert isinstance(clock, Clock)
    clock.step(seconds)
    return eraser.step()


def receipts(eraser: Eraser) -> dict[str, str]:
    """User to the receipt of the last erasure; "" is a tenant's."""
    return {one.user: one.receipt or "" for one in eraser.store.erasures()}


def vault_rows(directory: Path, query: str) -> list[tuple[Any, ...]]:
    """Straight from the file."""
    vault = SQLiteVault(directory / "vault.db", readonly=True)
    try:
        return vault.rows(query, ())
    finally:
        vault.close()


class Reading:
    """Somebody who reads the vault, so that its log can not be emptied."""

    def __init__(self, directory: Path) -> None:
        self.reader = sqlite3.connect(directory / "vault.db", isolation_level=None)
        self.reader.execute("BEGIN")
        self.reader.execute("SELECT count(*) FROM keys").fetchone()

    def __enter__(self) -> Reading:
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.close()


def test_a_service_goes_on_with_erasures_when_a_reader_of_the_vault_is_gone(
    ledger: Ledger, directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While it reads longer than is waited for, that is told; afterwards everything that was asked for is done."""
    monkeypatch.setattr(vault_module, "BUSY_TIMEOUT_S", 0.1)
    monkeypatch.setattr(eraser_module, "ERASE_EVERY_S", 0.05)
    sessions = {user: ledger.create_session("t", user, title="x").session_id for user in ("ann", "bob")}
    stop, done = threading.Event(), threading.Event()
    real = Eraser.step

    def step(self: Eraser) -> Any:
        shown = real(self)
        if sum(one.erasure.destroyed_at is not None for one in self.all_progress()) == 2:
            done.set()
        return shown

    monkeypatch.setattr(Eraser, "step", step)
    with _erasing(ledger, stop):
        with Reading(directory):
            ledger.create_session("t", "cy", title="x")
            ledger.erase_session("t", "ann", sessions["ann"], **ASKED)
            told = ""
            for _ in range(100):
                told += capsys.readouterr().err
                if "erasures wait" in told:
                    break
                done.wait(0.1)
            assert "somebody reads the vault" in told
        ledger.erase_session("t", "bob", sessions["bob"], **ASKED)
        assert done.wait(20)


def test_a_receipt_counts_keys_that_an_interrupted_step_has_destroyed(
    eraser: Eraser, ledger: Ledger, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for the vault while a reader is in the way; and the number is that of the keys that there were."""
    monkeypatch.setattr(vault_module, "BUSY_TIMEOUT_S", 0.1)
    eraser._vault.rows("PRAGMA busy_timeout = 50", ())  # type: ignore[attr-defined]
    session = ledger.create_session("t", "ann", title="x").session_id
    with Reading(directory):
        ledger.create_session("t", "bob", title="x")
        ledger.erase_session("t", "ann", session, **ASKED)
        (waiting,) = eraser.step()
        assert ([VAULT], True) == (list(waiting.waiting), "reads the vault" in waiting.waiting[VAULT])
        assert [VaultBusy] == [type(one) for one in eraser.obstacles]
    eraser.step()
    assert [] == later(eraser)
    assert "data keys destroyed 1, by" in receipts(eraser)["ann"]


def test_a_receipt_of_keys_that_nobody_counted_names_no_number(ledger: Ledger, directory: Path) -> None:
    """The record of erasures was lost after the keys were destroyed: none are there to be counted."""
    session = ledger.create_session("t", "ann", title="x").session_id
    ledger.erase_session("t", "ann", session, **ASKED)
    for _ in range(2):
        with open_eraser(ledger.url, Settings(), ledger) as eraser:
            eraser._clock_us = Clock()
            eraser.step()
            later(eraser)
            receipt = receipts(eraser)["ann"]
        for path in directory.glob("erasures.db*"):
            path.unlink()
    assert "data keys destroyed: no data key was found that it covers, by" in receipt
    assert "destroyed 0" not in receipt


def test_one_erasure_that_can_not_go_on_keeps_no_other(ledger: Ledger) -> None:
    """Of a tenant whose users nobody here may erase: it waits, says for what, and a session of another goes."""
    ledger.create_session("big", "ann", title="x")
    session = ledger.create_session("t", "bob", title="x").session_id
    ledger.erase_tenant("big", **ASKED)
    ledger.erase_session("t", "bob", session, **ASKED)
    with open_eraser(ledger.url, Settings(), None) as eraser:
        shown = {one.erasure.tenant: one for one in eraser.step()}
        assert {"big", "t"} == set(shown)
        assert "by who may append" in shown["big"].waiting[VAULT]
        assert shown["t"].erasure.destroyed_at is not None
        assert [LogUnavailable] == [type(one) for one in eraser.obstacles]


def test_a_record_that_can_not_be_read_keeps_no_erasure_before_it(ledger: Ledger, directory: Path) -> None:
    """What was asked for before it is carried out; the record is named, and a service goes on after it."""
    session = ledger.create_session("t", "ann", title="x").session_id
    ledger.erase_session("t", "ann", session, **ASKED)
    ledger.create_session("t", "bob", title="damaged")
    db = sqlite3.connect(directory / "log.db", isolation_level=None)
    db.execute("UPDATE events SET value = x'0000' WHERE position = (SELECT max(position) FROM events)")
    db.close()
    with open_eraser(ledger.url, Settings(), ledger) as eraser:
        (waiting,) = eraser.step()
        assert waiting.erasure.destroyed_at is not None
        assert ["partition_stopped"] == [one.code for one in eraser.obstacles]
        told: list[SessionLedgerError] = []
        stop = threading.Event()

        def tell(error: SessionLedgerError) -> None:
            told.append(error)
            stop.set()

        eraser.run(stop, tell)
        assert "partition_stopped" == told[0].code


def test_keys_of_a_session_that_did_not_come_about_go_with_their_user(
    eraser: Eraser, ledger: Ledger, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its key was in the vault before the append failed; what began after the erasure keeps its keys."""
    ledger.create_session("t", "ann", title="x")

    def fails(self: Shard, records: object, batch_id: bytes) -> None:
        raise AppendFailed("the broker aborted it")

    with monkeypatch.context() as patch:
        patch.setattr(Shard, "_append", fails)
        with pytest.raises(AppendFailed):
            ledger.create_session("t", "ann", title="of the append that was aborted")
    assert 2 == len(vault_rows(directory, "SELECT 1 FROM keys WHERE user = 'ann' AND session_id <> x''"))
    ledger.erase_user("t", "ann", **ASKED)
    new = ledger.create_session("t", "ann", title="new").session_id
    with monkeypatch.context() as patch:
        patch.setattr(Shard, "_append", fails)
        with pytest.raises(AppendFailed):
            ledger.create_session("t", "ann", title="another that was aborted, of who came back")
    eraser.step()
    left = vault_rows(directory, "SELECT session_id FROM keys WHERE user = 'ann' AND session_id <> x''")
    assert (parse_id(new),) in left
    assert 2 == len(left)
    assert [3] == [one.keys for one in eraser.store.erasures()]


def test_a_tenants_receipt_comes_after_those_of_its_users(eraser: Eraser, ledger: Ledger) -> None:
    """Also where all that is waited for is the analytics."""
    ledger.create_session("t", "ann", title="x")
    ledger.erase_tenant("t", **ASKED)
    with Analytics(ledger.url) as analytics:
        analytics.catch_up()
        analytics.publish()
        eraser.step()
        left = {one.erasure.user: set(one.waiting) for one in later(eraser)}
        assert {"ann": {ANALYTICS}, "": {USERS}} == left
        analytics.catch_up()
        analytics.publish()
    assert [] == eraser.step()
    assert all(receipts(eraser).values())


def test_a_snapshot_is_opened_once_a_step(eraser: Eraser, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many erasures wait for it; and the progress of one looks at one."""
    sessions = {f"u{n}": ledger.create_session("t", f"u{n}", title="x").session_id for n in range(5)}
    with Analytics(ledger.url) as analytics:
        analytics.catch_up()
        analytics.publish()
    for user, session in sessions.items():
        ledger.erase_session("t", user, session, **ASKED)
    opened: list[Path] = []
    real = open_latest
    monkeypatch.setattr(eraser_module, "open_latest", lambda place: opened.append(place) or real(place))  # type: ignore[func-returns-value]
    assert 5 == len(eraser.step())
    assert 1 == len(opened)
    asked: list[object] = []
    confirm = Eraser._confirm
    monkeypatch.setattr(Eraser, "_confirm", lambda self, one: asked.append(one) or confirm(self, one))  # type: ignore[func-returns-value]
    last = eraser.store.erasures()[-1]
    shown = eraser.progress(last.partition, last.position)
    assert shown is not None
    assert (last.event_id, 1) == (shown.erasure.event_id, len(asked))


def test_two_erasers_ask_for_each_user_of_a_tenant_once(
    eraser: Eraser, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one takes a step between the other's look and its commands, it says that the other is at it."""
    for number in range(3):
        ledger.create_session("t", f"u{number}", title="x")
    ledger.erase_tenant("t", **ASKED)
    with open_eraser(ledger.url, Settings(), ledger) as other:
        other._clock_us = eraser._clock_us
        users = eraser._vault.users
        met: list[SessionLedgerError] = []

        def looked(tenant: str) -> list[str]:
            found = users(tenant)
            other.step()
            met.extend(other.obstacles)
            return found

        with monkeypatch.context() as patch:
            patch.setattr(eraser._vault, "users", looked)
            eraser.step()
        assert ProjectionInUse in map(type, met)
        other.step()
    assert {"u0": 1, "u1": 1, "u2": 1, "": 1} == Counter(one.user for one in eraser.store.erasures())


def test_those_whom_a_hold_keeps_are_named_among_all_erasures(eraser: Eraser, ledger: Ledger) -> None:
    """As they are among those that are not complete."""
    ledger.create_session("t", "bob", title="x")
    ledger.set_legal_hold("t", "bob", matter="m", **ASKED)
    ledger.erase_tenant("t", **ASKED)
    assert [("bob",)] == [one.held for one in eraser.step()]
    assert [("bob",)] == [one.held for one in eraser.all_progress()]


def test_a_signing_key_that_is_lost_is_not_replaced(ledger: Ledger, directory: Path, tmp_path: Path) -> None:
    """Keys are destroyed all the same; the receipt waits until it is back, and no other command makes one either."""
    session = ledger.create_session("t", "ann", title="x").session_id
    with Checkpointer(ledger.url) as checkpointer:
        checkpointer.catch_up()
        checkpointer.sign_all()
    key = (directory / FILE).read_bytes()
    (directory / FILE).unlink()
    ledger.erase_session("t", "ann", session, **ASKED)
    with open_eraser(ledger.url, Settings(), ledger) as eraser:
        eraser._clock_us = Clock()
        eraser.step()
        (waiting,) = later(eraser)
        assert (True, [RECEIPT]) == (waiting.erasure.destroyed_at is not None, list(waiting.waiting))
        assert [SigningKeyUnavailable] == [type(one) for one in eraser.obstacles]
        shell = Shell(directory)
        assert 3 == shell("verify", "--sign", tmp_path / "note").code
        ran = shell("erase", "receipt", format_id(waiting.erasure.event_id))
        assert (1, True) == (ran.code, "waiting: receipt: to be signed by the next step" in ran.err)
        assert not (directory / FILE).exists()
        (directory / FILE).touch(0o600)
        (directory / FILE).write_bytes(key)
        assert [] == eraser.step()


def test_a_user_waits_for_the_views_where_they_are_behind(
    eraser: Eraser, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They tell which sessions came before; a session's own erasure needs nobody."""
    session = ledger.create_session("t", "bob", title="x").session_id
    ledger.create_session("t", "ann", title="x")
    ledger.erase_user("t", "ann", **ASKED)
    ledger.erase_session("t", "bob", session, **ASKED)

    def away(*_: object) -> int:
        raise LogUnavailable("the views are held by somebody")

    with monkeypatch.context() as patch:
        patch.setattr(eraser._projector, "catch_up", away)
        shown = {one.erasure.user: one.waiting for one in eraser.step()}
    assert {"ann": True, "bob": False} == {user: VAULT in waiting for user, waiting in shown.items()}
    assert VIEWS in shown["bob"]
    assert not [one for one in eraser.step() if one.erasure.destroyed_at is None]


def test_what_is_revealed_before_the_keys_are_destroyed_is_in_the_receipt_or_refused(
    eraser: Eraser, ledger: Ledger
) -> None:
    """A reveal of what was erased is refused while its key is still there; one of the account is told."""
    session = ledger.create_session("t", "ann", title="x").session_id
    asked: dict[str, Any] = {"reason": "case", "query_digest": bytes(16)}
    ledger.reveal_content("t", "ann", session_id=session, revealed_by="before", **asked)
    time.sleep(0.01)  # its id tells when it began, in milliseconds
    ledger.erase_user("t", "ann", **ASKED)
    with pytest.raises(ContentGone):
        ledger.reveal_content("t", "ann", session_id=session, revealed_by="late", **asked)
    ledger.reveal_content("t", "ann", revealed_by="account", **asked)
    clock = eraser._clock_us
    assert isinstance(clock, Clock)
    clock.step(1)
    eraser.step()
    assert [] == later(eraser)
    receipt = receipts(eraser)["ann"]
    assert [True, True, False] == [f"opened before for {who}" in receipt for who in ("before", "account", "late")]


def test_an_erasure_waits_for_processes_that_keep_keys_for_the_default_time(ledger: Ledger) -> None:
    """Also where the eraser's own setting is shorter; nobody's can be longer."""
    session = ledger.create_session("t", "ann", title="x").session_id
    ledger.erase_session("t", "ann", session, **ASKED)
    with open_eraser(ledger.url, Settings(keys_cached_s=1.0), ledger) as eraser:
        eraser._clock_us = Clock()
        eraser.step()
        assert [[CACHES]] == [list(one.waiting) for one in later(eraser, CACHED_S - 1)]
    with pytest.raises(Misconfigured, match=r"keys_cached_s\n.*less than or equal to 300"):
        Ledger.open(ledger.url, keys_cached_s=CACHED_S + 1)


def test_no_key_of_an_erased_tenant_comes_back_to_stay(eraser: Eraser, ledger: Ledger) -> None:
    """A user of it who is erased afterwards, known or not, leaves none; a session that is not there makes none."""
    session = ledger.create_session("t", "ann", title="x").session_id
    ledger.erase_tenant("t", **ASKED)
    eraser.step()
    assert [] == later(eraser)
    for user in ("ann", "zed"):
        ledger.erase_user("t", user, **ASKED)
        eraser.step()
        assert [] == later(eraser)
    ledger.erase_session("t", "ann", session, **ASKED)
    assert [] == eraser._vault.users("t")
    assert [] == [key for key in eraser._vault.tenants.all() if key.tenant == "t"]
    assert 4 == len(eraser.store.erasures())
    assert all(one.receipt for one in eraser.store.erasures()[:3])
