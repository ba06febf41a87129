"""The analytics database's projector: follows the log into DuckDB, publishes snapshots, rebuilds; opens snapshots."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Self

from session_ledger.consumers.tail import Tail
from session_ledger.consumers.wiring import VIEWS_FILE, open_store
from session_ledger.domain.errors import Misconfigured
from session_ledger.ledger.log.port import Log
from session_ledger.ledger.open import open_codec, open_log, open_settings
from session_ledger.ledger.settings import Settings
from session_ledger.ledger.url import LedgerUrl, parse_url
from session_ledger.projections.analytics.snapshots import Publisher, Snapshot, open_latest
from session_ledger.projections.analytics.store import AnalyticsStore
from session_ledger.schemas.codec import Codec

FOLDER = "analytics"  # beside the ledger's other local files
LIVE = "live.duckdb"
REBUILT = "rebuilt"  # what a rebuild writes, until it is put in place
PUBLISH_POLL_S = 0.2  # how soon a change is published where that is due


def analytics_directory(place: LedgerUrl) -> Path:
    """Where a ledger's analytics stand. Raises Misconfigured for a ledger without a directory."""
    if place.directory is None:
        raise Misconfigured("analytics stand in the ledger's directory: a ledger in memory has none")
    return place.directory / FOLDER


def open_snapshot(
    url: str | None = None, *, settings: Settings | None = None, memory: str | None = None, threads: int | None = None
) -> Snapshot:
    """The newest snapshot of a ledger's analytics, for reading. `url` None: the settings'. `memory`: such as "2GB".

    Raises LogUnavailable where none was published yet, Misconfigured.
    """
    chosen = open_settings(settings, {})
    place = parse_url(chosen.url if url is None else url)
    return open_latest(analytics_directory(place), memory=memory, threads=threads)


class Analytics:
    """The one writer of a ledger's analytics. A context manager; not thread-safe but for `run`'s own threads."""

    def __init__(self, url: str, *, settings: Settings | None = None) -> None:
        """Open the log for reading and the database for writing.

        Raises LogUnavailable, ProjectionInUse (another process writes it), ProjectionForeign, Misconfigured.
        """
        self._url, self._settings = url, open_settings(settings, {})
        place = parse_url(url)
        self.directory = analytics_directory(place)
        self._closing: list[Callable[[], None]] = []
        try:
            self._log = open_log(place, self._settings, write=False)
            self._closing.append(self._log.close)
            self._codec, close_codec = open_codec(self._log, self._settings)
            self._closing.append(close_codec)
            self._over = _stepped_over(self._log, place)
            self.store = self._open_store()
            self._closing.append(lambda: self.store.close())
            if self.store.outdated:
                self.rebuild()
            self._publisher = Publisher(self.store, self.directory)
        except BaseException:
            self.close()
            raise

    def _open_store(self) -> AnalyticsStore:
        return AnalyticsStore(self.directory / LIVE, log_id=self._log.log_id, ledger=self._log.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what was opened. Idempotent."""
        while self._closing:
            self._closing.pop()()

    def _tail(self) -> Tail:
        logs = [self._log.control, *self._log.partitions]
        return Tail(logs, self._codec, self.store, stepped_over=self._over)

    def ends(self) -> dict[int, int]:
        """Partition to the end of its log, as a reader sees it."""
        return {log.partition: log.end() for log in (self._log.control, *self._log.partitions)}

    def catch_up(self, to: Mapping[int, int] | None = None) -> int:
        """Bring in everything up to `to` (partition to position; None: each log's end now); how many records came in.

        Raises PartitionStopped when the others are in, LogUnavailable.
        """
        return self._tail().catch_up(to)

    def publish(self) -> Path:
        """Publish a snapshot now."""
        return self._publisher.publish()

    def run(
        self, stop: threading.Event, on_published: Callable[[Path], None] = lambda path: None
    ) -> dict[int, Exception]:
        """Follow the log and publish what changed, until `stop` is set; the last changes are published at the end.

        Returns the partitions that can not be followed further, and why.
        """
        tail = self._tail()
        failures: list[BaseException] = []

        def publish() -> None:
            try:
                while not stop.wait(PUBLISH_POLL_S):
                    path = self._publisher.publish_if_due()
                    if path is not None:
                        on_published(path)
            except BaseException as error:  # noqa: BLE001 - raised where `run` was called
                failures.append(error)
                stop.set()

        publishing = threading.Thread(target=publish, name="session-ledger-publisher")
        publishing.start()
        try:
            tail.run(stop)
        finally:
            stop.set()
            publishing.join()
        if failures:
            raise failures[0]
        if self._publisher.changed:
            on_published(self._publisher.publish())
        return dict(tail.stopped)

    # --- rebuilding ---------------------------------------------------------------------------------------------------

    def rebuild(self, processes: int | None = None) -> int:
        """Make the database again from the log into a file beside, and put it in place in one step.

        `processes`: how many work side by side, each on partitions of its own; None: one a core. Snapshots are read
        meanwhile, and stay until the next is published. Returns how many records were brought in.
        """
        ends = self.ends()
        shares = _shares(ends, min(processes or os.cpu_count() or 1, len(self._log.partitions)))
        parts = [self.directory / f"{REBUILT}-{number}.duckdb" for number in range(len(shares))]
        for path in parts:
            _delete(path)
        try:
            if len(shares) == 1:
                _build(self._url, self._settings, shares[0], parts[0])
            else:
                with ProcessPoolExecutor(len(shares), mp_context=get_context("spawn")) as pool:
                    urls, settings = [self._url] * len(shares), [self._settings] * len(shares)
                    list(pool.map(_build, urls, settings, shares, parts))
            if len(parts) > 1:
                whole = AnalyticsStore(parts[0], log_id=self._log.log_id, ledger=self._log.name)
                try:
                    whole.adopt(parts[1:])
                finally:
                    whole.close()
            self.store.close()
            os.replace(parts[0], self.directory / LIVE)
            _delete(self.directory / LIVE, but_the_file=True)
            self.store = self._open_store()
            self._publisher = Publisher(self.store, self.directory)
        finally:
            for path in parts:
                _delete(path)
        return sum(ends.values())


def _shares(ends: Mapping[int, int], count: int) -> list[dict[int, int]]:
    """The partitions dealt out, the longest first, each to whoever has the least so far."""
    shares: list[dict[int, int]] = [{} for _ in range(max(count, 1))]
    for partition, end in sorted(ends.items(), key=lambda item: -item[1]):
        min(shares, key=lambda share: sum(share.values()))[partition] = end
    return [share for share in shares if share]


def _build(url: str, settings: Settings, share: Mapping[int, int], path: Path) -> None:
    """Bring some partitions into a database of their own; runs in a process of its own."""
    place = parse_url(url)
    log = open_log(place, settings, write=False)
    try:
        codec, close_codec = open_codec(log, settings)
        store = AnalyticsStore(path, log_id=log.log_id, ledger=log.name)
        try:
            _bring_in(log, codec, store, share, _stepped_over(log, place))
        finally:
            store.close()
            close_codec()
    finally:
        log.close()


def _bring_in(
    log: Log, codec: Codec, store: AnalyticsStore, share: Mapping[int, int], over: Callable[[int], frozenset[int]]
) -> None:
    logs = [one for one in (log.control, *log.partitions) if one.partition in share]
    Tail(logs, codec, store, stepped_over=over).catch_up(share)


def _stepped_over(log: Log, place: LedgerUrl) -> Callable[[int], frozenset[int]]:
    """What was set aside by `quarantine` is left out here as well."""
    if place.directory is None or not (place.directory / VIEWS_FILE).exists():
        return lambda partition: frozenset()

    def quarantined(partition: int) -> frozenset[int]:
        with open_store(log, place.directory) as views:
            return frozenset(record.position for record in views.quarantined(partition))

    cached: dict[int, tuple[float, frozenset[int]]] = {}

    def over(partition: int) -> frozenset[int]:
        at, found = cached.get(partition, (0.0, frozenset()))
        if time.monotonic() - at > 1.0:
            cached[partition] = time.monotonic(), (found := quarantined(partition))
        return found

    return over


def _delete(path: Path, *, but_the_file: bool = False) -> None:
    for suffix in (".wal", "") if not but_the_file else (".wal",):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
