"""Winnowing fingerprints of texts (Schleimer, Wilkerson and Aiken, "Winnowing: Local Algorithms for Document
Fingerprinting", SIGMOD 2003), keyed, many texts at once.

Of each window of w consecutive hashes of k-grams the smallest is kept. Two texts that share a run of at least
t = w + k - 1 characters have a window in common, and so at least one fingerprint: that is the guarantee. (k-grams are
of UTF-8 bytes; a run of t characters has at least t of them.)

The hash is a polynomial over a secret base, finished by multiplications and shifts with secret constants, all derived
from the audit key by HMAC-SHA-256. Whoever has the index without the key can tell that two fingerprints are equal, and
can not make the fingerprint of a guessed text. It is no pseudo-random function: who can have texts of their choice
fingerprinted, and sees the index, might recover the constants; so the index is kept like the log itself.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

GRAM_BYTES = 16  # k: shorter ones are in too many texts, longer ones miss what was reworded
GUARANTEED = 32  # t: every shared run of so many characters is a candidate

Hashes = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """Of several texts: `hashes[i]` is one of text `texts[i]`. Sorted by text; each hash once a text."""

    hashes: Hashes
    texts: Numbers


class Winnower:
    """Makes fingerprints under one audit key. Thread-safe."""

    def __init__(self, audit_key: bytes, *, gram: int = GRAM_BYTES, guaranteed: int = GUARANTEED) -> None:
        """`guaranteed`: the shared run in characters that is never missed; more than `gram`."""
        if guaranteed < gram:
            raise ValueError("a run that is guaranteed is at least as long as a gram")
        self._gram, self._window = gram, guaranteed - gram + 1
        secret = [
            int.from_bytes(hmac.digest(audit_key, f"fingerprint {name}".encode(), hashlib.sha256)[:8], "big") | 1
            for name in ("base", "first", "second")
        ]
        self._base, self._first, self._second = (np.uint64(number) for number in secret)

    def of(self, texts: Sequence[str]) -> Fingerprints:
        """The fingerprints of normalized texts; a text shorter than what is guaranteed has none."""
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        lengths = np.fromiter((len(one) for one in encoded), np.int64, len(encoded))
        data = np.frombuffer(b"".join(encoded), np.uint8)
        span = self._gram + self._window - 1
        if len(data) < span:
            return Fingerprints(np.empty(0, np.uint64), np.empty(0, np.int64))
        minima = self._minima(self._hashes(data))
        ends = np.repeat(np.cumsum(lengths), lengths)[: len(minima)]
        owners = np.repeat(np.arange(len(encoded)), lengths)[: len(minima)]
        inside = np.arange(len(minima)) + span <= ends  # the window lies within one text
        hashes, owners = minima[inside], owners[inside]
        changed = np.ones(len(hashes), bool)  # neighbouring windows mostly share their minimum
        changed[1:] = (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])
        hashes, owners = hashes[changed], owners[changed]
        order = np.lexsort((hashes, owners))
        hashes, owners = hashes[order], owners[order]
        once = np.ones(len(hashes), bool)
        once[1:] = (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])
        return Fingerprints(hashes[once], owners[once])

    def selected(self, text: str) -> tuple[Hashes, Numbers]:
        """The grams that a normalized text is known by: (hashes, where each begins, in bytes), in its order."""
        data = np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8)
        if len(data) < self._gram + self._window - 1:
            return np.empty(0, np.uint64), np.empty(0, np.int64)
        hashes = self._hashes(data)
        windows = np.lib.stride_tricks.sliding_window_view(hashes, self._window)
        places = np.unique(windows.argmin(axis=1) + np.arange(len(windows)))
        return hashes[places], places

    @property
    def gram(self) -> int:
        """Bytes of a gram."""
        return self._gram

    def _hashes(self, data: npt.NDArray[np.uint8]) -> Hashes:
        """Of every gram of the bytes."""
        wide = data.astype(np.uint64) + np.uint64(1)
        count = len(data) - self._gram + 1
        found = np.zeros(count, np.uint64)
        for place in range(self._gram):  # Horner's scheme, modulo 2^64
            found *= self._base
            found += wide[place : place + count]
        found ^= found >> np.uint64(31)
        found *= self._first
        found ^= found >> np.uint64(29)
        found *= self._second
        found ^= found >> np.uint64(32)
        return found

    def _minima(self, hashes: Hashes) -> Hashes:
        """Of every window: by doubling, a window of 2n is two of n."""
        found, size = hashes, 1
        while 2 * size <= self._window:
            found = np.minimum(found[:-size], found[size:])
            size *= 2
        rest = self._window - size
        return np.minimum(found[:-rest], found[rest:]) if rest else found
