"""How well and how fast the content check finds leaks: recall and precision by kind, time and memory by size."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections import Counter

from bench.leakage_corpus import KINDS, generate
from bench.report import Line
from session_ledger.projections.analytics.leakage.content import Scanner

SEED = 20_260_101  # of the figures; tests use others
MESSAGES, A_KIND = 100_000, 200
SIZES = (10_000, 100_000, 1_000_000)
WANTED = {
    "verbatim": 1.0, "cut": 0.99, "re-cased": 0.99, "reworded": 0.9, "identifier": 0.99, "through a tool": 1.0,
    "across tenants": 1.0, "slow": 1.0,
}  # fmt: skip
PRECISION = 0.95


def quality(seed: int, messages: int, a_kind: int) -> tuple[dict[str, float], float, int]:
    """(recall by kind, precision over all, findings)."""
    corpus = generate(seed, messages, a_kind)
    leaks = Scanner(b"bench" * 7).scan(corpus.messages)
    found = {(leak.source.user, leak.place.user) for leak in leaks}
    hits = Counter(kind for pair, kind in corpus.planted.items() if pair in found)
    planted = Counter(corpus.planted.values())
    right = sum(pair in corpus.planted for pair in found)
    return {kind: hits[kind] / planted[kind] for kind in KINDS}, right / max(len(found), 1), len(found)


def speed(messages: int) -> tuple[float, float, float]:
    """(seconds, peak bytes, bytes before: the messages in a list) of a scan in a process of its own."""
    done = subprocess.run([sys.executable, "-m", "bench.leakage", str(messages)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    told = json.loads(done.stdout)
    return told["seconds"], told["bytes"], told["messages_bytes"]


def _measure(messages: int) -> None:
    corpus = generate(SEED, messages, 50)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    started = time.perf_counter()
    Scanner(b"bench" * 7).scan(corpus.messages)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "bytes": peak, "messages_bytes": before}))


def lines(scale: float) -> list[Line]:
    """The figures; `scale` 1.0 takes about three minutes."""
    recall, precision, count = quality(SEED, int(MESSAGES * scale), max(int(A_KIND * scale), 10))
    found = [
        Line(f"leaks {kind}, recall", recall[kind], "", wanted=f">= {WANTED[kind]}", holds=recall[kind] >= WANTED[kind])
        for kind in KINDS
    ]
    found.append(
        Line("leaks of every kind, precision", precision, "", wanted=f">= {PRECISION}", holds=precision >= PRECISION,
             note=f"{count:,} findings")
    )  # fmt: skip
    for size in SIZES:
        seconds, peak, before = speed(int(size * scale))
        limit = size == SIZES[-1] and scale == 1.0
        note = f"{peak / 1e9:.2f} GB, {before / 1e9:.2f} of them the messages"
        what, wanted = f"content scan of {int(size * scale):,} messages", "< 60" if limit else ""
        found.append(Line(what, seconds, "s", wanted=wanted, holds=seconds < 60 if limit else None, note=note))
    return found


if __name__ == "__main__":
    _measure(int(sys.argv[1]))
