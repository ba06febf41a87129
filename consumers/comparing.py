"""Compares the tables of two files of views, row for row, in both directions, in bounded memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

from session_ledger.consumers.findings import FINDINGS_MAX, Findings

_WHAT = {
    "extra_row": "stands in the views, the log does not give it",
    "missing_row": "is missing in the views",
    "changed_row": "is not what the log gives: ",
}


class Comparison:
    """A snapshot of the views under test, to be compared with fresh ones that are built meanwhile."""

    def __init__(self, views: str) -> None:
        """`views`: a path. The snapshot is taken now."""
        self._db = sqlite3.connect(f"{Path(views).absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        self._fresh: list[str] = []
        try:
            self._db.execute("BEGIN")
            self.positions = self._positions("main")
        except BaseException:
            self._db.close()
            raise

    def _positions(self, schema: str) -> dict[tuple[str, int], tuple[int, bytes]]:
        rows = self._db.execute(f"SELECT projection, partition, position, root FROM {schema}.positions")
        return {(projection, partition): (position, root) for projection, partition, position, root in rows}

    def close(self) -> None:
        """Let go of the snapshot."""
        self._db.close()

    def compare(self, fresh: Sequence[Path], tables: Iterable[str], findings: Findings) -> None:
        """Add a finding for every row and receipt that differs, and count the rows.

        `fresh`: files of views that are complete, of some partitions each; at most 10, as many as SQLite attaches.
        """
        for number, path in enumerate(fresh):
            self._db.execute("ATTACH ? AS ?", (f"{path.absolute().as_uri()}?mode=ro", f"fresh{number}"))
            self._fresh.append(f"fresh{number}")
        self._compare_receipts(findings)
        for table in tables:
            try:
                self._compare(table, findings)
            except sqlite3.Error as error:
                findings.add("table", f"{table} can not be compared: {error}")

    def _compare_receipts(self, findings: Findings) -> None:
        """The views were folded from the very records that the log holds now."""
        rebuilt = {place: receipt for fresh in self._fresh for place, receipt in self._positions(fresh).items()}
        for (projection, partition), (position, root) in sorted(self.positions.items()):
            if rebuilt.get((projection, partition), (0, b""))[0] == position and (
                rebuilt[projection, partition][1] != root
            ):
                message = f"{projection} was folded from other records than the log holds up to position {position}"
                findings.add("receipt", message, partition)

    def _compare(self, table: str, findings: Findings) -> None:
        info = self._db.execute(f"SELECT name, pk FROM pragma_table_info('{table}', 'fresh0') ORDER BY cid").fetchall()
        columns = [name for name, _ in info]
        key = [name for name, place in sorted(info, key=lambda row: row[1]) if place]
        others = [name for name in columns if name not in key]
        findings.rows[table] = self._db.execute(f"SELECT count(*) FROM main.{table}").fetchone()[0]
        same_key = " AND ".join(f"a.{name} = b.{name}" for name in key)
        selected = ", ".join(f"a.{name}" for name in columns)
        differs = [f"a.{name} IS NOT b.{name}" for name in others]

        def without(schemas: Iterable[str]) -> str:
            return " AND ".join(f"NOT EXISTS (SELECT 1 FROM {one}.{table} AS b WHERE {same_key})" for one in schemas)

        def tell(what: str, query: str) -> None:
            for row in self._db.execute(f"{query} LIMIT {FINDINGS_MAX + 1}"):
                changed = [name for name, is_other in zip(others, row[len(columns) :], strict=False) if is_other]
                message = _WHAT[what] + ", ".join(changed)
                self._add(what, table, dict(zip(columns, row, strict=False)), key, message, findings)

        tell("extra_row", f"SELECT {selected} FROM main.{table} AS a WHERE {without(self._fresh)}")
        for fresh in self._fresh:
            tell("missing_row", f"SELECT {selected} FROM {fresh}.{table} AS a WHERE {without(['main'])}")
            if others:
                both = f"main.{table} AS a JOIN {fresh}.{table} AS b ON {same_key}"
                tell("changed_row", f"SELECT {selected}, {', '.join(differs)} FROM {both} WHERE {' OR '.join(differs)}")

    @staticmethod
    def _add(what: str, table: str, row: dict[str, object], key: list[str], message: str, findings: Findings) -> None:
        names = ", ".join(f"{name} {_shown(row[name])}" for name in key)
        partition, position = row.get("partition"), row.get("position")
        findings.add(
            what,
            f"{table} ({names}) {message}",
            partition if isinstance(partition, int) else None,
            position if isinstance(position, int) else None,
        )


def _shown(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
