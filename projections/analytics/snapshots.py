"""Snapshots of the analytics database: whole files that anybody may read while the next one is made.

A snapshot is written beside and put in place by one rename, so that it is there whole or not at all; whoever reads an
older one keeps it. The last few are kept.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import duckdb

from session_ledger.domain.errors import InvalidInput, LogUnavailable
from session_ledger.projections.analytics.store import AnalyticsStore, literal

KEPT = 3  # readers that open by name have that long; each is as large as the database
SHARE = 0.1  # of its time that the writer spends on publishing at most
PREFIX, SUFFIX, UNFINISHED = "snapshot-", ".duckdb", ".unfinished"


def latest(directory: Path) -> Path | None:
    """The newest snapshot in the directory; None: there is none yet."""
    found = sorted(directory.glob(f"{PREFIX}*{SUFFIX}"))
    return found[-1] if found else None


class Publisher:
    """Publishes a store's content when it has changed and when it is time. Used by one thread."""

    def __init__(self, store: AnalyticsStore, directory: Path, *, kept: int = KEPT, share: float = SHARE) -> None:
        """`kept`: how many snapshots stay. `share`: of the time, for publishing at most."""
        self._store, self._directory = store, directory
        self._kept, self._share = kept, share
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._published: dict[int, int] | None = _positions_of(latest(directory))
        self._next_at_s = time.monotonic()
        for left in directory.glob(f"{PREFIX}*{UNFINISHED}*"):  # of a writer that was killed
            left.unlink(missing_ok=True)

    def publish_if_due(self) -> Path | None:
        """Publish, if something changed and enough time has passed since; the new snapshot, or None."""
        if time.monotonic() < self._next_at_s or not self.changed:
            return None
        return self.publish()

    @property
    def changed(self) -> bool:
        """Whether something came in since the last snapshot."""
        return self._store.positions() != self._published

    def publish(self) -> Path:
        """Publish now, whatever there is."""
        started_s = time.monotonic()
        positions = self._store.positions()
        now = datetime.now(UTC)
        name = f"{PREFIX}{now:%Y%m%dT%H%M%S.%fZ}"
        unfinished = self._directory / f"{name}{UNFINISHED}"
        self._store.copy_to(unfinished, now.isoformat())
        unfinished.chmod(0o600)
        path = self._directory / f"{name}{SUFFIX}"
        os.replace(unfinished, path)
        self._published = positions
        for old in sorted(self._directory.glob(f"{PREFIX}*{SUFFIX}"))[: -self._kept]:
            old.unlink(missing_ok=True)
        took_s = time.monotonic() - started_s
        self._next_at_s = time.monotonic() + took_s * (1 - self._share) / self._share
        return path


def _positions_of(path: Path | None) -> dict[int, int] | None:
    if path is None:
        return None
    with suppress(duckdb.Error), duckdb.connect(str(path), read_only=True) as db:  # of an older version: publish anew
        return dict(db.execute("SELECT partition, position FROM positions ORDER BY 1").fetchall())
    return None


@dataclass
class Snapshot:
    """A snapshot, open for reading; a context manager."""

    path: Path
    connection: duckdb.DuckDBPyConnection
    """Read-only; nothing but this file can be reached through it."""
    positions: dict[int, int]
    """Partition to the position up to which it holds every event; -1 is the control log."""
    published_at: datetime
    ledger: str
    log_id: str

    @property
    def age_s(self) -> float:
        """Seconds since it was published."""
        return (datetime.now(UTC) - self.published_at).total_seconds()

    @property
    def directory(self) -> Path:
        """Where it stands, and what belongs to it."""
        return self.path.parent

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it. Idempotent."""
        self.connection.close()


def open_latest(directory: Path, *, memory: str | None = None, threads: int | None = None) -> Snapshot:
    """Open the newest snapshot. `memory`: such as "2GB", the most that a query may take.

    No other file and no network can be reached through it, and no query can change that. Raises LogUnavailable where
    there is none yet.
    """
    while True:
        path = latest(directory)
        if path is None:
            raise LogUnavailable(
                f"there is no snapshot in {directory} yet: `session-ledger project --once` makes one from the log"
            )
        try:
            return _open(path, memory, threads)
        except duckdb.IOException:
            if path.exists():
                raise  # else it has just given way to a newer one


def _open(path: Path, memory: str | None, threads: int | None) -> Snapshot:
    config: dict[str, str | bool | int | float | list[str]] = {"temp_directory": ""}  # nothing spills to disk
    if memory is not None:
        config["memory_limit"] = memory
    if threads is not None:
        config["threads"] = threads
    connection = _configured(config)
    try:
        connection.execute(f"ATTACH {literal(path)} AS ledger (READ_ONLY)")
        for statement in (
            "USE ledger",
            "SET TimeZone = 'UTC'",
            "SET enable_external_access = false",
            "SET allow_community_extensions = false",
            "SET lock_configuration = true",
        ):
            connection.execute(statement)
        facts = dict(connection.execute("SELECT name, value FROM facts").fetchall())
        positions = dict(connection.execute("SELECT partition, position FROM positions ORDER BY 1").fetchall())
    except BaseException:
        connection.close()
        raise
    published_at = datetime.fromisoformat(facts["published_at"])
    return Snapshot(path, connection, positions, published_at, facts["ledger"], facts["log_id"])


def _configured(config: dict[str, str | bool | int | float | list[str]]) -> duckdb.DuckDBPyConnection:
    try:
        return duckdb.connect(":memory:", config=config)
    except duckdb.Error as error:
        raise InvalidInput("memory", f"{config.get('memory_limit')!r}", "must be a size such as 2GB") from error
