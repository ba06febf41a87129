"""Random commands over a few users with low limits, so that sessions evict, quotas refuse and agents are fought for."""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal

from session_ledger.domain import commands as c
from session_ledger.domain.ids import new_id, new_slotted_id, parse_id
from session_ledger.domain.results import AgentLeased, QuotaStatus, Result, SessionStarted
from session_ledger.ledger.clocks import machine_clock_us

TENANT = "acme"
USERS = 24
RESOURCE, LIMIT, PERIOD_MS = "tokens", Decimal(12), 2_000
SESSIONS_MAX = 2
AGENT_TYPE, AGENTS = "helper", 2  # instances a partition
SHORT_MS = 1_500  # the idle timeout of some sessions, so that they expire under the run


def setting_up(partitions: int) -> list[c.Command]:
    """What a new ledger is given first: low limits, and a few agents for each partition."""
    now = machine_clock_us()
    quotas = {RESOURCE: (LIMIT, PERIOD_MS)}
    limits = c.SetLimits(tenant=TENANT, command_id=new_id(now), max_sessions=SESSIONS_MAX, quotas=quotas)
    agents = [registering(number % partitions) for number in range(AGENTS * partitions)]
    return [limits, *agents]


def registering(partition: int) -> c.RegisterAgent:
    """One more agent for that partition."""
    now = machine_clock_us()
    agent_id = new_slotted_id(now, partition)
    return c.RegisterAgent(tenant=TENANT, command_id=new_id(now), agent_type=AGENT_TYPE, agent_id=agent_id)


@dataclass
class Known:
    """What the callers of a process have learned; it may be out of date, as callers' knowledge is."""

    sessions: dict[str, deque[bytes]] = field(default_factory=lambda: defaultdict(lambda: deque(maxlen=3)))
    leases: deque[tuple[str, bytes, bytes]] = field(default_factory=lambda: deque(maxlen=50))
    reservations: deque[tuple[str, bytes]] = field(default_factory=lambda: deque(maxlen=50))

    def learn(self, command: c.Command, result: Result) -> None:
        """Remember what an answer made known."""
        if not isinstance(command, c.UserCommand):
            return
        if isinstance(result, SessionStarted):
            self.sessions[command.user].append(parse_id(result.session_id))
        elif isinstance(result, AgentLeased):
            self.leases.append((command.user, parse_id(result.session_id), parse_id(result.agent_id)))
        elif isinstance(result, QuotaStatus) and result.reservation_id is not None:
            self.reservations.append((command.user, parse_id(result.reservation_id)))


class Workload:
    """One caller's commands. Each carries a command id of its own."""

    def __init__(self, luck: random.Random, known: Known, partitions: int, *, reads: bool = False) -> None:
        """`reads`: only commands that record nothing, for who watches an owner that may have been followed."""
        self._luck, self._known, self._partitions = luck, known, partitions
        self._reads = reads
        self._makers: dict[Callable[[str, bytes], c.Command | None], int] = {
            self._create: 18,
            self._add: 30,
            self._update: 4,
            self._end: 6,
            self._report: 2,
            self._consume: 14,
            self._release_quota: 7,
            self._check: 5,
            self._acquire: 8,
            self._release_agent: 7,
            self._user_limits: 2,
            self._quota: 2,
            self._authentication: 1,
            self._limits: 1,
            self._agents: 1,
        }

    def next(self) -> c.Command:
        """The next command. One that needs a session where none is known becomes a creation."""
        luck = self._luck
        user, now = f"u{luck.randrange(USERS)}", new_id(machine_clock_us())
        if self._reads:
            return self._check(user, now) if luck.random() < 0.5 else self._report_quotas(user, now)
        [maker] = luck.choices(list(self._makers), list(self._makers.values()))
        return maker(user, now) or self._create(user, now)

    def _session(self, user: str) -> bytes | None:
        known = self._known.sessions[user]
        return self._luck.choice(list(known)) if known else None

    def _create(self, user: str, name: bytes) -> c.Command:
        idle = SHORT_MS if self._luck.random() < 0.2 else None
        reuse = self._luck.random() < 0.25
        return c.CreateSession(
            tenant=TENANT, user=user, command_id=name, title="parcel", reuse=reuse, idle_timeout_ms=idle
        )

    def _add(self, user: str, name: bytes) -> c.Command | None:
        if (session := self._session(user)) is None:
            return None
        content = "Where is it? " * self._luck.randint(1, 8)
        return c.AddMessage(tenant=TENANT, user=user, command_id=name, session_id=session, role="user", content=content)

    def _update(self, user: str, name: bytes) -> c.Command | None:
        if (session := self._session(user)) is None:
            return None
        return c.UpdateSession(tenant=TENANT, user=user, command_id=name, session_id=session, title="late parcel")

    def _end(self, user: str, name: bytes) -> c.Command | None:
        if (session := self._session(user)) is None:
            return None
        return c.EndSession(tenant=TENANT, user=user, command_id=name, session_id=session, reason="completed")

    def _report(self, user: str, name: bytes) -> c.Command | None:
        if (session := self._session(user)) is None:
            return None
        return c.ReportError(
            tenant=TENANT, user=user, command_id=name, session_id=session, component="llm", error_type="timeout"
        )

    def _consume(self, user: str, name: bytes) -> c.Command:
        amount, reserve = Decimal(self._luck.randint(1, 5)), self._luck.random() < 0.5
        return c.ConsumeQuota(
            tenant=TENANT, user=user, command_id=name, resource=RESOURCE, amount=amount, reserve=reserve
        )

    def _release_quota(self, user: str, name: bytes) -> c.Command | None:
        try:
            user, reservation = self._known.reservations.pop()
        except IndexError:
            return None
        amount = None if self._luck.random() < 0.5 else Decimal(1)
        return c.ReleaseQuota(tenant=TENANT, user=user, command_id=name, reservation_id=reservation, amount=amount)

    def _check(self, user: str, name: bytes) -> c.Command:
        return c.CheckQuota(tenant=TENANT, user=user, command_id=name, resource=RESOURCE, amount=Decimal(1))

    def _report_quotas(self, user: str, name: bytes) -> c.Command:
        return c.ReportQuota(tenant=TENANT, user=user, command_id=name)

    def _acquire(self, user: str, name: bytes) -> c.Command | None:
        if (session := self._session(user)) is None:
            return None
        return c.AcquireAgent(tenant=TENANT, user=user, command_id=name, session_id=session, agent_type=AGENT_TYPE)

    def _release_agent(self, user: str, name: bytes) -> c.Command | None:
        try:
            user, session, agent = self._known.leases.popleft()
        except IndexError:
            return None
        return c.ReleaseAgent(tenant=TENANT, user=user, command_id=name, session_id=session, agent_id=agent)

    def _user_limits(self, user: str, name: bytes) -> c.Command:
        policy = self._luck.choice(["evict", "refuse", None])
        most = self._luck.choice([1, 2, 3, None])
        return c.SetUserLimits(tenant=TENANT, user=user, command_id=name, max_sessions=most, limit_policy=policy)

    def _quota(self, user: str, name: bytes) -> c.Command:
        limit = self._luck.choice([Decimal(6), Decimal(20), None])
        return c.SetQuota(
            tenant=TENANT, user=user, command_id=name, resource=RESOURCE, limit=limit, period_ms=PERIOD_MS
        )

    def _authentication(self, user: str, name: bytes) -> c.Command:
        return c.ReportAuthenticationFailure(
            tenant=TENANT, user=user, command_id=name, method="password", reason="bad_credential"
        )

    def _limits(self, user: str, name: bytes) -> c.Command:
        quotas = {RESOURCE: (self._luck.choice([LIMIT, Decimal(8)]), PERIOD_MS)}
        return c.SetLimits(tenant=TENANT, command_id=name, max_sessions=self._luck.choice([1, 2, 3]), quotas=quotas)

    def _agents(self, user: str, name: bytes) -> c.Command | None:
        """Retire an agent, by force where it is held, or register one in place of those that went."""
        if self._luck.random() < 0.5 or not self._known.leases:
            return registering(self._luck.randrange(self._partitions))
        agent = self._luck.choice(list(self._known.leases))[2]
        return c.RetireAgent(tenant=TENANT, command_id=name, agent_id=agent, force=self._luck.random() < 0.5)
