"""The trees' file: nodes in tiles, whatever the batches; one writer, and readers that see one state."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from session_ledger.domain.errors import LogCorrupt, Misconfigured, ProjectionConflict, ProjectionForeign
from session_ledger.projections import merkle
from session_ledger.projections.merkle import Trees
from session_ledger.projections.port import Entry
from session_ledger.security.merkle import leaf_hash
from tests.security.test_merkle import mth, path, subproof


def entry(position: int) -> bytes:
    """The data of a leaf."""
    return b"record %d" % position


def entries(first: int, count: int) -> list[Entry]:
    """A batch of leaves."""
    return [Entry(position, None, leaf_hash(entry(position))) for position in range(first, first + count)]


def data(size: int) -> list[bytes]:
    """The data of the first leaves."""
    return [entry(position) for position in range(1, size + 1)]


def fill(trees: Trees, batches: Sequence[int], partition: int = 0) -> int:
    """Add batches of those sizes; how many leaves there are."""
    size = 0
    for count in batches:
        trees.apply(partition, entries(size + 1, count))
        size += count
    return size


@pytest.fixture
def trees(tmp_path: Path) -> Iterator[Trees]:
    """An empty file."""
    found = Trees(tmp_path / "merkle.db", log_id="a log")
    yield found
    found.close()


@given(batches=st.lists(st.integers(1, 40), min_size=1, max_size=12), choice=st.data())
@settings(max_examples=60)
def test_roots_and_proofs_are_those_of_the_rfc(batches: list[int], choice: st.DataObject) -> None:
    """With tiles of four nodes, so of many levels: however the leaves came in, any size and any leaf is proved."""
    with pytest.MonkeyPatch.context() as small, tempfile.TemporaryDirectory() as place:
        small.setattr(merkle, "TILE_LEVELS", 2)
        small.setattr(merkle, "TILE", 4)
        trees = Trees(Path(place) / "merkle.db", log_id="a log")
        total = fill(trees, batches)
        size = choice.draw(st.integers(1, total))
        index = choice.draw(st.integers(0, size - 1))
        first = choice.draw(st.integers(1, size))
        with trees.reading(0) as tree:
            assert (total, mth(data(total))) == (tree.size, tree.root())
            assert mth(data(size)) == tree.root(size)
            assert path(index, data(size)) == tree.inclusion(index, size)
            assert subproof(first, data(size), True) == tree.consistency(first, size)
            assert leaf_hash(entry(index + 1)) == tree.leaf(index)
        trees.close()


def test_full_tiles_and_what_follows_them(trees: Trees) -> None:
    """With tiles of 256 nodes, around their borders."""
    total = fill(trees, [255, 1, 1, 300, 4000])
    for size in (1, 255, 256, 257, 511, 512, 513, total):
        with trees.reading(0) as tree:
            assert mth(data(size)) == tree.root(size)
            assert path(size - 1, data(size)) == tree.inclusion(size - 1, size)


def test_partitions_have_trees_of_their_own(trees: Trees) -> None:
    """The control log's, -1, among them."""
    fill(trees, [5], -1)
    fill(trees, [3], 1)
    assert [(5, leaf_hash(entry(5))), (0, b""), (3, leaf_hash(entry(3)))] == [trees.last(n) for n in (-1, 0, 1)]


def test_a_batch_that_does_not_follow_changes_nothing(trees: Trees) -> None:
    """An overlap, a gap, or positions that are not dense: the tree stays as it was."""
    fill(trees, [5])
    for batch in (entries(5, 3), entries(7, 1)):
        with pytest.raises(ProjectionConflict, match="has 5 leaves"):
            trees.apply(0, batch)
    with pytest.raises(LogCorrupt, match="not dense"):
        trees.apply(0, [*entries(6, 1), *entries(8, 1)])
    with trees.reading(0) as tree:
        assert (5, mth(data(5))) == (tree.size, tree.root())


def test_a_reader_sees_one_state(trees: Trees) -> None:
    """A tree that another process reads does not grow under its hands."""
    fill(trees, [300])
    reading = Trees(trees.path, log_id="a log", readonly=True)
    with reading.reading(0) as tree:
        before = tree.root()
        trees.apply(0, entries(301, 300))
        assert (300, before, mth(data(300))) == (tree.size, tree.root(), before)
    with reading.reading(0) as tree:
        assert mth(data(600)) == tree.root()
    reading.close()


def test_a_tree_has_no_root_of_more_leaves_than_it_has(trees: Trees) -> None:
    """It is an error, not a root of something else."""
    fill(trees, [3])
    with trees.reading(0) as tree:
        for ask in (lambda: tree.root(4), lambda: tree.inclusion(0, 4), lambda: tree.consistency(1, 4)):
            with pytest.raises(LogCorrupt, match="has 3 leaves, not 4"):
                ask()


def test_nodes_that_are_gone_are_told(trees: Trees) -> None:
    """A file that lost rows says so, when it is read and when it is written."""
    fill(trees, [300])
    trees._db.execute("DELETE FROM tiles WHERE level = 0 AND number = 1")  # type: ignore[union-attr]
    with trees.reading(0) as tree, pytest.raises(Misconfigured, match="lacks nodes"):
        tree.root()
    with pytest.raises(Misconfigured, match="does not hold 300 nodes"):
        trees.apply(0, entries(301, 1))


def test_a_file_of_another_log_is_refused(trees: Trees) -> None:
    """Nothing of it is read or written."""
    with pytest.raises(ProjectionForeign, match="made from another log"):
        Trees(trees.path, log_id="another log")


def test_no_file_is_made_by_reading(tmp_path: Path) -> None:
    """Who wants a proof where nothing was kept is told what makes it."""
    with pytest.raises(Misconfigured, match="`session-ledger checkpoint` makes it"):
        Trees(tmp_path / "merkle.db", log_id="a log", readonly=True)
    assert [] == list(tmp_path.iterdir())
