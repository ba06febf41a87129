"""`session-ledger tail`: the log itself, fact by fact."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Annotated

import typer

from session_ledger.cli.options import AsJson, Url

if TYPE_CHECKING:
    from session_ledger.domain.events import Event
    from session_ledger.ledger.log.port import Log, PartitionLog
    from session_ledger.schemas.codec import Codec

READ_RECORDS = 500
WAIT_S = 0.2  # for news, all partitions together
VALUE_CHARACTERS = 60  # of a value in a line for people; --json has the whole
HIDDEN = "SchemaPublished"  # twenty long texts at the start of every control log
_SHARED = ("type", "event_id", "tenant", "user", "version", "recorded_at", "command_id", "command_digest", "session_id")


def tail(
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is recorded from now, until stopped.")
    ] = False,
    start: Annotated[
        int | None,
        typer.Option("--from", metavar="POSITION", min=1, show_default=False, help="Begin there. Default: at 1."),
    ] = None,
    last: Annotated[
        int | None,
        typer.Option(
            "--last", "-n", metavar="N", min=0, show_default=False, help="Begin N facts before each partition's end."
        ),
    ] = None,
    types: Annotated[
        list[str] | None,
        typer.Option(
            "--type", metavar="NAME", show_default=False, help="Only these, such as MessageAdded; several times."
        ),
    ] = None,
    partition: Annotated[
        int | None,
        typer.Option(metavar="NUMBER", min=-1, show_default=False, help="Only this one; -1: the control log."),
    ] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Read the log and print its facts, one a line, the oldest first.

    What people said stays sealed: its size is shown. With --json the whole fact, sealed fields in base64. Published
    schemas are left out unless --type SchemaPublished asks for them.
    """
    from session_ledger.cli.opening import open_reader, url_of
    from session_ledger.cli.signals import until_stopped
    from session_ledger.domain.errors import InvalidInput

    wanted = _event_types(types)
    if start is not None and last is not None:
        raise InvalidInput("--last", "together with --from", "name one of them")
    with open_reader(url_of(url)) as (log, codec):
        chosen = _partitions(log, partition)
        after = {p.partition: (start - 1 if start else 0) if last is None else max(p.end() - last, 0) for p in chosen}
        printer = _Printer(codec, wanted, as_json)
        for _, found in heapq.merge(*(_facts(p, after, codec) for p in chosen), key=itemgetter(0)):
            printer.show(*found)
        if follow:
            with until_stopped() as stop:
                printer.flush()
                while not stop.is_set():
                    if not _news(chosen, after, printer):
                        any(p.wait(after[p.partition], WAIT_S / len(chosen)) for p in chosen)
        printer.flush()
    raise typer.Exit(1 if printer.unreadable else 0)


Found = tuple["PartitionLog", int, "Event | None", str]
"""Partition, position, the event, or None and why it can not be read."""


def _facts(partition: PartitionLog, after: dict[int, int], codec: Codec) -> Iterator[tuple[int, Found]]:
    """(recorded at, what is there) up to the end as it is now; `after` moves along."""
    number, end, recorded_at = partition.partition, partition.end(), 0
    while after[number] < end and (records := partition.read(after[number], min(READ_RECORDS, end - after[number]))):
        for record in records:
            found = _decoded(partition, codec, record.value, record.topic, record.position)
            after[number] = record.position
            recorded_at = found[2].recorded_at if found[2] is not None else recorded_at
            yield recorded_at, found


def _decoded(partition: PartitionLog, codec: Codec, value: bytes, topic: str, position: int) -> Found:
    from session_ledger.domain.errors import UndecodableRecord

    try:
        return partition, position, codec.decode(value, topic, partition=partition.partition, position=position), ""
    except UndecodableRecord as error:
        return partition, position, None, error.reason


def _news(chosen: Sequence[PartitionLog], after: dict[int, int], printer: _Printer) -> bool:
    found = False
    for partition in chosen:
        for _, fact in _facts(partition, after, printer.codec):
            printer.show(*fact)
            found = True
    if found:
        printer.flush()
    return found


def _partitions(log: Log, number: int | None) -> list[PartitionLog]:
    from session_ledger.domain.errors import InvalidInput

    if number is None:
        return [log.control, *log.partitions]
    if number >= len(log.partitions):
        raise InvalidInput("--partition", str(number), f"must be -1 (control) to {len(log.partitions) - 1}")
    return [log.control if number < 0 else log.partitions[number]]


def _event_types(names: list[str] | None) -> frozenset[str] | None:
    from session_ledger.domain.errors import InvalidInput
    from session_ledger.domain.events import EVENT_TYPES

    known = {cls.__name__ for cls in EVENT_TYPES}
    unknown = sorted(set(names or ()) - known)
    if unknown:
        raise InvalidInput("--type", unknown[0][:60], f"must be one of {', '.join(sorted(known))}")
    return frozenset(names) if names else None


class _Printer:
    """Writes facts; counts what can not be read."""

    def __init__(self, codec: Codec, types: frozenset[str] | None, as_json: bool) -> None:
        import sys

        from session_ledger.cli.output import terminal_columns

        self.codec = codec
        self.unreadable = 0
        self._types = types
        self._as_json = as_json
        self._columns = terminal_columns()
        self._out = sys.stdout

    def show(self, partition: PartitionLog, position: int, event: Event | None, reason: str) -> None:
        """One fact."""
        from session_ledger.cli.output import clean, json_line, say
        from session_ledger.schemas.present import present

        place: dict[str, object] = {"partition": partition.partition, "position": position}
        if event is None:
            self.unreadable += 1
            self._line(
                json_line(place | {"unreadable": reason}),
                f"{partition.partition}:{position}  UNREADABLE: {clean(reason)}",
            )
            return
        name = type(event).__name__
        if name not in self._types if self._types is not None else name == HIDDEN:
            return
        fact = present(event)
        if self._as_json:
            say(json_line(place | fact))
            return
        self._line("", f"{f'{partition.partition}:{position}':<8} {fact_line(fact)}")

    def _line(self, for_machines: str, for_people: str) -> None:
        if self._as_json:
            self._out.write(for_machines + "\n")
            return
        if self._columns is not None and len(for_people) > self._columns:
            for_people = for_people[: self._columns - 1] + "…"
        self._out.write(for_people + "\n")

    def flush(self) -> None:
        """Give readers of a pipe what there is."""
        self._out.flush()


def details_of(fact: Mapping[str, object]) -> str:
    """The fields that say something, beside those that all facts have; a sealed one as its size."""
    return " ".join(
        f"{name.removeprefix('sealed_')}={_value(name, value)}"
        for name, value in fact.items()
        if name not in _SHARED and name not in ("key_id", "key_commitment") and value not in (None, {}, [], "")
    )


def fact_line(fact: Mapping[str, object]) -> str:
    """Time, type, whose, session, then the details."""
    from session_ledger.cli.output import clean

    whose = f"{fact['tenant']}/{fact['user']}" if fact["user"] else str(fact["tenant"])
    session = fact.get("session_id") or "-"
    moment = str(fact["recorded_at"]).replace("T", " ")[:23]
    return clean(f"{moment}  {fact['type']:<15} {whose}  {session}  {details_of(fact)}")


def _value(name: str, value: object) -> str:
    import base64

    from session_ledger.cli.output import json_line

    if name.startswith("sealed_"):
        return f"<{len(base64.b64decode(str(value)))} bytes sealed>"
    text = value if isinstance(value, str) else json_line(value)
    return text if len(text) <= VALUE_CHARACTERS else text[: VALUE_CHARACTERS - 1] + "…"
