"""Leakage checks on a ledger: the structure of its events, and what was said, opened for the check and recorded.

Contents are opened in memory, batch by batch; what is kept beside the run is in the ledger: each finding is a
LeakFound, once, and who ran the check over which tenants is an AuditRead before anything is opened.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import duckdb

from session_ledger.domain.commands import ReportLeak
from session_ledger.domain.events import TOPIC_BY_EVENT, MessageAdded
from session_ledger.domain.ids import parse_id
from session_ledger.domain.results import Result
from session_ledger.ledger.ledger import Ledger
from session_ledger.projections.analytics.leakage.content import Scanner
from session_ledger.projections.analytics.leakage.findings import Leak, Message
from session_ledger.projections.analytics.leakage.structural import leaks_by_structure
from session_ledger.projections.analytics.snapshots import Snapshot
from session_ledger.security.opening import as_text, open_sealed
from session_ledger.security.port import Envelope

READ_ROWS = 20_000
LATE_US = 10_000_000  # a partition whose newest event is older is idle, and not waited for
_TOPIC = TOPIC_BY_EVENT[MessageAdded]
_LATE = "SELECT count(*) FROM events WHERE event_type = 'MessageAdded' AND epoch_us(recorded_at) < $1"
_COMPLETE = """
WITH newest AS (SELECT partition, epoch_us(max(recorded_at)) AS us FROM events WHERE partition >= 0 GROUP BY partition)
SELECT min(us) FROM newest WHERE us >= (SELECT max(us) FROM newest) - $1
"""
_REACHED = "SELECT partition, max(position) FROM events WHERE epoch_us(recorded_at) <= $1 GROUP BY partition"

_ERASED = """
SELECT DISTINCT erased.event_id::VARCHAR, said.session_id::VARCHAR FROM events AS erased JOIN events AS said
    ON said.partition = erased.partition AND said.position < erased.position AND said.event_type = 'MessageAdded'
    AND said.tenant = erased.tenant AND said.user = erased.user
    AND (erased.session_id IS NULL OR said.session_id = erased.session_id)
WHERE erased.event_type = 'ContentErased'
"""


@dataclass(frozen=True, slots=True)
class Checked:
    """The outcome of a check."""

    leaks: tuple[Leak, ...]
    messages: int
    """That were opened and looked at."""
    unreadable: int
    """That could not be opened: their keys are gone."""


def audit_key(envelope: Envelope) -> bytes:
    """32 bytes that only who holds the ledger's keys can derive; the same for every run.

    Derived from a data key of the ledger itself, which is made where there is none, so that texts of different tenants
    can be compared. Raises KeyUnavailable.
    """
    key = envelope.account_key("", "", create=True)
    assert key is not None, "it was asked to be made"
    envelope.make_durable([key])
    return key.digest(b"session-ledger audit key v1, first half") + key.digest(b"session-ledger audit key v1, second")


def check(
    snapshot: Snapshot,
    envelope: Envelope,
    *,
    since: datetime | None = None,
    tenant: str | None = None,
    contents: bool = True,
) -> Checked:
    """Look for leaks in a snapshot. Record first who does (`AuditRead`): contents are opened here.

    `since`: only what came to light from then on is told; what came before is looked at all the same, for it may be the
    source. `tenant`: only what came to light there. `contents` False: by structure alone. Raises KeyUnavailable where
    a key is there and can not be had, ContentUnreadable where bytes do not open: then nothing is told.
    """
    leaks = leaks_by_structure(snapshot.connection)
    opened = _Opened(snapshot, envelope)
    if contents:
        leaks += Scanner(audit_key(envelope)).scan(opened.messages())
    from_us = None if since is None else int(since.timestamp() * 1_000_000)
    told = [
        leak
        for leak in leaks
        if (tenant is None or leak.place.tenant == tenant) and (from_us is None or leak.place.recorded_at >= from_us)
    ]
    told.sort(key=lambda leak: (leak.place.recorded_at, leak.place.partition, leak.place.position, leak.kind))
    return Checked(tuple(told), opened.count, opened.unreadable)


class Watch:
    """Looks at what comes, snapshot by snapshot, with one index over all of it. Not thread-safe."""

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope
        self._told: set[bytes] = set()
        self._begin()

    def _begin(self) -> None:
        self._scanner = Scanner(audit_key(self._envelope))
        self._positions: dict[int, int] = {}
        self._until_us = 0
        self._forgotten: set[tuple[str, str]] = set()  # (erasure, session)

    def step(self, snapshot: Snapshot, *, settled: bool = False) -> Checked:
        """What came to light since the snapshot before; each finding is told once.

        Messages are looked at in the order in which they were recorded, while a snapshot may hold more of one partition
        than of another: what is later than the newest event of a partition that lags waits for a later step. `settled`:
        nothing waits. What turns up too late all the same makes it look at everything again. Text that becomes common
        only later may be told as a leak first.
        """
        taken = " OR ".join(f"(partition = {p} AND position <= {at})" for p, at in self._positions.items()) or "false"
        if _one(snapshot, f"{_LATE} AND NOT ({taken})", self._until_us):
            self._begin()
        self._until_us = max(self._until_us, _one(snapshot, _COMPLETE, 0 if settled else LATE_US))
        opened = _Opened(snapshot, self._envelope, self._positions, self._until_us)
        leaks = leaks_by_structure(snapshot.connection)
        batch: list[Message] = []
        for message in opened.messages():
            batch.append(message)
            if len(batch) >= READ_ROWS:
                leaks += self._scanner.add(batch)
                batch = []
        leaks += self._scanner.add(batch)
        cursor = snapshot.connection.cursor()
        self._positions |= dict(cursor.execute(_REACHED, [self._until_us]).fetchall())
        self._forget_erased(cursor)
        new = {leak.finding_id: leak for leak in leaks if leak.finding_id not in self._told}
        self._told |= set(new)
        return Checked(tuple(new.values()), opened.count, opened.unreadable)

    def _forget_erased(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """Take what was erased since out of the index, also where its keys were still there when it was looked at."""
        for erasure, session in cursor.execute(_ERASED).fetchall():
            if (erasure, session) not in self._forgotten:
                self._forgotten.add((erasure, session))
                self._scanner.forget(parse_id(session))


def _one(snapshot: Snapshot, query: str, value: int) -> int:
    found = snapshot.connection.cursor().execute(query, [value]).fetchone()
    return 0 if found is None or found[0] is None else int(found[0])


class _Opened:
    """The messages of a snapshot with their texts, in the order in which they were recorded."""

    def __init__(
        self,
        snapshot: Snapshot,
        envelope: Envelope,
        after: Mapping[int, int] | None = None,
        until_us: int | None = None,
    ) -> None:
        """`after`: partition to the position up to which messages are left out; `until_us`: none recorded later."""
        self._snapshot, self._envelope, self._after, self._until_us = snapshot, envelope, after or {}, until_us
        self.count = self.unreadable = 0

    def messages(self) -> Iterator[Message]:
        cursor = self._snapshot.connection.cursor()
        cursor.execute("CREATE OR REPLACE TEMP TABLE looked_at (partition SMALLINT, position BIGINT)")
        if self._after:
            cursor.executemany("INSERT INTO looked_at VALUES (?, ?)", list(self._after.items()))
        cursor.execute(
            "SELECT partition, position, epoch_us(recorded_at), tenant, user, session_id::VARCHAR, role, shared_source,"
            " event_id::VARCHAR, key_id::VARCHAR, content FROM events WHERE event_type = 'MessageAdded' AND"
            " position > coalesce((SELECT max(l.position) FROM looked_at l WHERE l.partition = events.partition), 0)"
            " AND ($1 IS NULL OR epoch_us(recorded_at) <= $1) ORDER BY recorded_at, partition, position",
            [self._until_us],
        )
        while rows := cursor.fetchmany(READ_ROWS):
            for row in rows:
                message = self._message(*row)
                if message is not None:
                    self.count += 1
                    yield message
        cursor.close()

    def _message(
        self,
        partition: int,
        position: int,
        recorded_at: int,
        tenant: str,
        user: str,
        session: str,
        role: str,
        shared_source: str | None,
        event: str,
        key: str | None,
        sealed: bytes,
    ) -> Message | None:
        session_id = parse_id(session)
        key_id = None if key is None else parse_id(key)
        if key_id is not None and self._envelope.opening_key(tenant, user, session_id, key_id) is None:
            self.unreadable += 1  # and told: an erased session is no source any more
            return None
        whose = (tenant, user, session_id)
        opened = open_sealed(self._envelope, *whose, parse_id(event), _TOPIC, "sealed_content", key_id, sealed)
        text = as_text("sealed_content", opened)
        return Message(partition, position, recorded_at, tenant, user, session_id, role, text, shared_source)


def record(ledger: Ledger, leaks: Sequence[Leak]) -> dict[int, int]:
    """Record each finding as a fact; those that are recorded already add nothing. Raises what the ledger raises.

    Returns partition to the position up to which all of them are in the log.
    """
    under_way: list[Future[Result]] = []
    reached: dict[int, int] = {}

    def settle(future: Future[Result]) -> None:
        done = future.result()
        reached[done.partition] = max(done.position, reached.get(done.partition, 0))

    for leak in leaks:
        place, source = leak.place, leak.source
        assert place.session_id is not None, "every check tells in which session it came to light"
        command = ReportLeak(
            tenant=place.tenant,
            user=place.user,
            finding_id=leak.finding_id,
            kind=leak.kind,
            severity=leak.severity,
            direction=leak.direction,
            session_id=place.session_id,
            leak_position=place.position,
            source_tenant=source.tenant,
            source_user=source.user,
            source_session_id=source.session_id,
            source_partition=source.partition,
            source_position=source.position,
            length=leak.length,
            score=Decimal(str(round(leak.score, 6))),
        )
        under_way.append(ledger.submit(command))
        if len(under_way) >= 500:
            settle(under_way.pop(0))
    for future in under_way:
        settle(future)
    return reached
