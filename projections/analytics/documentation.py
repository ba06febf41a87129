"""Makes docs/sql.md from the comments in the database: `python -m session_ledger.projections.analytics.documentation`.

With `--write` it is written anew; without, exit code 1 says that it is stale.
"""

from __future__ import annotations

import sys
from pathlib import Path

import duckdb

from session_ledger.projections.analytics.described import Described, described
from session_ledger.projections.analytics.snapshots import VIEWS
from session_ledger.projections.analytics.store import script

DOCS = Path(__file__).resolve().parent.parent.parent / "docs" / "sql.md"

HEAD = """# SQL

What `session-ledger sql` is asked with; made from the comments in the database itself (`session-ledger sql --schema`
shows the same). The dialect is DuckDB's. Names are an interface: columns, views and macros are added, never renamed or
given another meaning; what is withdrawn stays for a version and is named in the changelog.

`session-ledger project` brings every event into the database and publishes snapshots; every query reads the newest one,
and says on stderr how old it is and up to which positions it goes. A query can not write, reach another file or the
network, or change a setting. Times are UTC, ids UUIDs, amounts exact decimals.

## What was said

Contents are sealed. `reveal(content)` in the *result* of a query shows them:

    session-ledger sql "SELECT message_number, role, reveal(content) AS said FROM messages
                        WHERE session_id = $session ORDER BY 1" \\\\
        --param session=0192b3c4-... --reason "case 1742"

The ledger's owner records one ContentRevealed a session and query (who, why, how many fields) before anything is
opened; where it can not be reached nothing is. Only the rows of the result are opened, so a filter on what was said is
not possible. NULL stands where a key is gone. The fact says that somebody asked, and how much: whether a key still
opens it is seen afterwards, so a fact can stand for content that no key opened any more. The reason stays readable:
name a case, not a person. With `encryption = "none"` contents are not sealed, and `content` shows them to whoever reads
the database.
"""


def connection() -> duckdb.DuckDBPyConnection:
    """An empty database with everything in it."""
    db = duckdb.connect()
    for name in ("schema.sql", *VIEWS):
        db.execute(script(name))
    return db


def render() -> str:
    """The whole document."""
    with connection() as db:
        found = described(db)
    sections = [HEAD.replace("\\\\", "\\")]
    titles = {"table": "Tables", "view": "Views", "macro": "Macros", "table macro": "Table macros"}
    for kind, title in titles.items():
        of_kind = [one for one in found if one.kind == kind]
        if of_kind:
            sections.append(f"## {title}\n")
            sections += map(_section, of_kind)
    return "\n".join(sections)


def _section(one: Described) -> str:
    lines = [f"### {one.name}{one.parameters}\n", f"{one.comment}\n"]
    if one.columns:
        lines += ["| column | type | what it is |", "|---|---|---|"]
        lines += [f"| `{column.name}` | {_type(column.type)} | {column.comment} |" for column in one.columns]
        lines.append("")
    return "\n".join(lines)


def _type(name: str) -> str:
    return "STRUCT" if name.startswith("STRUCT") else name.replace("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ")


def main() -> int:
    """Write the document, or say whether it is stale."""
    if "--write" in sys.argv[1:]:
        DOCS.write_text(render(), encoding="utf-8")
    if not DOCS.exists() or DOCS.read_text(encoding="utf-8") != render():
        print(f"{DOCS.name} is stale; write it anew with --write")
        return 1
    print(f"{DOCS.name} says what the database does")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
