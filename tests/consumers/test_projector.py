"""Following a log: nothing is lost, doubled or skipped, whoever dies, whoever else is at work."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from session_ledger.consumers.projector import Lag, Projector, targets
from session_ledger.consumers.tail import PartitionStopped, Tail
from session_ledger.consumers.wiring import current_projections, open_store
from session_ledger.domain.errors import (
    LedgerClosed,
    LogCorrupt,
    LogUnavailable,
    Misconfigured,
    ProjectionConflict,
    ProjectionForeign,
    WaitTimeout,
)
from session_ledger.ledger.log.memory import MemoryLog, MemoryStore
from session_ledger.ledger.log.port import Log, Record
from session_ledger.ledger.log.sqlite import SQLiteLog
from session_ledger.projections.sessions import SessionsProjection
from session_ledger.projections.store import Store
from tests.projections.rows import Rows, rows_in
from tests.projections.world import CODEC, World, record_of


def rebuilt_rows(log: Log, to: dict[int, int] | None = None) -> Rows:
    """The rows that a fold of the whole log gives."""
    with open_store(log, None) as store:
        Projector(log, CODEC, store).catch_up(to)
        return rows_in(store)


@pytest.fixture
def store_of() -> Iterator[Callable[[Log], Store]]:
    """Makes temporary stores and closes them."""
    opened: list[Store] = []

    def make(log: Log) -> Store:
        opened.append(open_store(log, None))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


def spoil(log: MemoryLog, partition: int, at: int, **changes: object) -> Record:
    """Change a record of a log in memory, as damage would; what stood there."""
    records = log._store.records[partition]
    before = records[at - 1]
    records[at - 1] = before._replace(**changes)  # type: ignore[arg-type]
    return before


def memory_world(seed: int = 5, commands: int = 120) -> tuple[World, MemoryLog]:
    """A world of two partitions over a log in memory."""
    log = MemoryLog(partitions=2)
    return World(seed, log=log).play(commands), log


@given(seed=st.integers(0, 2**32), sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5))
@settings(max_examples=10, deadline=None)
def test_following_and_rebuilding_give_the_same_rows(seed: int, sizes: list[int]) -> None:
    """Rows followed while the log grows, in batches of any size, are those of a rebuild; receipts agree too."""
    world = World(seed)
    with open_store(world.log, None) as store:
        for size in sizes:
            world.play(30)
            Projector(world.log, CODEC, store, batch_records=size).catch_up()
            assert rebuilt_rows(world.log) == rows_in(store)
        followed, receipts = rows_in(store), store.receipts()
        assert len(world.events) == Projector(world.log, CODEC, store).rebuild()
        assert (followed, receipts) == (rows_in(store), store.receipts())


def test_catching_up_stops_at_the_positions_that_are_named(store_of: Callable[[Log], Store]) -> None:
    """A target is reached and not passed; partitions that are not named stay where they are."""
    world, log = memory_world()
    projector = Projector(world.log, CODEC, store_of(log), batch_records=7)
    assert 10 == projector.catch_up({1: 10})
    assert {-1: 0, 0: 0, 1: 10} == projector.positions()
    assert rebuilt_rows(log, {1: 10}) == rows_in(projector._store)


def test_a_target_that_the_log_does_not_have_is_an_error(store_of: Callable[[Log], Store]) -> None:
    """A log that ends before an acknowledged position has lost something, and says so."""
    _, log = memory_world()
    end = log.partitions[0].end()
    with pytest.raises(LogCorrupt, match=f"ends at {end}"):
        Projector(log, CODEC, store_of(log)).catch_up({0: end + 1})


def test_targets_are_what_the_owner_acknowledged() -> None:
    """The owner tells partitions first and the control log last."""
    assert {-1: 7, 0: 3, 1: 4} == targets([3, 4, 7])


def test_a_running_projector_follows_the_log_and_stops_at_once(store_of: Callable[[Log], Store]) -> None:
    """Records appended while it runs reach the views within an instant; `stop` ends it within a step."""
    world, log = memory_world(commands=30)
    projector, stop = Projector(log, CODEC, store_of(log)), threading.Event()
    thread = threading.Thread(target=projector.run, args=(stop,))
    thread.start()
    try:
        for _ in range(5):
            world.play(10)
            for partition in (-1, 0, 1):
                projector.wait(partition, projector.partition(partition).end(), timeout_s=10)
            assert rebuilt_rows(log) == rows_in(projector._store)
    finally:
        stop.set()
        thread.join(timeout=10)
    assert not thread.is_alive()


def test_a_projector_in_a_thread_is_stopped_by_a_deadline(store_of: Callable[[Log], Store]) -> None:
    """`start` follows in the background, `stop` ends it after its batch and can be repeated; then it starts again."""
    world, log = memory_world(commands=30)
    projector = Projector(log, CODEC, store_of(log))
    for _ in range(2):
        projector.start()
        with pytest.raises(Misconfigured):
            projector.start()
        world.play(20)
        projector.wait(1, log.partitions[1].end(), timeout_s=10)
        projector.stop()
        projector.stop()
    assert not any(thread.name == "projector" for thread in threading.enumerate())


def test_what_ended_a_projector_in_a_thread_is_told_by_stop(store_of: Callable[[Log], Store]) -> None:
    """A log that is closed under a running projector ends it, and `stop` says so: nothing ends quietly."""
    _, log = memory_world(commands=30)
    projector = Projector(log, CODEC, store_of(log))
    projector.start()
    projector.wait(1, log.partitions[1].end(), timeout_s=10)
    log.close()
    deadline = time.monotonic() + 10
    while projector._failure is None and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(LedgerClosed):
        projector.stop()


def test_waiting_for_a_position_that_nobody_projects_times_out(store_of: Callable[[Log], Store]) -> None:
    """WaitTimeout says how far the views are."""
    _, log = memory_world()
    with pytest.raises(WaitTimeout, match="to 0, not to 5"):
        Projector(log, CODEC, store_of(log)).wait(0, 5, timeout_s=0.02)


def test_lag_is_what_is_still_to_fold(store_of: Callable[[Log], Store]) -> None:
    """Per partition: the log's end, the position of the views, and the difference."""
    _, log = memory_world()
    projector = Projector(log, CODEC, store_of(log))
    projector.catch_up({0: 4})
    lag = {row.partition: row for row in projector.lag()}
    assert Lag(0, log.partitions[0].end(), 4) == lag[0]
    assert log.partitions[0].end() - 4 == lag[0].behind
    assert [-1, 0, 1] == sorted(lag)


# --- damage ---------------------------------------------------------------------------------------------------------


def test_an_unreadable_record_stops_its_partition_alone(store_of: Callable[[Log], Store]) -> None:
    """The error names partition and position; what stands before is folded, and the other partitions go on."""
    _, log = memory_world()
    spoil(log, 0, 9, value=b"\xc3\x01nonsense")
    projector = Projector(log, CODEC, store_of(log))
    with pytest.raises(PartitionStopped) as stopped:
        projector.catch_up()
    assert (0, 9) == (stopped.value.partition, stopped.value.position)
    assert {-1: log.control.end(), 0: 8, 1: log.partitions[1].end()} == projector.positions()
    (row,) = [row for row in projector.lag() if row.stopped]
    assert (0, 8) == (row.partition, row.position)


def test_a_running_projector_goes_on_beside_a_stopped_partition(store_of: Callable[[Log], Store]) -> None:
    """`run` keeps the reason in `stopped` and follows the rest; a wait for the stopped partition fails at once."""
    world, log = memory_world()
    spoil(log, 0, 9, value=b"")
    projector, stop = Projector(log, CODEC, store_of(log)), threading.Event()
    thread = threading.Thread(target=projector.run, args=(stop,))
    thread.start()
    try:
        projector.wait(1, log.partitions[1].end(), timeout_s=10)
        world.play(40)
        projector.wait(1, log.partitions[1].end(), timeout_s=10)
        with pytest.raises(PartitionStopped, match="position 9"):
            projector.wait(0, 9, timeout_s=10)
    finally:
        stop.set()
        thread.join(timeout=10)


def test_a_record_that_does_not_fit_is_named_though_it_stood_in_a_batch(store_of: Callable[[Log], Store]) -> None:
    """A fact that can not follow stops the partition right there, not at the start of its batch."""
    world, log = memory_world()
    position = next(p for of, p, event in world.events if of == 1 and type(event).__name__ == "SessionCreated")
    again = log._store.records[1][position - 1]
    at = position + 3
    spoil(log, 1, at, value=again.value, topic=again.topic)
    projector = Projector(log, CODEC, store_of(log))
    with pytest.raises(PartitionStopped) as stopped:
        projector.catch_up()
    assert (1, at) == (stopped.value.partition, stopped.value.position)
    assert at - 1 == projector.position(1)


def test_a_gap_or_a_repeat_stops_the_partition(store_of: Callable[[Log], Store]) -> None:
    """Positions that are not dense are damage, not something to skip."""
    _, log = memory_world()
    spoil(log, 0, 6, position=7)
    projector = Projector(log, CODEC, store_of(log))
    with pytest.raises(PartitionStopped, match="position 6: position 7 stands where 6 belongs"):
        projector.catch_up()
    assert 5 == projector.position(0)


def test_a_quarantined_record_is_stepped_over_and_never_forgotten(store_of: Callable[[Log], Store]) -> None:
    """Quarantine is the one way past a record: its bytes stay in a table, lag counts it, a rebuild keeps it."""
    world, log = memory_world()
    position = next(p for of, p, event in world.events if of == 1 and type(event).__name__ == "MessageAdded")
    before = spoil(log, 1, position, value=b"damaged")
    projector = Projector(log, CODEC, store_of(log))
    with pytest.raises(PartitionStopped):
        projector.catch_up()
    row = projector.quarantine(1, position, "disk error of May 3")
    assert (b"damaged", before.topic, before.version) == (row.value, row.topic, row.version)
    projector.catch_up()
    assert log.partitions[1].end() == projector.position(1)
    assert [1] == [lag.partition for lag in projector.lag() if lag.quarantined == 1]
    assert {log.partitions[1].end() - 1} == {r.count for r in projector.receipts() if r.partition == 1}
    followed = rows_in(projector._store)
    projector.rebuild()
    assert (followed, [row]) == (rows_in(projector._store), projector._store.quarantined())


def test_only_a_record_that_is_there_can_be_quarantined(store_of: Callable[[Log], Store]) -> None:
    """A position beyond the log's end, or a partition that does not exist, is refused."""
    _, log = memory_world()
    projector = Projector(log, CODEC, store_of(log))
    with pytest.raises(Misconfigured, match="no record"):
        projector.quarantine(0, log.partitions[0].end() + 1, "why")
    with pytest.raises(Misconfigured, match="no partition 2"):
        projector.quarantine(2, 1, "why")


@pytest.mark.parametrize("kept", [0, 5, 19])
def test_a_log_that_was_restored_from_an_older_copy_is_noticed(store_of: Callable[[Log], Store], kept: int) -> None:
    """Views that are ahead of their log, or of another past, are not followed on; rebuilding them helps."""
    world, log = memory_world(commands=300)
    store = store_of(log)
    Projector(log, CODEC, store).catch_up({0: 20, 1: 20})
    del log._store.records[0][kept:]
    projector = Projector(log, CODEC, store)
    with pytest.raises(PartitionStopped, match="before it; was it restored"):
        projector.catch_up({0: kept})
    if kept == 19:
        log._store.records[0].append(record_of(20, world.events[-1][2]))
        with pytest.raises(PartitionStopped, match="another record"):
            projector.catch_up({0: kept})
        log._store.records[0].pop()
    projector.rebuild()
    projector.catch_up()
    assert rebuilt_rows(log) == rows_in(store)


# --- rebuilding -----------------------------------------------------------------------------------------------------


def test_views_of_other_projecting_code_are_rebuilt_by_catching_up(tmp_path: Path) -> None:
    """A changed fold version rebuilds from position 1; nobody has to ask for it."""
    world, log = memory_world()
    with open_store(log, tmp_path) as store:
        Projector(log, CODEC, store).catch_up()

    class Changed(SessionsProjection):
        version = SessionsProjection.version + 1

    projections = [Changed() if p.name == "sessions" else p for p in current_projections()]
    with Store(tmp_path / "views.db", log_id=log.log_id, projections=projections) as changed:
        assert len(world.events) == Projector(log, CODEC, changed).catch_up()
        assert not changed.outdated
        assert rebuilt_rows(log) == rows_in(changed)
        assert 0 == Projector(log, CODEC, changed).catch_up()
    assert ["views.db"] == sorted(path.name for path in tmp_path.iterdir())


def test_views_of_another_log_are_refused(tmp_path: Path) -> None:
    """A log that was made anew under the same place does not get the old one's views."""
    _, log = memory_world()
    open_store(log, tmp_path).close()
    with pytest.raises(ProjectionForeign):
        open_store(MemoryLog(store=MemoryStore(partitions=2)), tmp_path)
    with open_store(log, None) as store, pytest.raises(Misconfigured):
        Projector(MemoryLog(store=MemoryStore(partitions=2)), CODEC, store)


def test_a_rebuild_tells_its_progress_and_readers_see_no_half(store_of: Callable[[Log], Store]) -> None:
    """While it is under way readers have the old rows; progress counts up to all records."""
    world, log = memory_world()
    store = store_of(log)
    projector = Projector(log, CODEC, store, batch_records=2)
    projector.catch_up()
    expected, seen = rows_in(store), list[int]()

    def on_progress(records: int) -> None:
        seen.append(records)
        assert expected == rows_in(store)

    projector.rebuild(on_progress=on_progress)
    assert (sorted(seen), len(world.events)) == (seen, seen[-1])


# --- several at once, and killed ------------------------------------------------------------------------------------


def test_two_projectors_at_once_get_the_rows_right(tmp_path: Path) -> None:
    """Each conflict leaves the other's progress; between them every record is folded once."""
    world, log = memory_world(commands=400)
    applied: list[int] = []
    with open_store(log, tmp_path) as one, open_store(log, tmp_path) as other:
        threads = [
            threading.Thread(
                target=lambda s=store: applied.append(Projector(log, CODEC, s, batch_records=5).catch_up())
            )
            for store in (one, other)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert rebuilt_rows(log) == rows_in(one)
    assert len(world.events) == sum(applied)


def test_a_step_that_another_projector_took_is_a_conflict(tmp_path: Path) -> None:
    """A projector that is a step late is told so, and keeps nothing of its batch."""
    _, log = memory_world()
    with open_store(log, tmp_path) as one, open_store(log, tmp_path) as other:
        late = Tail(log.partitions, CODEC, one)
        reached = one.position(0)
        Projector(log, CODEC, other).catch_up()
        with pytest.raises(ProjectionConflict):
            late.step(log.partitions[0], after=reached)
        assert rebuilt_rows(log) == rows_in(other)


KILLED = """
import sys
from pathlib import Path
from session_ledger.consumers.projector import Projector
from session_ledger.consumers.wiring import open_store
from session_ledger.ledger.log.sqlite import SQLiteLog
from session_ledger.schemas.codec import Codec
log = SQLiteLog.open(sys.argv[1], write=False)
projector = Projector(log, Codec(), open_store(log, Path(sys.argv[1])), batch_records=3)
print("ready", flush=True)
projector.catch_up()
print("done", flush=True)
"""


def test_a_killed_projector_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """kill -9 at random moments, again and again: the next one goes on where the rows end."""
    log = SQLiteLog.open(tmp_path, write=True, create=True)
    World(11, log=log).play(1500)
    chance, reached = random.Random(4), [0]
    for _ in range(6):
        child = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert "ready\n" == child.stdout.readline()
        time.sleep(chance.random() * 0.15)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        with open_store(log, tmp_path) as store:
            reached.append(store.position(0))
            assert rebuilt_rows(log, Projector(log, CODEC, store).positions()) == rows_in(store)
    assert sorted(reached) == reached
    with open_store(log, tmp_path) as store:
        Projector(log, CODEC, store).catch_up()
        assert rebuilt_rows(log) == rows_in(store)
    log.close()


def test_a_log_that_can_not_be_reached_is_tried_again(store_of: Callable[[Log], Store]) -> None:
    """LogUnavailable stops nothing: it stands in `trouble` until the log is back."""
    _, log = memory_world()
    projector, stop = Projector(log, CODEC, store_of(log)), threading.Event()
    partition, reachable = log.partitions[0], threading.Event()
    read = partition.read

    def unreachable(after: int, limit: int) -> list[Record]:
        if not reachable.is_set():
            raise LogUnavailable("the broker is away")
        return read(after, limit)

    partition.read = unreachable  # type: ignore[method-assign]
    thread = threading.Thread(target=projector.run, args=(stop,))
    thread.start()
    try:
        projector.wait(1, log.partitions[1].end(), timeout_s=10)
        assert [0] == list(projector.trouble)
        reachable.set()
        projector.wait(0, partition.end(), timeout_s=10)
        assert {} == projector.trouble
    finally:
        stop.set()
        thread.join(timeout=10)
