"""A sample of sessions, replayed from the log's own bytes and compared with the views: minutes become seconds."""

from __future__ import annotations

import random

from session_ledger.consumers.audit.index import Index
from session_ledger.consumers.audit.state import state_of
from session_ledger.consumers.findings import Findings
from session_ledger.consumers.views import Views
from session_ledger.domain.errors import LogCorrupt, SessionLedgerError
from session_ledger.domain.ids import format_id
from session_ledger.projections.analytics.snapshots import Snapshot

COMPARED = (
    *("tenant", "status", "kind", "channel", "domain", "created_at", "last_active_at", "due_at", "expires_at"),
    *("ended_at", "end_reason", "ended_by", "replaced_by", "tokens_in", "tokens_out", "agents", "version", "partition"),
)
TABLE = "sessions, sampled"


def verify_sample(views: Views, snapshot: Snapshot | None, count: int, seed: int) -> Findings:
    """Compare so many sessions, drawn by the seed (all, where there are fewer), each at the end of the views.

    `snapshot` says where a session's events stand; None: partitions are read whole, once a session. The views must be
    caught up. Raises LogUnavailable.
    """
    findings = Findings(rows={TABLE: 0})
    with views.store.reading() as db:
        known = [row[0] for row in db.execute("SELECT session_id FROM sessions ORDER BY session_id")]
    index = Index(views.log, views.codec, snapshot)
    for session_id in random.Random(seed).sample(known, min(count, len(known))):
        _compare(views, index, session_id, findings)
        findings.rows[TABLE] += 1
    findings.ends = findings.compared = views.projector.positions()
    return findings


def _compare(views: Views, index: Index, session_id: bytes, findings: Findings) -> None:
    name = format_id(session_id)
    try:
        found = index.of_session(session_id)
        position = views.store.position(found.partition)
        state = state_of([fact for fact in found.facts if fact.position <= position])
        findings.records += len(found.facts)
        view = views.session(state.tenant, state.user, session_id, fresh=False)
    except LogCorrupt as error:
        findings.add("session", f"session {name} can not be replayed: {error}")
        return
    except SessionLedgerError as error:
        if error.retriable:
            raise
        findings.add("extra_row", f"sessions ({name}) stands in the views, the log does not give it: {error}")
        return
    told = {field: (getattr(view, field), getattr(state, field)) for field in COMPARED}
    told["user"] = views.recorded_as(view.tenant, view.user), state.user
    told["messages"] = view.messages, len(state.messages)
    told["errors"] = view.errors, len(state.errors)
    wrong = [field for field, (seen, replayed) in told.items() if seen != replayed]
    if wrong:
        message = f"sessions ({name}) is not what the log gives: {', '.join(wrong)}"
        findings.add("changed_row", message, state.partition, state.position)
