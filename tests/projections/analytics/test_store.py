"""The analytics database: every event is one row, whatever happens to the process that writes it."""

from __future__ import annotations

import base64
import dataclasses
import errno
import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import duckdb
import pytest

from session_ledger.consumers.tail import Tail, material
from session_ledger.domain.errors import (
    LogCorrupt,
    Misconfigured,
    ProjectionConflict,
    ProjectionForeign,
    ProjectionInUse,
)
from session_ledger.domain.events import AccountEvent, Event
from session_ledger.projections.analytics.checksum import checksums
from session_ledger.projections.analytics.columns import time_text
from session_ledger.projections.analytics.snapshots import Publisher, latest, open_latest
from session_ledger.projections.analytics.store import AnalyticsStore, literal
from session_ledger.projections.port import Entry
from tests.projections.world import CODEC, World, record_of
from tests.schemas.golden import GOLDEN

NAMES = {"sealed_content": "content", "session_limit": "limit"}


def store_at(directory: Path, log_id: str = "log") -> AnalyticsStore:
    """The database in that directory."""
    return AnalyticsStore(directory / "parts1", log_id=log_id, ledger="l")


def entry(position: int, event: Event) -> Entry:
    """An event on its way in."""
    return Entry(position, event, material(record_of(position, event)))


def brought_in(world: World, directory: Path, batch_records: int = 4000) -> AnalyticsStore:
    """The world's log, in batches of that size."""
    store = store_at(directory)
    Tail([world.log.control, *world.log.partitions], CODEC, store, batch_records=batch_records).catch_up()
    return store


def rows_of(store: AnalyticsStore) -> list[dict[str, object]]:
    """Every row of `events`, in order."""
    table = store._db.sql("SELECT * FROM events ORDER BY partition, position").to_arrow_table()
    found: list[dict[str, object]] = table.to_pylist()
    return found


def told(value: object, name: str) -> object:
    """What a field is in a row."""
    if isinstance(value, bytes):
        if name.startswith("sealed_") and name != "sealed_content":
            return base64.b64encode(value).decode()
        is_id = len(value) == 16 and name.endswith(("_id", "replaced_by")) and name != "finding_id"
        return str(UUID(bytes=value)) if is_id else value if name == "sealed_content" else value.hex()
    if isinstance(value, Decimal):
        return str(value)
    return value


def assert_is_row(event: Event, row: dict[str, object]) -> None:
    """Every field of the event stands in the row, as a column or in `details`."""
    details = json.loads(str(row["details"])) if row["details"] else {}
    for field in dataclasses.fields(event):
        name, value = field.name, getattr(event, field.name)
        column = NAMES.get(name, name)
        if name == "command_digest":
            continue
        if column in row:
            found = row[column]
            if isinstance(found, datetime):
                found = int((found - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1_000_000 + 0.5)
            if isinstance(found, Decimal):
                assert found == value, name
            else:
                assert told(value, name) == (str(found) if isinstance(found, UUID) else found), name
        elif value is None or value == {}:
            assert name not in details
        elif isinstance(value, Decimal):
            assert value == Decimal(details[name]), name
        elif name in ("expires_at", "due_at", "replaced_until"):
            assert time_text(value) == details[name]
        elif name == "quotas":
            assert [quota.resource for quota in value] == [quota["resource"] for quota in details[name]]
        else:
            expected = list(value) if isinstance(value, tuple) else told(value, name)
            assert expected == details[name], name


@pytest.mark.parametrize("seed", range(3))
def test_every_field_of_every_event_is_in_its_row(tmp_path: Path, seed: int) -> None:
    """Nothing is lost or changed on the way, whatever the history."""
    world = World(seed).play(400)
    store = brought_in(world, tmp_path)
    rows = rows_of(store)
    assert len(world.events) == len(rows)
    by_place = {(row["partition"], row["position"]): row for row in rows}
    for partition, position, event in world.events:
        row = by_place[partition, position]
        assert type(event).__name__ == row["event_type"]
        assert str(UUID(bytes=event.originator_id)) == str(row["stream"])
        assert_is_row(event, row)
    store.close()


def test_every_event_type_there_ever_was_has_a_row(tmp_path: Path) -> None:
    """Also of those that a history in tests does not happen to hold."""
    events = [CODEC.decode(path.read_bytes()) for path in sorted(GOLDEN.glob("*.bin"))]
    store = store_at(tmp_path)
    store.apply(0, [entry(position, event) for position, event in enumerate(events, 1)])
    for event, row in zip(events, rows_of(store), strict=True):
        assert_is_row(event, row)
    assert any(isinstance(event, AccountEvent) for event in events)
    store.close()


def test_rows_do_not_depend_on_batches_and_a_rebuild_gives_the_same(tmp_path: Path) -> None:
    """Tables made twice, in batches of any size, have the same checksums."""
    world = World(5).play(300)
    found = []
    for number, size in enumerate((1, 7, 4000)):
        store = brought_in(world, tmp_path / str(number), size)
        found.append(checksums(store._db))
        store.close()
    assert found[0] == found[1] == found[2]
    assert found[0]["events"][0] == len(world.events)


def test_a_checksum_tells_a_changed_a_missing_and_a_doubled_row(tmp_path: Path) -> None:
    """Each changes it."""
    store = brought_in(World(5).play(50), tmp_path)
    sums = {checksums(store._db)["events"]}
    for change in (
        "UPDATE events SET version = version + 1 WHERE position = 3",
        "DELETE FROM events WHERE position = 4",
        "INSERT INTO events SELECT * FROM events WHERE position = 5",
    ):
        store._db.execute(change)
        sums.add(checksums(store._db)["events"])
    assert 4 == len(sums)
    store.close()


def test_a_batch_that_does_not_follow_is_refused_whole(tmp_path: Path) -> None:
    """A repeat, a gap before it and a gap in it: no row comes in, and the position stays."""
    world = World(2).play(200)
    own = [(position, event) for partition, position, event in world.events if partition == 0][:10]
    store = store_at(tmp_path)
    store.apply(0, [entry(position, event) for position, event in own[:5]])
    for wrong in (own[:5], own[4:8], own[6:]):
        with pytest.raises(ProjectionConflict):
            store.apply(0, [entry(position, event) for position, event in wrong])
    with pytest.raises(LogCorrupt):
        store.apply(0, [entry(*own[5]), entry(*own[7])])
    assert (5, 5) == (store.position(0), len(rows_of(store)))
    store.close()


def test_a_failure_in_the_middle_of_a_batch_leaves_nothing(tmp_path: Path) -> None:
    """Rows and position move together or not at all."""
    world = World(2).play(60)
    own = [(position, event) for partition, position, event in world.events if partition == 0]
    store = store_at(tmp_path)
    store._db.execute("DROP TABLE positions")
    with pytest.raises(duckdb.Error):
        store.apply(0, [entry(position, event) for position, event in own])
    assert [] == rows_of(store)
    store.close()


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    """Of another log, of no database, and one that another process writes."""
    store_at(tmp_path).close()
    with pytest.raises(ProjectionForeign):
        store_at(tmp_path, "another")
    (tmp_path / "no" / "parts1").mkdir(parents=True)
    (tmp_path / "no" / "parts1" / "live.duckdb").write_bytes(b"no database" * 1000)
    with pytest.raises(Misconfigured):
        store_at(tmp_path / "no")
    program = "import duckdb, sys; db = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "parts1" / "live.duckdb")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert "open\n" == holder.stdout.readline()
        with pytest.raises(ProjectionInUse, match=str(holder.pid)):
            store_at(tmp_path)
        assert holder.stdin is not None
        holder.stdin.close()


def test_other_code_makes_the_database_outdated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer version knows that the rows are an older one's."""
    store_at(tmp_path).close()
    monkeypatch.setattr("session_ledger.projections.analytics.store.VERSION", 99)
    store = store_at(tmp_path)
    assert store.outdated
    store.close()


# --- parts ------------------------------------------------------------------------------------------------------------


def test_parts_are_sealed_and_read_as_one(tmp_path: Path) -> None:
    """However the rows are spread over parts, a snapshot shows the same table."""
    world = World(5).play(300)
    found = []
    for part_events in (10, 100, 10_000):
        place = tmp_path / str(part_events)
        store = AnalyticsStore(place / "parts1", log_id="log", ledger="l", part_events=part_events)
        Tail([world.log.control, *world.log.partitions], CODEC, store, batch_records=9).catch_up()
        Publisher(store, place).publish()
        with open_latest(place) as snapshot:
            found.append((store.parts > 0, checksums(snapshot.connection)))
        store.close()
    assert [True, True, False] == [parts for parts, _ in found]
    assert 1 == len({str(sums) for _, sums in found})
    assert found[0][1]["events"][0] == len(world.events)


class Killed(Exception):
    """The process ended here."""


@pytest.mark.parametrize("step", range(1, 5))
def test_a_crash_at_any_step_of_sealing_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Before, between and after the renames: what opens next has all rows once, and goes on."""
    world = World(5).play(200)
    own = [entry(position, event) for partition, position, event in world.events if partition == 0]
    store = store_at(tmp_path)
    store.apply(0, own[:20])
    steps = 0
    replace, close = os.replace, duckdb.DuckDBPyConnection.close

    def dying(*arguments: Path) -> None:
        nonlocal steps
        steps += 1
        if steps == step:
            raise Killed
        replace(*arguments)
        steps += 1
        if steps == step:
            raise Killed

    monkeypatch.setattr("session_ledger.projections.analytics.store.os.replace", dying)
    with pytest.raises(Killed):
        store.seal()
    monkeypatch.undo()
    close(store._db)
    store = store_at(tmp_path)
    store.apply(0, own[20:])
    Publisher(store, tmp_path).publish()
    with open_latest(tmp_path) as snapshot:
        rows = snapshot.connection.execute("SELECT position FROM events ORDER BY 1").fetchall()
    assert [(number,) for number in range(1, len(own) + 1)] == rows
    store.close()


def test_a_part_is_not_sealed_while_it_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches go on while a snapshot is written; the part is sealed after."""
    world = World(5).play(200)
    own = [entry(position, event) for partition, position, event in world.events if partition == 0]
    store = AnalyticsStore(tmp_path / "parts1", log_id="log", ledger="l", part_events=10)
    store.apply(0, own[:5])
    original = literal

    def meanwhile(path: Path) -> str:
        store.apply(0, own[5:20])
        assert 0 == store.parts
        return original(path)

    monkeypatch.setattr("session_ledger.projections.analytics.store.literal", meanwhile)
    publisher = Publisher(store, tmp_path)
    publisher.publish()
    monkeypatch.undo()
    store.apply(0, own[20:21])
    assert 1 == store.parts
    publisher.publish()
    with open_latest(tmp_path) as snapshot:
        assert [(21,)] == snapshot.connection.execute("SELECT count(*) FROM events").fetchall()
    store.close()


# --- snapshots --------------------------------------------------------------------------------------------------------


def filled(directory: Path, events: Sequence[tuple[int, Event]]) -> AnalyticsStore:
    """A database that holds these events of partition 0."""
    store = store_at(directory)
    store.apply(0, [entry(position, event) for position, event in events])
    return store


def test_snapshots_are_whole_and_stay_what_they_are(tmp_path: Path) -> None:
    """A reader keeps what it opened; a new one sees the newest; the last few are kept, unfinished ones are not."""
    world = World(3).play(200)
    own = [(position, event) for partition, position, event in world.events if partition == 0]
    store = filled(tmp_path, own[:10])
    unfinished = tmp_path / "snapshot-20200101T000000000000Z-parts1.unfinished"
    unfinished.write_bytes(b"")
    publisher = Publisher(store, tmp_path, kept=2)
    assert not unfinished.exists()
    first = publisher.publish()
    assert not publisher.changed
    with open_latest(tmp_path) as early:
        store.apply(0, [entry(position, event) for position, event in own[10:20]])
        assert publisher.changed
        for _ in range(3):
            publisher.publish()
        assert not first.exists()
        assert [(10,)] == early.connection.execute("SELECT count(*) FROM events").fetchall()
        with open_latest(tmp_path) as late:
            assert {0: 20} == late.positions
            assert checksums(store._db) == checksums(late.connection)
            assert 0 <= late.age_s < 60
    assert 2 == len(list(tmp_path.glob("snapshot-*")))
    assert 0o600 == (latest(tmp_path) or tmp_path).stat().st_mode & 0o777
    store.close()


def test_publishing_takes_a_share_of_the_time_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a snapshot that took a second, the next comes nine seconds later, and only if something changed."""
    world = World(3).play(200)
    own = [(position, event) for partition, position, event in world.events if partition == 0]
    store = filled(tmp_path, own[:10])
    now = [100.0]
    monkeypatch.setattr("session_ledger.projections.analytics.snapshots.time.monotonic", lambda: now[0])
    publisher = Publisher(store, tmp_path)
    copy = AnalyticsStore.copy_to

    def slow(self: AnalyticsStore, path: Path, published_at: str) -> None:
        copy(self, path, published_at)
        now[0] += 1.0

    monkeypatch.setattr(AnalyticsStore, "copy_to", slow)
    assert publisher.publish_if_due() is not None
    assert publisher.publish_if_due() is None
    store.apply(0, [entry(position, event) for position, event in own[10:20]])
    now[0] += 8.9
    assert publisher.publish_if_due() is None
    now[0] += 0.2
    assert publisher.publish_if_due() is not None
    store.close()


@pytest.mark.parametrize(
    "query",
    [
        "CREATE TABLE x (a INTEGER)",
        "INSERT INTO facts VALUES ('a', 'b')",
        "DELETE FROM events",
        "COPY events TO '{place}/out.csv'",
        "COPY (SELECT 1) TO '{place}/out.parquet' (FORMAT parquet)",
        "EXPORT DATABASE '{place}/out'",
        "ATTACH '{place}/other.duckdb'",
        "SELECT * FROM read_csv('{place}/secret.csv')",
        "SELECT * FROM '{place}/secret.csv'",
        "SELECT * FROM read_text('{place}/secret.csv')",
        "SELECT * FROM glob('{place}/*')",
        "SELECT * FROM read_blob('{place}/secret.csv')",
        "SELECT * FROM duckdb_secrets(), read_json('{place}/secret.csv')",
        "SELECT * FROM read_parquet('https://localhost:1/x.parquet')",
        "INSTALL httpfs",
        "LOAD '{place}/x.duckdb_extension'",
        "SET enable_external_access = true",
        "SET memory_limit = '99GB'",
        "RESET lock_configuration",
        "PRAGMA memory_limit='99GB'",
        "CREATE TEMP VIEW v AS SELECT * FROM read_csv('{place}/secret.csv')",
        "CREATE TEMP MACRO m() AS TABLE SELECT * FROM read_csv('{place}/secret.csv')",
    ],
)
def test_a_query_reaches_nothing_but_the_snapshot(tmp_path: Path, query: str) -> None:
    """No write, no other file, no network, no change of settings; also not through a view or a macro."""
    (tmp_path / "secret.csv").write_text("a\n42\n")
    store = store_at(tmp_path)
    Publisher(store, tmp_path).publish()
    store.close()
    before = sorted(tmp_path.iterdir())
    with open_latest(tmp_path) as snapshot:
        connection = snapshot.connection
        try:
            connection.execute(query.format(place=tmp_path))
        except duckdb.Error:
            pass
        else:  # the definition alone reaches nothing yet
            with pytest.raises(duckdb.Error):
                connection.execute("SELECT * FROM v" if "VIEW" in query else "SELECT * FROM m()")
    assert before == sorted(tmp_path.iterdir())


def test_random_cuts_of_the_log_bring_in_each_event_once(tmp_path: Path) -> None:
    """However a log is cut into batches by stops and starts, each of its events has one row."""
    world = World(8).play(300)
    luck = random.Random(8)
    ends = {partition: max(p for q, p, _ in world.events if q == partition) for partition, _, _ in world.events}
    while True:
        store = store_at(tmp_path)
        logs = [log for log in (world.log.control, *world.log.partitions) if log.partition in ends]
        to = {
            log.partition: min(store.position(log.partition) + luck.randint(0, 40), ends[log.partition]) for log in logs
        }
        Tail(logs, CODEC, store, batch_records=luck.randint(1, 30)).catch_up(to)
        done = store.positions() == ends
        rows = rows_of(store) if done else []
        store.close()
        if done:
            break
    assert sorted((p, q) for p, q, _ in world.events) == sorted((row["partition"], row["position"]) for row in rows)


def test_a_clock_that_is_put_back_does_not_make_a_new_snapshot_an_old_one(tmp_path: Path) -> None:
    """Names sort in the order in which they were made: what is published last is what is opened, and kept."""
    world = World().play(20)
    store = brought_in(world, tmp_path)
    publisher = Publisher(store, tmp_path / "snapshots")
    first = publisher.publish()
    ahead = first.with_name(f"snapshot-29991231T235959999999Z-{store.directory.name}.duckdb")
    first.rename(ahead)
    made = [publisher.publish() for _ in range(4)]
    assert made == sorted(made)
    assert made[-1] == latest(tmp_path / "snapshots")
    assert "snapshot-30000101T000000000000Z" in made[0].name
    store.close()


@pytest.mark.parametrize(
    ("number", "raised", "told"),
    [
        (errno.ENOSPC, Misconfigured, "the disk that {} is on is full"),
        (errno.EDQUOT, Misconfigured, "the disk that {} is on is full"),
        (errno.EIO, duckdb.IOException, "Could not write"),
    ],
)
def test_a_full_disk_is_told_with_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, raised: type[Exception], told: str
) -> None:
    """DuckDB's own words become a typed error; what was begun of a copy is gone; other failures stay what they are."""

    def fails(_: object, cursor: object, path: Path, published_at: str) -> None:
        path.write_text("begun")
        raise duckdb.IOException(f'Could not write file "{path}": {os.strerror(number)}')

    made = AnalyticsStore(tmp_path, log_id="log", ledger="test")
    monkeypatch.setattr(AnalyticsStore, "_copy", fails)
    with pytest.raises(raised, match=told.format(tmp_path)):
        made.copy_to(tmp_path / "copy", "now")
    assert not (tmp_path / "copy").exists()
    made.close()
