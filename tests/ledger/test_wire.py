"""Frames between processes: every command, result and error arrives as it was sent."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, fields
from decimal import Decimal
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_ledger.domain import commands, errors, results
from session_ledger.domain.commands import Command, ImportedMessage
from session_ledger.domain.errors import InvalidInput, SessionLedgerError
from session_ledger.domain.results import Result, SessionsExpired
from session_ledger.ledger import wire


def _concrete(module: object, root: type) -> list[type]:
    found = [value for value in vars(module).values() if inspect.isclass(value) and issubclass(value, root)]
    return [cls for cls in found if cls.__module__ == getattr(module, "__name__", "")]


INTERNAL = [commands.ExpireSessions, commands.RecordRefusals, commands.PublishSchema]
COMMANDS = [cls for cls in _concrete(commands, Command) if cls not in INTERNAL]
RESULTS = _concrete(results, Result)
ERRORS = _concrete(errors, SessionLedgerError)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
AMOUNT = st.decimals(0, 10**12, places=6) | st.integers(0, 10**12).map(Decimal)
OF_TYPE: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(max_size=8),
    bytes: st.binary(min_size=16, max_size=16),
    int: st.integers(0, 2**63 - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    Decimal: AMOUNT,
    Any: JSON,
}


def _values(cls: type) -> st.SearchStrategy[Any]:
    """Any instance of a dataclass, by the types of its fields."""
    hints = get_type_hints(cls)
    given_fields: dict[str, st.SearchStrategy[Any]] = {}
    optional: dict[str, st.SearchStrategy[Any]] = {}
    for field in fields(cls):
        values = _of(hints[field.name])
        required = field.default is MISSING and field.default_factory is MISSING
        (given_fields if required else optional)[field.name] = values
    return st.fixed_dictionaries(given_fields, optional=optional).map(lambda chosen: cls(**chosen))


def _of(hint: Any) -> st.SearchStrategy[Any]:
    if hint in OF_TYPE:
        return OF_TYPE[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(_of(arguments[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(_of, arguments))
    if origin is Mapping:
        return st.dictionaries(_of(arguments[0]), _of(arguments[1]), max_size=3)
    if hint is ImportedMessage or (inspect.isclass(hint) and issubclass(hint, Result)):
        return _values(hint)
    return st.one_of(*(st.none() if one is type(None) else _of(one) for one in arguments))


def _payload(frame: bytes) -> bytes:
    assert len(frame) - 4 == int.from_bytes(frame[:4], "big")
    return frame[4:]


@pytest.mark.parametrize("cls", COMMANDS, ids=lambda cls: cls.__name__)
@given(data=st.data())
def test_every_command_arrives_as_it_was_sent(cls: type[Command], data: st.DataObject) -> None:
    """Of the same class and equal, field by field."""
    command = data.draw(_values(cls))
    number, kind, body = wire.decode_frame(_payload(wire.encode_command(7, command)))
    assert (7, command) == (number, wire.decode_request(kind, body))


@pytest.mark.parametrize("cls", RESULTS, ids=lambda cls: cls.__name__)
@given(data=st.data())
def test_every_result_arrives_as_it_was_sent(cls: type[Result], data: st.DataObject) -> None:
    """Of the same class and equal, field by field."""
    result = data.draw(_values(cls))
    assert (7, result) == wire.decode_answer(_payload(wire.encode_answer(7, "command:X", result)))


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
def test_every_error_arrives_as_it_was_sent(cls: type[SessionLedgerError]) -> None:
    """Of the same class, with its text, command id, time to retry and (InvalidInput) field and rule."""
    error = cls("content", "a text of 5", "must be less") if issubclass(cls, InvalidInput) else cls("what happened")
    error.command_id, error.retry_after_s = "01a1fd02-48de-7460-bd63-66ae70dad9d5", 1.5
    number, arrived = wire.decode_answer(_payload(wire.encode_answer(7, "command:X", error)))
    assert isinstance(arrived, SessionLedgerError)
    assert (7, cls, str(error)) == (number, type(arrived), str(arrived))
    assert (error.command_id, 1.5) == (arrived.command_id, arrived.retry_after_s)
    assert (error.code, error.retriable) == (arrived.code, arrived.retriable)
    if isinstance(error, InvalidInput):
        assert isinstance(arrived, InvalidInput)
        assert ("content", "a text of 5", "must be less") == (arrived.field, arrived.seen, arrived.rule)


def test_an_error_that_is_none_of_ours_arrives_as_the_log_being_unavailable() -> None:
    """A defect of the owner is no reason for a client to hang."""
    _, arrived = wire.decode_answer(_payload(wire.encode_answer(7, "command:X", ZeroDivisionError("x"))))
    assert isinstance(arrived, errors.LogUnavailable)


def test_positions_and_sweeps_arrive_as_they_were_sent() -> None:
    """Answers that are lists."""
    swept = [SessionsExpired(partition=1, position=2, session_ids=("a", "b"))]
    assert (7, [1, 2, 3]) == wire.decode_answer(_payload(wire.encode_answer(7, wire.POSITIONS, [1, 2, 3])))
    assert (7, swept) == wire.decode_answer(_payload(wire.encode_answer(7, wire.EXPIRE, swept)))
    assert (7, wire.EXPIRE, b"") == wire.decode_frame(_payload(wire.encode_request(7, wire.EXPIRE)))


@given(frame=st.binary(max_size=60))
def test_any_bytes_are_a_frame_or_invalid(frame: bytes) -> None:
    """Nothing but InvalidInput comes of bytes that are no frame, no request or no answer."""
    with suppress(InvalidInput):
        _, kind, body = wire.decode_frame(frame)
        wire.decode_request(kind, body)
    with suppress(InvalidInput):
        wire.decode_answer(frame)


@given(name=st.sampled_from([cls.__name__ for cls in COMMANDS]), body=st.binary(max_size=60))
def test_any_bytes_are_a_command_or_invalid(name: str, body: bytes) -> None:
    """The same of a command's fields."""
    with suppress(InvalidInput):
        assert isinstance(wire.decode_request(f"command:{name}", body), Command)


@pytest.mark.parametrize("cls", INTERNAL, ids=lambda cls: cls.__name__)
def test_the_ledgers_own_commands_do_not_come_over_the_socket(cls: type[Command]) -> None:
    """They are no command to the owner: it answers that it does not know them."""
    assert not isinstance(wire.decode_request(f"command:{cls.__name__}", b""), Command)


def test_a_command_that_no_frame_holds_is_not_sent() -> None:
    """Longer than 16 MiB: InvalidInput, and nothing is encoded."""
    with pytest.raises(InvalidInput):
        wire.encode_command(1, commands.ReportQuota(tenant="t", user="u", resource="x" * wire.FRAME_BYTES_MAX))
