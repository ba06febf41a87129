"""Judges a run: what callers were told against what stands in the log, and the log against its own rules.

In the spirit of Jepsen and Elle: the history says what must be there, may be there and must not be there; the log is
the one order that explains it, or it is wrong. Every violation names its evidence.
"""

from __future__ import annotations

import traceback
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from session_ledger.domain.errors import LogCorrupt
from session_ledger.domain.ids import format_id
from session_ledger.ledger.log.port import Log, PartitionLog
from session_ledger.schemas.codec import Codec
from session_ledger.schemas.library import Library
from tests.chaos.history import History, Outcome, Try
from tests.domain.judge import Judge
from tests.ledger.support import Stored

SKEW_MAX_US = 60_000_000  # a writer whose clock is further off does not serve
SKEW_SLACK_US = 2_000_000  # what a busy machine adds between reading a clock and being heard
PROOF_AGE_NS = 1_000_000_000  # an answer without events may rest on a proof of ownership of this age
CONTROL = -1


@dataclass(frozen=True, slots=True)
class Violation:
    """`kind`: position, unreadable, batch, clock, doubled, split, lost, moved, answers, phantom, foreign, order, stale,
    rule; the runner adds its own."""

    kind: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


def read_whole(log: Log) -> tuple[list[Stored], list[Violation]]:
    """Every record of every partition, the control log's last, as far as each can be read."""
    found: list[Stored] = []
    broken: list[Violation] = []
    codec = Codec(Library())
    for partition in (*log.partitions, log.control):
        try:
            for one in _read(partition, codec):
                found.append(one)
        except LogCorrupt as error:
            broken.append(Violation("unreadable", f"partition {partition.partition}: {error}"))
    return found, broken


def _read(partition: PartitionLog, codec: Codec) -> Iterator[Stored]:
    after = 0
    while records := partition.read(after, 1000):
        for record in records:
            number, position = partition.partition, record.position
            event = codec.decode(record.value, record.topic, partition=number, position=position)
            if (record.originator_id, record.version) != (event.originator_id, event.version):
                raise LogCorrupt(f"position {position}: the frame names another event than the value")
            yield Stored(number, record, event)
        after = records[-1].position


def check(history: History, found: Sequence[Stored], *, wall_us_at_0: int | None = None) -> list[Violation]:
    """Every violation. `found`: the whole log, each partition in its order.

    `wall_us_at_0`: this machine's wall clock when its monotonic one stood at 0, microseconds since the epoch; None:
    recorded times are not held against it.
    """
    partitions: dict[int, list[Stored]] = defaultdict(list)
    commands: dict[str, list[Stored]] = defaultdict(list)
    for one in found:
        partitions[one.partition].append(one)
        if one.event.command_id is not None:
            commands[format_id(one.event.command_id)].append(one)
    tries = history.by_command()
    return [
        *(violation for records in partitions.values() for violation in _partition(records)),
        *_batches(partitions),
        *_events(found),
        *_whole_commands(commands),
        *_told(tries, commands),
        *_times(tries, commands, wall_us_at_0),
        *_order(tries, partitions, commands),
        *(violation for records in partitions.values() for violation in _rules(records)),
    ]


def _at(one: Stored) -> str:
    return f"{one.partition}:{one.record.position} {type(one.event).__name__}"


def _partition(records: list[Stored]) -> Iterator[Violation]:
    """Positions are 1, 2, 3, ...; the writers' time never goes back."""
    last_us = 0
    for expected, one in enumerate(records, 1):
        if one.record.position != expected:
            yield Violation("position", f"{_at(one)} stands where position {expected} belongs")
            break
    for one in records:
        if one.event.recorded_at < last_us:
            yield Violation("clock", f"{_at(one)} is recorded at {one.event.recorded_at}, after one at {last_us}")
        last_us = max(last_us, one.event.recorded_at)


def _batches(partitions: Mapping[int, list[Stored]]) -> Iterator[Violation]:
    """Each append stands in one run, in one partition, with one time."""
    seen: dict[bytes, str] = {}
    for records in partitions.values():
        for batch_id, run in groupby(records, key=lambda one: one.record.batch_id):
            batch = list(run)
            if batch_id in seen:
                yield Violation("batch", f"batch {batch_id.hex()} at {_at(batch[0])} and before at {seen[batch_id]}")
            seen[batch_id] = _at(batch[0])
            times = {one.event.recorded_at for one in batch}
            if len(times) > 1:
                yield Violation("batch", f"batch {batch_id.hex()} at {_at(batch[0])} has {len(times)} times")


def _events(found: Sequence[Stored]) -> Iterator[Violation]:
    """No event stands twice."""
    seen: dict[bytes, str] = {}
    for one in found:
        event_id = one.event.event_id
        if event_id in seen:
            yield Violation("doubled", f"event {format_id(event_id)} at {_at(one)} and before at {seen[event_id]}")
        seen[event_id] = _at(one)


def _whole_commands(commands: Mapping[str, list[Stored]]) -> Iterator[Violation]:
    """The events of a command stand next to each other, in one batch: it ran once."""
    for command_id, events in commands.items():
        places = ", ".join(map(_at, events))
        first = events[0]
        run = [(first.partition, first.record.position + number) for number in range(len(events))]
        if run != [(one.partition, one.record.position) for one in events]:
            yield Violation("doubled", f"the events of command {command_id} are not in one run: {places}")
        if len({one.record.batch_id for one in events}) > 1:
            yield Violation("split", f"command {command_id} stands in several batches: {places}")


def _told(tries: Mapping[str, list[Try]], commands: Mapping[str, list[Stored]]) -> Iterator[Violation]:
    """Acknowledged: there, at the place told, always the same one. Nothing recorded: not there."""
    for command_id, of_one in tries.items():
        events = commands.get(command_id, [])
        acknowledged = [one for one in of_one if one.outcome is Outcome.ACKNOWLEDGED]
        wrote = [one for one in acknowledged if one.wrote]
        if len({(one.partition, one.position) for one in wrote}) > 1:
            yield Violation("answers", f"{_of(of_one)}: repeats were told different places")
        if wrote and not events:
            yield Violation("lost", f"{_of(of_one)}: acknowledged, and not in the log")
        elif wrote:
            last = events[-1]
            if (last.partition, last.record.position) != (wrote[0].partition, wrote[0].position):
                yield Violation("moved", f"{_of(of_one)}: acknowledged elsewhere than at {_at(last)}")
        elif events and acknowledged:
            yield Violation("phantom", f"{_of(of_one)}: answered as a read, and stands at {_at(events[0])}")
        elif events and not _may_be_there(of_one):
            yield Violation("phantom", f"{_of(of_one)}: nothing was recorded, and it stands at {_at(events[0])}")
    for command_id, events in commands.items():
        if command_id not in tries and events[0].partition != CONTROL:  # the ledger publishes its schemas itself
            yield Violation("foreign", f"command {command_id} at {_at(events[0])} was never sent")


def _may_be_there(of_one: list[Try]) -> bool:
    """Whether a try is open: unknown, and not followed by a refusal, which was decided with all before it in sight."""
    last_refused = max((one.invoked_ns for one in of_one if one.outcome is Outcome.REFUSED), default=-1)
    return any(
        one.outcome is Outcome.UNKNOWN and (one.returned_ns is None or one.returned_ns > last_refused) for one in of_one
    )


def _of(of_one: list[Try]) -> str:
    told = "; ".join(
        f"{one.outcome} by {one.by or '?'} {one.invoked_ns}..{one.returned_ns} "
        + (f"at {one.partition}:{one.position}" if one.outcome is Outcome.ACKNOWLEDGED else f"{one.code} {one.text}")
        for one in of_one
    )
    return f"{of_one[0].what} {of_one[0].command_id} ({told})"


def _times(
    tries: Mapping[str, list[Try]], commands: Mapping[str, list[Stored]], wall_us_at_0: int | None
) -> Iterator[Violation]:
    """What is acknowledged was recorded by a clock that is not too far off."""
    if wall_us_at_0 is None:
        return
    for command_id, of_one in tries.items():
        for one in of_one:
            if one.wrote and one.returned_ns is not None and (events := commands.get(command_id)):
                at = events[-1].event.recorded_at - wall_us_at_0
                slack = SKEW_MAX_US + SKEW_SLACK_US
                if not of_one[0].invoked_ns // 1000 - slack <= at <= one.returned_ns // 1000 + slack:
                    off_s = (at - one.returned_ns // 1000) / 1_000_000
                    yield Violation("clock", f"{_at(events[-1])} is recorded by a clock {off_s:+.0f} s off")
                break


def _order(
    tries: Mapping[str, list[Try]], partitions: Mapping[int, list[Stored]], commands: Mapping[str, list[Stored]]
) -> Iterator[Violation]:
    """Real time: what was invoked after an acknowledgement stands, or sees, behind it."""
    acknowledged: dict[int, list[tuple[int, int, Try]]] = defaultdict(list)  # (when, position, by which)
    asked: dict[int, list[tuple[int, int, str, Try]]] = defaultdict(list)  # (when at the earliest, place, kind, by)
    for command_id, of_one in tries.items():
        events = commands.get(command_id)
        if events:
            first = events[0]
            asked[first.partition].append((of_one[0].invoked_ns, first.record.position, "order", of_one[0]))
        for one in of_one:
            if one.outcome is Outcome.ACKNOWLEDGED and one.returned_ns is not None:
                if one.wrote:
                    acknowledged[one.partition].append((one.returned_ns, one.position, one))
                else:
                    asked[one.partition].append((one.invoked_ns - PROOF_AGE_NS, one.position, "stale", one))
    for partition, questions in asked.items():
        end = len(partitions.get(partition, ()))
        answers = sorted(acknowledged[partition], key=lambda answer: answer[0])
        highest, at = (0, 0, None), 0
        best: tuple[int, int, Try | None] = highest
        for when, place, kind, by in sorted(questions, key=lambda question: question[0]):
            while at < len(answers) and answers[at][0] < when:
                best = max(best, answers[at], key=lambda answer: answer[1])
                at += 1
            behind = place > best[1] if kind == "order" else best[1] <= place <= end
            if not behind:
                before = "" if best[2] is None else _of([best[2]])
                message = f"{_of([by])} stands at {partition}:{place} of {end}, not behind {before}"
                yield Violation(kind, message)


def _rules(records: list[Stored]) -> Iterator[Violation]:
    """Limits, quotas, leases and versions, judged by the events alone; between appends nothing is half done."""
    judge, one = Judge(), records[0]
    try:
        for _, batch in groupby(records, key=lambda one: one.record.batch_id):
            for one in batch:
                judge.see(one.event)
            judge.after_an_append()
    except (AssertionError, KeyError) as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        yield Violation("rule", f"{_at(one)} breaks `{where.line}` ({where.name}): {one.event}")
