"""The read side: current state by tenant and user, from the views, with content opened on the way out."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from uuid import UUID

from session_ledger.consumers import opening, paging, quota_views
from session_ledger.consumers.paging import PAGE_MAX, agent_key, limited, session_key, statuses_of
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
from session_ledger.consumers.views_open import CONTROL, OpenViews
from session_ledger.domain.account import Account
from session_ledger.domain.control import TenantSettings
from session_ledger.domain.errors import SessionNotFound
from session_ledger.domain.ids import format_id, parse_id
from session_ledger.domain.results import QuotaReport
from session_ledger.projections import quota_reading, reading
from session_ledger.projections.session_tables import LIVE

Id = str | UUID | bytes


class Views(OpenViews):
    """Reads. Thread-safe; a context manager; one instance serves any number of threads, none blocks another.

    Every read names tenant and user (or the tenant alone, for what is the tenant's): what is another's is not found.
    Unless `fresh=False`, a read first folds what the log has got since, so it sees everything that was in the log when
    it began; it raises PartitionStopped where that can not be (a record that can not be read: see `Projector`).
    `fresh=False` answers from the rows as they are.

    A principal reads its own tenants, others are Forbidden; a read that names no tenant takes every one. Who may not
    read content gets the structure: sealed fields are None, and `unreadable` says how they are revealed.

    All raise InvalidInput for ids, cursors and limits that are none, LogUnavailable (RegistryUnavailable is one),
    ProjectionConflict.
    """

    # --- sessions ---------------------------------------------------------------------------------------------------

    def session(self, tenant: str, user: str, session_id: Id, *, fresh: bool | None = None) -> SessionView:
        """The session, whatever its status. SessionNotFound where the user has none of that id."""
        identifier = parse_id(session_id, "session_id")
        with self._read_of("session", tenant, fresh, user) as (db, user):
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
        return self._page("sessions", tenant, user, status, limit, after, fresh)

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
        return self._page("tenant_sessions", tenant, None, status, limit, after, fresh)

    def has(self, tenant: str, user: str, session_id: Id, *, fresh: bool | None = None) -> bool:
        """Whether the user has that session and it is active: live and not timed out."""
        identifier = parse_id(session_id, "session_id")
        with self._read_of("has", tenant, fresh, user) as (db, user):
            row = reading.session(db, tenant, user, identifier)
        return row is not None and row["status"] == LIVE and row["due_at"] > self._clock()

    def count(self, tenant: str, user: str, *, status: str | None = LIVE, fresh: bool | None = None) -> int:
        """How many sessions `sessions` lists, over all pages."""
        statuses = statuses_of(status)
        with self._read_of("count", tenant, fresh, user) as (db, user):
            return reading.count_sessions(db, tenant, user, statuses)

    def current(self, tenant: str, user: str, *, fresh: bool | None = None) -> SessionView | None:
        """The user's most recently active session that is live and not timed out; None: there is none."""
        with self._read_of("current", tenant, fresh, user) as (db, user):
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
        with self._read_of("history", tenant, fresh, user) as (db, user):
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
        with self._read_of("errors", tenant, fresh, user) as (db, user):
            self._owned(db, tenant, user, identifier)
            rows = reading.session_errors(db, identifier, after, limited(limit, "limit"))
        return [opening.error_view(row, tenant, user, self._envelope) for row in rows]

    def authentication_failures(
        self, tenant: str, user: str | None, *, limit: int = 50, before: int | None = None, fresh: bool | None = None
    ) -> list[AuthenticationFailureView]:
        """Failed attempts to authenticate as the user, newest first; `before`: a position.

        `user` None: as any user of the tenant, the last ones; `before` does not count then.
        """
        with self._read_of("authentication_failures", tenant, fresh, user) as (db, user):
            rows = reading.authentication_failures(db, tenant, user, before, limited(limit, "limit"))
        return [opening.authentication_failure_view(row, self._envelope) for row in rows]

    def _owned(self, db: sqlite3.Connection, tenant: str, user: str, session_id: bytes) -> sqlite3.Row:
        row = reading.session(db, tenant, user, session_id)
        if row is None:
            raise SessionNotFound(f"session {format_id(session_id)}: no such session of this user")
        return row

    def _page(
        self,
        name: str,
        tenant: str,
        user: str | None,
        status: str | None,
        limit: int,
        after: str | None,
        fresh: bool | None,
    ) -> Page[SessionView]:
        statuses_of(status)
        key = None if after is None else session_key(after)
        with self._read_of(name, tenant, fresh, user) as (db, user):
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
        with self._read_of("quotas", tenant, fresh, user, CONTROL) as (db, user):
            report = quota_views.report(db, tenant, user, self._clock() if at is None else at)
            partition = self.partition_of(tenant, user)
            position = reading.position(db, partition)
        return replace(report, partition=partition, position=position)

    def user_quotas(
        self, tenant: str, *, limit: int = 50, after: str | None = None, fresh: bool | None = None
    ) -> Page[UserQuotas]:
        """A page of the tenant's users who consumed, were refused or have a quota of their own, by name."""
        user = "" if after is None else paging.read_cursor(after, 1)[0]
        with self._read("user_quotas", tenant, fresh) as db:
            return quota_views.user_quotas(db, tenant, user, limited(limit, "limit"), self._clock(), self._user_of)

    def tenant_quotas(self, tenant: str, *, fresh: bool | None = None) -> list[TenantQuota]:
        """What the tenant's users have used of each resource, together. Reported, not enforced: limits are a user's."""
        with self._read("tenant_quotas", tenant, fresh) as db:
            return quota_views.tenant_quotas(db, tenant, self._clock())

    def limits(
        self, tenant: str, user: str | None = None, *, fresh: bool | None = None
    ) -> tuple[TenantSettings, Account]:
        """What is set for the tenant and its plans, and the user's account (None: of nobody) to apply it to."""
        with self._read_of("limits", tenant, fresh, user, CONTROL) as (db, user):
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
        with self._read("agents", tenant, fresh) as db:
            rows = reading.agents(db, tenant, agent_type, retired, limited(limit, "limit") + 1, start)
        more, rows = len(rows) > limit, rows[:limit]
        cursor = paging.write_cursor(rows[-1]["agent_type"], rows[-1]["agent_id"]) if more else None
        return Page(tuple(map(opening.agent_view, rows)), cursor)

    def legal_holds(self, tenant: str | None = None, *, fresh: bool | None = None) -> list[LegalHoldView]:
        """The legal holds of a tenant (None: of all), its sessions and users, by scope and matter."""
        with self._read("legal_holds", tenant, fresh) as db:
            rows = reading.legal_holds(db, tenant)
        return [opening.legal_hold_view(row, self._user_of) for row in rows]

    def stats(self, tenant: str | None = None, *, busiest: int = 10, fresh: bool | None = None) -> Stats:
        """A summary of one tenant or of all: for operators, never for a user. Reads every session's row once."""
        with self._read("stats", tenant, fresh) as db:
            return read_stats(db, tenant, busiest, self._user_of)
