"""What a caller is told when everything that a decision rests on is durable."""

from __future__ import annotations

import copy
from dataclasses import replace

from session_ledger.domain.decide import Decision, result_of
from session_ledger.domain.errors import LogUnavailable, OutcomeUnknown, SessionLedgerError
from session_ledger.domain.ids import format_id
from session_ledger.domain.results import Result
from session_ledger.ledger.log.port import PartitionLog
from session_ledger.ledger.pending import Outcome, Pending
from session_ledger.schemas.codec import Codec


def outcome_of(log: PartitionLog, codec: Codec, pending: Pending, decision: Decision, position: int) -> Outcome:
    """The result of a decision whose last event stands at `position`, or its error."""
    if decision.error is not None:
        return error_for(pending, decision.error)
    try:
        return _result(log, codec, pending, decision, position)
    except SessionLedgerError as error:
        return error_for(pending, error)
    except Exception as error:  # noqa: BLE001 - it is recorded, and the others' answers must go out
        return error_for(pending, OutcomeUnknown(f"recorded, but its answer could not be made: {error!r}"))


def _result(log: PartitionLog, codec: Codec, pending: Pending, decision: Decision, position: int) -> Result:
    partition = log.partition
    if decision.result is not None:
        return replace(decision.result, partition=partition, position=position)
    if decision.repeat is None:
        return result_of(pending.prepared.command, decision.events, partition, position)
    first, count = decision.repeat
    events = [
        codec.decode(record.value, record.topic, partition=partition, position=record.position)
        for record in log.read(first - 1, count)
    ]
    return replace(result_of(pending.prepared.command, events, partition, first + count - 1), repeated=True)


def error_for(pending: Pending, error: SessionLedgerError) -> SessionLedgerError:
    """The error for one of several commands: a copy that carries its command id."""
    own = copy.copy(error)
    own.command_id = format_id(pending.prepared.command_id)
    return own


class _Nobody:
    """Takes the answer to a command that the shard gave itself."""

    def settle(self, outcome: Outcome) -> None:
        """Drop it: what it recorded is in the log."""


NOBODY = _Nobody()


def stopped(partition: int, error: BaseException) -> LogUnavailable:
    """What a shard's callers are told that has met a defect."""
    return LogUnavailable(f"partition {partition} stopped: {error!r}; open the ledger again")
