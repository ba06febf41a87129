"""The analytics projector on a real ledger: kill loops, rebuilds, snapshots, queries and reveals."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from session_ledger.consumers.analytics import Analytics, open_snapshot
from session_ledger.consumers.sql import reveal, revealing, run_query
from session_ledger.domain.errors import InvalidInput, LogUnavailable, QueryFailed, QueryTimeout
from session_ledger.domain.events import ContentRevealed
from session_ledger.ledger.ledger import Ledger
from session_ledger.ledger.open import open_envelope, open_settings
from session_ledger.projections.analytics import store
from session_ledger.projections.analytics.checksum import checksums
from session_ledger.projections.analytics.snapshots import Snapshot, generations, latest, open_latest
from tests.cli.shell import Shell, environment
from tests.ledger.support import events


def fill(url: str, sessions: int, user: str = "u") -> None:
    """Sessions of two messages each."""
    with Ledger.open(url) as ledger:
        ledger.set_limits("t", max_sessions=10_000)
        for number in range(sessions):
            who = f"{user}{number % 50}"
            session = ledger.create_session("t", who, title="parcel").session_id
            ledger.add_message("t", who, session, role="user", content=f"Where is parcel {number}?", tokens_in=number)
            ledger.add_message("t", who, session, role="assistant", content="On its way.", model="m-1", tokens_out=3)


def open_snapshot_of(directory: Path) -> Snapshot:
    """The newest, of the ledger in that directory."""
    return open_snapshot(f"sqlite:{directory}")


@pytest.mark.slow
def test_a_killed_projector_loses_and_doubles_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kill -9 at any point, a second projector beside it, and a ledger that grows: each event is one row at the end."""
    url = f"sqlite:{directory}"
    fill(url, 300)
    luck = random.Random(4)
    growing = threading.Thread(target=fill, args=(url, 300, "v"))
    growing.start()
    small_parts = (
        "from session_ledger.projections.analytics import store; store.PART_EVENTS = 150;"
        "from session_ledger.cli.main import main; main()"
    )
    program = [sys.executable, "-c", small_parts, "project", "--json", "-u", url]
    for _ in range(12):
        process = subprocess.Popen(program, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        second = subprocess.Popen(program, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.4 + luck.random() * 1.2)
        for one in (process, second):
            os.kill(one.pid, signal.SIGKILL)
            one.wait()
    growing.join()
    monkeypatch.setattr(store, "PART_EVENTS", 150)
    with Analytics(url) as analytics:
        analytics.catch_up()
        assert analytics.store.parts > 0
        incremental = published(analytics)
        assert incremental["events"][0] == sum(analytics.ends().values())
        with open_latest(analytics.directory) as snapshot:
            places = snapshot.connection.execute("SELECT count(DISTINCT (partition, position)) FROM events").fetchall()
        assert [(incremental["events"][0],)] == places
        monkeypatch.undo()
        analytics.rebuild()
        assert 0 == analytics.store.parts
        assert incremental == published(analytics)


def published(analytics: Analytics) -> dict[str, tuple[int, str]]:
    """The checksums of a snapshot that is published now."""
    analytics.publish()
    with open_latest(analytics.directory) as snapshot:
        return checksums(snapshot.connection)


def test_a_second_projector_is_refused_by_name(directory: Path) -> None:
    """One process writes; the next one is told which."""
    url = f"sqlite:{directory}"
    fill(url, 2)
    with Analytics(url) as analytics:
        analytics.catch_up()
        analytics.publish()
        ran = Shell(directory).apart("project", "--once")
        assert 3 == ran.code
        assert str(os.getpid()) in ran.err
        ran = Shell(directory).apart("sql", "SELECT count(*) AS n FROM sessions", "--json")
        assert [{"n": 2}] == ran.json["rows"]


@pytest.mark.kafka
def test_a_rebuild_in_several_processes_gives_the_same_tables(kafka: str, ledger_name: str, directory: Path) -> None:
    """Each takes partitions of its own; what is put in place is what one process makes."""
    url = f"kafka://{kafka}/{ledger_name}?partitions=4&replica={directory}"
    fill(url, 40)
    with Analytics(url) as analytics:
        analytics.catch_up()
        before = published(analytics)
        for processes in (1, 3):
            assert sum(analytics.ends().values()) == analytics.rebuild(processes)
            assert before == published(analytics)
        assert [] == list(analytics.directory.glob("*unfinished*"))
        for _ in range(3):
            published(analytics)
        assert [analytics.store.directory] == generations(analytics.directory)  # the older ones are needed no more


@pytest.mark.kafka
def test_a_rebuild_that_fails_leaves_the_old_tables(
    kafka: str, ledger_name: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one of its processes ends, it says why, and what was there goes on."""
    url = f"kafka://{kafka}/{ledger_name}?partitions=2&replica={directory}"
    fill(url, 10)
    with Analytics(url) as analytics:
        analytics.catch_up()
        before = published(analytics)
        ends = {partition: end + 1 for partition, end in analytics.ends().items()}
        monkeypatch.setattr(Analytics, "ends", lambda self: ends)
        with pytest.raises(LogUnavailable, match=r"a process of the rebuild failed: .*ends at"):
            analytics.rebuild(2)
        assert before == published(analytics)
        assert [analytics.store.directory] == generations(analytics.directory)
        assert [] == list(analytics.directory.glob("*unfinished*"))


def test_outdated_tables_are_made_again_on_opening(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer version replaces the database in one step, and goes on from there."""
    url = f"sqlite:{directory}"
    fill(url, 5)
    with Analytics(url) as analytics:
        analytics.catch_up()
        analytics.store._db.execute("UPDATE facts SET value = 'old' WHERE name = 'version'")
        analytics.store._db.execute("DELETE FROM events")
    fill(url, 1)
    with Analytics(url) as analytics:
        assert not analytics.store.outdated
        analytics.catch_up()
        assert checksums(analytics.store._db)["events"][0] == sum(analytics.ends().values())


def test_the_projector_follows_and_publishes(directory: Path) -> None:
    """What is recorded while it runs is in a snapshot soon after, and the rest in one when it stops."""
    url = f"sqlite:{directory}"
    fill(url, 1)
    stop, published = threading.Event(), threading.Event()
    with Analytics(url) as analytics:
        thread = threading.Thread(target=analytics.run, args=(stop, lambda path: published.set()))
        thread.start()
        assert published.wait(20)
        fill(url, 3)
        stop.set()
        thread.join()
        target = analytics.ends()
    with open_snapshot_of(directory) as snapshot:
        assert target[-1] >= snapshot.positions[-1]
        assert latest(snapshot.directory) == snapshot.path


# --- queries ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def snapshot(directory: Path) -> Iterator[Snapshot]:
    """Of a ledger with six sessions of three users, closed."""
    url = f"sqlite:{directory}"
    with Ledger.open(url) as ledger:
        for user in ("ada", "bob", "eve"):
            for _ in range(2):
                session = ledger.create_session("t", user).session_id
                ledger.add_message("t", user, session, role="user", content=f"I am {user}")
                ledger.add_message("t", user, session, role="assistant", content="hello")
    with Analytics(url) as analytics:
        analytics.catch_up()
        analytics.publish()
    with open_snapshot_of(directory) as found:
        yield found


def test_queries_take_parameters_and_say_what_is_wrong(snapshot: Snapshot) -> None:
    """Values are bound, never pasted; the database's own message comes back."""
    table = run_query(snapshot, "SELECT count(*) AS n FROM messages WHERE user = $user", {"user": "ada' OR true --"})
    assert [{"n": 0}] == table.to_pylist()
    for wrong in ("SELECT", "SELECT 1; SELECT 2", "SELECT nothing FROM events", ""):
        with pytest.raises(QueryFailed):
            run_query(snapshot, wrong)


def test_a_query_ends_at_its_time_and_memory(snapshot: Snapshot, directory: Path) -> None:
    """One that takes too long is ended; one that takes too much is refused; the next one works."""
    with pytest.raises(QueryTimeout):
        run_query(snapshot, "SELECT count(*) FROM range(100000000000) a, range(1000) b", timeout_s=0.5)
    assert [{"one": 1}] == run_query(snapshot, "SELECT 1 AS one").to_pylist()
    with (
        open_snapshot(f"sqlite:{directory}", memory="50MB") as small,
        pytest.raises(QueryFailed, match=r"(?i)memory"),
    ):
        run_query(small, "SELECT list(a.range) FROM range(100000000) a")


def revealed(snapshot: Snapshot, directory: Path, query: str, reason: str = "case 7") -> list[dict[str, object]]:
    """The rows of the query, opened."""
    table = run_query(snapshot, query)
    url, settings = f"sqlite:{directory}", open_settings(None, {})
    with Ledger.open(url) as ledger:
        envelope, close = open_envelope(directory, ledger.name, settings, readonly=True)
        try:
            found = reveal(table, ledger, envelope, query=query, revealed_by="eve", reason=reason)
        finally:
            close()
    rows: list[dict[str, object]] = found.to_pylist()
    return rows


def told(directory: Path) -> list[ContentRevealed]:
    """What was recorded of reveals."""
    return [event for event in events(f"sqlite:{directory}") if isinstance(event, ContentRevealed)]


def test_reveal_opens_the_final_rows_alone_and_records_each_session(snapshot: Snapshot, directory: Path) -> None:
    """One fact a session and query, with who, why and how many; a filter or limit opens nothing."""
    query = (
        "SELECT user, reveal(content) AS said FROM messages WHERE role = 'user' AND user <> 'bob' "
        "AND reveal(content) IS NOT NULL ORDER BY user, position LIMIT 3"
    )
    assert ["said"] == revealing(run_query(snapshot, query))
    assert ["I am ada", "I am ada", "I am eve"] == [row["said"] for row in revealed(snapshot, directory, query)]
    facts = told(directory)
    assert [("ada", 1), ("ada", 1), ("eve", 1)] == sorted((fact.user, fact.fields) for fact in facts)
    assert {("eve", "case 7")} == {(fact.revealed_by, fact.reason) for fact in facts}
    assert 1 == len({fact.query_digest for fact in facts})
    assert 3 == len({fact.session_id for fact in facts})


def test_what_was_erased_since_the_snapshot_is_null(snapshot: Snapshot, directory: Path) -> None:
    """Though its key is there until the eraser comes; the rest of the result is opened."""
    query = "SELECT user, session_id, reveal(content) AS said FROM messages WHERE role = 'user' AND user <> 'bob'"
    rows = revealed(snapshot, directory, query)
    gone = next(row for row in rows if row["user"] == "ada")
    with Ledger.open(f"sqlite:{directory}") as ledger:
        told = {"requested_by": "dpo", "reason": "request 7"}
        ledger.erase_session(
            run_query(snapshot, "SELECT tenant FROM messages LIMIT 1").to_pylist()[0]["tenant"],
            "ada",
            str(gone["session_id"]),
            **told,
        )
    again = {str(row["session_id"]): row["said"] for row in revealed(snapshot, directory, query)}
    assert again.pop(str(gone["session_id"])) is None
    assert None not in again.values()


def test_content_is_nowhere_else_in_sql(snapshot: Snapshot) -> None:
    """Neither in a column nor in what reveal() is before the ledger has recorded it."""
    for query in ("SELECT * FROM events", "SELECT reveal(content) AS said FROM messages", "SELECT * FROM messages"):
        assert "I am ada" not in str(run_query(snapshot, query).to_pylist())


def test_without_the_owner_nothing_is_opened(snapshot: Snapshot, directory: Path) -> None:
    """A ledger that can not record the reveal does not show it."""
    table = run_query(snapshot, "SELECT reveal(content) AS said FROM messages")
    ledger = Ledger.open(f"sqlite:{directory}")
    envelope, close = open_envelope(directory, ledger.name, open_settings(None, {}), readonly=True)
    ledger.close()
    with pytest.raises(Exception, match="closed"):
        reveal(table, ledger, envelope, query="q", revealed_by="eve", reason="case 7")
    close()
    assert [] == told(directory)


def test_what_is_not_sealed_can_not_be_revealed(snapshot: Snapshot, directory: Path) -> None:
    """reveal() of something else is a mistake of the query, and nothing is recorded."""
    with pytest.raises(InvalidInput):
        revealed(snapshot, directory, "SELECT reveal(tenant) AS said FROM messages")
    assert [] == told(directory)


def test_where_the_key_is_gone_the_value_is_null(snapshot: Snapshot, directory: Path) -> None:
    """The fact that it was asked for stands all the same."""
    import sqlite3

    vault = sqlite3.connect(directory / "vault.db")
    vault.execute("DELETE FROM keys WHERE user = 'ada'")
    vault.commit()
    vault.close()
    query = "SELECT user, reveal(content) AS said FROM messages WHERE role = 'user' ORDER BY user"
    said = [row["said"] for row in revealed(snapshot, directory, query)]
    assert [None, None, "I am bob", "I am bob", "I am eve", "I am eve"] == said
    assert 6 == len(told(directory))
