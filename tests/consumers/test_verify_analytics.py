"""`verify` compares the analytics with the log: every kind of wrong row is found, and named."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import duckdb
import pytest

from session_ledger.consumers.analytics import Analytics
from session_ledger.consumers.findings import Findings
from session_ledger.consumers.verify import verify
from session_ledger.consumers.views import Views
from session_ledger.ledger.ledger import Ledger
from tests.cli.shell import Shell


@pytest.fixture
def published(directory: Path) -> Path:
    """The snapshot of a ledger of two sessions."""
    with Ledger.open(f"sqlite:{directory}") as ledger:
        for user in ("ada", "bob"):
            session = ledger.create_session("t", user).session_id
            for _ in range(3):
                ledger.add_message("t", user, session, role="user", content="hi", metadata={"a": "b"})
    with Analytics(f"sqlite:{directory}") as analytics:
        analytics.catch_up()
        return analytics.publish()


def checked(directory: Path) -> Findings:
    """What `verify` finds."""
    with Views.open(directory) as views:
        views.refresh()
        return verify(views.log, views.codec, views.store, analytics=directory)


def test_what_agrees_is_counted(published: Path, directory: Path) -> None:
    """No finding, and each row compared once; what was recorded after the snapshot is not in it yet."""
    found = checked(directory)
    rows = found.rows["analytics events"]
    assert (True, found.records) == (found.ok, rows)
    with Ledger.open(f"sqlite:{directory}") as ledger:
        ledger.create_session("t", "eve")
    found = checked(directory)
    assert (True, rows) == (found.ok, found.rows["analytics events"])


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("UPDATE events SET role = 'assistant' WHERE position = 3 AND partition = 0", {"missing_row", "extra_row"}),
        ("UPDATE events SET content = 'x'::BLOB WHERE position = 3 AND partition = 0", {"missing_row", "extra_row"}),
        ("UPDATE events SET tenant = 'u' WHERE position = 1 AND partition = 0", {"missing_row", "extra_row"}),
        ("DELETE FROM events WHERE position = 4 AND partition = 0", {"missing_row"}),
        ("INSERT INTO events FROM events WHERE position = 4 AND partition = 0", {"extra_row"}),
        ("UPDATE events SET position = 999 WHERE position = 4 AND partition = 0", {"missing_row", "extra_row"}),
        ("UPDATE positions SET position = 1000 WHERE partition = 0", {"ahead"}),
        ("UPDATE facts SET value = 'another' WHERE name = 'log_id'", {"foreign"}),
    ],
)
def test_a_wrong_row_is_found(published: Path, directory: Path, change: str, what: set[str]) -> None:
    """A changed value, a missing, a doubled and a moved row, a position that is none of the log's."""
    database = duckdb.connect(str(published))
    database.execute(change)
    database.close()
    found = checked(directory)
    assert what == {finding.what for finding in found.findings}


def test_a_sample_of_sessions_is_replayed(published: Path, directory: Path) -> None:
    """The same seed draws the same; a changed, an invented and a missing row of the views are found, and named."""
    shell = Shell(directory)
    ran = shell("verify", "--sample", "10", "--json")
    assert (0, 2) == (ran.code, ran.json["rows"]["sessions, sampled"])
    assert 1 == shell("verify", "--sample", "1", "--seed", "7", "--json").json["rows"]["sessions, sampled"]
    views = sqlite3.connect(directory / "views.db")
    views.execute("UPDATE sessions SET tokens_in = 99 WHERE user = 'ada'")
    views.execute("UPDATE sessions SET session_id = zeroblob(16) WHERE user = 'bob'")
    views.commit()
    views.close()
    ran = shell("verify", "--sample", "10", "--json")
    assert 1 == ran.code
    assert {"changed_row", "extra_row"} == {finding["what"] for finding in ran.json["findings"]}
    assert "tokens_in" in str(ran.json["findings"])
