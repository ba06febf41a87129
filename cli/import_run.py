"""Chats into the ledger: ids derived from their source, one append a session, a bounded window under way."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from session_ledger.cli.import_formats import RESERVED, ImportedChat, parse_chat
from session_ledger.cli.import_source import Line, Source
from session_ledger.domain.commands import ImportedMessage, ImportSession, Json
from session_ledger.domain.errors import (
    AppendFailed,
    CommandIdReused,
    ContentGone,
    HistoryErased,
    InvalidInput,
    OutcomeUnknown,
    Overloaded,
    SessionExists,
    SessionLedgerError,
    SessionNotActive,
    TooManyImports,
)
from session_ledger.domain.ids import derived_session_id, format_id, slot_of_user
from session_ledger.domain.results import Result, SessionImported
from session_ledger.domain.validate import Rules, validate
from session_ledger.ledger.edge import EVENT_OVERHEAD_BYTES
from session_ledger.ledger.ledger import Ledger

PART_BYTES = 2 * 1024 * 1024  # an append stays below the 3 MiB that the ledger puts into one
PART_MESSAGES = 5_000
WINDOW_COMMANDS = 1024  # two appends' worth at most: more would only wait in the owner's queue
WINDOW_BYTES = 16 * 1024 * 1024
RETRIES = 6
RETRY_PAUSE_S = 0.2  # doubled each time: some 12 s in all
FAILURES_KEPT = 1000  # in the summary; each is also told as it happens

OF_A_LINE = (SessionExists, SessionNotActive, ContentGone, TooManyImports, InvalidInput, CommandIdReused)
"""What the ledger says of one history; the others go on. Unfinished ones make room when they expire, not sooner."""
ID_KEY = f"{RESERVED}id"
"""The metadata key that holds the source's own id of a session, or the source and the line."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A line that was not imported; `code` is the error's."""

    file: str
    line: int
    code: str
    reason: str


@dataclass(slots=True)
class Summary:
    """What an import did."""

    lines: int = 0
    sessions: int = 0
    """Sessions that were added, or completed."""
    already_there: int = 0
    messages: int = 0
    failed: int = 0
    failures: list[Failure] = field(default_factory=list)
    stopped: bool = False
    """`--strict` stopped it."""


class StrictStop(Exception):
    """A bad line, and nothing after it is to be sent."""


@dataclass(slots=True)
class _Under:
    """A command under way."""

    future: Future[Result]
    command: ImportSession
    file: str
    line: int
    size: int


class Importer:
    """Imports sources into an open ledger, one after the other."""

    def __init__(
        self,
        ledger: Ledger,
        rules: Rules,
        *,
        tenant: str | None,
        default_tenant: str,
        user: str,
        form: str,
        strict: bool,
        include_erased: bool,
        on_failure: Callable[[Failure], None],
    ) -> None:
        """`tenant` goes before what a line says, `default_tenant` and `user` count where it says nothing.

        `include_erased`: a history that was erased is imported anew, under an id that follows from the erased one's.
        """
        self.summary = Summary()
        self._ledger = ledger
        self._rules = rules
        self._tenant = tenant
        self._default_tenant = default_tenant
        self._user = user
        self._form = form
        self._strict = strict
        self._include_erased = include_erased
        self._on_failure = on_failure
        self._window: deque[_Under] = deque()
        self._window_bytes = 0

    def run(self, source: Source, on_line: Callable[[], None] = lambda: None) -> None:
        """Import every line. Raises StrictStop, and what the ledger raises when it can not go on."""
        for line in source.lines():
            self.summary.lines += 1
            self._line(source, line)
            on_line()

    def finish(self) -> None:
        """Wait for everything under way."""
        while self._window:
            self._settle()

    def _line(self, source: Source, line: Line) -> None:
        try:
            if line.problem is not None:
                raise line.problem
            parts = self._parts(source, line)
        except InvalidInput as error:
            self._failed(source.path, line.number, error)
            return
        first = next(parts)
        following = next(parts, None)
        if following is None:
            self._send(source.path, line.number, first)
            return
        self._send_in_turn(source.path, line.number, [first, following], parts)

    def _parts(self, source: Source, line: Line) -> Iterator[ImportSession]:
        """The commands of a line, all of them validated; one, unless the history is long."""
        chat = parse_chat(line.data, self._form)
        commands = list(self._commands(chat, source.name, line.number))
        for command in commands:
            validate(command, self._rules)
        return iter(commands)

    def _commands(self, chat: ImportedChat, source_name: str | None, number: int) -> Iterator[ImportSession]:
        tenant = self._tenant or chat.tenant or self._default_tenant
        user = chat.user or self._user
        if chat.source_id is None and source_name is None:
            raise InvalidInput("id", "nothing", "must be there, or --source must name what ids are derived from")
        source_id = chat.source_id or f"{source_name}:{number}"
        session_id = session_id_of(tenant, user, source_id, chat.created_at)
        metadata = {**chat.metadata, ID_KEY: source_id}
        pieces = list(_pieces(chat.messages, _json_bytes(chat.context) + _texts_bytes(metadata)))
        done = 0
        for piece in pieces:
            yield ImportSession(
                tenant=tenant,
                user=user,
                session_id=session_id,
                messages=piece,
                first_message=done + 1,
                final=piece is pieces[-1],
                title=chat.title,
                context=chat.context,
                metadata=metadata,
                kind=chat.kind,
                channel=chat.channel,
                domain=chat.domain,
                occurred_at=chat.created_at,
                ended_at=chat.ended_at,
                source=source_id,
            )
            done += len(piece)

    # --- sending ----------------------------------------------------------------------------------------------------

    def _send(self, file: str, line: int, command: ImportSession) -> None:
        size = _size(command.messages)
        while self._window and (len(self._window) >= WINDOW_COMMANDS or self._window_bytes + size > WINDOW_BYTES):
            self._settle()
        try:
            future = self._submit(command)
        except InvalidInput as error:
            self._failed(file, line, error)
            return
        self._window.append(_Under(future, command, file, line, size))
        self._window_bytes += size

    def _submit(self, command: ImportSession) -> Future[Result]:
        for attempt in range(RETRIES):
            try:
                return self._ledger.submit(command)
            except Overloaded:  # others use the ledger too
                self._settle_or_wait(attempt)
            except (OverflowError, RecursionError, ValueError) as error:
                raise InvalidInput("line", f"what can not be sent ({error})", "must be plain JSON values") from error
        return self._ledger.submit(command)

    def _settle_or_wait(self, attempt: int) -> None:
        if self._window:
            self._settle()
        else:
            time.sleep(RETRY_PAUSE_S * 2**attempt)

    def _settle(self) -> None:
        under = self._window.popleft()
        self._window_bytes -= under.size
        result = self._outcome(under)
        if result is not None:
            self._count(result.added, result.created or result.added > 0)

    def _send_in_turn(self, file: str, line: int, first: list[ImportSession], rest: Iterator[ImportSession]) -> None:
        """A session in parts: each follows when the one before is recorded."""
        added, new, session_id = 0, False, first[0].session_id
        for part in [*first, *rest]:
            command = replace(part, session_id=session_id)
            try:
                future = self._submit(command)
            except InvalidInput as error:
                self._failed(file, line, error)
                return
            under = _Under(future, command, file, line, 0)
            result = self._outcome(under)
            if result is None:
                return
            session_id = under.command.session_id
            added += result.added
            new = new or result.created or result.added > 0
        self._count(added, new)

    def _count(self, messages: int, new: bool) -> None:
        self.summary.messages += messages
        self.summary.sessions += new
        self.summary.already_there += not new

    def _outcome(self, under: _Under) -> SessionImported | None:
        """The result; None where the line failed. What may succeed later is repeated, which is harmless here."""
        attempt = 0
        while True:
            try:
                result = under.future.result()
                assert isinstance(result, SessionImported)
                return result
            except OF_A_LINE as error:
                if not isinstance(error, HistoryErased) or not self._include_erased:
                    self._failed(under.file, under.line, error)
                    return None
                under.command = _anew(under.command)
            except (AppendFailed, OutcomeUnknown, Overloaded):
                if attempt == RETRIES:
                    raise
                time.sleep(RETRY_PAUSE_S * 2**attempt)
                attempt += 1
            under.future = self._submitted_again(under.command)

    def _submitted_again(self, command: ImportSession) -> Future[Result]:
        """Without settling others meanwhile: it is one of them that is being settled."""
        for attempt in range(RETRIES):
            try:
                return self._ledger.submit(command)
            except Overloaded:
                time.sleep(RETRY_PAUSE_S * 2**attempt)
        return self._ledger.submit(command)

    def _failed(self, file: str, line: int, error: SessionLedgerError) -> None:
        hint = " (--include-erased gives it one)" if isinstance(error, HistoryErased) else ""
        failure = Failure(file, line, error.code, f"{error}{hint}")
        self.summary.failed += 1
        if len(self.summary.failures) < FAILURES_KEPT:
            self.summary.failures.append(failure)
        self._on_failure(failure)
        if self._strict:
            self.summary.stopped = True
            raise StrictStop


def session_id_of(tenant: str, user: str, source_id: str, created_at: int | None) -> bytes:
    """The id of an imported session: from its user, the source's id and when it was created; not from what was said."""
    source = f"{len(tenant)}:{tenant}{len(user)}:{user}{source_id}"
    return derived_session_id(source, max(created_at or 0, 0), slot_of_user(tenant, user))


def _anew(command: ImportSession) -> ImportSession:
    """The same history under the next id: it follows from the one that was erased, so that repeats find it."""
    erased = format_id(command.session_id)
    return replace(command, session_id=session_id_of(command.tenant, command.user, erased, command.occurred_at))


def _size(messages: tuple[ImportedMessage, ...]) -> int:
    return sum(map(_bytes, messages))


def _pieces(messages: tuple[ImportedMessage, ...], head_bytes: int) -> Iterator[tuple[ImportedMessage, ...]]:
    """The messages in pieces of one append each, the first with the session's head; one empty piece for none."""
    first, size = 0, head_bytes
    for number, message in enumerate(messages):
        added = _bytes(message)
        if number > first and (size + added > PART_BYTES or number - first >= PART_MESSAGES):
            yield messages[first:number]
            first, size = number, 0
        size += added
    yield messages[first:]


def _bytes(message: ImportedMessage) -> int:
    """What a message may take in the log, estimated from above: a character is at most four bytes."""
    texts = len(message.content.encode()) + len(message.audio_url or "") * 4 + _texts_bytes(message.metadata)
    return EVENT_OVERHEAD_BYTES + texts + _json_bytes(message.parts)


def _texts_bytes(texts: Mapping[str, str]) -> int:
    return sum(len(name) + len(value) for name, value in texts.items()) * 4


def _json_bytes(value: Json) -> int:
    return 0 if value is None else len(json.dumps(value))  # escaped, so never shorter than UTF-8
