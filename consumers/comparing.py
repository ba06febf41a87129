"""Compares the tables of two files of views, row for row, in both directions, in bounded memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

from session_ledger.consumers.findings import FINDINGS_MAX, Findings

_WHAT = {"extra_row": "stands in the views, the log does not give it", "missing_row": "is missing in the views"}


class Comparison:
    """A snapshot of the views under test, to be compared with fresh ones that are built meanwhile."""

    def __init__(self, views: str, fresh: str) -> None:
        """Both are paths. The snapshot of `views` is taken now; `fresh` is read when it is compared."""
        self._db = sqlite3.connect(f"{Path(views).absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        try:
            self._db.execute("ATTACH ? AS fresh", (f"{Path(fresh).absolute().as_uri()}?mode=ro",))
            self._db.execute("BEGIN")
            self.positions: dict[tuple[str, int], tuple[int, int, bytes]] = {
                (projection, partition): (position, count, root)
                for projection, partition, position, count, root in self._db.execute(
                    "SELECT projection, partition, position, count, root FROM main.positions"
                )
            }
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Let go of the snapshot."""
        self._db.close()

    def compare(self, tables: Iterable[str], findings: Findings) -> None:
        """Add a finding for every row that differs, and count the rows."""
        for table in tables:
            try:
                self._compare(table, findings)
            except sqlite3.Error as error:
                findings.add("table", f"{table} can not be compared: {error}")

    def _compare(self, table: str, findings: Findings) -> None:
        info = self._db.execute(f"SELECT name, pk FROM pragma_table_info('{table}', 'fresh') ORDER BY cid").fetchall()
        columns = [name for name, _ in info]
        key = [name for name, place in sorted(info, key=lambda row: row[1]) if place]
        others = [name for name in columns if name not in key]
        findings.rows[table] = self._db.execute(f"SELECT count(*) FROM main.{table}").fetchone()[0]
        same_key = " AND ".join(f"a.{name} = b.{name}" for name in key)
        for what, here, there in (("extra_row", "main", "fresh"), ("missing_row", "fresh", "main")):
            rows = self._db.execute(
                f"SELECT {', '.join(f'a.{name}' for name in columns)} FROM {here}.{table} AS a"
                f" WHERE NOT EXISTS (SELECT 1 FROM {there}.{table} AS b WHERE {same_key}) LIMIT {FINDINGS_MAX + 1}"
            )
            for row in rows:
                self._add(what, table, dict(zip(columns, row, strict=True)), key, _WHAT[what], findings)
        if not others:
            return
        differs = [f"a.{name} IS NOT b.{name}" for name in others]
        rows = self._db.execute(
            f"SELECT {', '.join(f'a.{name}' for name in columns)}, {', '.join(differs)}"
            f" FROM main.{table} AS a JOIN fresh.{table} AS b ON {same_key} WHERE {' OR '.join(differs)}"
            f" LIMIT {FINDINGS_MAX + 1}"
        )
        for row in rows:
            changed = [name for name, is_other in zip(others, row[len(columns) :], strict=True) if is_other]
            message = f"is not what the log gives: {', '.join(changed)}"
            self._add("changed_row", table, dict(zip(columns, row, strict=False)), key, message, findings)

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
