"""The outcome of `verify` as a text that can be signed and filed: one fact a line, the same for the same outcome."""

from __future__ import annotations

from datetime import UTC, datetime

from session_ledger.consumers.findings import Findings

TITLE = "session-ledger verify v1"


def summary_of(findings: Findings, ledger: str, log_id: str, made_at: datetime) -> str:
    """The lines: whose log, when, how far it was read, what was compared, every finding that is kept, the result."""
    lines = [TITLE, f"ledger {_line(ledger)}", f"log {_line(log_id)}"]
    lines.append(f"made {made_at.astimezone(UTC).isoformat(timespec='seconds').replace('+00:00', 'Z')}")
    lines.append(f"records {findings.records}")
    if findings.begun is not None:
        lines.append(f"resumed {findings.resumed} records read from {findings.begun} on")
    for partition, end in sorted(findings.ends.items()):
        compared = findings.compared.get(partition, 0)
        name = "control" if partition < 0 else f"partition {partition}"
        lines.append(f"{name} read to {end}, compared to {compared}")
    lines += [f"table {_line(table)} {rows}" for table, rows in sorted(findings.rows.items())]
    lines += [f"finding {_line(str(finding))}" for finding in findings.findings]
    lines.append(f"findings {len(findings.findings) + findings.more}")
    lines.append(f"result {'agrees' if findings.ok else 'differs'}")
    return "\n".join(lines) + "\n"


def _line(text: str) -> str:
    """Whatever it holds, on one line."""
    return " ".join(text.split())
