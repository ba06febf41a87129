"""Checksums of tables: the same rows, in whatever order, give the same."""

from __future__ import annotations

import duckdb

TABLES = ("events", "positions")


def checksums(connection: duckdb.DuckDBPyConnection) -> dict[str, tuple[int, str]]:
    """Table to (rows, sum of the rows' 64-bit hashes modulo 2^64, in hex). Not against forgery: against mistakes."""
    found = {}
    for name in TABLES:
        rows = connection.execute(f"SELECT count(*), coalesce(sum(hash({name})::HUGEINT), 0) FROM {name}").fetchall()
        found[name] = rows[0][0], f"{rows[0][1] % 2**64:016x}"
    return found
