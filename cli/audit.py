"""`session-ledger audit`: what happened, how it stood, what changed, and who looked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from session_ledger.cli.analytics import By
from session_ledger.cli.audit_shown import (
    as_documents,
    document_of,
    section_of_facts,
    sections_of_state,
    show_facts,
    show_state,
    told,
)
from session_ledger.cli.options import DEFAULT_TENANT, AsJson, Tenant, Url

if TYPE_CHECKING:
    from session_ledger.consumers.audit.index import Fact, Facts, Index
    from session_ledger.consumers.audit.report import Section
    from session_ledger.ledger.log.port import Log
    from session_ledger.projections.analytics.snapshots import Snapshot
    from session_ledger.schemas.codec import Codec

app = typer.Typer(no_args_is_help=True, help="Replay what happened from the log itself; each read is recorded.")

Session = Annotated[str, typer.Argument(metavar="SESSION", help="The session's id.")]
Why = Annotated[
    str | None,
    typer.Option("--reason", metavar="TEXT", show_default=False, help="Why you look; it is recorded, and readable."),
]
Html = Annotated[
    Path | None,
    typer.Option("--report", metavar="FILE", show_default=False, help="Also as an HTML report that can be filed."),
]
Point = Annotated[
    str | None,
    typer.Option(
        "--at",
        metavar="TIME|POSITION",
        show_default=False,
        help="ISO 8601 with a time zone, or a position in the session's partition. Default: the end.",
    ),
]


@app.command()
def timeline(
    session: Annotated[str | None, typer.Argument(metavar="SESSION", show_default=False, help="Its id.")] = None,
    user: Annotated[
        str | None, typer.Option("--user", "-U", metavar="NAME", show_default=False, help="Of this user instead.")
    ] = None,
    agent: Annotated[
        str | None, typer.Option("--agent", metavar="AGENT", show_default=False, help="Of this instance instead.")
    ] = None,
    tenant: Tenant = DEFAULT_TENANT,
    reason: Why = None,
    by: By = None,
    report: Html = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Every fact about a session, a user or an agent: when, what, whose, and where it stands in the log."""
    from session_ledger.domain.errors import InvalidInput
    from session_ledger.domain.ids import parse_id

    if sum(value is not None for value in (session, user, agent)) != 1:
        raise InvalidInput("SESSION, --user, --agent", "none or several", "name exactly one of them")
    with _opened(url) as audit:
        if session is not None:
            session_id = parse_id(session, "SESSION")
            found = audit.index.of_session(session_id)
            tenant, whose = _owner(found.facts, tenant)
            audit.record("timeline", tenant, whose, session_id, by, reason)
            subject = f"session {session}"
        elif user is not None:
            user = audit.recorded_as(tenant, user)
            audit.record("timeline", tenant, user, None, by, reason)
            found, subject = audit.index.of_user(tenant, user), f"user {tenant}/{user}"
        else:
            found, subject = audit.index.of_agent(parse_id(agent or "", "--agent")), f"agent {agent}"
            tenant, _ = _owner(found.facts, tenant)
            audit.record("timeline", tenant, "", None, by, reason)
        content = {"facts": as_documents(found.facts)}
        sections = [section_of_facts(found.facts)]
        filed = audit.file(report, "Timeline", subject, found, sections, content, by, reason)
        audit.tell(found, as_json, {"subject": subject, **content}, filed, lambda: show_facts(found.facts))


@app.command()
def state(
    session: Session,
    at: Point = None,
    tenant: Tenant = DEFAULT_TENANT,
    reason: Why = None,
    by: By = None,
    report: Html = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """The session as it stood at a time or a position, folded from the log's own bytes."""
    from session_ledger.consumers.audit.state import state_of, up_to
    from session_ledger.domain.ids import parse_id

    with _opened(url) as audit:
        session_id = parse_id(session, "SESSION")
        found = audit.index.of_session(session_id)
        tenant, user = _owner(found.facts, tenant)
        shown = state_of(up_to(found.facts, _point(at, "--at")))
        audit.record("state", tenant, user, session_id, by, reason)
        content = {"state": document_of(shown)}
        subject, sections = f"session {session}, {'now' if at is None else f'at {at}'}", sections_of_state(shown)
        filed = audit.file(report, "State of a session", subject, found, sections, content, by, reason)
        audit.tell(found, as_json, content, filed, lambda: show_state(shown))


@app.command()
def diff(
    session: Session,
    before: Annotated[str, typer.Argument(metavar="A", help="A time or a position.")],
    after: Annotated[str, typer.Argument(metavar="B", help="A later one.")],
    tenant: Tenant = DEFAULT_TENANT,
    reason: Why = None,
    by: By = None,
    report: Html = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """What changed in the session between two points, and the facts that changed it."""
    from session_ledger.cli.output import say, table
    from session_ledger.consumers.audit.difference import difference
    from session_ledger.consumers.audit.report import Section
    from session_ledger.consumers.audit.state import up_to
    from session_ledger.domain.errors import InvalidInput
    from session_ledger.domain.ids import parse_id

    with _opened(url) as audit:
        session_id = parse_id(session, "SESSION")
        found = audit.index.of_session(session_id)
        tenant, user = _owner(found.facts, tenant)
        first, second = up_to(found.facts, _point(before, "A")), up_to(found.facts, _point(after, "B"))
        if len(first) > len(second):
            raise InvalidInput("B", after, f"must not be before A, {before}")
        changed = difference(first, second)
        audit.record("diff", tenant, user, session_id, by, reason)
        facts = as_documents(changed.facts)
        content = {"changes": [document_of(change) for change in changed.changes], "facts": facts}
        rows = [(change.field, told(change.before), told(change.after)) for change in changed.changes]

        def show() -> None:
            if rows:
                table(("field", "before", "after"), rows, whole=True)
            say(f"({len(changed.changes)} fields differ, {len(changed.facts)} facts in between)")
            show_facts(changed.facts)

        sections = [Section("What differs", ("field", "before", "after"), rows), section_of_facts(changed.facts)]
        subject = f"session {session}, from {before} to {after}"
        filed = audit.file(report, "Difference", subject, found, sections, content, by, reason)
        audit.tell(found, as_json, content, filed, show)


@app.command()
def access(
    tenant: Annotated[
        str | None, typer.Option("--tenant", "-t", metavar="NAME", show_default=False, help="Default: all tenants.")
    ] = None,
    user: Annotated[
        str | None, typer.Option("--user", "-U", metavar="NAME", show_default=False, help="Only of this user.")
    ] = None,
    reason: Why = None,
    by: By = None,
    report: Html = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Who was shown content and who read audits, when and why."""
    from session_ledger.cli.output import say, table
    from session_ledger.consumers.audit.access import accesses
    from session_ledger.consumers.audit.index import Facts
    from session_ledger.consumers.audit.report import Section

    with _opened(url) as audit:
        rows = accesses(audit.log, audit.codec, audit.snapshot, tenant=tenant)
        tenants = {row.tenant for row in rows} if tenant is None else {tenant}
        named = {} if user is None else {one: audit.recorded_as(one, user) for one in tenants}
        rows = [row for row in rows if user is None or row.user == named[row.tenant]]
        for one in sorted({row.tenant for row in rows} if tenant is None else tenants):
            audit.record("access", one, named.get(one, ""), None, by, reason)
        content = {"accesses": [document_of(row) for row in rows]}
        columns = ("when", "who", "action", "why", "tenant", "user", "session", "fields", "position")
        shown = [
            (r.recorded_at, r.who, r.action, r.reason, r.tenant, r.user, r.session_id, r.fields,
             f"{r.partition}:{r.position}")
            for r in rows
        ]  # fmt: skip

        def show() -> None:
            if rows:
                table(columns, shown, whole=True)
            say(f"({len(rows)} reads and reveals)")

        found = Facts((), -1, 0, audit.snapshot is not None)
        subject = "all tenants" if tenant is None else f"tenant {tenant}"
        if tenant is not None and user is not None:
            subject = f"user {tenant}/{named[tenant]}"
        sections = [Section("Reads and reveals", columns, shown)]
        filed = audit.file(report, "Access", subject, found, sections, content, by, reason)
        audit.tell(found, as_json, content, filed, show)


# --- what they share --------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class _Audit:
    """What a command reads from, and how it tells."""

    url: str
    log: Log
    codec: Codec
    snapshot: Snapshot | None
    index: Index

    def recorded_as(self, tenant: str, user: str) -> str:
        """The user as the log names it."""
        from session_ledger.cli.opening import recorded_as

        return recorded_as(self.url, self.log, tenant, user)

    def record(
        self, action: str, tenant: str, user: str, session_id: bytes | None, by: str | None, reason: str | None
    ) -> None:
        """Record the read before anything is shown."""
        from session_ledger.cli.opening import settings
        from session_ledger.cli.who import who
        from session_ledger.consumers.audit_record import record_read

        record_read(
            self.url, action=action, tenant=tenant, user=user, session_id=session_id, by=who(by), reason=reason,
            settings=settings(),
        )  # fmt: skip

    def file(
        self,
        path: Path | None,
        title: str,
        subject: str,
        found: Facts,
        sections: Sequence[Section],
        content: Mapping[str, object],
        by: str | None,
        reason: str | None,
    ) -> dict[str, object]:
        """Write the HTML report where one is asked for; what the document says of it."""
        from datetime import UTC

        from session_ledger.cli.output import as_json, clean, shown, write_file
        from session_ledger.cli.who import who
        from session_ledger.consumers.audit.report import Report, digest_of, render

        if path is None:
            return {}
        read_to = {p.partition: p.end() for p in self.log.partitions} if found.partition < 0 else {
            found.partition: found.read_to
        }  # fmt: skip
        made = Report(
            title, subject, self.log.name, self.log.log_id, read_to, datetime.now(UTC), who(by), reason,
            tuple(sections), content,
        )  # fmt: skip
        write_file(path, render(made, lambda value: clean(shown(value)), as_json))
        digest = digest_of(content, as_json)
        return {"report": {"file": str(path), "sha256_of": sorted(content), "sha256": digest}}

    def tell(
        self,
        found: Facts,
        as_json: bool,
        document: Mapping[str, object],
        filed: Mapping[str, object],
        show: Callable[[], None],
    ) -> None:
        """Write it for machines or for people."""
        from session_ledger.cli.output import clean, say, warn, write_json

        if as_json:
            how = {"partition": found.partition, "read_to": found.read_to, "by_index": found.by_index}
            write_json({**document, "log_id": self.log.log_id, **how, **filed})
            return
        if not found.by_index:
            warn("read without an index (`session-ledger project` keeps one): the whole partition was gone through")
        show()
        if isinstance(report := filed.get("report"), dict):
            say(f"report written to {clean(report['file'])}")


@contextmanager
def _opened(url: str | None) -> Iterator[_Audit]:
    from session_ledger.cli.opening import open_reader, settings, url_of
    from session_ledger.consumers.analytics import open_snapshot
    from session_ledger.consumers.audit.index import Index
    from session_ledger.domain.errors import LogUnavailable, Misconfigured

    place = url_of(url)
    with open_reader(place) as (log, codec):
        try:
            snapshot = open_snapshot(place, settings=settings())
        except (LogUnavailable, Misconfigured):  # none yet, or of another version: the log is read whole
            snapshot = None
        try:
            yield _Audit(place, log, codec, snapshot, Index(log, codec, snapshot))
        finally:
            if snapshot is not None:
                snapshot.close()


def _owner(facts: Sequence[Fact], tenant: str) -> tuple[str, str]:
    """Whose session it is. Raises SessionNotFound where there is no fact."""
    from session_ledger.domain.errors import SessionNotFound
    from session_ledger.domain.events import SessionCreated

    for fact in facts:
        if isinstance(fact.event, SessionCreated):
            return fact.event.tenant, fact.event.user
    if not facts:
        raise SessionNotFound("the log holds no fact about it: see that the id is right")
    return facts[0].event.tenant or tenant, facts[0].event.user


def _point(text: str | None, option: str) -> datetime | int | None:
    """A time or a position."""
    from session_ledger.cli.values import time_of

    return int(text) if text is not None and text.isdigit() else time_of(text, option)
