"""The command socket: other processes of this machine send their commands to the owner of the ledger.

A Unix socket of mode 0600 in the ledger's directory (or, where that path is too long for a socket, in a directory
of this user's under the temporary one), or where `command_socket` says, for other users of the system too. The owner
asks the kernel who connects, and answers what that principal may do; it validates and seals: a client needs no key.
"""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from typing import Protocol, cast

from session_ledger.domain.commands import Command, ReportQuota
from session_ledger.domain.errors import (
    InvalidInput,
    LogUnavailable,
    Misconfigured,
    NotOwner,
    OutcomeUnknown,
    SessionLedgerError,
)
from session_ledger.domain.ids import format_id, new_id
from session_ledger.domain.results import Result, SessionsExpired
from session_ledger.domain.validate import Rules, validate
from session_ledger.ledger import wire
from session_ledger.ledger.clocks import machine_clock_us
from session_ledger.ledger.socketplace import SocketPlace

_Answer = Result | list[int] | list[SessionsExpired]
GONE = "the owner of the ledger has gone away; nothing was recorded: open the ledger again"
LIVES_S = 15.0  # an owner that answers nothing for so long hangs
POSITIONS_S = 15.0  # an owner that lives proves its ownership in less, also one whose broker is slow
CONNECT_S = 0.5  # for one who listens; whoever opens asks again, also whether the ledger has become free
CONNECT_PAUSE_S = 0.05
ACCEPT_PAUSE_S = 0.1
HANG_UP_S = 1.0  # for answers to clients that still read
CONNECTIONS_MAX = 256  # two threads and a file handle each; one more is hung up at once
IN_FLIGHT_MAX = 4096  # commands of one connection; then the owner reads no more of it until it takes its answers


class Answering(Protocol):
    """What answers the requests of one connection."""

    def submit(self, command: Command) -> Future[Result]: ...

    def positions(self) -> list[int]: ...

    def expire_due(self) -> list[SessionsExpired]: ...


class CommandServer:
    """Listens for the owner; commands of one connection are in flight together."""

    def __init__(self, place: SocketPlace, answering: Callable[[socket.socket], Answering]) -> None:
        """`answering`: what answers a connection's requests, as its peer may ask them."""
        self._path = path = place.path
        self._answering = answering
        place.make_directory()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            path.unlink(missing_ok=True)  # a leftover: whoever calls this holds the ledger
            mask = os.umask(0o777 & ~place.mode)
            try:
                self._listener.bind(str(path))
            finally:
                os.umask(mask)
        except OSError as error:
            self._listener.close()
            raise Misconfigured(f"the command socket {path} can not be made: {error.strerror or error}") from error
        self._inode = path.stat().st_ino
        self._listener.listen(64)
        self._closed = False
        self._connections: set[_Connection] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, name="session-ledger-socket", daemon=True).start()

    def _accept(self) -> None:
        while not self._closed:
            try:
                accepted, _ = self._listener.accept()
            except OSError:  # closed, or no more file handles for now
                time.sleep(ACCEPT_PAUSE_S)
                continue
            connection = _Connection(accepted, self._answering, self._handle, self._connections.discard)
            with self._lock:
                try:
                    if len(self._connections) >= CONNECTIONS_MAX:
                        raise RuntimeError("too many connections")
                    connection.start()
                except RuntimeError:  # or no more threads: whoever floods the socket does not end it for others
                    accepted.close()
                    continue
                self._connections.add(connection)
                if self._closed:  # between accepting and this, so that it was not hung up
                    connection.stop_reading()

    def _handle(self, by: Answering, asked: Command | str, answer: Callable[[wire.Answered], None]) -> None:
        if isinstance(asked, Command):
            future = by.submit(asked)
            future.add_done_callback(lambda done: answer(done.exception() or done.result()))
        elif asked == wire.POSITIONS:
            answer(by.positions())
        elif asked == wire.EXPIRE:
            answer(by.expire_due())
        else:
            raise InvalidInput("request", f"unknown kind {asked[:40]!r}", "the owner may be of another version")

    def close(self) -> None:
        """Stop listening, send the answers that are there, hang up. Idempotent."""
        if self._closed:
            return
        self._closed = True
        with suppress(FileNotFoundError):
            if self._path.stat().st_ino == self._inode:  # else it is the socket of who took over
                self._path.unlink()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # a close alone does not wake the thread that accepts
        self._listener.close()
        with self._lock:
            connections = list(self._connections)
        deadline_s = time.monotonic() + HANG_UP_S
        for connection in connections:
            connection.stop_reading()
        for connection in connections:
            connection.hang_up(deadline_s)


class _Connection:
    """One client: a thread reads what it asks, another sends the answers, so that nobody else waits for a slow one."""

    def __init__(
        self,
        connected: socket.socket,
        answering: Callable[[socket.socket], Answering],
        handle: Callable[[Answering, Command | str, Callable[[wire.Answered], None]], None],
        ended: Callable[[_Connection], None],
    ) -> None:
        self._socket = connected
        self._answering = answering
        self._handle = handle
        self._ended = ended
        self._room = threading.Semaphore(IN_FLIGHT_MAX)
        self._answers: SimpleQueue[tuple[int, str, wire.Answered] | None] = SimpleQueue()
        self._sender = threading.Thread(target=self._send, name="session-ledger-answers", daemon=True)

    def start(self) -> None:
        """Serve until either side hangs up."""
        self._sender.start()
        try:
            threading.Thread(target=self._read, name="session-ledger-client", daemon=True).start()
        except RuntimeError:  # no thread is left
            self._answers.put(None)
            raise

    def _read(self) -> None:
        try:
            by = self._answering(
                self._socket
            )  # here: a system that is slow to name its users keeps nobody else waiting
            while (frame := wire.read_frame(self._socket)) is not None:
                number, kind, body = wire.decode_frame(frame)
                self._room.acquire()
                answer = partial(self._answer, number, kind)
                try:
                    self._handle(by, wire.decode_request(kind, body), answer)
                except SessionLedgerError as error:
                    answer(error)
        except (OSError, InvalidInput) as error:
            self._answer(0, "", error)
        finally:
            self._answers.put(None)

    def _answer(self, number: int, kind: str, outcome: wire.Answered) -> None:
        self._answers.put((number, kind, outcome))

    def _send(self) -> None:
        try:
            while (item := self._answers.get()) is not None:
                self._socket.sendall(wire.encode_answer(*item))
                self._room.release()
        except OSError:  # the client has gone; what it asked for is recorded all the same
            self.stop_reading()
            self._room.release()
        finally:
            self._ended(self)
            self._socket.close()

    def stop_reading(self) -> None:
        """Take nothing more from the client; answers still go out."""
        with suppress(OSError):  # it hung up first
            self._socket.shutdown(socket.SHUT_RD)

    def hang_up(self, deadline_s: float) -> None:
        """Wait until the answers have been sent, then close. `deadline_s`: of time.monotonic()."""
        self._sender.join(max(deadline_s - time.monotonic(), 0))
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


class CommandClient:
    """A connection to the owner. Thread-safe."""

    def __init__(self, place: SocketPlace, not_owner: NotOwner) -> None:
        """Raises `not_owner` where nobody listens there, not even in a moment (the owner may be starting)."""
        deadline_s = time.monotonic() + CONNECT_S
        while True:
            if place.path.parent.exists():
                place.check()
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                self._socket.connect(str(place.path))
                break
            except OSError as error:
                self._socket.close()
                if time.monotonic() > deadline_s:
                    raise not_owner from error
                time.sleep(CONNECT_PAUSE_S)
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, tuple[Future[_Answer], bytes | None]] = {}
        self._closed = False
        self._heard = 0  # answers, to whatever was asked
        self._reader = threading.Thread(target=self._read, name="session-ledger-answers", daemon=True)
        self._reader.start()

    def submit(self, command: Command) -> Future[Result]:
        """Send a command; the future has the owner's answer, or OutcomeUnknown if the owner goes away first.

        Raises InvalidInput for what can not be sent.
        """
        if not isinstance(command, Command):
            raise InvalidInput("command", f"a {type(command).__name__}", "must be a command of session_ledger.domain")
        if command.command_id is None:  # made here, so that it is known if no answer comes
            command = replace(command, command_id=new_id(machine_clock_us()))
        number = next(self._numbers)
        try:
            frame = wire.encode_command(number, command)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            validate(command, Rules())  # names the field
            seen = f"a {type(command).__name__} that can not be sent ({error})"
            raise InvalidInput("command", seen, "must hold texts, numbers of 64 bits and JSON") from error
        return cast("Future[Result]", self._send(number, frame, command.command_id))

    def answer(self, command: Command) -> Result:
        """Send a command, and wait for what comes of it while the owner lives. Raises OutcomeUnknown if it hangs."""
        future = self.submit(command)
        while True:
            try:
                return future.result(LIVES_S)
            except TimeoutError:
                if not self._lives() and not future.done():
                    raise self._hangs(future) from None

    def _lives(self) -> bool:
        """Whether the owner answers anything: it refuses an empty command at once, whatever its brokers do."""
        heard = self._heard
        with suppress(SessionLedgerError, TimeoutError):
            self.submit(ReportQuota(tenant="", user="")).result(LIVES_S)
        return self._heard != heard or self._closed  # that it went away is told to all who wait

    def _hangs(self, future: Future[Result]) -> OutcomeUnknown:
        unknown = OutcomeUnknown(
            f"the owner of the ledger has answered nothing for {LIVES_S:g} s, so it hangs: end its process, or add "
            "--take-over (take_over=True). The command may or may not be recorded; repeat it with the same command id "
            "to find out"
        )
        with self._lock:
            waiting = list(self._waiting.values())  # a copy: who reads the answers takes them out meanwhile
        ids = [command_id for one, command_id in waiting if one is future]
        unknown.command_id = format_id(ids[0]) if ids and ids[0] is not None else None
        return unknown

    def positions(self) -> list[int]:
        """The owner's acknowledged positions, a partition each, the control log's last."""
        return cast("list[int]", self._ask(wire.POSITIONS, POSITIONS_S))

    def expire_due(self) -> list[SessionsExpired]:
        """One sweep by the owner; what it expired."""
        return cast("list[SessionsExpired]", self._ask(wire.EXPIRE, None))

    def _ask(self, what: str, timeout_s: float | None) -> object:
        number = next(self._numbers)
        future = self._send(number, wire.encode_request(number, what), None)
        try:
            return future.result(timeout_s)
        except TimeoutError as error:
            raise LogUnavailable(
                f"the owner of the ledger has not answered within {timeout_s:g} s: try again"
            ) from error

    def _send(self, number: int, frame: bytes, command_id: bytes | None) -> Future[_Answer]:
        future: Future[_Answer] = Future()
        future.set_running_or_notify_cancel()
        with self._lock:
            if self._closed:
                raise LogUnavailable(GONE)
            self._waiting[number] = future, command_id
            try:
                self._socket.sendall(frame)
            except OSError as error:
                del self._waiting[number]
                raise LogUnavailable(GONE) from error
        return future

    def _read(self) -> None:
        try:
            while (frame := wire.read_frame(self._socket)) is not None:
                number, outcome = wire.decode_answer(frame)
                self._heard += 1
                if number not in self._waiting:
                    continue  # number 0: the owner hangs up on a frame it can not read, and says so next
                future, command_id = self._waiting.pop(number)
                if isinstance(outcome, SessionLedgerError):
                    if outcome.command_id is None and command_id is not None:
                        outcome.command_id = format_id(command_id)
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)
        except (OSError, InvalidInput):  # the owner has gone, or speaks another version: what waits is told below
            self.close()
        with self._lock:
            self._closed = True
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
