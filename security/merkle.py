"""Merkle trees as RFC 9162 (section 2.1; the hashing of RFC 6962) defines them, over hashes that somebody else keeps.

A leaf's hash is SHA-256(0x00 + data), a node's SHA-256(0x01 + left + right), the root of nothing SHA-256(""). A tree
of n leaves splits at the largest power of two below n. The subtrees that are full never change once they are, so
everything here is made from those alone: `Nodes` gives the root of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256

HASH_BYTES = 32
LEAF, NODE = b"\x00", b"\x01"
EMPTY_ROOT = sha256(b"").digest()

Nodes = Callable[[int, int], bytes]
"""(level, number): the root of the full subtree of 2**level leaves whose first leaf is number * 2**level."""


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf."""
    return sha256(LEAF + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash over two subtrees."""
    return sha256(NODE + left + right).digest()


def parents(hashes: Sequence[bytes]) -> list[bytes]:
    """The next level over an even number of hashes."""
    return [sha256(NODE + left + right).digest() for left, right in zip(hashes[::2], hashes[1::2], strict=True)]


def fold(hashes: Sequence[bytes]) -> bytes:
    """The root over a full subtree: a power of two of hashes, at least one."""
    if len(hashes) & (len(hashes) - 1) or not hashes:
        raise ValueError(f"{len(hashes)} hashes are no full subtree")
    while len(hashes) > 1:
        hashes = parents(hashes)
    return hashes[0]


def _split(count: int) -> int:
    """The largest power of two below `count`, which is above 1."""
    return 1 << ((count - 1).bit_length() - 1)


def _range_root(start: int, end: int, nodes: Nodes) -> bytes:
    """The root over leaves `start` to `end` (excluded) of a tree's own split."""
    count = end - start
    if not count & (count - 1):
        level = count.bit_length() - 1
        return nodes(level, start >> level)
    middle = start + _split(count)
    return node_hash(_range_root(start, middle, nodes), _range_root(middle, end, nodes))


def root_at(size: int, nodes: Nodes) -> bytes:
    """The root of the tree's first `size` leaves."""
    return _range_root(0, size, nodes) if size else EMPTY_ROOT


def inclusion_proof(index: int, size: int, nodes: Nodes) -> list[bytes]:
    """The hashes that lead from leaf `index` to the root of the first `size` leaves (2.1.3.1), the leaf's side first.

    Raises ValueError unless 0 <= index < size.
    """
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    path, start, end = list[bytes](), 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(_range_root(middle, end, nodes))
            end = middle
        else:
            path.append(_range_root(start, middle, nodes))
            start = middle
    return path[::-1]


def consistency_proof(first: int, second: int, nodes: Nodes) -> list[bytes]:
    """The hashes that show the tree of `first` leaves to be the beginning of that of `second` (2.1.4.1).

    Empty where they are the same tree. Raises ValueError unless 0 < first <= second.
    """
    if not 0 < first <= second:
        raise ValueError(f"no proof leads from {first} leaves to {second}")
    path, start, end, known = list[bytes](), 0, second, True
    while first != end:
        middle = start + _split(end - start)
        if first <= middle:
            path.append(_range_root(middle, end, nodes))
            end = middle
        else:
            path.append(_range_root(start, middle, nodes))
            start, known = middle, False
    if not known:
        path.append(_range_root(start, end, nodes))
    return path[::-1]


def includes(index: int, size: int, hash_of_leaf: bytes, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether the proof leads from that leaf to that root (2.1.3.2)."""
    if not 0 <= index < size:
        return False
    number, last, found = index, size - 1, hash_of_leaf
    for sibling in proof:
        if last == 0 or len(sibling) != HASH_BYTES:
            return False
        if number & 1 or number == last:
            found = node_hash(sibling, found)
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        number, last = number >> 1, last >> 1
    return last == 0 and found == root


def is_consistent(first: int, second: int, root_1: bytes, root_2: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the proof shows the tree of `first` leaves to be the beginning of that of `second` (2.1.4.2)."""
    if not 0 < first <= second:
        return False
    if first == second:
        return not proof and root_1 == root_2
    path = list(proof)
    if not first & (first - 1):
        path.insert(0, root_1)
    if not path or any(len(one) != HASH_BYTES for one in path):
        return False
    number, last = first - 1, second - 1
    while number & 1:
        number, last = number >> 1, last >> 1
    found_1 = found_2 = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if number & 1 or number == last:
            found_1, found_2 = node_hash(sibling, found_1), node_hash(sibling, found_2)
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            found_2 = node_hash(found_2, sibling)
        number, last = number >> 1, last >> 1
    return last == 0 and found_1 == root_1 and found_2 == root_2


class Frontier:
    """A tree that only grows and forgets its leaves: the roots of its full subtrees, one a bit of its size."""

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[tuple[int, bytes]] = []
        """(level, root), the largest first."""

    def extend(self, hashes: Iterable[bytes]) -> None:
        """Add leaves' hashes."""
        rest = list(hashes)
        while rest:
            # as many at once as keep full subtrees full: what the size is divisible by, and what is there
            room = self.size & -self.size or 1 << len(rest).bit_length()
            level = min(room, 1 << (len(rest).bit_length() - 1)).bit_length() - 1
            count = 1 << level
            self._push(level, fold(rest[:count]))
            self.size += count
            del rest[:count]

    def _push(self, level: int, root: bytes) -> None:
        while self._peaks and self._peaks[-1][0] == level:
            root, level = node_hash(self._peaks.pop()[1], root), level + 1
        self._peaks.append((level, root))

    def root(self) -> bytes:
        """The root over everything so far."""
        if not self._peaks:
            return EMPTY_ROOT
        found = self._peaks[-1][1]
        for _, peak in self._peaks[-2::-1]:
            found = node_hash(peak, found)
        return found
