"""Retention: what to erase because its time is over, and the sweep that does.

A session's content is kept for the tenant's retention from its end (sensitive ones have a time of their own). The sweep
is idempotent and can be stopped anywhere: what is erased already is not found again. What a legal hold keeps is passed
over, and told; it is found again by a sweep after the hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from session_ledger.consumers.records import as_datetime
from session_ledger.consumers.views import Views
from session_ledger.domain.errors import UnderLegalHold
from session_ledger.domain.ids import format_id
from session_ledger.ledger.ledger import Ledger
from session_ledger.projections import reading

PAGE_SESSIONS = 500  # read at a time
BY = "retention"  # or who runs the sweep, where what they do is recorded under their own name


@dataclass(frozen=True, slots=True)
class Due:
    """A session whose content has been kept for as long as it is to be."""

    tenant: str
    user: str
    session_id: str
    kind: str
    ended_at: datetime
    retention: timedelta
    held: bool
    """A legal hold keeps it."""


@dataclass(slots=True)
class Swept:
    """What a sweep did."""

    erased: int = 0
    held: int = 0


def due(views: Views, now: int, tenant: str | None = None) -> Iterator[Due]:
    """The sessions that are due at `now` (microseconds since the epoch), in the order of their ids."""
    after = b""
    while True:
        with views.store.reading() as db:
            rows = reading.to_erase(db, tenant, now, after, PAGE_SESSIONS)
        for row in rows:
            yield Due(
                row["tenant"],
                row["user"],
                format_id(row["session_id"]),
                row["kind"],
                as_datetime(row["ended_at"]),
                timedelta(milliseconds=row["retention_ms"]),
                bool(row["held"]),
            )
        if len(rows) < PAGE_SESSIONS:
            return
        after = rows[-1]["session_id"]


def sweep(
    ledger: Ledger,
    views: Views,
    now: int,
    tenant: str | None = None,
    on_session: Callable[[Due], None] = lambda session: None,
) -> Swept:
    """Record the erasure of every session that is due and not held; `on_session` is told each that is due.

    The eraser destroys the keys after that. Raises what the ledger raises; what was recorded before stays.
    """
    swept, by = Swept(), BY if ledger.principal.names_others else ledger.principal.name
    for session in due(views, now, tenant):
        on_session(session)
        if session.held:
            swept.held += 1
            continue
        reason = f"kept for {session.retention.total_seconds() / 86_400:g} days"
        try:
            ledger.erase_session(session.tenant, session.user, session.session_id, requested_by=by, reason=reason)
            swept.erased += 1
        except UnderLegalHold:  # set since the views were read
            swept.held += 1
    return swept
