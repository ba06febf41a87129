"""The checkpointer on a real ledger: when it signs, what it refuses, and that no kill makes it contradict itself."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from session_ledger.consumers.checkpointer import Checkpointer
from session_ledger.consumers.leaves import SchemaNotPublished
from session_ledger.consumers.mirror import Mirror
from session_ledger.consumers.tail import PartitionStopped
from session_ledger.consumers.views import Views
from session_ledger.domain.errors import (
    KeyUnavailable,
    LogCorrupt,
    LogUnavailable,
    Misconfigured,
    ProjectionForeign,
    ProjectionInUse,
)
from session_ledger.domain.events import EVENT_TYPES
from session_ledger.ledger.checkpoints import SQLiteCheckpoints
from session_ledger.ledger.ledger import Ledger
from session_ledger.security.checkpoint import Checkpoint, origin_of
from session_ledger.security.leaf import NO_SCHEMA, Leaf
from session_ledger.security.signing import Signer
from tests.cli.shell import environment
from tests.consumers.signed import Row, Signed

EVENT_TYPES_PUBLISHED = len(EVENT_TYPES)  # one SchemaPublished each stands in a new control log


@pytest.fixture
def ledger(directory: Path) -> Signed:
    """A ledger that nothing is signed of yet."""
    return Signed(directory)


def notes(ledger: Signed, partition: int = 0) -> list[Checkpoint]:
    """Every checkpoint of the partition, as it is kept."""
    verifier = Signer(ledger.directory / "signing.key", "ledger").named(origin_of("ledger", partition)).verifier
    with_ = SQLiteCheckpoints(ledger.directory, write=False)
    found = [Checkpoint.of_note(kept.note, verifier) for kept in with_.read() if kept.partition == partition]
    with_.close()
    return found


# --- when it signs ----------------------------------------------------------------------------------------------------


def test_what_grew_is_signed_and_what_did_not_is_not(ledger: Signed) -> None:
    """One checkpoint a partition that has new records; the control log is one of them."""
    ledger.grow(3)
    assert {0: 4, -1: EVENT_TYPES_PUBLISHED} == {one.partition: one.size for one in ledger.sign()}
    assert [] == ledger.sign()
    ledger.grow(1)
    assert [(0, 6)] == [(one.partition, one.size) for one in ledger.sign()]
    assert [4, 6] == [one.size for one in notes(ledger)]


def test_the_mirror_has_every_checkpoint(ledger: Signed) -> None:
    """Also those that were signed while there was no mirror; each file holds the note, and its name the size."""
    ledger.grow(3)
    ledger.sign(mirror=False)
    ledger.grow(2)
    ledger.sign()
    found = Mirror(ledger.mirror).read(origin_of("ledger", 0))
    assert ["00000000000000000004.note", "00000000000000000007.note"] == [path.name for path, _ in found]
    assert ledger.mirror / "session-ledger" / "ledger" / "0" == found[0][0].parent
    assert all(path.stat().st_mode & 0o044 == 0o044 for path, _ in found)


def test_it_follows_and_signs_by_count_and_by_time(ledger: Signed) -> None:
    """A partition that grew by enough is signed at once, one that grew by less when the time is over."""
    ledger.grow(3)
    stop, signed = threading.Event(), list[Checkpoint]()
    with Checkpointer(ledger.url) as checkpointer:

        def run(every_records: int, every_s: float) -> threading.Thread:
            options = {"every_records": every_records, "every_s": every_s, "on_signed": signed.append}
            thread = threading.Thread(target=checkpointer.run, args=(stop,), kwargs=options)
            thread.start()
            return thread

        thread = run(4, 3600)
        wait_for(lambda: [4] == [one.size for one in signed if one.partition == 0])
        ledger.grow(0)
        time.sleep(0.5)
        assert [4] == [one.size for one in signed if one.partition == 0]
        stop.set()
        thread.join(30)
        assert [4, 5] == [one.size for one in signed if one.partition == 0]  # what is left, at the end
        stop.clear()
        thread = run(1000, 0.1)
        ledger.grow(1)
        wait_for(lambda: signed[-1].size == 7)
        stop.set()
        thread.join(30)


def wait_for(condition: object) -> None:
    """Until it is true, at most for half a minute."""
    assert callable(condition)
    deadline_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


# --- what it refuses --------------------------------------------------------------------------------------------------


def test_two_at_once_are_one_too_many(ledger: Signed) -> None:
    """The second is refused, and told who works; the first goes on."""
    ledger.grow(3)
    with Checkpointer(ledger.url) as first:
        with pytest.raises(ProjectionInUse, match=f"by process {os.getpid()} already"):
            Checkpointer(ledger.url)
        first.catch_up()
        assert first.sign_all()
    with Checkpointer(ledger.url) as second:
        assert [] == second.sign_all()


def test_a_log_that_was_cut_off_is_refused(ledger: Signed) -> None:
    """It ends before what is signed: nothing more is."""
    ledger.grown_and_signed(8)
    ledger.rewrite(lambda rows: rows[:5])
    with pytest.raises(LogCorrupt, match="ends at position 5, and a checkpoint is signed over 9: it was rolled back"):
        ledger.sign()
    assert [9] == [one.size for one in notes(ledger)]


def test_a_log_that_was_rolled_back_and_grew_again_is_refused(ledger: Signed) -> None:
    """Its records are others than those that are signed; with and without the stored tree."""
    ledger.grown_and_signed(8)
    ledger.rewrite(lambda rows: rows[:5])
    ledger.grow(9)
    with pytest.raises(PartitionStopped, match="another record there than was folded; it was rolled back"):
        ledger.sign()
    (ledger.directory / "merkle.db").unlink()
    with pytest.raises(LogCorrupt, match="not those that the checkpoint over them is signed for"):
        ledger.sign()
    assert [9] == [one.size for one in notes(ledger)]


def test_a_log_that_is_rolled_back_under_a_running_checkpointer_is_refused(ledger: Signed) -> None:
    """The last records of tree and checkpoint are looked at again before anything is signed."""
    ledger.grown_and_signed(8)
    with Checkpointer(ledger.url) as checkpointer:
        ledger.grow(3)
        checkpointer.catch_up()
        ledger.rewrite(lambda rows: [*rows[:8], rows[8]._replace(version=5), *rows[9:]])
        with pytest.raises(LogCorrupt, match="has another record at position 9"):
            checkpointer.sign(0)
        ledger.rewrite(lambda rows: rows[:8])
        with pytest.raises(LogCorrupt, match="has no record at position 13"):
            checkpointer.sign(0)
    assert [9] == [one.size for one in notes(ledger)]


def test_a_ledger_that_was_put_back_with_its_checkpoints_is_refused_with_a_mirror(ledger: Signed) -> None:
    """The mirror alone knows what was signed; the checkpointer compares with its newest before it goes on."""
    ledger.grown_and_signed(8)
    before = ledger.copy("before")
    ledger.grown_and_signed(5)
    ledger.put_back(before)
    with pytest.raises(LogCorrupt, match="ends at position 9, and a checkpoint is signed over 15"):
        ledger.sign()
    ledger.grow(9)
    with pytest.raises(LogCorrupt, match="not those that the checkpoint over them is signed for"):
        ledger.sign()
    assert ledger.sign(mirror=False)


def test_a_ledger_without_its_checkpoints_and_trees_is_compared_with_the_mirror(ledger: Signed) -> None:
    """With the ledger's own evidence gone and another history in the log, the mirror's newest still stands."""
    ledger.grown_and_signed(8)
    for file in (*ledger.directory.glob("merkle.db*"), *ledger.directory.glob("checkpoints.db*")):
        file.unlink()
    ledger.rewrite(lambda rows: [*rows[:5], rows[5]._replace(version=70), *rows[6:]])
    ledger.grow(3)
    with pytest.raises(LogCorrupt, match="not those that the checkpoint over them is signed for"):
        ledger.sign()
    assert [] == notes(ledger)


def test_a_proof_reads_the_newest_checkpoint_alone(ledger: Signed, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many were signed; an older one is looked for only where it is asked for."""
    ledger.grown_and_signed(8, 4)
    kept = SQLiteCheckpoints(ledger.directory, write=False)
    for partition in (-1, 0, 5):
        notes_of = [one.note for one in kept.read() if one.partition == partition]
        assert (notes_of[-1] if notes_of else None) == kept.newest(partition)
    kept.close()
    with ledger.prover() as prover:
        assert 9 == prover.inclusion(0, 3, 9)["tree_size"]
        monkeypatch.setattr(SQLiteCheckpoints, "read", None)
        assert 14 == prover.inclusion(0, 3)["tree_size"]


def test_checkpoints_that_contradict_each_other_are_refused(ledger: Signed) -> None:
    """Two of one size, or one that is none: nothing more is signed until somebody has looked."""
    ledger.grown_and_signed(8)
    signer = Signer(ledger.directory / "signing.key", "ledger").named(origin_of("ledger", 0))
    note = signer.sign(Checkpoint(origin_of("ledger", 0), 9, bytes(32)).text)
    ledger.sql("checkpoints.db", "INSERT INTO checkpoints (partition, note) VALUES (0, ?)", note)
    with pytest.raises(LogCorrupt, match="two different checkpoints of partition 0 over 9 records"):
        ledger.sign()
    ledger.sql("checkpoints.db", "UPDATE checkpoints SET note = 'none' WHERE note = ?", note)
    with pytest.raises(LogCorrupt, match="a checkpoint of partition 0 is none"):
        ledger.sign()


def test_another_key_is_refused(ledger: Signed) -> None:
    """A key that is gone is not made again, and another one does not go on where it ended."""
    ledger.grown_and_signed(8)
    key = ledger.directory / "signing.key"
    key.rename(key.with_name("away"))
    with pytest.raises(KeyUnavailable, match="is not there: bring it back"):
        ledger.sign()
    Signer(key, "ledger")
    with pytest.raises(KeyUnavailable, match="bring the key back that signed before"):
        ledger.sign()
    key.with_name("away").replace(key)
    assert [] == ledger.sign()


def test_a_mirror_with_another_checkpoint_is_refused(ledger: Signed) -> None:
    """Two files for one size would be two histories."""
    ledger.grown_and_signed(8)
    ((path, note),) = Mirror(ledger.mirror).read(origin_of("ledger", 0))
    path.write_text(note + "\n")
    with pytest.raises(LogCorrupt, match="the mirror holds another checkpoint over 9 records"):
        ledger.sign()


def test_a_tree_of_another_log_is_refused(ledger: Signed, tmp_path: Path) -> None:
    """The file names its log."""
    ledger.grown_and_signed(1)
    other = Signed(tmp_path / "other")
    other.grow(1)
    (ledger.directory / "merkle.db").replace(other.directory / "merkle.db")
    with pytest.raises(ProjectionForeign, match="made from another log"):
        other.sign()


def test_a_damaged_tree_is_told_and_made_again(ledger: Signed) -> None:
    """The file is made from the log alone, so it may be deleted; then the same is signed as before."""
    ledger.grown_and_signed(8)
    (ledger.directory / "merkle.db").write_bytes(b"no database" * 1000)
    with pytest.raises(Misconfigured, match="delete the file"):
        ledger.sign()
    for file in ledger.directory.glob("merkle.db*"):
        file.unlink()
    assert [] == ledger.sign()
    assert [] == ledger.found()


def test_a_ledger_in_memory_signs_nothing() -> None:
    """There is nothing that outlives the process."""
    with pytest.raises(Misconfigured, match="in memory"):
        Checkpointer("memory:")


def test_a_mirror_must_be_writable(ledger: Signed, tmp_path: Path) -> None:
    """A mirror that can not be written is an error with its name, not a checkpoint that nobody copied."""
    ledger.grow(1)
    (tmp_path / "mirror").write_text("a file")
    with pytest.raises(Misconfigured, match="mirror"):
        ledger.sign()


# --- leaves -----------------------------------------------------------------------------------------------------------


def test_a_leaf_names_the_schema_that_the_control_log_published(ledger: Signed) -> None:
    """Not a text of this version's own, which may differ in a doc and have the same fingerprint."""
    ledger.grow(1)
    with Ledger.open(ledger.url):
        pass
    ledger.sign()
    with ledger.prover() as prover:
        bundle = prover.session(ledger.sessions[0])
        leaf = prover._leaves.leaf(0, prover._log.partitions[0].read(0, 1)[0])
    assert isinstance(bundle["schemas"], dict)
    assert json.loads(bundle["schemas"][leaf.schema.hex()])["name"] == "SessionCreated"


def test_a_schema_that_is_not_published_is_waited_for(ledger: Signed) -> None:
    """A record whose schema stands nowhere yet has no leaf; what stands before it is in the tree."""
    ledger.grow(3)
    unknown = b"\xc3\x01" + bytes(8)
    ledger.rewrite(lambda rows: [*rows[:2], rows[2]._replace(value=unknown + rows[2].value[10:]), *rows[3:]])
    with Checkpointer(ledger.url) as checkpointer:
        with pytest.raises(
            SchemaNotPublished, match=r"position 3 is written with a schema .* `session-ledger quarantine`"
        ):
            checkpointer.catch_up()
        assert 2 == checkpointer.trees.position(0)
    assert isinstance(SchemaNotPublished(""), LogUnavailable)
    assert ("undecodable", 0, 3) in ledger.found()


def test_what_was_signed_as_stepped_over_does_not_depend_on_the_views(ledger: Signed) -> None:
    """That a record was quarantined stands in views that may be deleted, and trees likewise; what is signed goes on."""
    ledger.grow(3)
    unknown = b"\xc3\x01" + bytes(8)
    ledger.rewrite(lambda rows: [*rows[:2], rows[2]._replace(value=unknown + rows[2].value[10:]), *rows[3:]])
    quarantine(ledger, 3)
    assert {-1, 0} == {one.partition for one in ledger.sign()}
    assert [] == ledger.found()
    for path in ledger.directory.glob("views.db*"):
        path.unlink()
    assert [] == ledger.found()
    with ledger.prover() as prover:
        assert 4 == len(prover.session(ledger.sessions[0])["events"])  # type: ignore[arg-type]
        assert 3 == prover.inclusion(0, 3)["position"]
    for path in ledger.directory.glob("merkle.db*"):
        path.unlink()
    assert [] == ledger.sign()
    ledger.rewrite(lambda rows: [*rows, rows[3]._replace(version=5)])
    assert {0: 5} == {one.partition: one.size for one in ledger.sign()}
    assert [] == ledger.found(mirror=True)
    ledger.rewrite(lambda rows: [*rows[:1], rows[1]._replace(value=unknown + rows[1].value[10:]), *rows[2:]])
    assert ("changed", 0, 2) in ledger.found()


def quarantine(ledger: Signed, position: int) -> None:
    """What `quarantine` does where the projector stops at that position of partition 0."""
    with Views.open(ledger.url) as views:
        with pytest.raises(PartitionStopped):
            views.refresh()
        views.projector.quarantine(0, position, "nobody has its schema")


def test_bytes_of_no_form_have_a_leaf_without_a_schema(ledger: Signed) -> None:
    """A damaged record does not keep what follows it from being signed."""
    ledger.grow(3)

    def damaged(rows: list[Row]) -> list[Row]:
        return [*rows[:2], rows[2]._replace(value=b"damaged"), *rows[3:]]

    ledger.rewrite(damaged)
    ledger.sign()
    with ledger.prover() as prover:
        found = prover._leaves.leaf(0, prover._log.partitions[0].read(2, 1)[0])
    assert (NO_SCHEMA, b"damaged") == (found.schema, Leaf.decode(found.encode()).value)
    assert [] == ledger.found()


@pytest.mark.parametrize("after", ["the tree", "the note"])
def test_a_crash_between_two_steps_is_made_up_for(ledger: Signed, monkeypatch: pytest.MonkeyPatch, after: str) -> None:
    """After the tree and before the note: it is signed again. After the note and before the mirror: it is copied."""
    ledger.grow(3)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as crashing:
        if after == "the tree":
            crashing.setattr(SQLiteCheckpoints, "append", crash)
        else:
            crashing.setattr(Mirror, "write", crash)
        with pytest.raises(KeyboardInterrupt):
            ledger.sign()
    control = [EVENT_TYPES_PUBLISHED]  # its tree is signed first
    assert (control if after == "the note" else []) == [one.size for one in notes(ledger, -1)]
    assert ([0] if after == "the note" else [-1, 0]) == [one.partition for one in ledger.sign()]
    assert (control, [4]) == tuple([one.size for one in notes(ledger, partition)] for partition in (-1, 0))
    assert [1, 1] == [len(Mirror(ledger.mirror).read(origin_of("ledger", partition))) for partition in (-1, 0)]
    assert [] == ledger.found(mirror=True)


# --- killed -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_checkpointer_never_contradicts_itself(ledger: Signed) -> None:
    """kill -9 at any moment while the ledger grows: the next one goes on, and all that was signed is one history."""
    ledger.grow(300)
    luck, stop = random.Random(8), threading.Event()

    def grow() -> None:
        while not stop.is_set():
            ledger.grow(40)

    growing = threading.Thread(target=grow)
    growing.start()
    command = [sys.executable, "-m", "session_ledger.cli.main", "checkpoint", "--every-records", "7", "--json"]
    command += ["--mirror", str(ledger.mirror), "-u", ledger.url]
    reached = [0]
    try:
        for _ in range(5):
            process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            assert process.stdout is not None
            assert process.stdout.readline(), process.communicate()[1]  # it has signed, or found what it signed before
            time.sleep(luck.random() * 0.4)
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
            reached.append(notes(ledger)[-1].size)
    finally:
        stop.set()
        growing.join()
    assert sorted(set(reached)) == reached  # each one got further
    ledger.sign()
    sizes = [one.size for one in notes(ledger)]
    assert sorted(set(sizes)) == sizes
    found = ledger.check(mirror=True)
    assert [] == found.findings
    assert found.ends[0] == found.protected_outside[0]
    assert len(Mirror(ledger.mirror).read(origin_of("ledger", 0))) == len(sizes)
