"""Agent instances: what they can do, which session holds them, how often they were leased."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from session_ledger.domain.errors import LogCorrupt
from session_ledger.domain.events import AgentAcquired, AgentEvent, AgentRegistered, AgentReleased, AgentRetired, Event

_DDL = """
CREATE TABLE agents (
    agent_id BLOB PRIMARY KEY,
    tenant TEXT NOT NULL,
    agent_type TEXT NOT NULL,
    capabilities TEXT NOT NULL,     -- JSON array, sorted
    partition INTEGER NOT NULL,
    registered_at INTEGER NOT NULL,
    retired_at INTEGER,
    retired_reason TEXT,
    held_by BLOB,                   -- the session that leases it
    held_since INTEGER,
    leases INTEGER NOT NULL,
    last_reset TEXT,                -- verified, failed or not_reported, of the last lease that ended
    version INTEGER NOT NULL,
    position INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX agents_of_tenant ON agents (tenant, agent_type, agent_id);
CREATE INDEX agents_in_service ON agents (tenant, agent_type, agent_id) WHERE retired_at IS NULL;
CREATE INDEX agents_held ON agents (held_by) WHERE held_by IS NOT NULL;
"""

_ACQUIRED = "held_by = ?, held_since = ?, leases = leases + 1"
_RELEASED = "held_by = NULL, held_since = NULL, last_reset = ?"
_RETIRED = "retired_at = ?, retired_reason = ?"


class AgentsProjection:
    """Table agents."""

    name = "agents"
    version = 1
    ddl = _DDL
    tables = ("agents",)

    def apply(self, db: sqlite3.Connection, partition: int, events: Sequence[tuple[int, Event]]) -> None:
        """Fold a batch; raises LogCorrupt for an event of an instance that was never registered."""
        for position, event in events:
            if not isinstance(event, AgentEvent):
                continue
            match event:
                case AgentRegistered():
                    db.execute(
                        "INSERT INTO agents VALUES (?, ?, ?, ?, ?, ?, NULL, NULL, NULL, NULL, 0, NULL, ?, ?)",
                        (
                            event.agent_id,
                            event.tenant,
                            event.agent_type,
                            json.dumps(event.capabilities, ensure_ascii=False),
                            partition,
                            event.recorded_at,
                            event.version,
                            position,
                        ),
                    )
                case AgentAcquired():
                    _change(db, position, event, _ACQUIRED, event.session_id, event.recorded_at)
                case AgentReleased():
                    _change(db, position, event, _RELEASED, event.reset)
                case AgentRetired():
                    _change(db, position, event, _RETIRED, event.recorded_at, event.reason)
                case _:
                    pass


def _change(
    db: sqlite3.Connection,
    position: int,
    event: AgentAcquired | AgentReleased | AgentRetired,
    assignments: str,
    *values: object,
) -> None:
    changed = db.execute(
        f"UPDATE agents SET {assignments}, version = ?, position = ? WHERE agent_id = ? AND version < ?",
        (*values, event.version, position, event.agent_id, event.version),
    ).rowcount
    if changed != 1:
        raise LogCorrupt(
            f"position {position}: {type(event).__name__} of an agent instance that is not registered, or again"
        )
