"""A report that can be filed: one HTML file that needs nothing else, and says what it rests on.

It names the ledger, the log, the position that it was read to, when it was made, by whom and why, and the SHA-256 of
what it shows as canonical JSON: the members of the document of `--json` that are named beside it, as one object, keys
sorted, no blanks, UTF-8.
"""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

Cell = object
_STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; color: #1a1a1a; margin: 2.5em auto; max-width: 74em; padding: 0 1.5em; }
h1 { font-size: 1.5em; margin: 0 0 .2em; } h2 { font-size: 1.1em; margin: 2em 0 .5em; }
p.lead { color: #555; margin: 0 0 1.5em; }
table { border-collapse: collapse; width: 100%; font-size: 13px; }
th, td { text-align: left; vertical-align: top; padding: .3em .7em .3em 0; border-bottom: 1px solid #ddd; }
th { font-weight: 600; border-bottom: 1px solid #888; } td:last-child { overflow-wrap: anywhere; }
table.facts th { width: 14em; border-bottom: 1px solid #ddd; font-weight: 400; color: #555; }
.number { text-align: right; font-variant-numeric: tabular-nums; } code { font: 12px ui-monospace, monospace; }
footer { margin-top: 3em; padding-top: 1em; border-top: 1px solid #888; color: #555; font-size: 12px; }
@media print { body { margin: 0; max-width: none; } tr { break-inside: avoid; } h2 { break-after: avoid; } }
"""


@dataclass(frozen=True, slots=True)
class Section:
    """A table under a heading."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True, slots=True)
class Report:
    """What a report says of itself, and shows."""

    title: str
    subject: str
    ledger: str
    log_id: str
    read_to: dict[int, int]
    """Partition to the position that it was read to."""
    made_at: datetime
    made_by: str
    reason: str | None
    sections: tuple[Section, ...]
    content: Mapping[str, object]
    """What the digest is of: these members of what `--json` writes."""


def digest_of(content: Mapping[str, object], default: Callable[[object], object]) -> str:
    """SHA-256 of the canonical JSON, in hex. `default`: what JSON does not know."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=default)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def render(report: Report, shown: Callable[[object], str], default: Callable[[object], object]) -> str:
    """The file. `shown`: a value as text for people; everything is escaped here."""

    def text(value: object) -> str:
        return html.escape(shown(value), quote=True)

    read_to = ", ".join(f"partition {number} to position {end:,}" for number, end in sorted(report.read_to.items()))
    about = [
        ("Subject", report.subject),
        ("Ledger", report.ledger),
        ("Log", report.log_id),
        ("Read", read_to),
        ("Made", report.made_at.astimezone(UTC)),
        ("By", report.made_by),
        ("Reason", report.reason or "none given"),
        (f"SHA-256 of {_members(report.content)}", digest_of(report.content, default)),
    ]
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{text(report.title)}</title>',
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>{text(report.title)}</h1><p class=lead>{text(report.subject)}</p>",
        "<table class=facts>",
        *(f"<tr><th>{text(name)}</th><td>{text(value)}</td></tr>" for name, value in about),
        "</table>",
    ]
    for section in report.sections:
        parts.append(f"<h2>{text(section.title)}</h2>")
        if not section.rows:
            parts.append("<p>None.</p>")
            continue
        heads = "".join(f"<th>{text(column)}</th>" for column in section.columns)
        parts.append(f"<table><thead><tr>{heads}</tr></thead><tbody>")
        for row in section.rows:
            cells = "".join(f"<td{_class(value)}>{text(value)}</td>" for value in row)
            parts.append(f"<tr>{cells}</tr>")
        parts.append("</tbody></table>")
    parts.append(
        "<footer>Every fact was read from the log itself. What people said is sealed: it is shown by its size. "
        "Whoever made this report is recorded in the ledger.</footer></body></html>"
    )
    return "\n".join(parts) + "\n"


def _members(content: Mapping[str, object]) -> str:
    """What the digest is of, in words."""
    return f"{' and '.join(sorted(content))} as canonical JSON"


def _class(value: object) -> str:
    return " class=number" if isinstance(value, int) and not isinstance(value, bool) else ""
