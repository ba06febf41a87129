"""`session-ledger export`: sessions with their history as JSONL, the oldest first."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from session_ledger.cli.options import DEFAULT_TENANT, AsJson, Tenant, Url

if TYPE_CHECKING:
    from concurrent.futures import Future

    from session_ledger.consumers.records import MessageView, SessionView
    from session_ledger.consumers.views import Views
    from session_ledger.domain.results import Result
    from session_ledger.ledger.ledger import Ledger

PAGE = 1000
UNDER_WAY = 64  # lines that wait for their facts, so that these share an append
EXPORT = "export"
By = Annotated[
    str | None, typer.Option("--by", metavar="NAME", show_default=False, help="Who exports. Default: this system user.")
]


def export_chats(
    tenant: Tenant = DEFAULT_TENANT,
    user: Annotated[
        str | None, typer.Option("--user", "-U", metavar="NAME", show_default=False, help="Only this user's sessions.")
    ] = None,
    session: Annotated[
        str | None,
        typer.Option("--session", metavar="SESSION", show_default=False, help="Only this one; needs --user."),
    ] = None,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Where to; - is standard output.")
    ] = "-",
    by: By = None,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why; it is recorded, and readable.")
    ] = EXPORT,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Export sessions as JSONL: OpenAI chat form and our own fields. `import` reads it back to the same history.

    Who exports each session, and why, is recorded before its line is written. A file is complete or not there: it is
    written beside and put in place at the end. With --json a summary is written on stdout, where the lines do not go
    there themselves.
    """
    from session_ledger.cli.opening import open_ledger, open_views
    from session_ledger.cli.output import clean, progress, say, warn, write_json
    from session_ledger.cli.who import who
    from session_ledger.domain.errors import InvalidInput

    if session is not None and user is None:
        raise InvalidInput("--session", "without --user", "every session is looked up by tenant and user")
    if output != "-" and not Path(output).parent.is_dir():
        raise InvalidInput("--output", f"{output!r}, whose directory does not exist", "make the directory first")
    if output != "-" and Path(output).is_dir():
        raise InvalidInput("--output", f"{output!r}, which is a directory", "name a file")
    failures: list[dict[str, str]] = []
    with (
        open_views(url) as views,
        open_ledger(url) as ledger,
        _opened(output) as out,
        progress(quiet=as_json) as bar,
    ):
        lines = _Lines(ledger, out, who(by), reason, failures)
        found = _wanted(views, tenant, user, session)
        for one, owner in bar.track(found, description="sessions"):
            view = views.session(tenant, owner, one, fresh=False)
            history = list(_history(views, view))
            problem = view.unreadable or next((m.unreadable for m in history if m.unreadable), None)
            if problem is not None:
                failures.append({"session_id": view.session_id, "reason": problem})
                warn(f"session {view.session_id} is not exported: {problem}")
                continue
            lines.write(view, history)
        lines.flush()
    sessions, messages = lines.sessions, lines.messages
    to = "" if output == "-" else f" to {output}"
    summary = f"{sessions:,} sessions with {messages:,} messages exported{to}"
    if failures:
        summary += f"; {len(failures):,} sessions could not be read"
    if as_json and output != "-":
        write_json({"sessions": sessions, "messages": messages, "failures": failures, "file": output})
    elif output != "-":
        say(clean(summary))
    elif not as_json:
        warn(summary)
    raise typer.Exit(1 if failures else 0)


def _wanted(views: Views, tenant: str, user: str | None, session: str | None) -> list[tuple[bytes, str]]:
    """(session id, user) of what is to be exported, in the order in which they began, then by the line's id.

    Pages go by last activity, so a session that becomes active meanwhile moves to the front: the front is looked at
    again until it holds nothing new.
    """
    from session_ledger.cli.export_lines import began_at, source_id_of
    from session_ledger.domain.ids import parse_id

    if session is not None and user is not None:
        return [(parse_id(session, "--session"), user)]
    found: dict[bytes, tuple[float, str, str]] = {}
    while True:
        before, cursor = len(found), None
        while True:
            if user is None:
                page = views.tenant_sessions(tenant, status=None, limit=PAGE, after=cursor, fresh=False)
            else:
                page = views.sessions(tenant, user, status=None, limit=PAGE, after=cursor, fresh=False)
            known = sum(parse_id(view.session_id) in found for view in page)
            for view in page:
                began = began_at(view)
                order = began.timestamp() if began else 0.0
                found[parse_id(view.session_id)] = order, source_id_of(view), view.user
            cursor = page.next
            if cursor is None or (before and known == len(page)):
                break
        if len(found) == before:
            return [(one, key[2]) for one, key in sorted(found.items(), key=lambda item: (item[1], item[0]))]


def _history(views: Views, session: SessionView) -> Iterator[MessageView]:
    after = 0
    while after < session.messages:
        page = views.history(session.tenant, session.user, session.session_id, after=after, limit=PAGE, fresh=False)
        if not page:
            return
        yield from page
        after = page[-1].number


class _Lines:
    """Lines of sessions, each written when the fact that its content was revealed is durable."""

    def __init__(self, ledger: Ledger, out: BinaryIO, by: str, reason: str, failures: list[dict[str, str]]) -> None:
        """`failures`: where those are told that were erased meanwhile."""
        self.sessions = self.messages = 0
        self._ledger, self._out, self._by, self._reason, self._failures = ledger, out, by, reason, failures
        self._digest = os.urandom(16)  # tells which facts are of one export
        self._waiting: deque[tuple[Future[Result] | None, str, int, bytes]] = deque()

    def write(self, session: SessionView, history: list[MessageView]) -> None:
        """Record, and write later; of an erased session nothing is revealed. Raises what the ledger raises."""
        from session_ledger.cli.export_lines import line_of
        from session_ledger.domain.commands import RevealContent
        from session_ledger.domain.ids import parse_id

        shown = (session.title, session.context, session.metadata, session.ip_address, session.note)
        command = RevealContent(
            tenant=session.tenant,
            user=session.user,
            session_id=parse_id(session.session_id),
            revealed_by=self._by,
            reason=self._reason,
            query_digest=self._digest,
            fields=max(len(history) + sum(one not in (None, {}) for one in shown), 1),
        )
        line = line_of(session, history[: session.messages]) + "\n"
        recorded = None if session.erased_at is not None else self._ledger.submit(command)
        self._waiting.append((recorded, session.session_id, len(history), line.encode()))
        self.flush(UNDER_WAY)

    def flush(self, left: int = 0) -> None:
        """Write all but the last `left` lines."""
        from session_ledger.cli.output import warn
        from session_ledger.domain.errors import ContentGone

        while len(self._waiting) > left:
            recorded, session_id, messages, line = self._waiting.popleft()
            try:
                if recorded is not None:
                    recorded.result()
            except ContentGone as error:
                self._failures.append({"session_id": session_id, "reason": str(error)})
                warn(f"session {session_id} is not exported: {error}")
                continue
            self._out.write(line)
            self.sessions, self.messages = self.sessions + 1, self.messages + messages


@contextmanager
def _opened(output: str) -> Iterator[BinaryIO]:
    """Standard output, or a file that appears whole; UTF-8 whatever the locale."""
    if output == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(output)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as out:
            yield out
        os.replace(beside, path)
    except BaseException as error:
        beside.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename == str(beside):
            error.filename, error.filename2 = output, None
        raise
