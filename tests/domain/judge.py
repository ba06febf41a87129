"""Judges a log by its events alone, without any of the folding code: what must hold at every position."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal

from session_ledger.domain.events import (
    AgentAcquired,
    AgentRegistered,
    AgentReleased,
    AgentRetired,
    Event,
    MessageAdded,
    QuotaConsumed,
    QuotaRefused,
    QuotaReleased,
    SessionCreated,
    SessionEnded,
    SessionEvent,
    SessionEvicted,
    SessionExpired,
)

SECOND = 1_000_000
Who = tuple[str, str]


class Judge:
    """`see` takes the events in order and asserts."""

    def __init__(self) -> None:
        self.now = 0
        self.event_ids: set[bytes] = set()
        self.versions: dict[bytes, int] = defaultdict(int)
        self.live: dict[Who, set[bytes]] = defaultdict(set)
        self.importing: set[bytes] = set()
        self.owner: dict[bytes, Who] = {}
        self.messages: dict[bytes, int] = {}
        self.amounts: dict[tuple[Who, str], dict[bytes, tuple[int, Decimal]]] = defaultdict(dict)
        self.open: dict[bytes, tuple[int, Decimal]] = {}
        self.refused_at: dict[tuple[Who, str], int] = {}
        self.refused = 0
        self.holder: dict[bytes, bytes | None] = {}
        self.command: bytes | None = None
        self.commands: set[bytes] = set()

    def see(self, event: Event) -> None:
        """Assert what must hold of one more event."""
        assert event.recorded_at >= self.now
        self.now = event.recorded_at
        assert event.event_id not in self.event_ids
        self.event_ids.add(event.event_id)
        assert self.versions[event.originator_id] + 1 == event.version
        self.versions[event.originator_id] = event.version
        self._adjacent(event)
        if isinstance(event, SessionEvent):
            self._session(event)
        who = (event.tenant, event.user)
        if isinstance(event, QuotaConsumed):
            self._consumed(who, event)
        elif isinstance(event, QuotaReleased):
            at, amount = self.open.pop(event.reservation_id)
            assert Decimal(0) <= event.amount <= amount
            amounts = self.amounts[who, event.resource]
            if event.reservation_id in amounts:
                amounts[event.reservation_id] = (at, amount - event.amount)
        elif isinstance(event, QuotaRefused):
            before = self.refused_at.get((who, event.resource))
            assert before is None or before + SECOND <= event.recorded_at
            self.refused_at[who, event.resource] = event.recorded_at
            self.refused += event.count
        self._agent(event)

    def _adjacent(self, event: Event) -> None:
        """The events of one command stand next to each other, and no command has run twice."""
        if event.command_id != self.command:
            assert event.command_id not in self.commands
            self.command = event.command_id
            if event.command_id is not None:
                self.commands.add(event.command_id)

    def _session(self, event: SessionEvent) -> None:
        who = (event.tenant, event.user)
        session_id = event.session_id
        if isinstance(event, SessionCreated):
            assert session_id not in self.owner
            self.owner[session_id] = who
            self.messages[session_id] = 0
            if event.imported:
                self.importing.add(session_id)
            else:
                self.live[who].add(session_id)
                assert event.session_limit is not None
                assert len(self.live[who]) <= event.session_limit
            return
        assert who == self.owner[session_id]
        assert session_id in self.live[who] or session_id in self.importing
        if isinstance(event, MessageAdded):
            self.messages[session_id] += 1
            assert self.messages[session_id] == event.message_number
        if isinstance(event, SessionExpired):
            assert event.due_at <= event.recorded_at
            assert session_id not in self.importing or event.reason == "ttl"
        if isinstance(event, SessionEnded | SessionExpired | SessionEvicted):
            self.live[who].discard(session_id)
            self.importing.discard(session_id)

    def _consumed(self, who: Who, event: QuotaConsumed) -> None:
        """What left a window is forgotten, so a longer period that is set later starts from what is remembered."""
        start = event.recorded_at - event.period_ms * 1000
        amounts = {key: value for key, value in self.amounts[who, event.resource].items() if value[0] > start}
        amounts[event.event_id] = (event.recorded_at, event.amount)
        self.amounts[who, event.resource] = amounts
        if event.reserved:
            self.open[event.event_id] = amounts[event.event_id]
        assert sum((amount for _, amount in amounts.values()), Decimal(0)) <= event.used <= event.limit

    def _agent(self, event: Event) -> None:
        if isinstance(event, AgentRegistered):
            assert event.agent_id not in self.holder
            self.holder[event.agent_id] = None
        elif isinstance(event, AgentAcquired):
            assert self.holder[event.agent_id] is None
            assert event.session_id in self.live[event.tenant, event.user]
            self.holder[event.agent_id] = event.session_id
        elif isinstance(event, AgentReleased):
            assert self.holder[event.agent_id] == event.session_id
            assert self.owner[event.session_id] == (event.tenant, event.user)
            self.holder[event.agent_id] = None
        elif isinstance(event, AgentRetired):
            assert self.holder[event.agent_id] is None

    def after_an_append(self) -> None:
        """What must hold between two appends: no session that is over holds an agent."""
        live = set().union(*self.live.values()) if self.live else set()
        assert {holder for holder in self.holder.values() if holder is not None} <= live
