"""Commands, results and errors as msgpack frames, for the socket between processes of one machine."""

from __future__ import annotations

import socket
import struct
from typing import Any, TypeVar

import msgspec

from session_ledger.domain import commands, errors, results
from session_ledger.domain.commands import Command
from session_ledger.domain.errors import InvalidInput, LogUnavailable, SessionLedgerError
from session_ledger.domain.results import Result, SessionsExpired

FRAME_BYTES_MAX = 16 * 1024 * 1024  # above the largest command that one append takes
_LENGTH = struct.Struct(">I")
_encode = msgspec.msgpack.Encoder().encode


T = TypeVar("T")


def _concrete(module: object, root: type[T]) -> dict[str, type[T]]:
    found = (value for value in vars(module).values() if isinstance(value, type) and issubclass(value, root))
    return {cls.__name__: cls for cls in found}


OWN_COMMANDS = (commands.PublishSchema, commands.ExpireSessions, commands.RecordRefusals)  # the owner's, no client's
_COMMANDS: dict[str, msgspec.msgpack.Decoder[Command]] = {
    name: msgspec.msgpack.Decoder(cls) for name, cls in _concrete(commands, Command).items() if cls not in OWN_COMMANDS
}
_RESULTS: dict[str, msgspec.msgpack.Decoder[Result]] = {
    name: msgspec.msgpack.Decoder(cls) for name, cls in _concrete(results, Result).items()
}
_ERRORS = {cls.code: cls for cls in _concrete(errors, SessionLedgerError).values() if "code" in vars(cls)}
_frame = msgspec.msgpack.Decoder(tuple[int, str, bytes]).decode
_error_fields = msgspec.msgpack.Decoder(dict[str, Any]).decode

COMMAND, RESULT, ERROR, POSITIONS, EXPIRE = "command", "result", "error", "positions", "expire"
Answered = Result | BaseException | list[int] | list[SessionsExpired]
"""What a frame can answer: a result, an error, the acknowledged positions, or what a sweep expired."""


def encode_command(number: int, command: Command) -> bytes:
    """A frame that asks for a command; its answer carries the same number."""
    return _framed(number, f"{COMMAND}:{type(command).__name__}", _encode(command))


def encode_request(number: int, what: str) -> bytes:
    """A frame that asks for something else, such as POSITIONS."""
    return _framed(number, what, b"")


def encode_answer(number: int, asked: str, outcome: Answered) -> bytes:
    """A frame with what became of the request of that number; `asked`: the request's kind."""
    if isinstance(outcome, list):
        return _framed(number, asked, _encode(outcome))
    if isinstance(outcome, Result):
        return _framed(number, f"{RESULT}:{type(outcome).__name__}", _encode(outcome))
    code = outcome.code if isinstance(outcome, SessionLedgerError) else LogUnavailable.code
    fields: dict[str, Any] = {"code": code, "text": str(outcome)}
    if isinstance(outcome, SessionLedgerError):
        fields |= {"command_id": outcome.command_id, "retry_after_s": outcome.retry_after_s}
        fields["retriable"] = outcome.retriable  # of this error: its class may say otherwise
    if isinstance(outcome, InvalidInput):
        fields |= {"field": outcome.field, "seen": outcome.seen, "rule": outcome.rule}
    return _framed(number, ERROR, _encode(fields))


def decode_request(kind: str, body: bytes) -> Command | str:
    """The command, or the word that asks. Raises InvalidInput for what is no command."""
    what, _, name = kind.partition(":")
    if what != COMMAND or name not in _COMMANDS:
        return kind
    try:
        return _COMMANDS[name].decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidInput("command", f"a frame that is no {name} ({error})", "must be a command's fields") from error


def decode_answer(frame: bytes) -> tuple[int, Result | SessionLedgerError | list[int] | list[SessionsExpired]]:
    """(number, outcome). Raises InvalidInput for what is no answer."""
    number, kind, body = decode_frame(frame)
    what, _, name = kind.partition(":")
    try:
        if what == RESULT:
            result: Result = _RESULTS[name].decode(body)
            return number, result
        if what == POSITIONS:
            return number, msgspec.msgpack.decode(body, type=list[int])
        if what == EXPIRE:
            return number, msgspec.msgpack.decode(body, type=list[SessionsExpired])
        return number, _error(_error_fields(body))
    except (msgspec.MsgspecError, ValueError, KeyError) as error:
        raise InvalidInput("answer", f"a {kind[:40]!r} that can not be read", "of another version?") from error


def _error(fields: dict[str, Any]) -> SessionLedgerError:
    cls = _ERRORS.get(fields["code"], SessionLedgerError)
    if issubclass(cls, InvalidInput):
        error: SessionLedgerError = cls(fields["field"], fields["seen"], fields["rule"])
    else:
        error = cls(fields["text"])
    error.command_id = fields.get("command_id")
    error.retry_after_s = fields.get("retry_after_s")
    error.retriable = fields.get("retriable", cls.retriable)
    return error


def decode_frame(frame: bytes) -> tuple[int, str, bytes]:
    """(number, kind, body). Raises InvalidInput for what is no frame."""
    try:
        return _frame(frame)
    except (msgspec.MsgspecError, ValueError) as error:
        raise InvalidInput("frame", f"{len(frame)} bytes that are no frame", "must be [number, kind, body]") from error


def _framed(number: int, kind: str, body: bytes) -> bytes:
    frame = _encode((number, kind, body))
    if len(frame) > FRAME_BYTES_MAX:
        raise InvalidInput(kind, f"{len(frame)} bytes", f"must be at most {FRAME_BYTES_MAX} bytes: split it")
    return _LENGTH.pack(len(frame)) + frame


def read_frame(connection: socket.socket) -> bytes | None:
    """The next frame; None when the other side has closed. Raises InvalidInput for one that is too long."""
    head = _read(connection, _LENGTH.size)
    if head is None:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > FRAME_BYTES_MAX:
        raise InvalidInput("frame", f"{length} bytes", f"must be at most {FRAME_BYTES_MAX} bytes")
    return _read(connection, length)


def _read(connection: socket.socket, size: int) -> bytes | None:
    parts: list[bytes] = []
    while size:
        part = connection.recv(min(size, 1 << 20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
