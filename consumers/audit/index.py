"""The facts about a session, a user or an agent, read from the log itself.

Where they stand is looked up in the newest analytics snapshot and, for what came after it, in the log's tail. The index
only says where to look: every fact is decoded from the log's bytes, and a session's and an agent's must have the
versions 1, 2, 3, ... of their stream. Where one is missing or a foreign one is named, the index is wrong, and the whole
partition is read; so it is where nothing is found. Only the loss of a stream's last rows can not be told that way:
`verify`, which compares the index with the log, tells it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from session_ledger.domain.errors import LogCorrupt
from session_ledger.domain.events import AgentEvent, Event, SessionEvent
from session_ledger.domain.ids import format_id, slot_of_id, slot_of_user
from session_ledger.ledger.log.port import Log, PartitionLog, Record
from session_ledger.projections.analytics.snapshots import Snapshot
from session_ledger.schemas.codec import Codec

READ_RECORDS = 1000
GAP_MAX = 16  # positions between two wanted ones that are read along with them: cheaper than another read


class Fact(NamedTuple):
    """An event and where it stands."""

    partition: int
    position: int
    event: Event


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found, in the order of the log."""

    facts: tuple[Fact, ...]
    partition: int
    read_to: int
    """The end of the partition: everything up to there was taken into account."""
    by_index: bool
    """False: there was no snapshot, or it was wrong, and the whole partition was read."""


class Index:
    """Finds facts. Not thread-safe."""

    def __init__(self, log: Log, codec: Codec, snapshot: Snapshot | None) -> None:
        """`snapshot` None, or one of another log: partitions are read whole."""
        self._log, self._codec = log, codec
        self._snapshot = snapshot if snapshot is not None and snapshot.log_id == log.log_id else None

    def of_session(self, session_id: bytes) -> Facts:
        """Every fact of the session's stream, and what else names it: its leases, reveals of its content, findings.

        Raises LogCorrupt where its stream has a gap in the log itself.
        """

        def concerns(event: Event) -> bool:
            return getattr(event, "session_id", None) == session_id

        def stream(event: Event) -> bool:
            return isinstance(event, SessionEvent)

        partition = self._partition(slot_of_id(session_id))
        return self._found(partition, "session_id = $id", {"id": format_id(session_id)}, concerns, stream)

    def of_agent(self, agent_id: bytes) -> Facts:
        """Every fact of the agent's stream, and the messages and errors that name it."""

        def concerns(event: Event) -> bool:
            return getattr(event, "agent_id", None) == agent_id

        def stream(event: Event) -> bool:
            return isinstance(event, AgentEvent)

        partition = self._partition(slot_of_id(agent_id))
        return self._found(partition, "agent_id = $id", {"id": format_id(agent_id)}, concerns, stream)

    def of_user(self, tenant: str, user: str) -> Facts:
        """Every fact of the user: of the account, of all sessions, of what they leased."""

        def concerns(event: Event) -> bool:
            return event.tenant == tenant and event.user == user

        partition = self._partition(slot_of_user(tenant, user))
        whose = {"tenant": tenant, "user": user}
        return self._found(partition, "tenant = $tenant AND user = $user", whose, concerns, None)

    # --- finding ------------------------------------------------------------------------------------------------------

    def _partition(self, slot: int) -> PartitionLog:
        return self._log.partitions[slot & (len(self._log.partitions) - 1)]

    def _found(
        self,
        log: PartitionLog,
        where: str,
        values: dict[str, str],
        concerns: Callable[[Event], bool],
        stream: Callable[[Event], bool] | None,
    ) -> Facts:
        """`stream`: which of the facts must have dense versions; None: the user's streams are many."""
        end = log.end()
        if self._snapshot is not None:
            covered = min(self._snapshot.positions.get(log.partition, 0), end)
            rows = self._snapshot.connection.execute(
                f"SELECT position FROM events WHERE partition = $partition AND position <= $covered AND {where}"
                " ORDER BY 1",
                {"partition": log.partition, "covered": covered, **values},
            ).fetchall()
            facts = self._at(log, [row[0] for row in rows]) + list(self._tail(log, covered, end, concerns))
            if facts and all(concerns(fact.event) for fact in facts) and _dense(facts, stream):
                return Facts(tuple(facts), log.partition, end, True)
        facts = list(self._tail(log, 0, end, concerns))
        if not _dense(facts, stream):
            raise LogCorrupt(f"partition {log.partition}: the versions of a stream of {values} are not 1, 2, 3, ...")
        return Facts(tuple(facts), log.partition, end, False)

    def _tail(self, log: PartitionLog, after: int, end: int, concerns: Callable[[Event], bool]) -> Iterator[Fact]:
        while after < end and (records := log.read(after, min(READ_RECORDS, end - after))):
            after = records[-1].position
            for record in records:
                event = self._decode(log, record)
                if concerns(event):
                    yield Fact(log.partition, record.position, event)

    def _at(self, log: PartitionLog, positions: Sequence[int]) -> list[Fact]:
        """The facts at these positions, neighbours read together."""
        found: list[Fact] = []
        for run in _runs(positions):
            wanted = set(run)
            for record in log.read(run[0] - 1, run[-1] - run[0] + 1):
                if record.position in wanted:
                    found.append(Fact(log.partition, record.position, self._decode(log, record)))
        return found

    def _decode(self, log: PartitionLog, record: Record) -> Event:
        return self._codec.decode(record.value, record.topic, partition=log.partition, position=record.position)


def _runs(positions: Sequence[int]) -> Iterator[list[int]]:
    run: list[int] = []
    for position in positions:
        if run and position - run[-1] > GAP_MAX:
            yield run
            run = []
        run.append(position)
    if run:
        yield run


def _dense(facts: Sequence[Fact], stream: Callable[[Event], bool] | None) -> bool:
    """Whether the versions of the stream are 1, 2, 3, ...; of a user, whether those of each of the streams are."""
    versions: dict[bytes, int] = {}
    for fact in facts:
        event = fact.event
        counted = stream(event) if stream is not None else not isinstance(event, AgentEvent)  # those are shared
        if not counted:
            continue
        originator = event.originator_id
        if event.version != versions.get(originator, 0) + 1:
            return False
        versions[originator] = event.version
    return True
