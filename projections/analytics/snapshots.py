"""Snapshots of the analytics database: files that anybody may read while the next one is made.

A snapshot is a copy of what the writer's live file holds, and names the parts that it goes with (`store`). It is
written beside and put in place by one rename, so that it is there whole or not at all; whoever reads an older one keeps
it. The last few are kept, and the parts that they need. Its name carries its time and its generation: the directory of
its parts, which a rebuild makes anew.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import duckdb

from session_ledger.domain.errors import InvalidInput, LogUnavailable
from session_ledger.projections.analytics import prices
from session_ledger.projections.analytics.store import AnalyticsStore, literal, part_path, script, version

KEPT = 3  # readers that open by name have that long; each is as large as the database
SHARE = 0.1  # of its time that the writer spends on publishing at most
PREFIX, SUFFIX, UNFINISHED = "snapshot-", ".duckdb", ".unfinished"
GENERATION = "parts"
VIEWS = ("views.sql", "trends.sql", "monitor.sql", "leakage/structural.sql")


def latest(directory: Path) -> Path | None:
    """The newest snapshot in the directory; None: there is none yet."""
    found = sorted(directory.glob(f"{PREFIX}*{SUFFIX}"))
    return found[-1] if found else None


def generation_of(snapshot: Path) -> str:
    """The name of the directory in which the parts of a snapshot stand."""
    return snapshot.name.removesuffix(SUFFIX).rpartition("-")[2]


def generations(directory: Path) -> list[Path]:
    """The directories of parts that are complete, the oldest first."""
    return sorted(path for path in directory.glob(f"{GENERATION}*") if not path.name.endswith(UNFINISHED))


def new_generation(directory: Path) -> str:
    """A name for one that is made there now; names sort by time."""
    made = generations(directory)
    return GENERATION + _after(made[-1] if made else None, GENERATION, f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}")


def _after(newest: Path | None, prefix: str, at: str) -> str:
    """That time, or, where the clock was put back, the microsecond after the newest's."""
    if newest is None:
        return at
    last = newest.name.removeprefix(prefix)[: len(at)]
    if at > last:
        return at
    following = datetime.strptime(last, "%Y%m%dT%H%M%S%f") + timedelta(microseconds=1)
    return f"{following:%Y%m%dT%H%M%S%f}"


class Publisher:
    """Publishes a store's content when it has changed and when it is time. Used by one thread."""

    def __init__(self, store: AnalyticsStore, directory: Path, *, kept: int = KEPT, share: float = SHARE) -> None:
        """`directory`: of the snapshots. `kept`: how many stay. `share`: of the time, for publishing at most."""
        self._store, self._directory = store, directory
        self._kept, self._share = kept, share
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._published = self._positions_of_latest()
        self._next_at_s = time.monotonic()
        for left in directory.glob(f"*{UNFINISHED}*"):  # of a writer that was killed
            remove(left)

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
        at = _after(latest(self._directory), PREFIX, f"{now:%Y%m%dT%H%M%S%f}")
        name = f"{PREFIX}{at}Z-{self._store.directory.name}"
        unfinished = self._directory / f"{name}{UNFINISHED}"
        self._store.copy_to(unfinished, now.isoformat())
        unfinished.chmod(0o600)
        path = self._directory / f"{name}{SUFFIX}"
        os.replace(unfinished, path)
        self._published = positions
        self._clear()
        took_s = time.monotonic() - started_s
        self._next_at_s = time.monotonic() + took_s * (1 - self._share) / self._share
        return path

    def _clear(self) -> None:
        """Remove snapshots beyond those that are kept, then the generations that none of them needs."""
        found = sorted(self._directory.glob(f"{PREFIX}*{SUFFIX}"))
        for old in found[: -self._kept]:
            old.unlink(missing_ok=True)
        needed = {self._store.directory.name, *map(generation_of, found[-self._kept :])}
        for generation in generations(self._directory):
            if generation.name not in needed:
                remove(generation)

    def _positions_of_latest(self) -> dict[int, int] | None:
        path = latest(self._directory)
        if path is None or generation_of(path) != self._store.directory.name:
            return None
        with suppress(duckdb.Error), duckdb.connect(str(path), read_only=True) as db:  # damaged: publish anew
            return dict(db.execute("SELECT partition, position FROM positions ORDER BY 1").fetchall())
        return None


def remove(path: Path) -> None:
    """Remove a file or a directory, whole; what is gone already is fine."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


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
            if path == latest(directory):
                raise  # else it has just given way to a newer one


def _open(path: Path, memory: str | None, threads: int | None) -> Snapshot:
    config: dict[str, str | bool | int | float | list[str]] = {"temp_directory": ""}  # nothing spills to disk
    if memory is not None:
        config["memory_limit"] = memory
    if threads is not None:
        config["threads"] = threads
    connection = _configured(config)
    try:
        facts, positions = _attach(connection, path)
        for statement in (
            "SET TimeZone = 'UTC'",
            "SET enable_external_access = false",
            "SET allow_community_extensions = false",
            "SET lock_configuration = true",
        ):
            connection.execute(statement)
    except BaseException:
        connection.close()
        raise
    published_at = datetime.fromisoformat(facts["published_at"])
    return Snapshot(path, connection, positions, published_at, facts["ledger"], facts["log_id"])


def _attach(connection: duckdb.DuckDBPyConnection, path: Path) -> tuple[dict[str, str], dict[int, int]]:
    """The snapshot and its parts as one table, and what is asked of it; (facts, positions)."""
    connection.execute(f"ATTACH {literal(path)} AS snapshot (READ_ONLY)")
    facts = dict(connection.execute("SELECT name, value FROM snapshot.facts").fetchall())
    if facts["version"] != version():
        raise LogUnavailable(
            f"{path.name} was published by another version of session-ledger: run `session-ledger project --once`, "
            "which makes it again from the log"
        )
    sources = ["snapshot"]
    for number in range(1, int(facts["parts"]) + 1):
        part = part_path(path.parent / generation_of(path), number)
        connection.execute(f"ATTACH {literal(part)} AS part_{number} (READ_ONLY)")
        sources.append(f"part_{number}")
    connection.execute("CREATE VIEW events AS " + " UNION ALL ".join(f"FROM {one}.events" for one in sources))
    connection.execute("CREATE VIEW positions AS FROM snapshot.positions; CREATE VIEW facts AS FROM snapshot.facts")
    comments = [line for line in script("schema.sql").splitlines() if line.startswith("COMMENT ON ")]
    connection.execute("\n".join(comments).replace("COMMENT ON TABLE", "COMMENT ON VIEW"))
    for name in VIEWS:
        connection.execute(script(name))
    prices.install(connection, path.parent / prices.FILE)
    positions = dict(connection.execute("SELECT partition, position FROM positions ORDER BY 1").fetchall())
    return facts, positions


def _configured(config: dict[str, str | bool | int | float | list[str]]) -> duckdb.DuckDBPyConnection:
    try:
        return duckdb.connect(":memory:", config=config)
    except duckdb.Error as error:
        raise InvalidInput("memory", f"{config.get('memory_limit')!r}", "must be a size such as 2GB") from error
