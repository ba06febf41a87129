"""The analytics database's projector: follows the log into DuckDB, publishes snapshots, rebuilds; opens snapshots."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from session_ledger.consumers.analytics_parts import build_apart, build_part, shares_of
from session_ledger.consumers.closing import Closing
from session_ledger.consumers.sole import sole_writer
from session_ledger.consumers.tail import Tail
from session_ledger.consumers.wiring import stepped_over
from session_ledger.domain.errors import Misconfigured
from session_ledger.ledger.open import open_codec, open_log, open_settings
from session_ledger.ledger.settings import Settings
from session_ledger.ledger.url import LedgerUrl, parse_url
from session_ledger.projections.analytics.snapshots import (
    UNFINISHED,
    Publisher,
    Snapshot,
    generations,
    new_generation,
    open_latest,
    remove,
)
from session_ledger.projections.analytics.store import AnalyticsStore

FOLDER = "analytics"  # beside the ledger's other local files
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


class Analytics(Closing):
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
            self._over = stepped_over(self._log, place.directory)
            self._closing.append(sole_writer(self.directory))
            found = generations(self.directory)
            self._open_store(found[-1] if found else self.directory / new_generation(self.directory))
            self._closing.append(lambda: self.store.close())
            if self.store.outdated:
                self.rebuild()
        except BaseException:
            self.close()
            raise

    def _open_store(self, generation: Path) -> None:
        self.store = AnalyticsStore(generation, log_id=self._log.log_id, ledger=self._log.name)
        self._publisher = Publisher(self.store, self.directory)

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
        """Make the database again from the log, in a directory beside, and put that in place in one step.

        `processes`: how many work side by side, each on partitions of its own; None: one a core. Snapshots are read
        meanwhile, and stay until others have been published. Returns how many records were brought in.
        """
        ends = self.ends()
        shares = shares_of(ends, min(processes or os.cpu_count() or 1, len(self._log.partitions)))
        name = new_generation(self.directory)
        built = self.directory / f"{name}{UNFINISHED}"
        parts = [built, *(self.directory / f"{name}-{number}{UNFINISHED}" for number in range(1, len(shares)))]
        try:
            if len(shares) == 1:
                build_part(self._url, self._settings, shares[0], built)
            else:
                build_apart(self._url, self._settings, shares, parts)
                whole = AnalyticsStore(built, log_id=self._log.log_id, ledger=self._log.name)
                try:
                    whole.adopt(parts[1:])
                finally:
                    whole.close()
            os.replace(built, self.directory / name)
        finally:
            for path in parts:
                remove(path)
        self.store.close()
        self._open_store(self.directory / name)
        return sum(ends.values())
