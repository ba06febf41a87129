"""Histories for the tests of everything that reads the log: random commands, decided by the real domain.

A world is a ledger without its shard: the edge prepares, `decide` decides, the events go into a log in memory, and the
accounts that `evolve` folds stay at hand to compare the views with.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from session_ledger.domain import commands as c
from session_ledger.domain.account import Account
from session_ledger.domain.agents import AgentPool
from session_ledger.domain.control import ControlState, decide_control, evolve_control
from session_ledger.domain.decide import Context, decide, evolve
from session_ledger.domain.errors import SessionLedgerError
from session_ledger.domain.events import TOPIC_BY_EVENT, Event
from session_ledger.domain.ids import derived_session_id, new_id, new_slotted_id, slot_of_user
from session_ledger.domain.results import QuotaReport
from session_ledger.domain.validate import Rules
from session_ledger.ledger.answering import NOBODY
from session_ledger.ledger.edge import Edge
from session_ledger.ledger.log.memory import MemoryLog
from session_ledger.ledger.log.port import Log, Record
from session_ledger.schemas.codec import Codec
from session_ledger.security.envelope import VaultEnvelope
from session_ledger.security.keyring import MemoryKeyring
from session_ledger.security.port import Envelope
from session_ledger.security.vault_memory import MemoryVault

CODEC = Codec()
START_US = 1_750_000_000_000_000
SECOND_US = 1_000_000
TENANTS = ("acme", "globex")
USERS = ("ada", "bob", "cleo")
MINUTE_US = 60 * SECOND_US
PAUSES_US = (*(0, 1, 900, 50_000, SECOND_US) * 4, 40 * SECOND_US, 40 * SECOND_US, 5 * MINUTE_US, 40 * MINUTE_US)


class World:
    """A log in memory that grows by commands; the same seed gives the same history, but for random ids."""

    def __init__(
        self, seed: int = 1, *, partitions: int = 2, log: Log | None = None, envelope: Envelope | None = None
    ) -> None:
        self.random = random.Random(seed)
        self.now = START_US
        self.log: Log = log or MemoryLog(partitions=partitions)
        self.envelope = envelope or self._rotating()
        self.edge = Edge(self.envelope, Rules(), ("colour",), lambda: self.now, bytes_max=3 * 1024 * 1024)
        self.accounts: dict[tuple[str, str], Account] = {}
        self.pools: dict[int, AgentPool] = defaultdict(AgentPool)
        self.control = ControlState()
        self.ended: dict[bytes, str] = {}
        self.sessions: list[tuple[str, str, bytes]] = []
        self.reservations: list[tuple[str, str, bytes]] = []
        self.events: list[tuple[int, int, Event]] = []
        """(partition, position, event) of everything recorded."""
        self._imports = 0

    def _rotating(self) -> Envelope:
        """Keys in memory, of sessions so short-lived that histories hold many rotations."""
        return VaultEnvelope(
            "world", MemoryVault(), MemoryKeyring(), cached_s=1e-9, session_key_age_max_s=60, clock_us=lambda: self.now
        )

    # --- running commands -------------------------------------------------------------------------------------------

    def run(self, command: c.Command) -> SessionLedgerError | None:
        """Decide one command and record what it led to; its error, if it was refused."""
        if isinstance(command, (c.SetLimits, c.PublishSchema)):
            prepared = self.edge.prepare(command, NOBODY).prepared
            decision = decide_control(self.control, prepared, self.now, self._new_id)
            for position, event in self._append(-1, decision.events):
                evolve_control(self.control, event, position)
            return decision.error
        pending = self.edge.prepare(command, NOBODY)
        prepared = pending.prepared
        self.envelope.make_durable(pending.keys)
        user = command.user if isinstance(command, c.UserCommand) else ""
        partition = self._partition(command)
        account = self.account(command.tenant, user)
        ended = self.ended.get(command.session_id) if isinstance(command, c.SessionCommand) else None
        settings = self.control.settings_of(command.tenant)
        context = Context(account, self.pools[partition], settings, partition, ended)
        decision = decide(context, prepared, self.now, self._new_id)
        for position, event in self._append(partition, decision.events):
            evolve(self.account(event.tenant, event.user), self.pools[partition], event, position)
            self._note(event)
        return decision.error

    def report(self, tenant: str, user: str) -> QuotaReport:
        """The ledger's own answer to ReportQuota now."""
        command = c.ReportQuota(tenant=tenant, user=user)
        prepared = self.edge.prepare(command, NOBODY).prepared
        partition = slot_of_user(tenant, user) % len(self.log.partitions)
        settings = self.control.settings_of(tenant)
        context = Context(self.account(tenant, user), self.pools[partition], settings, partition)
        result = decide(context, prepared, self.now, self._new_id).result
        assert isinstance(result, QuotaReport)
        return result

    def account(self, tenant: str, user: str) -> Account:
        """The folded account."""
        return self.accounts.setdefault((tenant, user), Account(tenant, user))

    def _partition(self, command: c.Command) -> int:
        count = len(self.log.partitions)
        if isinstance(command, c.UserCommand):
            return slot_of_user(command.tenant, command.user) % count
        assert isinstance(command, (c.RegisterAgent, c.RetireAgent))
        assert command.agent_id is not None
        return command.agent_id[7] % count

    def _new_id(self) -> bytes:
        return new_id(self.now)

    def _append(self, partition: int, events: Sequence[Event]) -> list[tuple[int, Event]]:
        if not events:
            return []
        log = self.log.control if partition == -1 else self.log.partitions[partition]
        first, batch_id = log.end() + 1, self._new_id()
        placed = list(enumerate(events, first))
        log.append([record_of(position, event, batch_id) for position, event in placed])
        self.events.extend((partition, position, event) for position, event in placed)
        return placed

    def _note(self, event: Event) -> None:
        kind = type(event).__name__
        if kind == "SessionCreated":
            self.sessions.append((event.tenant, event.user, event.originator_id))
        elif kind in ("SessionEnded", "SessionExpired", "SessionEvicted"):
            self.ended[event.originator_id] = kind.removeprefix("Session").lower()
        elif getattr(event, "reserved", False):
            self.reservations.append((event.tenant, event.user, event.event_id))

    # --- random commands --------------------------------------------------------------------------------------------

    def play(self, commands: int) -> World:
        """Run so many random commands; refusals are part of it."""
        for _ in range(commands):
            self.now += self.random.choice(PAUSES_US)
            maker = self.random.choices(_MAKERS, _WEIGHTS)[0]
            command = maker(self)
            if command is not None:
                self.run(command)
        return self

    def whose(self) -> dict[str, Any]:
        """A random tenant and user."""
        return {"tenant": self.random.choice(TENANTS), "user": self.random.choice(USERS)}

    def some_session(self) -> dict[str, Any] | None:
        """One of the last sessions, mostly one that is open."""
        if not self.sessions:
            return None
        recent = self.sessions[-8:]
        still_open = [session for session in recent if session[2] in self.account(*session[:2]).sessions]
        chosen = still_open if still_open and self.random.random() < 0.8 else recent
        tenant, user, session_id = self.random.choice(chosen)
        return {"tenant": tenant, "user": user, "session_id": session_id}

    def source(self) -> str:
        """Another source of imported history."""
        self._imports += 1
        return f"history.jsonl:{self._imports}"


def record_of(position: int, event: Event, batch_id: bytes = bytes(16), codec: Codec = CODEC) -> Record:
    """The event as it stands in a log."""
    topic = TOPIC_BY_EVENT[type(event)]
    return Record(position, batch_id, event.originator_id, event.version, topic, codec.encode(event))


def _create(world: World) -> c.Command:
    return c.CreateSession(
        **world.whose(),
        title=world.random.choice([None, "Billing", "Übersicht ✓"]),
        context=world.random.choice([None, {"page": 3}]),
        metadata=world.random.choice([{}, {"colour": "red", "secret": "x"}]),
        kind=world.random.choice(["standard", "website", "sensitive"]),
        ip_address=world.random.choice([None, "192.0.2.7"]),
        reuse=world.random.random() < 0.2,
    )


def _message(world: World) -> c.Command | None:
    target = world.some_session()
    if target is None:
        return None
    return c.AddMessage(
        **target,
        role=world.random.choice(["user", "assistant", "tool"]),
        content=world.random.choice(["hello", "größer", "x" * 300]),
        parts=world.random.choice([None, [{"tool": "search"}]]),
        model=world.random.choice([None, "m-1"]),
        tokens_in=world.random.choice([None, 12]),
        tokens_out=world.random.choice([None, 34]),
        metadata=world.random.choice([{}, {"colour": "blue"}, {"mood": "good"}]),
        occurred_at=world.random.choice([None, world.now - 5]),
    )


def _update(world: World) -> c.Command | None:
    target = world.some_session()
    if target is None:
        return None
    return c.UpdateSession(
        **target,
        title="New title" if (only := world.random.randrange(3)) == 0 else None,
        context={"page": 4} if only == 1 else None,
        metadata=world.random.choice([{}, {"colour": "green", "other": "y"}]) if only == 2 else None,
    )


def _end(world: World) -> c.Command | None:
    target = world.some_session()
    if target is None:
        return None
    return c.EndSession(**target, reason="completed", note=world.random.choice([None, "done"]))


def _error(world: World) -> c.Command | None:
    target = world.some_session()
    if target is None:
        return None
    return c.ReportError(**target, component="llm", error_type="timeout", message="it hung")


def _import(world: World) -> c.Command:
    whose, source = world.whose(), world.source()
    messages = tuple(c.ImportedMessage(role="user", content=f"line {n}") for n in range(world.random.randrange(4)))
    session_id = derived_session_id(source, START_US, slot_of_user(whose["tenant"], whose["user"]))
    final = world.random.random() < 0.8
    return c.ImportSession(**whose, session_id=session_id, messages=messages, source=source, final=final)


def _set_quota(world: World) -> c.Command:
    limit = world.random.choice([None, Decimal(5), Decimal("12.5"), Decimal(40)])
    period_ms = world.random.choice([60_000, 600_000, 7_200_000])
    return c.SetQuota(**world.whose(), resource=_resource(world), limit=limit, period_ms=period_ms)


def _consume(world: World) -> c.Command:
    amount = world.random.choice([Decimal(1), Decimal("2.50"), Decimal("0.000001"), Decimal(0), Decimal(9)])
    reserve = world.random.random() < 0.4
    return c.ConsumeQuota(**world.whose(), resource=_resource(world), amount=amount, reserve=reserve)


def _release(world: World) -> c.Command | None:
    if not world.reservations:
        return None
    tenant, user, reservation_id = world.random.choice(world.reservations[-6:])
    amount = world.random.choice([None, Decimal(1), Decimal("0.5")])
    return c.ReleaseQuota(tenant=tenant, user=user, reservation_id=reservation_id, amount=amount)


def _resource(world: World) -> str:
    return world.random.choice(["tokens", "api_calls"])


def _user_limits(world: World) -> c.Command:
    plan = world.random.choice([None, "gold"])
    return c.SetUserLimits(**world.whose(), max_sessions=world.random.choice([None, 1, 3]), plan=plan)


def _authentication(world: World) -> c.Command:
    return c.ReportAuthenticationFailure(**world.whose(), method="password", reason="expired", ip_address="192.0.2.9")


def _token(world: World) -> c.Command | None:
    target = world.some_session()
    if target is None:
        return None
    digest = world.random.choice([b"a", b"b"]) * 32
    kind = world.random.randrange(4)
    if kind == 0:
        return c.IssueAccessToken(**target, token_digest=digest, ttl_ms=world.random.choice([None, 60_000]))
    if kind == 1:
        return c.RotateAccessToken(**target, token_digest=digest, grace_ms=world.random.choice([0, 5_000]))
    session = world.account(target["tenant"], target["user"]).sessions.get(target["session_id"])
    if session is not None and session.access_token is not None and world.random.random() < 0.7:
        digest = session.access_token.digest
    return c.Authenticate(**target, token_digest=digest, ip_address=world.random.choice([None, "192.0.2.9"]))


def _tell_refusals(world: World) -> c.Command:
    return c.RecordRefusals(**world.whose())


def _register(world: World) -> c.Command:
    agent_id = new_slotted_id(world.now, world.random.randrange(4))
    capabilities = world.random.choice([(), ("search",)])
    tenant = world.random.choice(TENANTS)
    return c.RegisterAgent(tenant=tenant, agent_type="helper", capabilities=capabilities, agent_id=agent_id)


def _acquire(world: World) -> c.Command | None:
    target = world.some_session()
    if target is None:
        return None
    return c.AcquireAgent(**target, agent_type="helper")


def _agent(world: World) -> tuple[str, bytes, bytes | None, str] | None:
    agents = [agent for pool in world.pools.values() for agent in pool.agents.values()]
    if not agents:
        return None
    agent = world.random.choice(agents)
    return agent.tenant, agent.agent_id, agent.held_by, agent.user


def _give_back(world: World) -> c.Command | None:
    found = _agent(world)
    if found is None or found[2] is None:
        return None
    tenant, agent_id, session_id, user = found
    assert session_id is not None
    return c.ReleaseAgent(tenant=tenant, user=user, session_id=session_id, agent_id=agent_id, reset="verified")


def _retire(world: World) -> c.Command | None:
    found = _agent(world)
    return found and c.RetireAgent(tenant=found[0], agent_id=found[1], force=world.random.random() < 0.5)


def _expire(world: World) -> c.Command:
    return c.ExpireSessions(**world.whose())


def _limits(world: World) -> c.Command:
    return c.SetLimits(
        tenant=world.random.choice(TENANTS),
        plan=world.random.choice([None, "gold"]),
        max_sessions=world.random.choice([None, 2]),
        quotas=world.random.choice([{}, {"tokens": (Decimal(30), 600_000), "storage_mb": (Decimal(3), 60_000)}]),
    )


_WEIGHTED: dict[Callable[[World], c.Command | None], int] = {
    _create: 14,
    _message: 30,
    _update: 5,
    _end: 3,
    _error: 3,
    _import: 3,
    _set_quota: 8,
    _consume: 40,
    _release: 7,
    _user_limits: 2,
    _authentication: 2,
    _token: 12,
    _tell_refusals: 1,
    _register: 3,
    _acquire: 5,
    _give_back: 2,
    _retire: 1,
    _expire: 2,
    _limits: 2,
}
_MAKERS = list(_WEIGHTED)
_WEIGHTS = list(_WEIGHTED.values())
