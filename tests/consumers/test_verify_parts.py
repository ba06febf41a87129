"""`verify` in several processes, and interrupted: what it finds is what one that runs through finds."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from session_ledger.consumers import verify as module
from session_ledger.consumers import verify_part
from session_ledger.consumers.analytics import Analytics
from session_ledger.consumers.findings import Finding, Findings
from session_ledger.consumers.projector import Projector
from session_ledger.consumers.sole import sole_writer
from session_ledger.consumers.verify import Apart, verify
from session_ledger.consumers.views import Views
from session_ledger.consumers.wiring import delete_store, open_store
from session_ledger.domain.errors import ProjectionInUse, SessionLedgerError
from session_ledger.ledger.ledger import Ledger
from session_ledger.ledger.settings import Settings
from tests.cli.shell import Shell
from tests.consumers.test_verify import ALTERED, Checked
from tests.projections.world import CODEC


class Stopped(Exception):
    """The check was interrupted."""


def interrupted(checked: Checked, place: Path, at: Callable[[int], bool]) -> Findings:
    """The outcome of a check that is stopped whenever `at` says so, and then goes on."""
    for _ in range(100):

        def on_progress(records: int) -> None:
            if at(records):
                raise Stopped

        try:
            return checked.verify(resume=place, on_progress=on_progress)
        except Stopped:
            checked.world.play(5)  # life goes on meanwhile
            with suppress(SessionLedgerError):  # a gap stops it; what is there goes on to be compared
                checked.projector.catch_up()
    raise AssertionError("it never ends")


def sorted_findings(findings: Findings) -> list[Finding]:
    """In an order that does not depend on who found what first."""
    return sorted(findings.findings, key=str)


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_part, "READ_RECORDS", 7)
    monkeypatch.setattr(verify_part, "SAVE_RECORDS", 20)


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize(("what", "alter"), ALTERED, ids=[f"{n}-{what}" for n, (what, _) in enumerate(ALTERED)])
def test_an_interrupted_check_finds_what_one_that_runs_through_finds(
    tmp_path: Path, what: str, alter: Callable[[Checked], tuple[int, int]]
) -> None:
    """Stopped anywhere, again and again, while the ledger grows: the same findings; and nothing is left behind."""
    checked = Checked(tmp_path)
    place = alter(checked)
    chance = random.Random(what)
    found = interrupted(checked, tmp_path / "verify", lambda records: chance.random() < 0.1)
    expected = checked.verify()
    assert sorted_findings(expected) == sorted_findings(found)
    assert (what, *place) in {(one.what, one.partition, one.position) for one in found.findings}
    assert (expected.ends, expected.compared, expected.rows) == (found.ends, found.compared, found.rows)
    assert not (tmp_path / "verify").exists()
    checked.store.close()


@pytest.mark.usefixtures("_small")
def test_an_interrupted_check_of_a_sound_ledger(tmp_path: Path) -> None:
    """It tells what was read before and since when; a log that was changed behind it is found."""
    checked = Checked(tmp_path)
    stops = iter([False] * 20 + [True] + [False] * 10_000)
    found = interrupted(checked, tmp_path / "verify", lambda records: next(stops))
    assert [] == found.findings
    assert found.begun is not None
    assert 0 < found.resumed < found.records
    stops = iter([False] * 20 + [True])
    with pytest.raises(Stopped):
        _stop_at(checked, tmp_path / "verify", stops)
    with sqlite3.connect(tmp_path / "verify" / "part-0" / "rules.db") as db:
        done = dict(db.execute("SELECT partition, position FROM progress").fetchall())
    partition, position = max((partition, position) for partition, position in done.items() if position)
    records = checked.log._store.records[partition]
    records[position - 1] = records[position - 1]._replace(batch_id=b"x" * 16)
    records[position - 1] = records[position - 1]._replace(value=records[position - 2].value)
    again = checked.verify(resume=tmp_path / "verify")
    assert ("changed", partition, position) in {(one.what, one.partition, one.position) for one in again.findings}
    checked.store.close()


def _stop_at(checked: Checked, place: Path, stops: Iterator[bool]) -> None:
    def on_progress(records: int) -> None:
        if next(stops):
            raise Stopped

    checked.verify(resume=place, on_progress=on_progress)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "7", '{"identity": 1, "begun": 2, "shares": 3}', '{"begun": "x", "shares": [[9]]}', "\xff"]
)
def test_a_plan_that_can_not_be_used_is_told_and_void(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    """The check begins anew, and finds what there is; no plan at all is not told."""
    checked = Checked(tmp_path)
    assert ([], []) == (checked.verify(resume=tmp_path / "verify").findings, caplog.records)
    (tmp_path / "verify").mkdir()
    (tmp_path / "verify" / "plan.json").write_text(text, encoding="latin-1")
    found = checked.verify(resume=tmp_path / "verify")
    assert ([], None, 0) == (found.findings, found.begun, found.resumed)
    assert ["the check begins anew"] == [record.getMessage().rpartition(": ")[2] for record in caplog.records]
    checked.store.close()


@pytest.mark.usefixtures("_small")
def test_what_a_check_keeps_is_private(tmp_path: Path) -> None:
    """Whatever the umask: files that only their owner reads, in directories that only their owner enters."""
    checked = Checked(tmp_path)
    before = os.umask(0)
    try:
        with pytest.raises(Stopped):
            _stop_at(checked, tmp_path / "verify", iter([False] * 20 + [True]))
    finally:
        os.umask(before)
    kept = [tmp_path / "verify", *(tmp_path / "verify").rglob("*")]
    assert {"plan.json", "rules.db", "views.db"} <= {path.name for path in kept}
    assert {(True, 0o700), (False, 0o600)} == {(path.is_dir(), path.stat().st_mode & 0o777) for path in kept}
    checked.store.close()


@pytest.mark.usefixtures("_small")
def test_what_was_kept_of_other_views_is_not_gone_on_with(tmp_path: Path) -> None:
    """A plan of another log, other code or other quarantined records is void: the check begins anew."""
    checked = Checked(tmp_path)
    with pytest.raises(Stopped):
        _stop_at(checked, tmp_path / "verify", iter([False] * 20 + [True]))
    plan = tmp_path / "verify" / "plan.json"
    plan.write_text(plan.read_text().replace(checked.log.log_id, "another"))
    found = checked.verify(resume=tmp_path / "verify")
    assert ([], None, 0) == (found.findings, found.begun, found.resumed)
    plan.parent.mkdir()
    plan.write_text("{")
    assert [] == checked.verify(resume=tmp_path / "verify").findings
    with pytest.raises(Stopped):
        _stop_at(checked, tmp_path / "verify", iter([True]))
    give_up = sole_writer(tmp_path / "verify", "lock")
    with pytest.raises(ProjectionInUse):
        checked.verify(resume=tmp_path / "verify")
    give_up()
    checked.store.close()


@pytest.mark.usefixtures("_small")
def test_views_that_were_made_again_and_are_behind_void_what_was_kept(tmp_path: Path) -> None:
    """What the interrupted check had folded is beyond them: they would differ, and nothing is wrong."""
    checked = Checked(tmp_path)
    stops = iter([False] * 20 + [True])
    with pytest.raises(Stopped):
        _stop_at(checked, tmp_path / "verify", stops)
    checked.store.close()
    delete_store(tmp_path)
    checked.store = open_store(checked.log, tmp_path)
    Projector(checked.log, CODEC, checked.store).catch_up({-1: checked.log.control.end(), 0: 3, 1: 3})
    found = checked.verify(resume=tmp_path / "verify")
    assert ([], None) == (found.findings, found.begun)
    checked.store.close()


def fill(url: str, sessions: int) -> None:
    """A ledger of so many users with a session each."""
    with Ledger.open(url) as ledger:
        for number in range(sessions):
            session = ledger.create_session("acme", f"user-{number}", title="Billing").session_id
            for text in ("a", "b", "c"):
                ledger.add_message("acme", f"user-{number}", session, role="user", content=text)


def test_a_check_that_is_killed_goes_on(directory: Path) -> None:
    """kill -9 of the command in the middle; `--resume` goes on, agrees, and tells both."""
    shell = Shell(directory)
    fill(shell.url, 400)
    with Analytics(shell.url) as analytics:
        analytics.catch_up()
        analytics.publish()
    rules = directory / "verify" / "part-0" / "rules.db"
    with shell.started("verify", "--resume", "--json") as checking:
        deadline = time.monotonic() + 20
        while not rules.exists() and time.monotonic() < deadline:
            time.sleep(0.002)
        checking.kill()
        assert -signal.SIGKILL == checking.wait(30)
    assert rules.exists()
    ran = shell("verify", "--resume", "--json")
    assert (0, True) == (ran.code, ran.json["ok"])
    assert 1600 < ran.json["records"] == sum(ran.json["ends"].values())
    assert ran.json["begun"] is not None
    assert not rules.exists()
    assert "interrupted" not in shell("verify").out
    assert 2 == shell("verify", "--sample", "3", "--resume").code


@pytest.mark.kafka
def test_processes_find_what_one_finds(kafka: str, ledger_name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Four partitions by three processes: the same rows, the same findings; a part that fails is an error."""
    replica = tmp_path_factory.mktemp("replica")
    url = f"kafka://{kafka}/{ledger_name}?partitions=4&replica={replica}"
    fill(url, 24)
    with Analytics(url) as analytics:
        analytics.catch_up()
        analytics.publish()
    with Views.open(url) as views:
        views.refresh()
        with sqlite3.connect(views.store.path) as db:
            db.execute("UPDATE messages SET role = 'x' WHERE number = 2 AND partition > 0")
            db.execute("DELETE FROM messages WHERE number = 3 AND partition = 0")
            db.execute("INSERT INTO user_limits VALUES ('acme', 'mallory', 99, NULL, NULL, 1)")
        told: list[int] = []
        alone_found = verify(views.log, views.codec, views.store, analytics=replica)
        for resume in (None, replica / "verify"):
            found = verify(
                views.log,
                views.codec,
                views.store,
                analytics=replica,
                apart=Apart(url=url, settings=Settings(), processes=3),
                resume=resume,
                on_progress=told.append,
            )
            assert {"changed_row", "missing_row", "extra_row"} == {one.what for one in found.findings}
            assert sorted_findings(alone_found) == sorted_findings(found)
            assert (alone_found.ends, alone_found.rows) == (found.ends, found.rows)
            assert found.records == max(told)


def test_as_many_processes_as_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    """One for a small log, one a core for a large one, never more than partitions; as many as asked for."""
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    apart = Apart(url="", settings=Settings())
    asked = Apart(url="", settings=Settings(), processes=2)
    large = {-1: 1, **dict.fromkeys(range(16), 10_000)}
    assert (1, 4) == (module._processes(apart, {-1: 1, 0: 10, 1: 10}), module._processes(apart, large))
    assert (2, 1) == (module._processes(asked, large), module._processes(asked, {-1: 1, 0: 10}))
    assert 1 == module._processes(None, large)
