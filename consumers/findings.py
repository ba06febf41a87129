"""What a check of a ledger found."""

from __future__ import annotations

from dataclasses import dataclass, field

FINDINGS_MAX = 1000  # kept; what comes after is counted


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it must be.

    `what`: gap, undecodable, quarantined, framing, partition, clock, version, event_id, batch, session, limit, quota,
    agent, fold (records that do not fit together), lost (an acknowledged position that the log does not have), changed
    (since an interrupted check read it), or of the views: receipt, ahead, position, missing_row, extra_row,
    changed_row, table, foreign.
    """

    what: str
    message: str
    partition: int | None = None
    position: int | None = None

    def __str__(self) -> str:
        where = "" if self.partition is None else f"partition {self.partition}"
        where += "" if self.position is None else f", position {self.position}"
        return f"{self.what}: {where + ': ' if where else ''}{self.message}"


@dataclass(slots=True)
class Findings:
    """The outcome of `verify`. `ok`: nothing was found."""

    records: int = 0
    """Records of the log that were read."""
    resumed: int = 0
    """How many of them an earlier check had read, which was interrupted and went on with this one."""
    begun: str | None = None
    """When that one began (ISO 8601, UTC); None: nothing was resumed."""
    rows: dict[str, int] = field(default_factory=dict)
    """Table to the rows of the views that were compared."""
    ends: dict[int, int] = field(default_factory=dict)
    """Partition to the last position that was read."""
    compared: dict[int, int] = field(default_factory=dict)
    """Partition to the position at which the views were compared; the records after it are not in the views yet."""
    findings: list[Finding] = field(default_factory=list)
    more: int = 0
    """Findings beyond those that are kept."""

    @property
    def ok(self) -> bool:
        """Nothing was found."""
        return not self.findings

    def add(self, what: str, message: str, partition: int | None = None, position: int | None = None) -> None:
        """Keep a finding, or count it; one that is there already is the same one."""
        finding = Finding(what, message, partition, position)
        if len(self.findings) >= FINDINGS_MAX:
            self.more += 1
        elif finding not in self.findings:
            self.findings.append(finding)
