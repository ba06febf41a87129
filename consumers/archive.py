"""Events as Parquet files for Spark, Trino or a warehouse: each range of positions exactly once.

    DIR/_manifest.json                                      what counts: every export and its files
    DIR/tenant=acme/day=2026-01-31/export-000007.parquet    of one tenant and day (of recorded_at, UTC)

The tenant stands in the path alone, as readers of such datasets expect (percent-encoded; `__none__`: of none).

An export takes what lies between the positions of the one before and those of the newest snapshot. Its files are
written beside, put in place, and then named by the manifest, in one step; what a crash left behind is removed by the
next export, which takes the same range again. A reader that must not see such leftovers goes by the manifest.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.parquet as pq

from session_ledger.consumers.sole import sole_writer
from session_ledger.domain.errors import LogCorrupt, Misconfigured, ProjectionForeign
from session_ledger.domain.ids import parse_id
from session_ledger.projections.analytics.snapshots import Snapshot
from session_ledger.security.files import naming
from session_ledger.security.port import Envelope

FORMAT = 1
MANIFEST, LOCK = "_manifest.json", ".lock"  # names that readers of Parquet datasets pass over
UNFINISHED = ".unfinished"
NO_TENANT = "__none__"  # the control log's own facts belong to none
BLOCK = 1 << 20

_MARKED = """CASE WHEN content IS NULL THEN NULL ELSE reveal({
    'tenant': tenant, 'user': user, 'session_id': session_id, 'event_id': event_id, 'event_type': event_type,
    'field': 'sealed_content', 'key_id': key_id, 'sealed': content
}) END"""
_CLEAR = """CASE WHEN details IS NULL THEN NULL ELSE (
    SELECT to_json(map_from_entries(list({'k': k, 'v': details -> k})))
    FROM (SELECT unnest(json_keys(details)) AS k) WHERE NOT starts_with(k, 'sealed_')
) END"""  # `details` without what is sealed
Opener = Callable[[pa.Table, str], pa.Table]
"""Opens the marked column of a table, after it has been recorded; the text tells which export it is for."""


@dataclass(frozen=True, slots=True)
class File:
    """One file of an export. `path`: within the directory. `bytes_count` and `sha256` are of the whole file."""

    path: str
    rows: int
    bytes_count: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Export:
    """One range of positions: after `from_positions`, up to `to_positions` (partition to position)."""

    number: int
    made_at: str
    from_positions: dict[int, int]
    to_positions: dict[int, int]
    revealed: bool
    """Contents stand in it as text, as far as their keys were there."""
    files: tuple[File, ...]

    @property
    def rows(self) -> int:
        """Events in it."""
        return sum(file.rows for file in self.files)


@dataclass(slots=True)
class Manifest:
    """What a directory holds."""

    ledger: str
    log_id: str
    exports: list[Export] = field(default_factory=list)

    @property
    def positions(self) -> dict[int, int]:
        """Up to where everything is exported."""
        return self.exports[-1].to_positions if self.exports else {}


def archive(
    snapshot: Snapshot,
    directory: Path,
    *,
    open_contents: Opener | None = None,
    now: Callable[[], datetime] | None = None,
) -> Export | None:
    """Export what came since the last time; None: nothing did.

    `open_contents`: for contents as text; None: contents are left out (as are the other sealed fields, always).
    Raises ProjectionForeign (the directory is another ledger's), LogCorrupt (the snapshot is behind what was exported),
    ProjectionInUse (another export is under way), Misconfigured (the manifest is damaged).
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as closing:
        closing.callback(sole_writer(directory, LOCK, f"exports into {directory}"))
        manifest = read_manifest(directory) or Manifest(snapshot.ledger, snapshot.log_id)
        if manifest.log_id != snapshot.log_id:
            raise ProjectionForeign(f"{directory} holds exports of the log {manifest.log_id}, not of {snapshot.log_id}")
        number = len(manifest.exports) + 1
        _remove_leftovers(directory, number)
        after, to = manifest.positions, snapshot.positions
        behind = {partition: position for partition, position in after.items() if to.get(partition, 0) < position}
        if behind:
            raise LogCorrupt(f"the snapshot is at {to}, positions up to {after} are exported: was the log put back?")
        if after == to:
            return None
        files = tuple(_write(snapshot, directory, number, after, open_contents))
        made_at = (now() if now else datetime.now(UTC)).isoformat()
        export = Export(number, made_at, after, to, open_contents is not None, files)
        manifest.exports.append(export)
        for file in files:
            os.replace(directory / f"{file.path}{UNFINISHED}", directory / file.path)
        _write_manifest(directory, manifest)
        return export


def read_manifest(directory: Path) -> Manifest | None:
    """What the directory holds; None: no export yet. Raises Misconfigured where that can not be read."""
    path = directory / MANIFEST
    if not path.exists():
        return None
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if told["format"] != FORMAT:
            raise ValueError(f"format {told['format']}")
        exports = [
            Export(
                one["number"],
                one["made_at"],
                _numbered(one["from_positions"]),
                _numbered(one["to_positions"]),
                one["revealed"],
                tuple(File(**file) for file in one["files"]),
            )
            for one in told["exports"]
        ]
        return Manifest(told["ledger"], told["log_id"], exports)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Misconfigured(
            f"{path} can not be read ({error!r}): restore it, or begin with an empty directory"
        ) from error


def damaged(directory: Path) -> list[str]:
    """What is not as the manifest says, one sentence each. Raises Misconfigured where there is no manifest."""
    manifest = read_manifest(directory)
    if manifest is None:
        raise Misconfigured(f"{directory} holds no export: {MANIFEST} is not there")
    found = []
    for export in manifest.exports:
        for file in export.files:
            path = directory / file.path
            if not path.exists():
                found.append(f"{file.path} of export {export.number} is missing")
            elif _sum(path) != file.sha256:
                found.append(f"{file.path} of export {export.number} is not what was written")
    return found


@dataclass(frozen=True, slots=True)
class Exported:
    """Contents of a session that stand as text in an export."""

    export: int
    path: str
    tenant: str
    user: str
    session_id: str
    messages: int


def erased(directory: Path, envelope: Envelope) -> list[Exported]:
    """Contents whose data key is gone from the vault and that older exports hold as text: out of reach from here.

    Raises Misconfigured where there is no manifest, KeyUnavailable where the vault can not be asked.
    """
    manifest = read_manifest(directory)
    if manifest is None:
        raise Misconfigured(f"{directory} holds no export: {MANIFEST} is not there")
    found: list[Exported] = []
    for export in manifest.exports:
        for file in export.files if export.revealed else ():
            tenant = unquote(file.path.split("/")[0].removeprefix("tenant="))
            counted: Counter[tuple[str, str, str]] = Counter()
            rows = pq.ParquetFile(directory / file.path).read(["user", "session_id", "key_id", "content"]).to_pylist()
            for row in rows:
                if row["content"] is not None and row["key_id"] is not None:
                    counted[row["user"], str(row["session_id"]), str(row["key_id"])] += 1
            for (user, session_id, key_id), messages in sorted(counted.items()):
                key = envelope.opening_key(tenant, user, parse_id(session_id), parse_id(key_id))
                if key is None:
                    found.append(Exported(export.number, file.path, tenant, user, session_id, messages))
    return found


def _remove_leftovers(directory: Path, number: int) -> None:
    """Of an export that did not end: it takes its number again."""
    for path in directory.glob(f"tenant=*/day=*/{_name(number)}*"):
        path.unlink()


def _name(number: int) -> str:
    return f"export-{number:06}.parquet"


def _write(
    snapshot: Snapshot, directory: Path, number: int, after: dict[int, int], open_contents: Opener | None
) -> Iterator[File]:
    connection = snapshot.connection
    connection.execute("CREATE OR REPLACE TEMP TABLE exported (partition SMALLINT, position BIGINT)")
    if after:
        connection.executemany("INSERT INTO exported VALUES (?, ?)", list(after.items()))
    contents = f", {_MARKED} AS content" if open_contents else ""
    connection.execute(
        f"CREATE OR REPLACE TEMP VIEW exporting AS SELECT * EXCLUDE (content, details){contents},"
        f" {_CLEAR} AS details, recorded_at::DATE AS day FROM events"
        " WHERE position > coalesce((SELECT max(e.position) FROM exported e WHERE e.partition = events.partition), 0)"
    )
    groups = connection.execute("SELECT DISTINCT tenant, day FROM exporting ORDER BY ALL").fetchall()
    for tenant, day in groups:
        relation = connection.sql(
            "SELECT * EXCLUDE (tenant, day) FROM exporting WHERE tenant = $tenant AND day = $day"
            " ORDER BY partition, position",
            params={"tenant": tenant, "day": day},
        )
        table = relation.to_arrow_table()
        if open_contents is not None:
            table = open_contents(table, f"archive export {number} of {tenant} {day}")
        yield _write_file(directory, number, tenant, day, table)


def _write_file(directory: Path, number: int, tenant: str, day: date, table: pa.Table) -> File:
    place = f"tenant={quote(tenant, safe='') or NO_TENANT}/day={day.isoformat()}/{_name(number)}"
    path = directory / f"{place}{UNFINISHED}"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    pq.write_table(table, str(path), compression="zstd")
    path.chmod(0o600)
    with naming(path), path.open("rb") as written:
        os.fsync(written.fileno())
    return File(place, table.num_rows, path.stat().st_size, _sum(path))


def _write_manifest(directory: Path, manifest: Manifest) -> None:
    told: dict[str, Any] = {"format": FORMAT, **asdict(manifest)}
    path = directory / MANIFEST
    unfinished = path.with_name(f"{MANIFEST}{UNFINISHED}")
    with naming(unfinished), unfinished.open("w", encoding="utf-8") as out:
        json.dump(told, out, indent=1)
        out.flush()
        os.fsync(out.fileno())
    os.replace(unfinished, path)
    opened = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _numbered(positions: dict[str, int]) -> dict[int, int]:
    return {int(partition): position for partition, position in positions.items()}


def _sum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
