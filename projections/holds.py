"""Legal holds as they stand: of tenants (from the control log), of users and of sessions."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from session_ledger.domain.events import Event, LegalHoldLifted, LegalHoldSet, TenantHoldLifted, TenantHoldSet

_DDL = """
CREATE TABLE legal_holds (
    tenant TEXT NOT NULL,
    user TEXT NOT NULL,             -- '': all of the tenant
    session_id BLOB NOT NULL,       -- x'': all of the user
    matter TEXT NOT NULL,
    requested_by TEXT NOT NULL,
    reason TEXT NOT NULL,
    recorded_at INTEGER NOT NULL,
    partition INTEGER NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (tenant, user, session_id, matter)
) STRICT, WITHOUT ROWID;
"""


class HoldsProjection:
    """Table legal_holds."""

    name = "holds"
    version = 1
    ddl = _DDL
    tables = ("legal_holds",)

    def apply(self, db: sqlite3.Connection, partition: int, events: Sequence[tuple[int, Event]]) -> None:
        """Fold a batch."""
        for position, event in events:
            if isinstance(event, LegalHoldSet | TenantHoldSet):
                told = (event.requested_by, event.reason, event.recorded_at, partition, position)
                db.execute(
                    "INSERT OR REPLACE INTO legal_holds VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*_scope(event), *told)
                )
            elif isinstance(event, LegalHoldLifted | TenantHoldLifted):
                db.execute(
                    "DELETE FROM legal_holds WHERE tenant = ? AND user = ? AND session_id = ? AND matter = ?",
                    _scope(event),
                )


def _scope(event: LegalHoldSet | LegalHoldLifted | TenantHoldSet | TenantHoldLifted) -> tuple[object, ...]:
    session_id = event.session_id if isinstance(event, LegalHoldSet | LegalHoldLifted) else None
    return event.tenant, event.user, session_id or b"", event.matter
