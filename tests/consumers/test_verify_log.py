"""`verify --log` on a real ledger: each way to tamper with it is found, and the first bad position named."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from session_ledger.consumers.checkpointer import Checkpointer
from session_ledger.consumers.mirror import Mirror
from session_ledger.consumers.views import Views
from session_ledger.domain.errors import KeyUnavailable, LogCorrupt, Misconfigured
from session_ledger.security.checkpoint import Checkpoint, origin_of
from session_ledger.security.signing import Signer
from tests.consumers.signed import Row, Signed

SIZES = (9, 14, 21)  # of the checkpoints of partition 0: each session is its creation and its messages
BAD = 12  # between the first two of them


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    """A ledger with three checkpoints of partition 0, copied to a mirror; made once, and never changed."""
    found = Signed(tmp_path_factory.mktemp("made") / "ledger").grown_and_signed(8, 4, 6)
    assert [*SIZES] == [
        int(path.name.removesuffix(".note")) for path, _ in Mirror(found.mirror).read(origin_of("ledger", 0))
    ]
    return found


@pytest.fixture
def signed(made: Signed, directory: Path) -> Signed:
    """A copy of it for each test."""
    shutil.copytree(made.mirror, directory.with_name("mirror"))
    return made.copied_to(directory)


def test_a_sound_log_agrees_with_everything_that_was_signed(signed: Signed) -> None:
    """Every checkpoint, the mirror's too, is borne out; how far the log is protected is told."""
    found = signed.check(mirror=True)
    assert [] == found.findings
    assert {0: 6, -1: 2} == found.checkpoints
    assert {0: 3, -1: 1} == found.kept_outside
    assert (21, 21) == (found.protected[0], found.protected_outside[0])
    signed.grow(3)
    after = signed.check()
    assert (True, 25, 21, 0) == (after.ok, after.ends[0], after.protected[0], after.protected_outside[0])


def changed(rows: list[Row]) -> list[Row]:
    """One byte of a ciphertext at the end of a value."""
    row = rows[BAD - 1]
    return [*rows[: BAD - 1], row._replace(value=row.value[:-1] + bytes([row.value[-1] ^ 1])), *rows[BAD:]]


def removed(rows: list[Row]) -> list[Row]:
    """A record is not there, and the later ones have moved up."""
    return [*rows[: BAD - 1], *rows[BAD:]]


def inserted(rows: list[Row]) -> list[Row]:
    """A record that was never written stands there."""
    return [*rows[: BAD - 1], rows[3]._replace(originator_id=os.urandom(16)), *rows[BAD - 1 :]]


def reordered(rows: list[Row]) -> list[Row]:
    """Two records have changed places."""
    return [*rows[: BAD - 1], rows[BAD], rows[BAD - 1], *rows[BAD + 1 :]]


def doubled(rows: list[Row]) -> list[Row]:
    """A record stands there twice: position 12 holds what 11 holds."""
    return [*rows[: BAD - 1], rows[BAD - 2], *rows[BAD - 1 :]]


def other_batch(rows: list[Row]) -> list[Row]:
    """The record is said to be of another append."""
    return [*rows[: BAD - 1], rows[BAD - 1]._replace(batch_id=os.urandom(16)), *rows[BAD:]]


def other_version(rows: list[Row]) -> list[Row]:
    """The record is said to be another one of its session."""
    return [*rows[: BAD - 1], rows[BAD - 1]._replace(version=99), *rows[BAD:]]


TAMPERED = (changed, removed, inserted, reordered, doubled, other_batch, other_version)


@pytest.mark.parametrize("change", TAMPERED)
def test_whatever_is_changed_is_found_where_it_is(signed: Signed, change: Callable[[list[Row]], list[Row]]) -> None:
    """The first bad position is named, and what was signed before it stays protected."""
    signed.rewrite(change)
    found = signed.check()
    assert ("changed", 0, BAD) in [(one.what, one.partition, one.position) for one in found.findings]
    assert SIZES[0] == found.protected[0]


@pytest.mark.parametrize("change", TAMPERED)
def test_without_stored_nodes_the_place_is_between_two_checkpoints(
    signed: Signed, change: Callable[[list[Row]], list[Row]]
) -> None:
    """The trees' file only tells where; that something was changed follows from log and checkpoints alone."""
    (signed.directory / "merkle.db").unlink()
    signed.rewrite(change)
    (first, *_) = signed.check().findings
    assert ("changed", 0, SIZES[0] + 1) == (first.what, first.partition, first.position)
    assert f"between positions {SIZES[0] + 1} and {SIZES[1]}" in first.message


def test_nodes_that_were_changed_with_the_log_name_no_wrong_place(signed: Signed) -> None:
    """Stored nodes are believed only as far as they bear out a signed checkpoint."""
    with_other = "cast(substr(hashes, 1, 320) || zeroblob(32) || substr(hashes, 353) AS BLOB)"  # at position 11
    signed.sql("merkle.db", f"UPDATE tiles SET hashes = {with_other} WHERE partition = 0")
    signed.rewrite(changed)
    assert ("changed", 0, SIZES[0] + 1) in signed.found()


def without(signed: Signed, *files: str) -> Signed:
    """Files of the ledger are deleted."""
    for file in files:
        for path in signed.directory.glob(f"{file}*"):
            path.unlink()
    return signed


def test_a_mirror_without_a_checkpoint_of_the_ledger_is_refused(signed: Signed) -> None:
    """An empty directory, or another ledger's mirror: nothing outside was compared, so nothing is said to agree."""
    signed.mirror.rename(signed.mirror.with_name("away"))
    (signed.mirror / "session-ledger" / "another" / "0").mkdir(parents=True)
    with pytest.raises(Misconfigured, match="holds no checkpoint of the ledger"):
        signed.check(mirror=True)


def test_a_ledger_whose_checkpoints_are_gone_does_not_agree(signed: Signed) -> None:
    """Nothing signed was compared: that is a finding, with and without stored trees and the signing key."""
    without(signed, "checkpoints.db")
    found = signed.check()
    assert [("unsigned", None, None)] == [(one.what, one.partition, one.position) for one in found.findings]
    assert "2 of 2 partitions' stored trees agree, which are not signed" in found.findings[0].message
    assert {-1: found.ends[-1], 0: 21} == found.trees
    assert [] == signed.found(mirror=True)
    without(signed, "signing.key")
    assert [("unsigned", None, None)] == signed.found()
    signed.rewrite(changed)
    assert [("tree", 0, BAD), ("unsigned", None, None)] == signed.found()


def test_checkpoints_of_one_partition_that_are_gone_are_missed(signed: Signed) -> None:
    """Its stored tree shows that the checkpointer knew it."""
    signed.sql("checkpoints.db", "DELETE FROM checkpoints WHERE partition = 0")
    assert [("unsigned", 0, None)] == signed.found()


def test_what_follows_the_last_checkpoint_is_compared_with_the_stored_tree(signed: Signed) -> None:
    """It is not signed, so which of the two was changed is not known; that they differ is."""
    signed.grow(3)
    with Checkpointer(signed.url) as checkpointer:
        checkpointer.catch_up()
    assert (True, 25) == ((found := signed.check()).ok, found.trees[0])
    copy = signed.copy("copy")
    signed.rewrite(lambda rows: [*rows[:22], rows[23], rows[22], *rows[24:]])
    assert [("tree", 0, 23)] == signed.found()
    shown = signed.directory.parent / "shown.note"
    shown.write_text("session-ledger/ledger/0\n")
    assert [("signature", 0, None), ("tree", 0, 23)] == signed.found(files=[shown])
    copy.rewrite(lambda rows: rows[:24])
    assert [("tree", 0, 25)] == copy.found()


def test_a_stored_tree_that_is_not_of_the_log_is_told(signed: Signed) -> None:
    """Where the log is as it was signed, it is the tree that was changed or damaged; one of another log is left out."""
    signed.sql("merkle.db", "UPDATE tiles SET hashes = zeroblob(length(hashes)) WHERE partition = 0")
    (told,) = signed.check().findings
    assert ("tree", 0) == (told.what, told.partition)
    assert "delete the file" in told.message
    signed.sql("merkle.db", "UPDATE meta SET value = 'another' WHERE key = 'log_id'")
    found = signed.check()
    assert ([], {}) == (found.findings, found.trees)
    assert "made from another log" in str(found.trees_unusable)
    without(signed, "checkpoints.db")
    assert [("unsigned", None, None)] == signed.found()


@pytest.mark.parametrize("change", ["another log's", "no file of views"])
def test_views_that_can_not_be_used_hide_nothing(signed: Signed, change: str) -> None:
    """They only tell what was quarantined: without them the loss is found, and that they told nothing is told."""
    with Views.open(signed.url) as views:
        views.refresh()
    if change == "another log's":
        signed.sql("views.db", "UPDATE meta SET value = 'another' WHERE key = 'log_id'")
    else:
        (signed.directory / "views.db").write_bytes(b"no database" * 1000)
    for path, _ in Mirror(signed.mirror).read(origin_of("ledger", -1)):
        path.unlink()
    signed.sql("checkpoints.db", "DELETE FROM checkpoints WHERE partition = -1")  # so the views are asked
    found = signed.check(mirror=True)
    assert [("unsigned", -1)] == [(one.what, one.partition) for one in found.findings]
    assert "which records `quarantine` set aside is not known" in str(found.views_unusable)
    assert "views.db" in str(found.views_unusable)
    signed.grow(3)
    told: list[str] = []
    with Checkpointer(signed.url, on_unusable=told.append) as checkpointer:
        assert 4 == checkpointer.catch_up()
    assert 1 == len(told)
    signed.rewrite(lambda rows: rows[:-7])
    assert ("truncated", 0, SIZES[2] - 2) in signed.found(mirror=True)
    signed.sql("merkle.db", "UPDATE meta SET value = 'another' WHERE key = 'log_id'")
    with pytest.raises(LogCorrupt, match="ends at position 18, and a checkpoint is signed over 21"):
        signed.sign()


def test_a_position_that_is_not_there_is_named(signed: Signed) -> None:
    """A row that was deleted leaves a gap, which no reader passes."""
    signed.sql("log.db", "DELETE FROM events WHERE position = ?", BAD)
    assert ("gap", 0, BAD) in signed.found()


def test_a_truncated_tail_is_found(signed: Signed) -> None:
    """The log ends before a size that the ledger itself has signed."""
    signed.rewrite(lambda rows: rows[:-3])
    assert [("truncated", 0, SIZES[2] - 2)] == signed.found()


def test_a_changed_control_log_is_found(signed: Signed) -> None:
    """The control log has a tree of its own, with number -1."""
    signed.sql("log.db", "UPDATE control_events SET version = 77 WHERE position = 2")
    assert ("changed", -1, 2) in signed.found()


def test_a_rolled_back_ledger_is_found_by_the_mirror_alone(signed: Signed) -> None:
    """Put back as a whole it agrees with itself; a checkpoint that was kept elsewhere tells."""
    before = signed.copy("before")
    signed.grow(5)
    signed.sign()
    signed.put_back(before)
    assert [] == signed.found()
    assert [("rolled_back", 0, SIZES[2] + 1)] == signed.found(mirror=True)


def test_a_ledger_that_was_rolled_back_and_grew_again_is_found_by_the_mirror(signed: Signed) -> None:
    """The new history is signed by the same key; the mirror holds a root that is not of it."""
    before = signed.copy("before")
    signed.grow(5)
    signed.sign()
    signed.put_back(before)
    signed.grow(9)
    signed.sign(mirror=False)
    assert [] == signed.found()
    assert "forked" in [what for what, partition, _ in signed.found(mirror=True) if partition == 0]


def test_a_history_that_was_shown_to_another_auditor_is_found(signed: Signed, tmp_path: Path) -> None:
    """Two auditors were shown two checkpoints over one size: side by side both are signed, with two roots."""
    other = signed.copy("other")
    shown = []
    for number, ledger in enumerate((signed, other)):
        ledger.grow(5)
        (checkpoint,) = [one for one in ledger.sign(mirror=False) if one.partition == 0]
        assert 27 == checkpoint.size
        shown.append(tmp_path / f"auditor-{number}.note")
        with ledger.prover() as prover:
            shown[-1].write_text(str(prover.inclusion(0, 1)["checkpoint"]))
    assert [] == signed.found(files=shown[:1])
    assert {"forked"} == {what for what, _, _ in signed.found(files=shown)}
    assert {"forked"} == {what for what, _, _ in other.found(files=shown)}


def test_a_replaced_checkpoint_is_found(signed: Signed) -> None:
    """One that another key signed, one that was edited, and one that is of another history."""
    signed.sql("checkpoints.db", "UPDATE checkpoints SET note = replace(note, char(10) || 14 || char(10), '\n15\n')")
    assert [("signature", 0, None)] == signed.found()
    another = Signer(signed.directory.parent / "another.key", "ledger").named(origin_of("ledger", 0))
    note = another.sign(Checkpoint(origin_of("ledger", 0), 14, bytes(32)).text)
    signed.sql("checkpoints.db", "UPDATE checkpoints SET note = ? WHERE note LIKE '%' || char(10) || 15 || '%'", note)
    assert [("signature", 0, None)] == signed.found()
    own = Signer(signed.directory / "signing.key", "ledger").named(origin_of("ledger", 0))
    note = own.sign(Checkpoint(origin_of("ledger", 0), 14, bytes(32)).text)
    signed.sql("checkpoints.db", "UPDATE checkpoints SET note = ? WHERE note LIKE '%' || char(10) || 14 || '%'", note)
    assert [("checkpoint", 0, None)] == signed.found()
    assert ("forked", 0, None) in signed.found(mirror=True)


def test_a_checkpoint_of_another_partition_in_its_place_is_found(signed: Signed) -> None:
    """A note stands for its own origin alone."""
    signed.sql("checkpoints.db", "UPDATE checkpoints SET partition = -1 WHERE partition = 0")
    assert {("checkpoint", -1, None), ("unsigned", 0, None)} == set(signed.found())


def test_a_key_that_was_replaced_is_found_by_whoever_has_the_public_one(signed: Signed) -> None:
    """Who replaces key and checkpoints is caught by the public key that was given out before."""
    key = str(Signer(signed.directory / "signing.key", "ledger").verifier)
    assert [] == signed.found(key=key)
    for file in ("signing.key", "checkpoints.db", "checkpoints.db-wal", "checkpoints.db-shm", "merkle.db"):
        (signed.directory / file).unlink(missing_ok=True)
    signed.rewrite(changed)
    signed.sign(mirror=False)
    assert [] == signed.found()
    assert {"signature"} == {what for what, _, _ in signed.found(key=key)}


def test_without_a_key_nothing_can_be_checked(directory: Path) -> None:
    """A ledger that never signed has no key; none is made up, and what to do is said. A public one may be given."""
    ledger = Signed(directory)
    ledger.grow(1)
    with pytest.raises(KeyUnavailable, match="ever signed here: `session-ledger checkpoint` makes a key"):
        ledger.check()
    key = str(Signer(directory.parent / "another.key", "ledger").verifier)
    assert [("unsigned", None, None)] == ledger.found(key=key)
    ledger.sign()
    (directory / "signing.key").unlink()
    with pytest.raises(KeyUnavailable, match="--key"):
        ledger.check()
