"""Who was shown content and who read audits: every such fact, of the snapshot and of what came after it in the log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from session_ledger.consumers.records import as_datetime
from session_ledger.domain.events import AuditRead, ContentRevealed, Event
from session_ledger.domain.ids import format_id
from session_ledger.ledger.log.port import Log, PartitionLog
from session_ledger.projections.analytics.snapshots import Snapshot
from session_ledger.schemas.codec import Codec

READ_RECORDS = 1000


@dataclass(frozen=True, slots=True)
class Access:
    """One reveal or read. Ids are UUID text; `query` tells which reveals belong together, in hex."""

    recorded_at: datetime
    who: str
    action: str
    """reveal, or what was read."""
    reason: str | None
    tenant: str
    user: str
    """Empty: the whole tenant's."""
    session_id: str | None
    fields: int | None
    """Of a reveal: how many were opened."""
    query: str | None
    partition: int
    position: int


def accesses(
    log: Log, codec: Codec, snapshot: Snapshot | None, *, tenant: str | None = None, user: str | None = None
) -> list[Access]:
    """Of a tenant's user, of a tenant, or of all; the oldest first. Each is read from the log itself."""
    found: list[Access] = []
    usable = snapshot if snapshot is not None and snapshot.log_id == log.log_id else None
    for partition in log.partitions:
        covered = 0 if usable is None else min(usable.positions.get(partition.partition, 0), partition.end())
        if usable is not None:
            rows = usable.connection.execute(
                "SELECT position FROM events WHERE partition = ? AND position <= ? AND event_type IN"
                " ('ContentRevealed', 'AuditRead') ORDER BY 1",
                [partition.partition, covered],
            ).fetchall()
            for (position,) in rows:
                found += _read(partition, codec, position - 1, position)
        found += _read(partition, codec, covered, partition.end())
    wanted = [one for one in found if tenant in (None, one.tenant) and user in (None, one.user)]
    return sorted(wanted, key=lambda one: (one.recorded_at, one.partition, one.position))


def _read(partition: PartitionLog, codec: Codec, after: int, end: int) -> Iterator[Access]:
    while after < end and (records := partition.read(after, min(READ_RECORDS, end - after))):
        after = records[-1].position
        for record in records:
            event = codec.decode(record.value, record.topic, partition=partition.partition, position=record.position)
            access = _access(partition.partition, record.position, event)
            if access is not None:
                yield access


def _access(partition: int, position: int, event: Event) -> Access | None:
    if not isinstance(event, ContentRevealed | AuditRead):
        return None
    session_id = None if event.session_id is None else format_id(event.session_id)
    fields: int | None
    query: str | None
    if isinstance(event, ContentRevealed):
        who, action, fields, query = event.revealed_by, "reveal", event.fields, event.query_digest.hex()
    else:
        who, action, fields, query = event.read_by, event.action, None, None
    return Access(
        recorded_at=as_datetime(event.recorded_at),
        who=who,
        action=action,
        reason=event.reason,
        tenant=event.tenant,
        user=event.user,
        session_id=session_id,
        fields=fields,
        query=query,
        partition=partition,
        position=position,
    )
