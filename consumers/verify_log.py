"""`verify --log`: the log, read again from position 1, against every checkpoint that was signed over it.

What stands before the largest signed size can not be changed, removed, inserted, reordered, doubled or cut off without
being found. That the ledger was put back to an earlier state, checkpoints and all, is found only by a checkpoint that
was kept elsewhere; what follows the last checkpoint is not protected, and the outcome says how much that is. The stored
trees are compared as well: nothing protects them, but who changes the log alone contradicts them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from session_ledger.consumers.findings import Findings
from session_ledger.consumers.leaves import Leaves
from session_ledger.consumers.tail import SHOWN_S
from session_ledger.domain.errors import (
    InvalidInput,
    LogCorrupt,
    LogUnavailable,
    Misconfigured,
    SessionLedgerError,
    UndecodableRecord,
)
from session_ledger.ledger.log.port import Log, PartitionLog, Record
from session_ledger.projections.merkle import REMEDY, Trees
from session_ledger.security.checkpoint import Checkpoint, origin_of
from session_ledger.security.merkle import Frontier
from session_ledger.security.signing import Verifier

READ_RECORDS = 4000
DIFFERS = ("gap", "undecodable", "changed", "truncated", "rolled_back", "forked")  # then a tree differs, too


@dataclass(frozen=True, slots=True)
class Shown:
    """A note that somebody holds. `where`: the ledger, or a file; `kept_outside`: not by the ledger itself."""

    note: str
    where: str
    kept_outside: bool
    partition: int | None = None
    """None: whatever its origin says."""


@dataclass(slots=True)
class LogFindings(Findings):
    """The outcome of `verify_log`."""

    checkpoints: dict[int, int] = field(default_factory=dict)
    """Partition to how many checkpoints were compared."""
    kept_outside: dict[int, int] = field(default_factory=dict)
    """Partition to how many of those were not kept by the ledger itself."""
    protected: dict[int, int] = field(default_factory=dict)
    """Partition to the size of the largest checkpoint that agrees; what follows it is not protected."""
    protected_outside: dict[int, int] = field(default_factory=dict)
    """Partition to the size of the largest one kept elsewhere that agrees; a rollback behind it is not detectable."""
    trees: dict[int, int] = field(default_factory=dict)
    """Partition to the size of its stored tree, where that agrees; it is not signed, so it protects nothing."""
    trees_unusable: str | None = None
    """Why no stored tree was compared, where there are some: they are of another log, or damaged."""
    views_unusable: str | None = None
    """Why the views did not tell what was quarantined, where there are some: likewise, or they can not be opened."""

    @property
    def uncompared(self) -> list[int]:
        """Partitions that have records, and no checkpoint that was compared."""
        return sorted(number for number, end in self.ends.items() if end and not self.checkpoints.get(number))


@dataclass(frozen=True, slots=True)
class _Signed:
    checkpoint: Checkpoint
    shown: Shown


def verify_log(
    log: Log,
    leaves: Leaves,
    verifier: Verifier | None,
    shown: Sequence[Shown],
    *,
    trees: Trees | None = None,
    on_progress: Callable[[int], None] = lambda records: None,
) -> LogFindings:
    """Compare the log with the checkpoints in `shown`, which `verifier`'s key must have signed (under any name).

    `verifier`: None only where there are none. `trees`: the stored ones, compared with the log as well, and by which
    the first bad position is found where they agree with a checkpoint. No owner is asked or needed, and nothing is
    written. Raises LogUnavailable.
    """
    findings = LogFindings()
    origins = {
        origin_of(log.name, partition.partition): partition.partition for partition in (log.control, *log.partitions)
    }
    signed: dict[int, list[_Signed]] = {number: [] for number in origins.values()}
    for one in shown:
        assert verifier is not None
        _sort_in(one, verifier, origins, signed, findings)
    for partition in (log.control, *log.partitions):
        _Comparison(partition, leaves, signed[partition.partition], trees, findings).run(on_progress)
    _say_unsigned(findings, shown)
    return findings


def _say_unsigned(findings: LogFindings, shown: Sequence[Shown]) -> None:
    """A finding where checkpoints must be missing: at all, or of a partition that the checkpointer has a tree of."""
    if not shown:
        stored = f"{len(findings.trees)} of {len(findings.ends)} partitions' stored trees agree, which are not signed"
        message = (
            f"no checkpoint was there to compare the log with, so it is not shown to be what was recorded ({stored}): "
            "the ledger's own were removed, or none was signed yet. `session-ledger checkpoint --once` signs; "
            "--mirror DIR compares with a mirror's"
        )
        findings.add("unsigned", message)
        return
    told = {one.partition for one in findings.findings}
    for partition in findings.trees.keys() & set(findings.uncompared) - told:
        message = (
            f"a tree of {findings.trees[partition]} records is stored, and no checkpoint of it is there: they were "
            "removed, or none was signed yet (`session-ledger checkpoint --once`)"
        )
        findings.add("unsigned", message, partition)


def _sort_in(
    one: Shown, verifier: Verifier, origins: Mapping[str, int], signed: dict[int, list[_Signed]], findings: LogFindings
) -> None:
    """A note to its partition; a finding where it is none, or is not signed by that key."""
    origin = one.note.partition("\n")[0]
    partition = origins.get(origin)
    if partition is None or one.partition not in (None, partition):
        what = "is none" if partition is None else f"is one of partition {partition}"
        findings.add("checkpoint", f"a checkpoint ({one.where}) {what} of this place: {origin[:100]!r}", one.partition)
        return
    try:
        checkpoint = Checkpoint.of_note(one.note, verifier.named(origin))
    except InvalidInput:
        message = f"a checkpoint ({one.where}) is not signed by {verifier.named(origin)}, or was changed since"
        findings.add("signature", message, partition)
        return
    signed[partition].append(_Signed(checkpoint, one))


class _Comparison:
    """One partition."""

    def __init__(
        self, log: PartitionLog, leaves: Leaves, signed: list[_Signed], trees: Trees | None, findings: LogFindings
    ) -> None:
        self._log, self._leaves, self._trees, self._findings = log, leaves, trees, findings
        self._partition = log.partition
        self._signed = sorted(signed, key=lambda one: one.checkpoint.size)
        leaves.signed[log.partition] = max((one.checkpoint.size for one in signed), default=0)
        self._stored, self._stored_root = self._stored_tree()

    def _stored_tree(self) -> tuple[int, bytes]:
        """Size and root of the stored tree before the log is read; (0, b"") where there is none."""
        if self._trees is None:
            return 0, b""
        try:
            with self._trees.reading(self._partition) as tree:
                return tree.size, tree.root()
        except (LogCorrupt, Misconfigured) as error:
            self._findings.add("tree", f"the stored tree can not be compared: {error}", self._partition)
            return 0, b""

    def run(self, on_progress: Callable[[int], None]) -> None:
        """Read to the end, note the root at every signed size, and compare."""
        findings, partition = self._findings, self._partition
        roots = self._roots(on_progress)
        end = findings.ends[partition]
        findings.checkpoints[partition] = len(self._signed)
        findings.kept_outside[partition] = sum(one.shown.kept_outside for one in self._signed)
        good = [one for one in self._signed if roots.get(one.checkpoint.size) == one.checkpoint.root]
        outside = [one.checkpoint.size for one in good if one.shown.kept_outside]
        findings.protected[partition] = good[-1].checkpoint.size if good else 0
        findings.protected_outside[partition] = max(outside, default=0)
        self._conflicts()
        self._judge(roots, end)
        self._judge_tree(roots, end)

    def _roots(self, on_progress: Callable[[int], None]) -> dict[int, bytes]:
        """Size to root, for every signed size that the log reaches, and the stored tree's."""
        findings, partition, frontier = self._findings, self._partition, Frontier()
        sizes = sorted({self._stored, *(one.checkpoint.size for one in self._signed)} - {0})
        roots = {0: frontier.root()}
        if sizes and self._log.end() < sizes[-1]:
            self._log.wait(sizes[-1] - 1, SHOWN_S)  # another broker may show it a moment later
        wanted, at = self._log.end(), 0
        try:
            while frontier.size < wanted and (records := self._log.read(frontier.size, READ_RECORDS)):
                hashes = self._leaves.hashes(partition, _dense(records, frontier.size, partition))
                done = 0
                while at < len(sizes) and sizes[at] <= frontier.size + len(hashes) - done:
                    upto = done + sizes[at] - frontier.size
                    frontier.extend(hashes[done:upto])
                    roots[sizes[at]], done, at = frontier.root(), upto, at + 1
                frontier.extend(hashes[done:])
                findings.records += len(hashes)
                on_progress(findings.records)
        except LogCorrupt as error:
            position = error.position or frontier.size + 1
            what = "undecodable" if isinstance(error, UndecodableRecord) else "gap"
            findings.add(what, f"the log can not be read further: {error}", partition, position)
        except LogUnavailable as error:
            position = getattr(error, "position", 0)
            if not position:
                raise
            findings.add("undecodable", str(error), partition, position)
        findings.ends[partition] = frontier.size
        return roots

    def _conflicts(self) -> None:
        """Two roots that the key signed for one size: somebody was shown another history."""
        first: dict[int, _Signed] = {}
        for one in self._signed:
            other = first.setdefault(one.checkpoint.size, one)
            if other.checkpoint.root != one.checkpoint.root:
                message = (
                    f"two histories are signed: over {one.checkpoint.size} records, root {other.checkpoint.root.hex()} "
                    f"({other.shown.where}) and root {one.checkpoint.root.hex()} ({one.shown.where})"
                )
                self._findings.add("forked", message, self._partition)

    def _judge(self, roots: Mapping[int, bytes], end: int) -> None:
        """What the checkpoints that the log does not bear out tell."""
        findings, partition = self._findings, self._partition
        good = max((one.checkpoint.size for one in self._signed if _agrees(one, roots)), default=0)
        for one in self._signed:
            size = one.checkpoint.size
            if size <= good and not _agrees(one, roots):
                message = (
                    f"a checkpoint over {size} records ({one.shown.where}) is signed and not of this log, although one "
                    f"over {good} is: "
                )
                if one.shown.kept_outside:
                    message += (
                        "another history was shown to whoever keeps it, or the ledger was put back and grew again"
                    )
                else:
                    message += "it was replaced"
                findings.add("forked" if one.shown.kept_outside else "checkpoint", message, partition)
        changed = [one for one in self._signed if good < one.checkpoint.size <= end and not _agrees(one, roots)]
        if changed:
            self._changed(changed, good)
        beyond = [one for one in self._signed if one.checkpoint.size > end]
        if beyond:
            last = beyond[-1]
            unknown = all(one.shown.kept_outside for one in beyond)
            known = " and the ledger's own checkpoints know nothing of it" if unknown else ""
            message = (
                f"the log ends at {end}, a checkpoint over {last.checkpoint.size} records is signed "
                f"({last.shown.where}){known}"
            )
            findings.add("rolled_back" if unknown else "truncated", message, partition, end + 1)

    def _judge_tree(self, roots: Mapping[int, bytes], end: int) -> None:
        """What the stored tree tells that no checkpoint has told."""
        findings, partition, size = self._findings, self._partition, self._stored
        told = any(one.partition == partition and one.what in DIFFERS for one in findings.findings)
        if size and roots.get(size) == self._stored_root:
            findings.trees[partition] = size
        elif size and not told:
            good, position = findings.protected[partition], None
            if end < size:
                what, position = f"the log ends at {end}: it was cut off, or put back to an earlier state", end + 1
            elif (position := self._first_other(good, size)) is not None:
                what = f"position {position} is the first that differs; no checkpoint tells which one was changed"
            else:
                what = f"it is the tree that was damaged or changed: {REMEDY}"
            message = f"the stored tree of {size} records (merkle.db) is not of this log: {what}"
            findings.add("tree", message, partition, position)

    def _changed(self, changed: Sequence[_Signed], good: int) -> None:
        first = changed[0]
        size, more = first.checkpoint.size, len(changed) - 1
        position = self._first_bad(first.checkpoint, good)
        where = f"position {position} is the first" if position else f"it is between positions {good + 1} and {size}"
        rest = f", nor do {more} later ones" if more else ""
        message = (
            f"the log is not what was signed: a record was changed, removed, inserted, moved or doubled, or the log "
            f"was rolled back and grew again; the checkpoint over {size} records ({first.shown.where}) does not agree"
            f"{rest}; {where}"
        )
        findings, what = self._findings, "changed"
        if all(one.shown.kept_outside for one in changed):
            inside = any(not one.shown.kept_outside for one in self._signed)
            what = "forked" if inside else "changed"
        findings.add(what, message, self._partition, position or good + 1)

    def _first_bad(self, checkpoint: Checkpoint, good: int) -> int | None:
        """The first position whose leaf is not the stored one; None where no stored tree bears the checkpoint out."""
        return self._first_other(good, checkpoint.size, checkpoint.root)

    def _first_other(self, good: int, size: int, root: bytes | None = None) -> int | None:
        """The first position after `good` and up to `size` that is not the stored tree's, whose root `root` must be."""
        if self._trees is None:
            return None
        with self._trees.reading(self._partition) as tree:
            try:
                if tree.size < size or root not in (None, tree.root(size)):
                    return None
                for position, found in self._hashes(good, size):
                    if tree.leaf(position - 1) != found:
                        return position
            except SessionLedgerError:
                return None  # the stored nodes are of no help; the log's own error is a finding already
        return None

    def _hashes(self, after: int, to: int) -> Iterator[tuple[int, bytes]]:
        while after < to and (records := self._log.read(after, min(READ_RECORDS, to - after))):
            for record, found in zip(records, self._leaves.hashes(self._partition, records), strict=True):
                yield record.position, found
            after = records[-1].position


def _agrees(one: _Signed, roots: Mapping[int, bytes]) -> bool:
    return roots.get(one.checkpoint.size) == one.checkpoint.root


def _dense(records: Sequence[Record], after: int, partition: int) -> Sequence[Record]:
    for expected, record in enumerate(records, after + 1):
        if record.position != expected:
            error = LogCorrupt(f"partition {partition}: position {record.position} stands where {expected} belongs")
            error.position = expected
            raise error
    return records
