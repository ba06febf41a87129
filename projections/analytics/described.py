"""What there is in the analytics database, as its own comments say it."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table or view."""

    name: str
    type: str
    comment: str


@dataclass(frozen=True, slots=True)
class Described:
    """A table, a view, a macro, or a table macro."""

    kind: str
    name: str
    parameters: str
    """Of a macro: ``(since, until, ...)``; else empty."""
    comment: str
    columns: tuple[Column, ...] = ()


def described(connection: duckdb.DuckDBPyConnection) -> list[Described]:
    """Tables, then views, then macros, by name."""
    found: list[Described] = []
    for kind, source in (("table", "duckdb_tables()"), ("view", "duckdb_views()")):
        named = connection.execute(
            f"SELECT {kind}_name, comment FROM {source} WHERE NOT internal AND NOT temporary ORDER BY 1"
        ).fetchall()
        for name, comment in named:
            columns = connection.execute(
                "SELECT column_name, data_type, comment FROM duckdb_columns() WHERE table_name = ? AND NOT internal"
                " ORDER BY column_index",
                [name],
            ).fetchall()
            described_columns = tuple(Column(column, kind_of, said or "") for column, kind_of, said in columns)
            found.append(Described(kind, name, "", comment or "", described_columns))
    macros = connection.execute(
        "SELECT function_type, function_name, any_value(parameters), any_value(comment) FROM duckdb_functions()"
        " WHERE NOT internal AND function_type IN ('macro', 'table_macro') GROUP BY ALL ORDER BY 1, 2"
    ).fetchall()
    for kind, name, parameters, comment in macros:
        found.append(Described(kind.replace("_", " "), name, f"({', '.join(parameters)})", comment or ""))
    return found
