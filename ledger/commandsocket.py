"""The command socket: other processes of this machine send their commands to the owner of the ledger.

A Unix socket of mode 0600 beside the ledger's directory (or, where that path is too long for a socket, in a directory
of this user's under the temporary one). The owner validates and seals: a client needs no key.
"""

from __future__ import annotations

import hashlib
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import cast

from session_ledger.domain.commands import Command
from session_ledger.domain.errors import InvalidInput, LogUnavailable, NotOwner, OutcomeUnknown, SessionLedgerError
from session_ledger.domain.ids import format_id, new_id
from session_ledger.domain.results import Result, SessionsExpired
from session_ledger.ledger import wire

_Answer = Result | list[int] | list[SessionsExpired]
GONE = "the owner of the ledger has gone away; nothing was recorded: try again"
CONNECT_S = 3.0  # an owner that has the lock listens as soon as its states are folded
CONNECT_PAUSE_S = 0.05
SOCKET_PATH_BYTES_MAX = 100  # sun_path holds 108 on Linux, 104 elsewhere


def socket_path(directory: Path) -> Path:
    """Where the owner of the ledger in that directory listens."""
    path = directory.resolve() / "command.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
        return path
    name = hashlib.blake2b(os.fsencode(path), digest_size=12).hexdigest()
    return Path(tempfile.gettempdir()) / f"session-ledger-{os.getuid()}" / f"{name}.sock"


class CommandServer:
    """Listens for the owner; one thread a connection, commands of one connection in flight together."""

    def __init__(
        self,
        path: Path,
        submit: Callable[[Command], Future[Result]],
        others: Mapping[str, Callable[[], list[int] | list[SessionsExpired]]],
    ) -> None:
        """`others`: what answers a request that is no command (`wire.POSITIONS`, `wire.EXPIRE`)."""
        self._path = path
        self._submit = submit
        self._others = others
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # a leftover: whoever calls this holds the ledger
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            self._listener.bind(str(path))
        finally:
            os.umask(mask)
        self._listener.listen(64)
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, name="session-ledger-socket", daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed
                return
            with self._lock:
                self._connections.add(connection)
            threading.Thread(target=self._serve, args=(connection,), name="session-ledger-client", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        sending = threading.Lock()

        def answer(number: int, asked: Command | str, outcome: wire.Answered) -> None:
            try:
                with sending:
                    connection.sendall(wire.encode_answer(number, asked, outcome))
            except OSError:  # the client has gone; what it asked for is recorded all the same
                return

        try:
            while (frame := wire.read_frame(connection)) is not None:
                number, asked = wire.decode_request(frame)
                try:
                    self._handle(number, asked, answer)
                except SessionLedgerError as error:
                    answer(number, asked, error)
        except (OSError, InvalidInput) as error:
            answer(0, "", error)
        finally:
            with self._lock:
                self._connections.discard(connection)
            connection.close()

    def _handle(
        self, number: int, asked: Command | str, answer: Callable[[int, Command | str, wire.Answered], None]
    ) -> None:
        if isinstance(asked, Command):
            future = self._submit(asked)
            future.add_done_callback(lambda done: answer(number, asked, done.exception() or done.result()))
        elif asked in self._others:
            answer(number, asked, self._others[asked]())
        else:
            raise InvalidInput("request", f"unknown kind {asked[:40]!r}", "the owner may be of another version")

    def close(self) -> None:
        """Stop listening and hang up. Idempotent."""
        self._path.unlink(missing_ok=True)
        try:
            self._listener.shutdown(socket.SHUT_RDWR)  # a close alone does not wake the thread that accepts
        except OSError:  # it was closed before
            return
        finally:
            self._listener.close()
        with self._lock:
            for connection in self._connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:  # it hung up first
                    continue


class CommandClient:
    """A connection to the owner. Thread-safe."""

    def __init__(self, path: Path, not_owner: NotOwner) -> None:
        """Raises `not_owner` where nobody listens there, not even in a moment (the owner may be starting)."""
        deadline_s = time.monotonic() + CONNECT_S
        while True:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                self._socket.connect(str(path))
                break
            except OSError as error:
                self._socket.close()
                if time.monotonic() > deadline_s:
                    raise not_owner from error
                time.sleep(CONNECT_PAUSE_S)
        self._lock = threading.Lock()
        self._number = 0
        self._waiting: dict[int, tuple[Future[_Answer], bytes | None]] = {}
        self._closed: SessionLedgerError | None = None
        self._reader = threading.Thread(target=self._read, name="session-ledger-answers", daemon=True)
        self._reader.start()

    def submit(self, command: Command) -> Future[Result]:
        """Send a command; the future has the owner's answer, or OutcomeUnknown if the owner goes away first."""
        if command.command_id is None:  # made here, so that it is known if no answer comes
            command = replace(command, command_id=new_id(time.time_ns() // 1000))
        future = self._send(lambda number: wire.encode_command(number, command), command.command_id)
        return cast("Future[Result]", future)

    def positions(self) -> list[int]:
        """The owner's acknowledged positions, a partition each, the control log's last."""
        return cast("list[int]", self._ask(wire.POSITIONS))

    def expire_due(self) -> list[SessionsExpired]:
        """One sweep by the owner; what it expired."""
        return cast("list[SessionsExpired]", self._ask(wire.EXPIRE))

    def _ask(self, what: str) -> object:
        return self._send(lambda number: wire.encode_request(number, what)).result()

    def _send(self, encode: Callable[[int], bytes], command_id: bytes | None = None) -> Future[_Answer]:
        future: Future[_Answer] = Future()
        future.set_running_or_notify_cancel()
        with self._lock:
            if self._closed is not None:
                raise self._closed
            self._number += 1
            self._waiting[self._number] = future, command_id
            try:
                self._socket.sendall(encode(self._number))
            except OSError as error:
                del self._waiting[self._number]
                raise LogUnavailable(
                    "the owner of the ledger has gone away; nothing was recorded: try again"
                ) from error
        return future

    def _read(self) -> None:
        try:
            while (frame := wire.read_frame(self._socket)) is not None:
                number, outcome = wire.decode_answer(frame)
                if number not in self._waiting:
                    continue  # number 0: the owner hangs up on a frame it can not read, and says so next
                future, _ = self._waiting.pop(number)
                if isinstance(outcome, SessionLedgerError):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)
        except OSError:
            pass
        with self._lock:
            self._closed = LogUnavailable(GONE)
            waiting, self._waiting = self._waiting, {}
        for future, command_id in waiting.values():
            unknown = OutcomeUnknown(
                "the owner of the ledger went away before it answered: the command may or may not be recorded; "
                "repeat it with the same command id to find out"
            )
            unknown.command_id = None if command_id is None else format_id(command_id)
            future.set_exception(unknown)

    def close(self) -> None:
        """Hang up. Idempotent."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:  # it was closed already
            return
        finally:
            self._socket.close()
