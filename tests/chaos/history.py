"""A history: for every try of a command when it was invoked, when it returned, and what its caller was told.

Each process appends to a file of its own, a line before the command goes out and a line when its answer is there, so
what a killed process knew is kept. Times are CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from session_ledger.domain import errors
from session_ledger.domain.commands import Command
from session_ledger.domain.errors import SessionLedgerError
from session_ledger.domain.ids import format_id
from session_ledger.domain.results import QuotaReport, QuotaStatus, Result, SessionStarted
from session_ledger.ledger import wire


class Outcome(StrEnum):
    """What a caller knows when a try has returned."""

    ACKNOWLEDGED = "acknowledged"  # recorded, at the place that was told (or a read, answered at that position)
    REFUSED = "refused"  # decided, and the state said no: nothing of this command is recorded
    FAILED = "failed"  # this try recorded nothing; what an earlier one did is not told
    UNKNOWN = "unknown"  # all of it is recorded or nothing


_FAILED = (
    errors.Overloaded,
    errors.NotOwner,
    errors.LedgerClosed,
    errors.AppendFailed,
    errors.ClockUnreliable,
    errors.LogUnavailable,
    errors.KeyNotStored,
    errors.CommandTooOld,
    errors.CommandTooEarly,
)
_REFUSED = (
    errors.SessionNotFound,
    errors.SessionNotActive,
    errors.SessionLimitReached,
    errors.QuotaExceeded,
    errors.QuotaNotSet,
    errors.ReservationNotOpen,
    errors.TooManyReservations,
    errors.AgentTypeUnknown,
    errors.NoAgentAvailable,
    errors.AgentNotFound,
    errors.AgentNotHeld,
    errors.AgentBusy,
)
_DEFECTS = ("stopped: ", "the shard failed", "could not be decided", "could not be made")  # in the texts of errors


@dataclass(frozen=True, slots=True)
class Try:
    """One try of a command. `position` is the last of its events, or where a read was answered."""

    command_id: str
    what: str
    invoked_ns: int
    returned_ns: int | None = None
    """None: its process died first."""
    outcome: Outcome = Outcome.UNKNOWN
    partition: int = -1
    position: int = 0
    wrote: bool = False
    """Acknowledged with events; False: a read, or a session that was reused."""
    code: str = ""
    text: str = ""
    by: str = ""
    frame: str = field(default="", repr=False)
    """The command as it goes over the wire, in hex: what a repeat sends."""

    def command(self) -> Command:
        """The command itself, to be repeated."""
        _, kind, body = wire.decode_frame(bytes.fromhex(self.frame)[4:])
        command = wire.decode_request(kind, body)
        assert isinstance(command, Command)
        return command


@dataclass(slots=True)
class History:
    """All tries, and what went wrong beside them (`problems`: an error that no fault excuses)."""

    tries: list[Try] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def by_command(self) -> Mapping[str, list[Try]]:
        """Every command's tries, in the order in which they were invoked."""
        found: dict[str, list[Try]] = defaultdict(list)
        for one in sorted(self.tries, key=lambda one: one.invoked_ns):
            found[one.command_id].append(one)
        return found

    def unsettled(self) -> list[Try]:
        """The last try of every command of which it is not known whether it is recorded."""
        return [tries[-1] for tries in self.by_command().values() if not _settled(tries)]


def _settled(tries: list[Try]) -> bool:
    """Whether an answer came that decides; a failed repeat says nothing of the try before it."""
    decided = (Outcome.ACKNOWLEDGED, Outcome.REFUSED)
    known = [one.outcome for one in tries if one.outcome is not Outcome.FAILED]
    return not known or known[-1] in decided


class Recorder:
    """Writes one process's lines to a file descriptor. Thread-safe."""

    def __init__(self, output: int, by: str = "") -> None:
        self._output, self._by = output, by
        self._numbers = itertools.count(time.monotonic_ns())  # unique also among the processes that share a file

    def line(self, **fields: object) -> None:
        """One line, in one write."""
        os.write(self._output, (json.dumps(fields) + "\n").encode())

    def problem(self, text: str) -> None:
        """Something that must not happen under any fault."""
        self.line(do="problem", text=f"{self._by}: {text}")

    @contextmanager
    def trying(self, command: Command) -> Iterator[Answer]:
        """One try: the answer's `result` is set inside, errors of the ledger are noted and end here."""
        assert command.command_id is not None
        number, answer = next(self._numbers), Answer()
        name, frame = format_id(command.command_id), wire.encode_command(0, command).hex()
        what = type(command).__name__
        self.line(do="invoke", number=number, id=name, what=what, at=time.monotonic_ns(), frame=frame, by=self._by)
        try:
            yield answer
        except SessionLedgerError as error:
            answer.error = error
            answer.outcome = _outcome(error)
        told: dict[str, object] = {"do": "return", "number": number, "at": time.monotonic_ns()}
        if answer.result is not None:
            answer.outcome = Outcome.ACKNOWLEDGED
            told |= {"partition": answer.result.partition, "position": answer.result.position}
            told["wrote"] = _wrote(what, answer.result)
        if answer.error is not None:
            told |= {"code": answer.error.code, "text": str(answer.error)}
        self.line(**told, outcome=answer.outcome)


@dataclass(slots=True)
class Answer:
    """What came of a try."""

    result: Result | None = None
    error: SessionLedgerError | None = None
    outcome: Outcome = Outcome.UNKNOWN


def _outcome(error: SessionLedgerError) -> Outcome:
    if isinstance(error, _REFUSED):
        return Outcome.REFUSED
    return Outcome.FAILED if isinstance(error, _FAILED) else Outcome.UNKNOWN


def _wrote(what: str, result: Result) -> bool:
    if isinstance(result, SessionStarted):
        return result.created
    return not isinstance(result, QuotaReport) and not (isinstance(result, QuotaStatus) and what == "CheckQuota")


def _is_problem(outcome: Outcome, code: str, text: str) -> bool:
    """An error that no fault of this suite excuses: a defect, corruption, an id that was used twice."""
    unknown = outcome is Outcome.UNKNOWN and code not in ("", errors.OutcomeUnknown.code)
    return unknown or any(words in text for words in _DEFECTS)


def parse(lines: Iterable[str]) -> History:
    """The history that these lines tell. A line that was cut off by a kill is passed over."""
    history, under_way = History(), dict[int, Try]()
    for line in lines:
        if not line.endswith("}\n"):
            continue
        told: dict[str, Any] = json.loads(line)
        if told["do"] == "problem":
            history.problems.append(told["text"])
        elif told["do"] == "invoke":
            under_way[told["number"]] = Try(told["id"], told["what"], told["at"], by=told["by"], frame=told["frame"])
        else:
            code, text, outcome = told.get("code", ""), told.get("text", ""), Outcome(told["outcome"])
            done = replace(
                under_way.pop(told["number"]),
                returned_ns=told["at"],
                outcome=outcome,
                partition=told.get("partition", -1),
                position=told.get("position", 0),
                wrote=told.get("wrote", False),
                code=code,
                text=text,
            )
            history.tries.append(done)
            if _is_problem(outcome, code, text):
                history.problems.append(f"{done.by}: {done.what} {done.command_id} was answered {code}: {text}")
    history.tries.extend(under_way.values())  # nobody lived to hear the answer
    return history


def read(files: Iterable[Path]) -> History:
    """The history of all these files."""
    whole = History()
    for path in files:
        with path.open(encoding="utf-8", newline="\n") as lines:
            one = parse(lines)
        whole.tries += one.tries
        whole.problems += one.problems
    return whole
