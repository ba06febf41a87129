"""Figures of the analytics database: from Kafka into it, made again by several processes, publishing while it grows."""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path

from bench import kafka_floors
from bench.kafka import EVENTS_A_SESSION
from bench.report import Line
from bench.writes import CONTENT, ROUNDS, import_sessions, in_turns
from session_ledger.consumers.analytics import Analytics
from session_ledger.consumers.tail import Tail, material
from session_ledger.domain.commands import ImportedMessage
from session_ledger.ledger.ledger import Ledger
from session_ledger.ledger.log.port import Record
from session_ledger.ledger.open import open_log, open_settings
from session_ledger.ledger.published import codec_of
from session_ledger.ledger.url import parse_url
from session_ledger.projections.analytics.store import PART_EVENTS, AnalyticsStore
from session_ledger.projections.port import Entry
from session_ledger.schemas.codec import Codec
from tests.broker.broker import Broker

PUBLISHED_EVENTS = 10_000_000
BATCH = 4000


def fill(url: str, events: int) -> None:
    """A ledger with about so many events, of imported sessions of ten messages."""
    history = tuple(
        ImportedMessage("user" if n % 2 else "assistant", CONTENT, model="m-1", tokens_in=400, tokens_out=80)
        for n in range(10)
    )
    with Ledger.open(url) as ledger:
        import_sessions(ledger, events // EVENTS_A_SESSION, history, 5_000)


def _from_kafka(bootstrap: str, directory: Path, events: int) -> Line:
    """One partition into the database, from nothing, committed; beside bare consuming of the same topic."""
    url = f"kafka://{bootstrap}/analytics1?partitions=1&replica={directory / 'one'}"
    fill(url, events)
    log = open_log(parse_url(url), open_settings(None, {}), write=False)
    codec, count = codec_of(log), log.partitions[0].end()

    def figure() -> float:
        with tempfile.TemporaryDirectory() as place:
            store = AnalyticsStore(Path(place), log_id=log.log_id, ledger=log.name)
            tail = Tail([log.control, *log.partitions], codec, store)
            started = time.perf_counter()
            tail.catch_up()
            rate = count / (time.perf_counter() - started)
            store.close()
        return rate

    rate, floor = in_turns(figure, lambda: kafka_floors.consume(bootstrap, "analytics1.events"))
    log.close()
    what, floor_what = "Kafka, partition to the analytics database", "kafka-python consuming the topic"
    return Line(what, rate, "events/s", floor_what, floor, ">= 0.4", rate >= 0.4 * floor)


def _rebuilding(bootstrap: str, directory: Path, events: int) -> Line:
    """Four partitions made again by two processes, beside one."""
    url = f"kafka://{bootstrap}/analytics4?partitions=4&replica={directory / 'four'}"
    fill(url, events)
    with Analytics(url) as analytics:

        def rate(processes: int) -> float:
            started = time.perf_counter()
            return analytics.rebuild(processes) / (time.perf_counter() - started)

        two, one = in_turns(lambda: rate(2), lambda: rate(1))
    return Line(
        "Kafka, the analytics database made again by two processes", two, "events/s", "by one process", one, ">= 1.4",
        two >= 1.4 * one,
    )  # fmt: skip


def _publishing(directory: Path, events: int) -> list[Line]:
    """How long publishing so many events takes, and how long a batch that comes meanwhile waits."""
    url = f"sqlite:{directory / 'sqlite'}"
    fill(url, BATCH * 2)
    log = open_log(parse_url(url), open_settings(None, {}), write=False)
    store = AnalyticsStore(directory / "parts1", log_id=log.log_id, ledger=log.name)
    Tail([log.control, *log.partitions], codec_of(log), store).catch_up()
    rows = grown(store, events)
    records = log.partitions[0].read(0, BATCH)
    codec, waits, stop = codec_of(log), list[float](), threading.Event()

    def ingest() -> None:
        while not stop.is_set():
            started = time.perf_counter()
            store.apply(0, _moved(records, codec, store.position(0)))
            waits.append(time.perf_counter() - started)
            stop.wait(0.02)

    alone = threading.Thread(target=ingest)
    alone.start()
    time.sleep(2)
    before, waits[:] = max(waits), []
    took = []
    for number in range(ROUNDS):
        started = time.perf_counter()
        store.copy_to(directory / f"snapshot-{number}.duckdb", "2026-01-01T00:00:00+00:00")
        took.append(time.perf_counter() - started)
    stop.set()
    alone.join()
    store.close()
    log.close()
    name = f"publishing {rows / 1e6:.0f} million events"
    return [
        Line(f"{name}, how long it takes", sorted(took)[len(took) // 2], "s"),
        Line(
            f"{name}, longest wait of a batch of {BATCH:,}", max(waits), "s", "without publishing", before, "<= 1 s",
            max(waits) <= 1,
        ),
    ]  # fmt: skip


def grown(store: AnalyticsStore, events: int) -> int:
    """Copy what partition 0 holds, as other sessions at later positions, until there are so many; how many there are.

    In parts like those that a log of that length leaves behind, and a live file that is nearly full.
    """
    held = store.position(0)
    template = store._db.sql("SELECT * FROM events WHERE partition = 0").to_arrow_table()
    a_part = PART_EVENTS // held

    def copy(first: int, last: int) -> None:
        store._db.register("template", template)
        store._db.execute(
            "INSERT INTO events SELECT e.* REPLACE (e.position + r.range * ? AS position, uuid() AS event_id,"
            " md5_number(e.session_id::VARCHAR || r.range)::UUID AS session_id) FROM template AS e, range(?, ?) AS r",
            [held, first, last],
        )
        store._db.unregister("template")

    rows = held
    for first in range(1, events // held, a_part):
        copy(first, first + a_part)
        store._live_events += held * a_part
        rows += held * a_part
        store.seal()
    copy(0, a_part * 9 // 10)
    return rows + held * (a_part * 9 // 10)


def _moved(records: list[Record], codec: Codec, after: int) -> list[Entry]:
    return [
        Entry(after + number, codec.decode(record.value), material(record)) for number, record in enumerate(records, 1)
    ]


def lines(scale: float) -> list[Line]:
    """The figures; `scale` 1.0 takes about three minutes."""
    count = int(200_000 * scale)
    with tempfile.TemporaryDirectory() as name, Broker(Path(name) / "broker") as broker:
        directory = Path(name)
        found = [
            _from_kafka(broker.bootstrap, directory, count),
            _rebuilding(broker.bootstrap, directory, 2 * count),
        ]
    with tempfile.TemporaryDirectory() as name:
        return found + _publishing(Path(name), int(PUBLISHED_EVENTS * scale))
