"""The write path, the read path, disk and restart on Kafka: one broker of the run's own, ledgers of one partition."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import kafka_floors, writes
from bench.places import KafkaPlace
from bench.report import Line
from bench.writes import CALLERS, CONTENT, ROUNDS, Ran, bulk, import_sessions, in_loop, in_turns, threads
from session_ledger.consumers.views import Views
from session_ledger.domain.commands import ImportedMessage
from session_ledger.ledger.ledger import Ledger
from tests.broker.broker import Broker

BULK_TRANSACTION = 1_000  # records in one of the floor's transactions
RESTART_EVENTS = 1_000_000
EVENTS_A_SESSION = 12  # ten messages, a beginning and an end


def _callers(
    place: KafkaPlace, name: str, measure: writes.Measure, wanted: float, p99: float, count: int
) -> list[Line]:
    """Callers who send one message each at a time, beside the bare producer in equal batches of the same records."""
    ran: list[Ran] = []
    floors: list[kafka_floors.Produced] = []
    for _ in range(ROUNDS):
        ran.append(measure(place, count, CALLERS, CALLERS))
        samples = kafka_floors.recorded(place.bootstrap, f"{ran[-1].ledger}.events")[CALLERS:]  # not the creations
        floors.append(kafka_floors.produce(place.bootstrap, samples, max(round(ran[-1].an_append), 1)))
    rate, floor = (statistics.median(each.rate for each in all_) for all_ in (ran, floors))
    batch = statistics.median(each.an_append for each in ran)
    wait_ms, commit_ms = statistics.median(r.p99_ms for r in ran), statistics.median(f.commit_ms for f in floors)
    what = f"Kafka, {CALLERS} callers, {name}"
    return [
        Line(
            what, rate, "messages/s", f"kafka-python, transactions of {batch:.0f}", floor, f">= {wanted}",
            rate >= wanted * floor,
        ),
        Line(
            f"{what}, p99", wait_ms, "ms", "that producer's median transaction", commit_ms, f"<= {p99:g}",
            wait_ms <= p99 * commit_ms,
        ),
    ]  # fmt: skip


def _bulk(place: KafkaPlace, messages: int) -> Line:
    """Imported sessions of ten messages, counted in events, beside the bare producer sending the same records."""
    figures, floors = [], []
    for _ in range(ROUNDS):
        ran = bulk(place, messages)
        figures.append(ran.rate * EVENTS_A_SESSION / 10)
        samples = kafka_floors.recorded(place.bootstrap, f"{ran.ledger}.events")
        floors.append(kafka_floors.produce(place.bootstrap, samples, BULK_TRANSACTION).rate)
    figure, floor = statistics.median(figures), statistics.median(floors)
    return Line(
        "Kafka, import in bulk, 10 messages a session", figure, "events/s",
        f"kafka-python, transactions of {BULK_TRANSACTION}", floor, ">= 0.5", figure >= 0.5 * floor,
    )  # fmt: skip


def _disk(place: KafkaPlace, broker: Broker, messages: int) -> Line:
    """Bytes of the partition's segments a message of 200 characters, in sessions of 500."""
    ran = bulk(place, messages, 500)
    segments = (broker.data / "log" / f"{ran.ledger}.events-0").glob("*.log")
    figure = sum(segment.stat().st_size for segment in segments) / messages
    return Line("disk a 200-character message, in bulk, Kafka", figure, "bytes", wanted="< 420", holds=figure < 420)


def _projecting(place: KafkaPlace, messages: int) -> Line:
    """From the partition to the current-state views, from nothing, beside bare consuming of the same topic."""
    with place.opened() as ledger:
        _fill(ledger, messages)
        topic, events = f"{ledger.name}.events", ledger.positions()[0]

        def figure() -> float:
            with tempfile.TemporaryDirectory() as directory:
                views = Views.over(ledger.log, ledger.envelope, directory=Path(directory))
                started = time.perf_counter()
                views.refresh()
                rate = events / (time.perf_counter() - started)
                views.close()
            return rate

        pair = in_turns(figure, lambda: kafka_floors.consume(place.bootstrap, topic))
    what, floor_what = "Kafka, partition to current-state views", "kafka-python consuming the topic"
    return Line(what, pair[0], "events/s", floor_what, pair[1], ">= 0.35", pair[0] >= 0.35 * pair[1])


def _fill(ledger: Ledger, events: int, users: int = 5_000) -> None:
    """Import sessions of ten messages until there are that many events."""
    history = tuple(ImportedMessage("user" if n % 2 else "assistant", CONTENT) for n in range(10))
    import_sessions(ledger, events // EVENTS_A_SESSION, history, users)


def _restart(bootstrap: str, events: int) -> Line:
    """Seconds of `Ledger.open` and the first answer, where the local replica covers the partition."""
    with tempfile.TemporaryDirectory() as replica:
        url = f"kafka://{bootstrap}/restart?partitions=1&replica={replica}"
        with Ledger.open(url) as ledger:
            session = ledger.create_session("acme", "one").session_id
            _fill(ledger, events)
        times = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            with Ledger.open(url) as ledger:
                ledger.add_message("acme", "one", session, role="user", content=CONTENT)
                times.append(time.perf_counter() - started)
    figure = statistics.median(times)
    what = f"Kafka, restart with a replica, {events:,} events"
    return Line(what, figure, "s", wanted="< 3", holds=figure < 3, note="open to first answer")


def lines(scale: float) -> list[Line]:
    """The figures on Kafka; `scale` 1.0 takes about four minutes."""
    count = int(20_000 * scale)
    with tempfile.TemporaryDirectory() as directory, Broker(Path(directory) / "broker") as broker:
        place = KafkaPlace(broker.bootstrap)
        parts: list[Callable[[], list[Line]]] = [
            lambda: _callers(place, "asyncio", in_loop, 0.55, 10, count),
            lambda: _callers(place, "threads", threads, 0.3, 15, count),
            lambda: [_bulk(place, count * 3)],
            lambda: [_disk(place, broker, count)],
            lambda: [_projecting(place, count * 5)],
            lambda: [_one_session(place, count // 2)],
            lambda: [_restart(broker.bootstrap, int(RESTART_EVENTS * scale))],
        ]
        return [line for part in parts for line in part()]


def _one_session(place: KafkaPlace, messages: int) -> Line:
    """Ten callers in one session, beside ten in a session each."""
    pair = in_turns(
        lambda: threads(place, messages, 10, 1).rate,
        lambda: threads(place, messages, 10, 10).rate,
    )
    what, floor_what = "Kafka, one session, 10 callers", "10 sessions, 10 callers"
    return Line(what, pair[0], "messages/s", floor_what, pair[1], ">= 0.8", pair[0] >= 0.8 * pair[1])
