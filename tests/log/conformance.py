"""What every log must do, as one suite: an adapter subclasses `LogConformance` and gives it a `storage` fixture."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from threading import Barrier, Event, Thread
from time import monotonic, sleep
from uuid import UUID, uuid4

import pytest
from eventsourcing.persistence import IntegrityError, Notification, StoredEvent

from session_ledger.domain.errors import AppendFailed, LedgerClosed, NotOwner, OutcomeUnknown
from session_ledger.ledger.log.port import Log, PartitionLog, Record

ROOT = Path(__file__).resolve().parents[2]


class Storage(ABC):
    """One place where a log is kept, empty at first, which a test opens as often as it likes."""

    reader_lag_s = 0.0
    """How long a reader that is not the owner may lag behind an acknowledged append."""
    dead_owner_s = 0.0
    """How long an owner that was killed may keep its place."""

    def __init__(self) -> None:
        self._opened: list[Log] = []

    def open(self, *, write: bool = True, take_over: bool = False) -> Log:
        """Open the log; it is closed after the test."""
        log = self.open_log(write=write, take_over=take_over)
        self._opened.append(log)
        return log

    def close_all(self) -> None:
        """Close whatever the test has opened."""
        for log in self._opened:
            log.close()

    def open_after_kill(self) -> Log:
        """Open for writing once an owner that was killed has lost its place."""
        deadline = monotonic() + self.dead_owner_s
        while True:
            try:
                return self.open()
            except NotOwner:
                if monotonic() > deadline:
                    raise
                sleep(0.2)

    @abstractmethod
    def open_log(self, *, write: bool, take_over: bool) -> Log:
        """Open the log that is kept here; whatever is missing is made."""

    def opener(self) -> tuple[str, str] | None:
        """``("module:function", argument)`` that opens the log for writing in another process; None if that can not be.

        The function takes the argument and returns the `Log`.
        """
        return None


def batch(after: int, count: int, *, by: str = "test", size: int = 20) -> list[Record]:
    """An append of `count` records after that position; each value says who wrote it and how many belong together."""
    batch_id, originator = os.urandom(16), os.urandom(16)
    return [
        Record(after + i, batch_id, originator, i, f"topic{i % 3}", f"{by}:{count}:".encode().ljust(size, b"."), "t/u")
        for i in range(1, count + 1)
    ]


def writer_of(record: Record) -> str:
    """Who wrote it, by `batch`."""
    return record.value.split(b":")[0].decode()


def stored(records: Sequence[Record]) -> list[Record]:
    """The records as any log gives them back: a log may leave the key out."""
    return [record._replace(key="") for record in records]


def everything(log: PartitionLog, page: int = 500) -> list[Record]:
    """Every record of the partition, by pages."""
    found: list[Record] = []
    while records := log.read(len(found), page):
        found.extend(records)
    return stored(found)


def assert_whole_batches(records: Sequence[Record]) -> None:
    """Positions are 1, 2, 3, ... and every batch id stands once, in one run as long as its append was."""
    assert list(range(1, len(records) + 1)) == [record.position for record in records]
    runs = [(batch_id, list(run)) for batch_id, run in groupby(records, key=lambda record: record.batch_id)]
    assert len({batch_id for batch_id, _ in runs}) == len(runs)
    for _, run in runs:
        assert int(run[0].value.split(b":")[1]) == len(run)


def eventually(storage: Storage, condition: Callable[[], bool]) -> None:
    """Wait as long as a reader of that storage may lag for the condition to hold."""
    deadline = monotonic() + storage.reader_lag_s
    while not condition() and monotonic() < deadline:
        sleep(0.01)
    assert condition()


def assert_closed(partition: PartitionLog) -> None:
    """Every call that writes or reads raises LedgerClosed."""
    for attempt in (
        lambda: partition.append(batch(1, 1)),
        lambda: partition.read(0, 1),
        lambda: partition.settle(os.urandom(16), 1),
        partition.end,
        partition.prove_ownership,
    ):
        with pytest.raises(LedgerClosed):
            attempt()


def append_later(partition: PartitionLog, after: int) -> Thread:
    """A thread that appends one record in a moment."""

    def append() -> None:
        sleep(0.1)
        partition.append(batch(after, 1))

    thread = Thread(target=append)
    thread.start()
    return thread


class LogConformance:
    """The suite. Each test gets a `storage` of its own."""

    # --- append, read, end ----------------------------------------------------------------------------------------

    def test_a_new_log_is_empty(self, storage: Storage) -> None:
        """Nothing is there, the end is 0, and the library sees no notification."""
        log = storage.open()
        for partition in (*log.partitions, log.control):
            assert partition.end() == 0
            assert partition.read(0, 10) == []
            assert partition.max_notification_id() is None

    def test_what_is_appended_is_read_back(self, storage: Storage) -> None:
        """Every field comes back as it was given, but for the key, which a log may leave out."""
        partition = storage.open().partitions[0]
        first, second = batch(0, 3), batch(3, 2)
        partition.append(first)
        partition.append(second)
        assert stored(first + second) == stored(partition.read(0, 10))
        assert partition.end() == 5

    def test_reading_by_pages_of_any_size(self, storage: Storage) -> None:
        """`read(after, limit)` is that slice of the whole, wherever the batches begin and end."""
        partition, rng = storage.open().partitions[0], random.Random(7)
        written: list[Record] = []
        for _ in range(25):
            records = batch(len(written), rng.choice([1, 2, 3, 64, 65, 130]))
            partition.append(records)
            written += stored(records)
        for _ in range(60):
            after, limit = rng.randint(0, len(written) + 2), rng.randint(1, 300)
            assert written[after : after + limit] == stored(partition.read(after, limit))

    def test_a_value_of_a_mebibyte(self, storage: Storage) -> None:
        """The largest content that the ledger takes by default fits into one record."""
        partition = storage.open().partitions[0]
        records = [batch(0, 1)[0]._replace(value=os.urandom(1024 * 1024 + 4096))]
        partition.append(records)
        assert stored(records) == stored(partition.read(0, 1))

    def test_control_and_partitions_are_apart(self, storage: Storage) -> None:
        """Each has positions and records of its own; the control log is partition -1."""
        log = storage.open()
        log.control.append(batch(0, 2, by="control"))
        log.partitions[0].append(batch(0, 1, by="data"))
        assert log.control.partition == -1
        assert [p.partition for p in log.partitions] == list(range(len(log.partitions)))
        assert [writer_of(r) for r in everything(log.control)] == ["control"] * 2
        assert [writer_of(r) for r in everything(log.partitions[0])] == ["data"]

    def test_a_closed_log_opens_again_with_all_it_had(self, storage: Storage) -> None:
        """Records, name and log id outlive the process's hold on the log."""
        log = storage.open()
        records = batch(0, 5)
        log.partitions[0].append(records)
        log.close()
        again = storage.open()
        assert (log.name, log.log_id) == (again.name, again.log_id)
        assert stored(records) == everything(again.partitions[0])
        again.partitions[0].append(batch(5, 1))
        assert again.partitions[0].end() == 6

    # --- appends that are refused ---------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "positions", [[5], [3], [1], [0], [-1], [4, 6], [4, 4], [5, 4]], ids=lambda p: "-".join(map(str, p))
    )
    def test_positions_must_follow_the_end(self, storage: Storage, positions: list[int]) -> None:
        """A gap or a repeat, at the start or inside, is refused and leaves nothing; the right append then succeeds."""
        partition = storage.open().partitions[0]
        partition.append(batch(0, 3))
        wrong = [r._replace(position=p) for r, p in zip(batch(3, len(positions)), positions, strict=True)]
        with pytest.raises(AppendFailed):
            partition.append(wrong)
        assert partition.end() == 3
        partition.append(batch(3, 2))
        assert_whole_batches(everything(partition))

    def test_an_append_has_one_batch_id_and_something_in_it(self, storage: Storage) -> None:
        """Records of two batch ids, or none at all, are refused and leave nothing."""
        partition = storage.open().partitions[0]
        with pytest.raises(AppendFailed):
            partition.append([*batch(0, 1), *batch(1, 1)])
        with pytest.raises(AppendFailed):
            partition.append([])
        assert everything(partition) == []

    def test_settle_tells_which_batch_stands(self, storage: Storage) -> None:
        """True for the batch at its first position; False for another id, another place, and past the end."""
        partition = storage.open().partitions[0]
        first, second = batch(0, 2), batch(2, 2)
        partition.append(first)
        partition.append(second)
        assert partition.settle(first[0].batch_id, 1) is True
        assert partition.settle(second[0].batch_id, 3) is True
        assert partition.settle(os.urandom(16), 3) is False
        assert partition.settle(first[0].batch_id, 3) is False
        assert partition.settle(os.urandom(16), 5) is False
        partition.append(batch(4, 1))
        assert_whole_batches(everything(partition))

    # --- readers --------------------------------------------------------------------------------------------------

    def test_a_reader_reads_beside_the_owner_and_never_writes(self, storage: Storage) -> None:
        """It sees what is appended after it was opened; append, settle and proof are refused with NotOwner."""
        owner = storage.open().partitions[0]
        owner.append(batch(0, 1))
        reader = storage.open(write=False).partitions[0]
        owner.append(batch(1, 2))
        eventually(storage, lambda: reader.end() == 3)
        assert everything(owner) == everything(reader)
        for attempt in (
            lambda: reader.append(batch(3, 1)),
            lambda: reader.settle(os.urandom(16), 3),
            reader.prove_ownership,
        ):
            with pytest.raises(NotOwner):
                attempt()
        assert owner.end() == 3

    def test_readers_see_whole_batches_only(self, storage: Storage) -> None:
        """While the owner appends, every read to the end finishes with the last record of an append."""
        owner = storage.open().partitions[0]
        reader = storage.open(write=False).partitions[0]
        done, torn = Event(), list[int]()

        def look() -> None:
            while not done.is_set():
                for partition in (owner, reader):
                    records = partition.read(0, 100_000)
                    if records and int(records[-1].value.split(b":")[1]) != records[-1].version:
                        torn.append(records[-1].position)

        threads = [Thread(target=look) for _ in range(2)]
        for thread in threads:
            thread.start()
        end = 0
        for count in [1, 100, 7, 64, 65, 128] * 4:
            owner.append(batch(end, count))
            end += count
        done.set()
        for thread in threads:
            thread.join()
        assert torn == []
        assert_whole_batches(everything(owner))

    def test_wait_returns_when_something_is_there_or_the_time_is_over(self, storage: Storage) -> None:
        """At once with True for what is there already; False only after the time; True soon after an append."""
        log = storage.open()
        owner = log.partitions[0]
        owner.append(batch(0, 1))
        reader = storage.open(write=False).partitions[0]
        for partition in (owner, reader):
            assert partition.wait(0, 10.0) is True
            end, started = owner.end(), monotonic()
            assert partition.wait(end, 0.15) is False
            assert 0.1 < monotonic() - started < 5
            later = append_later(owner, end)
            started = monotonic()
            while not partition.wait(end, 10.0) or not partition.read(end, 1):
                assert monotonic() - started < 10
            assert monotonic() - started < 5
            later.join()

    def test_a_subscription_stops_from_another_thread_and_with_the_log(self, storage: Storage) -> None:
        """Iteration that waits for more ends soon after `stop()`, and soon after the log is closed."""
        log = storage.open()
        partition = log.partitions[0]
        partition.append(batch(0, 2))
        for end_it in (lambda subscription: subscription.stop(), lambda _: log.close()):
            subscription = partition.subscribe(gt=1)
            seen: list[Notification] = []
            thread = Thread(target=lambda s=subscription, seen=seen: seen.extend(s))
            thread.start()
            sleep(0.2)
            end_it(subscription)
            thread.join(timeout=10)
            assert not thread.is_alive()
            assert [n.id for n in seen] == [2]

    # --- the library's port ---------------------------------------------------------------------------------------

    def test_one_of_many_inserts_of_a_version_succeeds(self, storage: Storage) -> None:
        """Threads that insert the same version of one originator: one gets a position, the others IntegrityError."""
        partition, originator = storage.open().partitions[0], uuid4()
        barrier, outcomes = Barrier(4), list[str]()

        def insert(number: int) -> None:
            barrier.wait()
            try:
                partition.insert_events([event(originator, 1, str(number)), event(originator, 2, str(number))])
                outcomes.append("done")
            except IntegrityError:
                outcomes.append("refused")

        threads = [Thread(target=insert, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["done", "refused", "refused", "refused"]
        assert partition.end() == 2
        assert len({e.state for e in partition.select_events(originator)}) == 1

    def test_what_append_wrote_is_known_to_the_librarys_port(self, storage: Storage) -> None:
        """Its versions are refused to `insert_events`, and selected and notified like any other."""
        partition = storage.open().partitions[0]
        records = batch(0, 3)
        partition.append(records)
        originator = UUID(bytes=records[0].originator_id)
        with pytest.raises(IntegrityError):
            partition.insert_events([event(originator, 3, "again")])
        assert [1, 2, 3] == [e.originator_version for e in partition.select_events(originator)]
        assert [1, 2, 3] == [n.id for n in partition.select_notifications(1, 10)]
        assert partition.insert_events([event(originator, 4, "next")]) == [4]

    # --- owners ---------------------------------------------------------------------------------------------------

    def test_a_second_owner_is_refused(self, storage: Storage) -> None:
        """Opening for writing while another instance owns the log raises NotOwner; once that is closed it succeeds."""
        log = storage.open()
        log.partitions[0].append(batch(0, 1))
        with pytest.raises(NotOwner):
            storage.open()
        log.partitions[0].prove_ownership()
        log.partitions[0].append(batch(1, 1))
        log.close()
        storage.open().partitions[0].append(batch(2, 1))

    def test_a_takeover_ends_the_former_owner(self, storage: Storage) -> None:
        """Its append, settle and proof raise NotOwner and write nothing, on every partition, now and later."""
        old = storage.open()
        old.partitions[0].append(batch(0, 2, by="old"))
        new = storage.open(take_over=True)
        new.partitions[0].append(batch(2, 1, by="new"))
        for partition in (old.partitions[0], old.control):
            end = partition.end()
            sleep(partition.proof_age_s)
            for attempt in (
                partition.prove_ownership,
                lambda p=partition, end=end: p.append(batch(end, 1, by="old")),
                lambda p=partition, end=end: p.settle(os.urandom(16), end + 1),
                lambda p=partition, end=end: p.append(batch(end, 1, by="old")),
                partition.prove_ownership,
            ):
                with pytest.raises(NotOwner):
                    attempt()
        new.partitions[0].prove_ownership()
        new.control.append(batch(0, 1, by="new"))
        assert [writer_of(r) for r in everything(new.partitions[0])] == ["old", "old", "new"]
        assert [writer_of(r) for r in everything(new.control)] == ["new"]

    def test_a_takeover_under_load_interleaves_nothing(self, storage: Storage) -> None:
        """The former owner's acknowledged appends stand before all of the new one's, and none after."""
        old = storage.open().partitions[0]
        acknowledged, unknown, refused = list[bytes](), list[bytes](), list[type[BaseException]]()

        def write_on() -> None:
            end = 0
            while True:
                records = batch(end, 3, by="old")
                try:
                    try:
                        old.append(records)
                    except OutcomeUnknown:
                        unknown.append(records[0].batch_id)
                        old.settle(records[0].batch_id, end + 1)
                except (NotOwner, AppendFailed) as error:
                    refused.append(type(error))
                    if isinstance(error, NotOwner):
                        return
                else:
                    acknowledged.append(records[0].batch_id)
                    end += 3

        thread = Thread(target=write_on)
        thread.start()
        while len(acknowledged) < 5:
            sleep(0.001)
        new = storage.open(take_over=True).partitions[0]
        for _ in range(5):
            new.append(batch(new.end(), 2, by="new"))
        thread.join(timeout=60)
        assert not thread.is_alive()
        records = everything(new)
        assert_whole_batches(records)
        assert refused == [NotOwner]
        old_ids = [r.batch_id for r in records if writer_of(r) == "old"][::3]
        assert acknowledged == old_ids[: len(acknowledged)]
        assert old_ids[len(acknowledged) :] in ([], unknown)
        assert ["old"] * 3 * len(old_ids) + ["new"] * 10 == [writer_of(r) for r in records]

    def test_closing_twice_and_using_what_is_closed(self, storage: Storage) -> None:
        """`close` may be repeated; everything else on a closed partition raises LedgerClosed, and of a closed log."""
        log = storage.open()
        partition = log.partitions[0]
        partition.append(batch(0, 1))
        partition.close()
        assert_closed(partition)
        log.close()
        log.close()
        partition.close()
        assert_closed(partition)
        assert_closed(log.control)

    # --- crashes --------------------------------------------------------------------------------------------------

    def test_kill_of_the_writer_process_under_load(self, storage: Storage) -> None:
        """After each SIGKILL every acknowledged batch is there once, whole, and positions are dense."""
        opener = storage.opener()
        if opener is None:  # nothing outlives its process: there is nothing to kill
            return
        rng, acknowledged = random.Random(), dict[str, tuple[int, int]]()
        for _ in range(3):
            acknowledged.update(run_and_kill(opener, acks=rng.randint(1, 60), extra_s=rng.random() * 0.02))
            log = storage.open_after_kill()
            records = everything(log.partitions[0])
            assert_whole_batches(records)
            found = {r.batch_id.hex(): r.position for r in reversed(records)}  # the first position of each batch
            assert {b: first for b, (first, _) in acknowledged.items()}.items() <= found.items()
            log.partitions[0].append(batch(len(records), 2))
            acknowledged[everything(log.partitions[0])[-1].batch_id.hex()] = (len(records) + 1, 2)
            log.close()


def event(originator: UUID, version: int, state: str) -> StoredEvent:
    """One of the library's events."""
    return StoredEvent(originator, version, "topic", state.encode())


def run_and_kill(opener: tuple[str, str], *, acks: int, extra_s: float) -> dict[str, tuple[int, int]]:
    """Run the writer process, kill it after so many acknowledgements and a moment; batch id -> (first, count)."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.log.writer_process", *opener],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = [process.stdout.readline() for _ in range(acks)]
        sleep(extra_s)
        process.send_signal(signal.SIGKILL)
        rest, errors = process.communicate()
    assert all(lines), f"the writer stopped by itself: {errors}"
    whole = "".join(lines) + rest[: rest.rfind("\n") + 1]  # a line that is cut off was not given out whole
    found: dict[str, tuple[int, int]] = {}
    for line in whole.splitlines():
        batch_id, first, count = line.split()
        found[batch_id] = (int(first), int(count))
    return found
