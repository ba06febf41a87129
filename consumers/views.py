"""The read side: current state by tenant and user, from the views, with content opened on the way out."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TypeVar
from uuid import UUID

from session_ledger.consumers import opening, paging, quota_views
from session_ledger.consumers.paging import PAGE_MAX, agent_key, limited, session_key, statuses_of
from session_ledger.consumers.projector import Projector
from session_ledger.consumers.records import (
    AgentView,
    AuthenticationFailureView,
    ErrorView,
    LegalHoldView,
    MessageView,
    Page,
    SessionView,
    Stats,
    TenantQuota,
    UserQuotas,
)
from session_ledger.consumers.stats import read_stats
from session_ledger.consumers.wiring import open_store
from session_ledger.domain.account import Account
from session_ledger.domain.control import TenantSettings
from session_ledger.domain.errors import SessionNotFound
from session_ledger.domain.ids import format_id, parse_id, slot_of_user
from session_ledger.domain.results import QuotaReport
from session_ledger.ledger.clocks import machine_clock_us
from session_ledger.ledger.log.port import Log
from session_ledger.ledger.open import open_codec, open_envelope, open_log, open_settings
from session_ledger.ledger.published import codec_of
from session_ledger.ledger.settings import Settings
from session_ledger.ledger.url import parse_url
from session_ledger.projections import quota_reading, reading
from session_ledger.projections.session_tables import LIVE
from session_ledger.projections.store import Store
from session_ledger.schemas.codec import Codec
from session_ledger.security.port import Envelope

Id = str | UUID | bytes
U = TypeVar("U", str, str | None)
CONTROL = -1


class Views:
    """Reads. Thread-safe; a context manager; one instance serves any number of threads, none blocks another.

    Every read names tenant and user (or the tenant alone, for what is the tenant's): what is another's is not found.
    Unless `fresh=False`, a read first folds what the log has got since, so it sees everything that was in the log when
    it began; it raises PartitionStopped where that can not be (a record that can not be read: see `Projector`).
    `fresh=False` answers from the rows as they are.

    All raise InvalidInput for ids, cursors and limits that are none, LogUnavailable (RegistryUnavailable is one),
    ProjectionConflict.
    """

    def __init__(
        self,
        log: Log,
        store: Store,
        envelope: Envelope,
        *,
        codec: Codec | None = None,
        fresh: bool = True,
        clock: Callable[[], int] = machine_clock_us,
    ) -> None:
        """Over an open log; `fresh` is the default of every read. Neither log nor envelope is closed by `close`."""
        self.log = log
        self.store = store
        self.codec = codec or codec_of(log)
        """What decodes the records of the log."""
        self.projector = Projector(log, self.codec, store)
        self._envelope = envelope
        self._user_of = envelope.pseudonyms.user_of
        self._fresh = fresh
        self._clock = clock
        self._closing: list[Callable[[], None]] = [store.close]

    @classmethod
    def open(
        cls, url: str | Path | None = None, *, settings: Settings | None = None, fresh: bool = True, **options: object
    ) -> Views:
        """The views of the ledger at a URL (or of the SQLite ledger in a directory), beside whoever owns it.

        `url` None: that of the settings. `options` are fields of `Settings`. The log is opened for reading only;
        `views.db` stands in the ledger's directory and is made when it is missing. Raises LogUnavailable where there
        is no ledger, Misconfigured, ProjectionForeign, KeyUnavailable.
        """
        chosen = open_settings(settings, options)
        text = chosen.url if url is None else str(url)
        place = parse_url(f"sqlite:{text}" if isinstance(url, Path) or ":" not in text else text)
        log = open_log(place, chosen, write=False)
        closing: list[Callable[[], None]] = [log.close]
        try:
            envelope, close_envelope = open_envelope(place.directory, log.name, chosen, readonly=True)
            closing.append(close_envelope)
            codec, close_codec = open_codec(log, chosen)
            closing.append(close_codec)
            views = cls(log, open_store(log, place.directory), envelope, codec=codec, fresh=fresh)
        except BaseException:
            for close in reversed(closing):
                close()
            raise
        views._closing.extend(reversed(closing))
        return views

    @classmethod
    def over(
        cls,
        log: Log,
        envelope: Envelope,
        *,
        directory: Path | None = None,
        codec: Codec | None = None,
        fresh: bool = True,
        clock: Callable[[], int] = machine_clock_us,
    ) -> Views:
        """The views of a log that is open in this process, such as one in memory.

        `envelope` opens what was sealed. `directory` None: the rows stand in a file that `close` deletes.
        """
        store = open_store(log, directory)
        return cls(log, store, envelope, codec=codec, fresh=fresh, clock=clock)

    def close(self) -> None:
        """Close what was opened here. Idempotent."""
        while self._closing:
            self._closing.pop(0)()

    def __enter__(self) -> Views:
        """The views themselves."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    # --- freshness --------------------------------------------------------------------------------------------------

    def refresh(self, to: dict[int, int] | None = None) -> int:
        """Fold everything up to `to` (partition to position; None: each log's end now); the records folded."""
        return self.projector.catch_up(to)

    def wait(self, partition: int, position: int, timeout_s: float = 10.0) -> None:
        """Return once the views hold that position (a command's answer carries it): read your own writes.

        Folds by itself; WaitTimeout where the log does not show the position in time.
        """
        deadline = time.monotonic() + timeout_s
        log = self.projector.partition(partition)
        while (reached := self.store.position(partition)) < position:
            end = log.end()
            if end > reached:
                self.projector.catch_up({partition: min(end, position)})
            elif (left := deadline - time.monotonic()) > 0:
                log.wait(reached, min(left, 0.05))
            else:
                self.projector.wait(partition, position, 0.0)

    def partition_of(self, tenant: str, user: str) -> int:
        """The partition that holds all that belongs to the user."""
        return slot_of_user(tenant, self.recorded_as(tenant, user)) & (len(self.log.partitions) - 1)

    def recorded_as(self, tenant: str, user: str) -> str:
        """The user as log and rows name it: by a pseudonym where the ledger has them. Raises KeyUnavailable."""
        return self._envelope.pseudonyms.recorded_as(tenant, user)

    @contextlib.contextmanager
    def _read(self, fresh: bool | None, *partitions: int) -> Iterator[sqlite3.Connection]:
        """One snapshot of the rows, fresh in these partitions (none named: in all)."""
        if self._fresh if fresh is None else fresh:
            wanted = partitions or range(CONTROL, len(self.log.partitions))
            self.projector.catch_up({number: self.projector.partition(number).end() for number in wanted})
        with self.store.reading() as db:
            yield db

    @contextlib.contextmanager
    def _read_of(
        self, fresh: bool | None, tenant: str, user: U, *partitions: int
    ) -> Iterator[tuple[sqlite3.Connection, U]]:
        """Likewise, fresh in the user's partition too, and the user as the rows name it."""
        if user is not None:
            user = self.recorded_as(tenant, user)
            partitions = (*partitions, self.partition_of(tenant, user))
        with self._read(fresh, *partitions) as db:
            yield db, user

    # --- sessions ---------------------------------------------------------------------------------------------------

    def session(self, tenant: str, user: str, session_id: Id, *, fresh: bool | None = None) -> SessionView:
        """The session, whatever its status. SessionNotFound where the user has none of that id."""
        identifier = parse_id(session_id, "session_id")
        with self._read_of(fresh, tenant, user) as (db, user):
            row = self._owned(db, tenant, user, identifier)
            return self._open(db, [row])[0]

    def sessions(
        self,
        tenant: str,
        user: str,
        *,
        status: str | None = LIVE,
        limit: int = 50,
        after: str | None = None,
        fresh: bool | None = None,
    ) -> Page[SessionView]:
        """A page of the user's sessions, newest activity first.

        `status`: live, ended, expired, evicted or imported; None: any. A live session whose time is over, and whose
        expiry is not recorded yet, is among the live ones, `timed_out`. `after`: the `next` of the page before.
        """
        return self._page(tenant, user, status, limit, after, fresh)

    def tenant_sessions(
        self,
        tenant: str,
        *,
        status: str | None = LIVE,
        limit: int = 50,
        after: str | None = None,
        fresh: bool | None = None,
    ) -> Page[SessionView]:
        """A page of the sessions of all users of the tenant; otherwise as `sessions`."""
        return self._page(tenant, None, status, limit, after, fresh)

    def has(self, tenant: str, user: str, session_id: Id, *, fresh: bool | None = None) -> bool:
        """Whether the user has that session and it is active: live and not timed out."""
        identifier = parse_id(session_id, "session_id")
        with self._read_of(fresh, tenant, user) as (db, user):
            row = reading.session(db, tenant, user, identifier)
        return row is not None and row["status"] == LIVE and row["due_at"] > self._clock()

    def count(self, tenant: str, user: str, *, status: str | None = LIVE, fresh: bool | None = None) -> int:
        """How many sessions `sessions` lists, over all pages."""
        statuses = statuses_of(status)
        with self._read_of(fresh, tenant, user) as (db, user):
            return reading.count_sessions(db, tenant, user, statuses)

    def current(self, tenant: str, user: str, *, fresh: bool | None = None) -> SessionView | None:
        """The user's most recently active session that is live and not timed out; None: there is none."""
        with self._read_of(fresh, tenant, user) as (db, user):
            row = reading.current_session(db, tenant, user, self._clock())
            return None if row is None else self._open(db, [row])[0]

    def history(
        self,
        tenant: str,
        user: str,
        session_id: Id,
        *,
        last: int | None = None,
        limit: int = PAGE_MAX,
        after: int = 0,
        fresh: bool | None = None,
    ) -> list[MessageView]:
        """Messages of a session in order: the `last` ones, or up to `limit` with numbers above `after`."""
        identifier = parse_id(session_id, "session_id")
        count = limited(limit, "limit") if last is None else limited(last, "last")
        with self._read_of(fresh, tenant, user) as (db, user):
            self._owned(db, tenant, user, identifier)
            if last is None:
                rows = reading.messages(db, identifier, after, count)
            else:
                rows = reading.last_messages(db, identifier, count)
        return [opening.message_view(row, tenant, user, self._envelope) for row in rows]

    def errors(
        self,
        tenant: str,
        user: str,
        session_id: Id,
        *,
        limit: int = PAGE_MAX,
        after: int = 0,
        fresh: bool | None = None,
    ) -> list[ErrorView]:
        """What failed while the session was served, in order; `after`: a position."""
        identifier = parse_id(session_id, "session_id")
        with self._read_of(fresh, tenant, user) as (db, user):
            self._owned(db, tenant, user, identifier)
            rows = reading.session_errors(db, identifier, after, limited(limit, "limit"))
        return [opening.error_view(row, tenant, user, self._envelope) for row in rows]

    def authentication_failures(
        self, tenant: str, user: str | None, *, limit: int = 50, before: int | None = None, fresh: bool | None = None
    ) -> list[AuthenticationFailureView]:
        """Failed attempts to authenticate as the user, newest first; `before`: a position.

        `user` None: as any user of the tenant, the last ones; `before` does not count then.
        """
        with self._read_of(fresh, tenant, user) as (db, user):
            rows = reading.authentication_failures(db, tenant, user, before, limited(limit, "limit"))
        return [opening.authentication_failure_view(row, self._envelope) for row in rows]

    def _owned(self, db: sqlite3.Connection, tenant: str, user: str, session_id: bytes) -> sqlite3.Row:
        row = reading.session(db, tenant, user, session_id)
        if row is None:
            raise SessionNotFound(f"session {format_id(session_id)}: no such session of this user")
        return row

    def _page(
        self, tenant: str, user: str | None, status: str | None, limit: int, after: str | None, fresh: bool | None
    ) -> Page[SessionView]:
        statuses_of(status)
        key = None if after is None else session_key(after)
        with self._read_of(fresh, tenant, user) as (db, user):
            rows = reading.sessions(db, tenant, user, status, limited(limit, "limit") + 1, key)
            more, rows = len(rows) > limit, rows[:limit]
            items = tuple(self._open(db, rows))
        last = rows[-1] if more else None
        return Page(items, None if last is None else paging.write_cursor(last["last_active_at"], last["session_id"]))

    def _open(self, db: sqlite3.Connection, rows: list[sqlite3.Row]) -> list[SessionView]:
        ids = [row["session_id"] for row in rows]
        content, held, now = reading.content(db, ids), reading.agents_held(db, ids), self._clock()
        return [
            opening.session_view(row, content[row["session_id"]], held[row["session_id"]], self._envelope, now)
            for row in rows
        ]

    # --- quotas, agents, summary --------------------------------------------------------------------------------------

    def quotas(self, tenant: str, user: str, *, at: int | None = None, fresh: bool | None = None) -> QuotaReport:
        """Every quota of the user as it stands at `at` (microseconds since the epoch; None: now): ReportQuota's answer.

        `at` moves the clock, not the log: windows as they are now, seen from then. It must not lie before their last
        amount.
        """
        partition = self.partition_of(tenant, user)
        with self._read_of(fresh, tenant, user, CONTROL) as (db, user):
            report = quota_views.report(db, tenant, user, self._clock() if at is None else at)
            position = reading.position(db, partition)
        return replace(report, partition=partition, position=position)

    def user_quotas(
        self, tenant: str, *, limit: int = 50, after: str | None = None, fresh: bool | None = None
    ) -> Page[UserQuotas]:
        """A page of the tenant's users who consumed, were refused or have a quota of their own, by name."""
        user = "" if after is None else paging.read_cursor(after, 1)[0]
        with self._read(fresh) as db:
            return quota_views.user_quotas(db, tenant, user, limited(limit, "limit"), self._clock(), self._user_of)

    def tenant_quotas(self, tenant: str, *, fresh: bool | None = None) -> list[TenantQuota]:
        """What the tenant's users have used of each resource, together. Reported, not enforced: limits are a user's."""
        with self._read(fresh) as db:
            return quota_views.tenant_quotas(db, tenant, self._clock())

    def limits(
        self, tenant: str, user: str | None = None, *, fresh: bool | None = None
    ) -> tuple[TenantSettings, Account]:
        """What is set for the tenant and its plans, and the user's account (None: of nobody) to apply it to."""
        with self._read_of(fresh, tenant, user, CONTROL) as (db, user):
            account = Account(tenant, "") if user is None else quota_reading.account_of(db, tenant, user)
            return quota_reading.settings_of(db, tenant), account

    def agents(
        self,
        tenant: str,
        *,
        agent_type: str | None = None,
        retired: bool = False,
        limit: int = PAGE_MAX,
        after: str | None = None,
        fresh: bool | None = None,
    ) -> Page[AgentView]:
        """A page of the tenant's agent instances, by type and id; `retired`: those that left, too."""
        start = ("", b"") if after is None else agent_key(after)
        with self._read(fresh) as db:
            rows = reading.agents(db, tenant, agent_type, retired, limited(limit, "limit") + 1, start)
        more, rows = len(rows) > limit, rows[:limit]
        cursor = paging.write_cursor(rows[-1]["agent_type"], rows[-1]["agent_id"]) if more else None
        return Page(tuple(map(opening.agent_view, rows)), cursor)

    def legal_holds(self, tenant: str | None = None, *, fresh: bool | None = None) -> list[LegalHoldView]:
        """The legal holds of a tenant (None: of all), its sessions and users, by scope and matter."""
        with self._read(fresh) as db:
            rows = reading.legal_holds(db, tenant)
        return [opening.legal_hold_view(row, self._user_of) for row in rows]

    def stats(self, tenant: str | None = None, *, busiest: int = 10, fresh: bool | None = None) -> Stats:
        """A summary of one tenant or of all: for operators, never for a user. Reads every session's row once."""
        with self._read(fresh) as db:
            return read_stats(db, tenant, busiest, self._user_of)
