"""The views' file: rows and positions together, one writer at a position, one log, one version of the code."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from session_ledger.consumers.tail import material
from session_ledger.consumers.wiring import current_projections
from session_ledger.domain.errors import (
    LogCorrupt,
    Misconfigured,
    ProjectionConflict,
    ProjectionForeign,
    ProjectionOutdated,
)
from session_ledger.projections.port import Entry, Quarantined
from session_ledger.projections.sessions import SessionsProjection
from session_ledger.projections.store import Store
from tests.projections.rows import rows_in, rows_of
from tests.projections.world import World, record_of

LOG_ID = "log-1"


def entries_of(world: World, partition: int = 0) -> list[Entry]:
    """A partition's events as the store takes them."""
    found = [(position, event) for of, position, event in world.events if of == partition]
    return [Entry(position, event, material(record_of(position, event))) for position, event in found]


@pytest.fixture(scope="module")
def entries() -> list[Entry]:
    """Sixty events of one partition."""
    return entries_of(World(7, partitions=1).play(200))[:60]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    with Store(tmp_path / "views.db", log_id=LOG_ID, projections=current_projections()) as store:
        yield store


def again(store: Store) -> Store:
    """The same file, opened once more, as another process would."""
    return Store(store.path, log_id=LOG_ID, projections=current_projections())


def test_rows_and_position_move_together(store: Store, entries: list[Entry]) -> None:
    """After a batch every projection stands at its last position, and the rows are there."""
    store.apply(0, entries[:10])
    assert 10 == store.position(0)
    assert {10} == {receipt.position for receipt in store.receipts()}
    assert 0 == store.position(1)


def test_a_batch_that_was_applied_is_refused_whole(store: Store, entries: list[Entry]) -> None:
    """A batch delivered again changes neither rows nor positions."""
    store.apply(0, entries[:10])
    before = rows_in(store)
    with pytest.raises(ProjectionConflict, match="stands at 10"):
        store.apply(0, entries[:10])
    assert (before, 10) == (rows_in(store), store.position(0))


@pytest.mark.parametrize(("first", "last"), [(5, 20), (11, 20), (1, 30)])
def test_a_batch_that_overlaps_or_leaves_a_gap_is_refused_whole(
    store: Store, entries: list[Entry], first: int, last: int
) -> None:
    """Only the batch that starts right after the stored position is taken."""
    store.apply(0, entries[:9])
    before = rows_in(store)
    with pytest.raises(ProjectionConflict):
        store.apply(0, entries[first - 1 : last])
    assert (before, 9) == (rows_in(store), store.position(0))


def test_a_batch_with_a_hole_is_corrupt(store: Store, entries: list[Entry]) -> None:
    """Positions inside a batch are dense."""
    with pytest.raises(LogCorrupt, match="not dense"):
        store.apply(0, [*entries[:3], *entries[4:6]])
    assert 0 == store.position(0)


def test_a_batch_that_can_not_be_folded_leaves_nothing(store: Store, entries: list[Entry]) -> None:
    """A repeated fact in the middle of a batch rolls back what stood before it."""
    repeated = [entry._replace(position=number) for number, entry in enumerate([*entries[:6], *entries[:6]], 1)]
    before = rows_in(store)
    with pytest.raises(LogCorrupt):
        store.apply(0, repeated)
    assert (before, 0) == (rows_in(store), store.position(0))


def test_of_two_writers_at_one_position_one_wins(store: Store, entries: list[Entry]) -> None:
    """Two projectors with the same batch: one applies it, the other gets ProjectionConflict, the rows are right."""
    with again(store) as other:
        outcomes: list[str] = []
        start = threading.Barrier(2)

        def project(into: Store) -> None:
            start.wait()
            for at in range(0, 60, 6):
                try:
                    into.apply(0, entries[at : at + 6])
                    outcomes.append("applied")
                except ProjectionConflict:
                    outcomes.append("conflict")

        threads = [threading.Thread(target=project, args=(into,)) for into in (store, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        reached = store.position(0)
        assert reached // 6 == outcomes.count("applied")
        with Store.temporary(log_id=LOG_ID, projections=current_projections()) as fresh:
            fresh.apply(0, entries[:reached])
            assert rows_in(fresh) == rows_in(other)


def test_readers_see_a_snapshot_while_a_batch_is_written(store: Store, entries: list[Entry]) -> None:
    """A read transaction neither waits for a writer nor sees half of what it does."""
    store.apply(0, entries[:10])
    reader = sqlite3.connect(f"file:{store.path}?mode=ro", uri=True, timeout=0, isolation_level=None)
    reader.execute("BEGIN")
    before = rows_of(reader)
    store.apply(0, entries[10:40])
    assert before == rows_of(reader)
    reader.execute("COMMIT")
    assert before != rows_of(reader)
    reader.close()


def test_views_of_another_log_are_refused(store: Store) -> None:
    """A file that was built from one log is neither read nor written for another."""
    with pytest.raises(ProjectionForeign, match=LOG_ID):
        Store(store.path, log_id="log-2", projections=current_projections())


def test_views_of_other_projecting_code_are_not_served(store: Store, entries: list[Entry]) -> None:
    """A changed fold version makes the rows outdated: no read, no further batch, until they are rebuilt."""
    store.apply(0, entries[:10])

    class Changed(SessionsProjection):
        version = SessionsProjection.version + 1

    with Store(store.path, log_id=LOG_ID, projections=[Changed()]) as changed:
        assert changed.outdated
        with pytest.raises(ProjectionOutdated), changed.reading():
            pass
        with pytest.raises(ProjectionOutdated):
            changed.apply(0, entries[10:20])


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    """Misconfigured names the file, for a person to look at."""
    (tmp_path / "views.db").write_bytes(b"no database, though long enough to be looked at as one" * 40)
    with pytest.raises(Misconfigured, match=r"views\.db"):
        Store(tmp_path / "views.db", log_id=LOG_ID, projections=current_projections())


def test_a_file_that_is_damaged_later_is_told_by_a_typed_error(store: Store, entries: list[Entry]) -> None:
    """A read of a damaged page says which file to delete; it is no bare error of the database."""
    store.apply(0, entries)
    store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path = Path(store.path)
    store.close()
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(Misconfigured, match="delete it") as told, again(store) as damaged:
        damaged.position(0)
    assert isinstance(told.value.__cause__, sqlite3.DatabaseError)


def test_receipts_tell_the_records_not_the_batches(store: Store, entries: list[Entry]) -> None:
    """The root is the same however the records were cut, and another as soon as one byte of one differs."""
    store.apply(0, entries[:7])
    store.apply(0, entries[7:30])

    def root(batch: list[Entry]) -> set[bytes]:
        with Store.temporary(log_id=LOG_ID, projections=current_projections()) as other:
            other.apply(0, batch)
            return {receipt.root for receipt in other.receipts()}

    roots = {receipt.root for receipt in store.receipts()}
    assert roots == root(entries[:30])
    changed = entries[3]._replace(material=entries[3].material[:-1] + b"?")
    assert roots != root([*entries[:3], changed, *entries[4:30]])


def test_what_another_store_holds_is_adopted_in_one_step(store: Store, entries: list[Entry]) -> None:
    """Open readers see all of the old rows, then all of the new; positions and quarantine come along."""
    store.apply(0, entries[:10])
    reader = sqlite3.connect(f"file:{store.path}?mode=ro", uri=True, timeout=0, isolation_level=None)
    old = rows_of(reader)
    record = Quarantined(0, 50, "topic", b"o" * 16, 1, b"value", "why")
    with again(store) as other, Store.temporary(log_id=LOG_ID, projections=current_projections()) as built:
        built.quarantine(record)
        built.apply(0, entries[:40])
        reader.execute("BEGIN")
        assert old == rows_of(reader)
        store.adopt(built)
        assert old == rows_of(reader)
        reader.execute("COMMIT")
        assert rows_in(built) == rows_of(reader)
        assert (40, [record]) == (other.position(0), other.quarantined())
        other.apply(0, entries[40:45])
        assert 45 == store.position(0)
    reader.close()


def test_reads_share_the_connections_that_are_idle(store: Store) -> None:
    """As many connections as reads at the same time, however many threads came by; none after `close`."""

    def read() -> None:
        with store.reading() as db:
            assert [] == db.execute("SELECT * FROM sessions").fetchall()

    for _ in range(5):
        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
    assert 1 == len(store._idle)
    with store.reading(), store.reading():
        pass
    assert 2 == len(store._idle)
    with store.reading() as late:
        store.close()
    assert [] == store._idle
    with pytest.raises(sqlite3.ProgrammingError):
        late.execute("SELECT 1")
    with pytest.raises(Misconfigured), store.reading():
        pass


def test_the_file_is_its_owners_alone(store: Store, entries: list[Entry]) -> None:
    """Nobody else on the machine reads the views, nor the log beside them."""
    store.apply(0, entries)
    modes = {path.name: path.stat().st_mode & 0o777 for path in Path(store.directory).iterdir()}
    assert {"views.db": 0o600, "views.db-wal": 0o600, "views.db-shm": 0o600} == modes


def test_a_record_that_was_folded_can_not_be_stepped_over(store: Store, entries: list[Entry]) -> None:
    """Quarantine is for records ahead; for one behind, rows would have to be rebuilt, and the error says so."""
    store.apply(0, entries[:10])
    with pytest.raises(Misconfigured, match="rebuild"):
        store.quarantine(Quarantined(0, 10, "topic", b"o" * 16, 1, b"value", "why"))


def test_what_a_killed_process_was_building_is_swept_up(tmp_path: Path) -> None:
    """The directory of a temporary store whose process is gone is deleted by the next one; a living one's is not."""
    gone, living = tmp_path / "views-building-999999999-x", tmp_path / "views-building-1-x"
    gone.mkdir()
    living.mkdir()
    with Store.temporary(log_id=LOG_ID, projections=current_projections(), directory=str(tmp_path)):
        assert (False, True) == (gone.exists(), living.exists())
    assert [living] == list(tmp_path.iterdir())
