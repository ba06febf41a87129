"""Figures of the evidence: records into the trees, the log compared with what was signed, one proof among a million."""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench import kafka_floors
from bench.analytics import fill
from bench.report import Line
from bench.writes import in_turns
from session_ledger.consumers.checked_log import check_log
from session_ledger.consumers.checkpointer import Checkpointer
from session_ledger.consumers.leaves import LeafTail, Leaves
from session_ledger.ledger.open import open_log, open_settings
from session_ledger.ledger.published import codec_of
from session_ledger.ledger.url import parse_url
from session_ledger.projections.merkle import Trees
from session_ledger.projections.port import Entry
from session_ledger.security.merkle import includes
from tests.broker.broker import Broker

LEAVES = 1_000_000
PROOFS = 1_000
BATCH = 4000
WANTED_PROOF_MS = 5.0


def _from_kafka(bootstrap: str, directory: Path, events: int) -> list[Line]:
    """One partition into its tree, from nothing, committed; then compared with its checkpoint; beside consuming."""
    url = f"kafka://{bootstrap}/proofs?partitions=1&replica={directory}"
    fill(url, events)
    place, settings = parse_url(url), open_settings(None, {})
    with Checkpointer(url) as checkpointer:
        checkpointer.catch_up()
        checkpointer.sign_all()
    log = open_log(place, settings, write=False)
    codec, count = codec_of(log), log.partitions[0].end()

    def trees() -> float:
        with tempfile.TemporaryDirectory() as name:
            made = Trees(Path(name) / "merkle.db", log_id=log.log_id)
            tail = LeafTail([log.partitions[0]], codec, made, Leaves(log, codec))
            started = time.perf_counter()
            tail.catch_up()
            rate = count / (time.perf_counter() - started)
            made.close()
        return rate

    def compared() -> float:
        started = time.perf_counter()
        found = check_log(log, codec, place, settings)
        if not found.ok:
            raise RuntimeError(f"the log does not agree: {found.findings}")
        return found.records / (time.perf_counter() - started)

    def consumed() -> float:
        return kafka_floors.consume(bootstrap, "proofs.events")

    floor_what, found = "kafka-python consuming the topic", list[Line]()
    for what, figure, wanted in (
        ("Kafka, partition to its Merkle tree", trees, 0.6),
        ("Kafka, `verify --log`", compared, 0.45),
    ):
        rate, floor = in_turns(figure, consumed)
        found.append(Line(what, rate, "events/s", floor_what, floor, f">= {wanted}", rate >= wanted * floor))
    log.close()
    return found


def _proofs(path: Path, leaves: int) -> Line:
    """Proofs of random leaves among so many, each from the file; and checked."""
    trees = Trees(path, log_id="bench")
    for first in range(0, leaves, BATCH):
        count = min(BATCH, leaves - first)
        trees.apply(0, [Entry(first + at, None, os.urandom(32)) for at in range(1, count + 1)])
    luck, took_ms = random.Random(1), list[float]()
    for _ in range(PROOFS):
        size = luck.randrange(leaves * 9 // 10, leaves)
        index = luck.randrange(size)
        started = time.perf_counter()
        with trees.reading(0) as tree:
            leaf, proof = tree.leaf(index), tree.inclusion(index, size)
        took_ms.append((time.perf_counter() - started) * 1000)
        with trees.reading(0) as tree:
            root = tree.root(size)
        if not includes(index, size, leaf, proof, root):
            raise RuntimeError(f"the proof of leaf {index} of {size} does not hold")
    trees.close()
    median_ms, p99_ms = _of(took_ms, 0.5), _of(took_ms, 0.99)
    size_mb = path.stat().st_size / 1e6
    return Line(
        f"an inclusion proof among {leaves:,} leaves", median_ms, "ms", wanted=f"< {WANTED_PROOF_MS:g}",
        holds=median_ms < WANTED_PROOF_MS, note=f"p99 {p99_ms:.1f}; {size_mb:.0f} MB of nodes",
    )  # fmt: skip


def _of(values: Sequence[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)]


def lines(scale: float) -> list[Line]:
    """The figures; `scale` 1.0 takes about a minute."""
    with tempfile.TemporaryDirectory() as name, Broker(Path(name) / "broker") as broker:
        found = _from_kafka(broker.bootstrap, Path(name) / "replica", int(200_000 * scale))
    with tempfile.TemporaryDirectory() as name:
        return [*found, _proofs(Path(name) / "merkle.db", int(LEAVES * scale))]
