"""Where each fingerprint was seen first, and by whose sessions: sorted arrays, some thirty bytes a fingerprint.

Entries come in batches. Each batch becomes a sorted run; a few runs are merged into one, so a look-up is a handful of
binary searches for a whole batch at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RUNS_MAX = 4

Hashes = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int32]


@dataclass(slots=True)
class Runs:
    """A map from 64-bit keys to two numbers; the first that was added under a key stays."""

    keys: list[Hashes]
    values: list[npt.NDArray[np.int32]]
    """Of each run, n rows of two numbers."""

    @classmethod
    def empty(cls) -> Runs:
        """Without an entry."""
        return cls([], [])

    def __len__(self) -> int:
        return sum(map(len, self.keys))

    def find(self, wanted: Hashes) -> npt.NDArray[np.int32]:
        """Of each key, its two numbers; -1, -1 where it has none. `wanted` is sorted."""
        found = np.full((len(wanted), 2), -1, np.int32)
        for keys, values in zip(self.keys, self.values, strict=True):
            at = np.searchsorted(keys, wanted)
            at[at == len(keys)] = 0
            hit = (keys[at] == wanted) & (found[:, 0] < 0)
            found[hit] = values[at[hit]]
        return found

    def add(self, keys: Hashes, values: npt.NDArray[np.int32]) -> None:
        """Add a run of sorted keys that have no entry yet, each once."""
        if not len(keys):
            return
        self.keys.append(keys)
        self.values.append(values)
        if len(self.keys) > RUNS_MAX:
            self._merge()

    def _merge(self) -> None:
        keys, values = np.concatenate(self.keys), np.concatenate(self.values)
        order = np.argsort(keys, kind="stable")
        self.keys, self.values = [keys[order]], [values[order]]

    def count(self, keys: Hashes, more: npt.NDArray[np.int32]) -> None:
        """Add to the second number of each key (sorted, each once, all with an entry)."""
        for run, values in zip(self.keys, self.values, strict=True):
            at = np.searchsorted(run, keys)
            at[at == len(run)] = 0
            hit = run[at] == keys
            values[at[hit], 1] += more[hit]

    def drop(self, of: npt.NDArray[np.int32]) -> None:
        """Remove every entry whose first number is one of those."""
        kept = [~np.isin(values[:, 0], of) for values in self.values]
        left = [(keys[k], values[k]) for keys, values, k in zip(self.keys, self.values, kept, strict=True) if k.any()]
        self.keys, self.values = [keys for keys, _ in left], [values for _, values in left]
