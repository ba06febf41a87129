"""Random commands of random users with a random clock: what the log must be, judged without the folding code."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from session_ledger.domain import commands as c
from session_ledger.domain.control import Limits, TenantSettings
from session_ledger.domain.errors import CommandTooOld, QuotaExceeded
from session_ledger.domain.events import SessionCreated
from session_ledger.domain.ids import derived_session_id, slot_of_id, slot_of_user
from session_ledger.domain.results import Result
from tests.domain.judge import Judge
from tests.domain.world import HOUR, MINUTE, SECOND, START, Outcome, World

TENANTS = ("acme", "globex")
USERS = ("ada", "bob")
WHO = st.sampled_from([(TENANTS[0], USERS[0]), (TENANTS[0], USERS[1]), (TENANTS[1], USERS[0])])
PAUSES = st.one_of(
    st.just(0), st.integers(0, 5000), st.integers(0, 2 * SECOND), st.integers(0, 20 * MINUTE), st.just(HOUR)
)
AMOUNTS = st.sampled_from([Decimal(text) for text in ("0", "0.000001", "1", "2.5", "7", "11")])
INDEX = st.integers(0, 3)
RARELY = st.integers(0, 9).map(lambda drawn: drawn == 9)
DEFAULT_QUOTAS = {"tokens": (Decimal(10), 2_000), "calls": (Decimal(3), 60_000)}
SETTINGS = [
    TenantSettings(Limits(max_sessions=limit, limit_policy=policy, quotas=DEFAULT_QUOTAS), {"pro": plan})
    for limit, policy in ((1, "evict"), (2, "evict"), (2, "refuse"))
    for plan in (Limits(max_sessions=3, limit_policy="evict"), Limits(quotas={"tokens": (Decimal(20), 5_000)}))
]


class LedgerMachine(RuleBasedStateMachine):
    """A world, its judge, and everything that was answered before."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(SETTINGS[1])
        self.judge = Judge()
        self.seen = 0
        self.sessions: list[tuple[str, str, bytes]] = []
        self.agents: list[tuple[str, bytes]] = []
        self.reservations: list[tuple[str, str, bytes]] = [(TENANTS[0], USERS[0], b"-" * 16)]
        self.answered: list[tuple[c.Prepared, Result]] = []
        self.refused = 0
        for tenant in TENANTS:
            self.register(tenant=tenant, skills={"a"})
            self.create(who=(tenant, USERS[0]), kind="standard", reuse=False)

    def session(self, index: int, stranger: bool) -> tuple[str, str, bytes]:
        """One of the latest sessions with its tenant and user; now and then with a stranger's."""
        tenant, user, session_id = self.sessions[-1 - index % len(self.sessions)]
        return (TENANTS[1], "eve", session_id) if stranger else (tenant, user, session_id)

    def run(self, command: c.Command) -> Outcome:
        prepared = self.world.prepare(command)
        if not isinstance(command, c.ConsumeQuota):  # which counts a refusal
            before = self.world.dump()
            self.world.decide(prepared)
            assert before == self.world.dump(), "deciding alone has changed the states"
        outcome = self.world.run_prepared(prepared)
        if isinstance(outcome.error, QuotaExceeded):
            self.refused += 1
        own = bool(outcome.events) and outcome.events[-1].command_id is not None
        if outcome.error is None and own:
            self.answered.append((prepared, outcome.ok()))
        return outcome

    @rule(pause=PAUSES)
    def time_passes(self, pause: int) -> None:
        self.world.now += pause

    @rule(index=st.integers(0, len(SETTINGS) - 1))
    def settings_change(self, index: int) -> None:
        self.world.settings = SETTINGS[index]

    @rule(who=WHO, kind=st.sampled_from(["standard", "website", "sensitive"]), reuse=st.booleans())
    def create(self, who: tuple[str, str], kind: str, reuse: bool) -> None:
        outcome = self.run(c.CreateSession(tenant=who[0], user=who[1], kind=kind, reuse=reuse))
        self.sessions += [(*who, event.session_id) for event in outcome.events if isinstance(event, SessionCreated)]

    @rule(index=INDEX, stranger=RARELY, what=st.sampled_from(["say", "say", "say", "update", "end", "error"]))
    def use(self, index: int, stranger: bool, what: str) -> None:
        tenant, user, session_id = self.session(index, stranger)
        command: c.Command
        if what == "say":
            command = c.AddMessage(tenant=tenant, user=user, session_id=session_id, role="user", content="hello")
        elif what == "update":
            command = c.UpdateSession(tenant=tenant, user=user, session_id=session_id, title="t")
        elif what == "end":
            command = c.EndSession(tenant=tenant, user=user, session_id=session_id)
        else:
            command = c.ReportError(tenant=tenant, user=user, session_id=session_id, component="a", error_type="b")
        self.run(command)

    @rule(who=WHO, source=st.sampled_from("xyz"), first=st.integers(1, 4), count=st.integers(0, 3), final=st.booleans())
    def import_history(self, who: tuple[str, str], source: str, first: int, count: int, final: bool) -> None:
        session_id = derived_session_id(source + "".join(who), START, slot_of_user(*who))
        messages = tuple(c.ImportedMessage("user", f"{source}{number}") for number in range(first, first + count))
        self.run(
            c.ImportSession(
                tenant=who[0],
                user=who[1],
                session_id=session_id,
                messages=messages,
                first_message=first,
                final=final,
                source=source,
            )
        )
        self.sessions.append((*who, session_id))

    @rule(
        who=WHO,
        rarely=RARELY,
        limit=st.sampled_from([None, 1, 2, 3]),
        policy=st.sampled_from([None, "evict", "refuse"]),
        plan=st.sampled_from([None, "pro", "unknown"]),
    )
    def limit_user(
        self, who: tuple[str, str], rarely: bool, limit: int | None, policy: str | None, plan: str | None
    ) -> None:
        if not rarely:
            return self.create(who, "standard", False)
        self.run(c.SetUserLimits(tenant=who[0], user=who[1], max_sessions=limit, limit_policy=policy, plan=plan))

    @rule(who=WHO, limit=st.one_of(st.none(), AMOUNTS), period_ms=st.sampled_from([1000, 1500, 60_000, 86_400_000]))
    def set_quota(self, who: tuple[str, str], limit: Decimal | None, period_ms: int) -> None:
        self.run(c.SetQuota(tenant=who[0], user=who[1], resource="tokens", limit=limit, period_ms=period_ms))

    @rule(who=WHO, resource=st.sampled_from(["tokens", "calls", "storage"]), amount=AMOUNTS, reserve=st.booleans())
    def consume(self, who: tuple[str, str], resource: str, amount: Decimal, reserve: bool) -> None:
        command = c.ConsumeQuota(tenant=who[0], user=who[1], resource=resource, amount=amount, reserve=reserve)
        allowed = self.world.run(c.CheckQuota(tenant=who[0], user=who[1], resource=resource, amount=amount))
        outcome = self.run(command)
        if outcome.error is None:
            assert allowed.result is not None
            assert allowed.result.allowed  # type: ignore[attr-defined]
        if reserve and outcome.error is None:
            self.reservations.append((*who, outcome.events[0].event_id))

    @rule(index=INDEX, amount=st.one_of(st.none(), AMOUNTS))
    def release_quota(self, index: int, amount: Decimal | None) -> None:
        tenant, user, reservation_id = self.reservations[-1 - index % len(self.reservations)]
        self.run(c.ReleaseQuota(tenant=tenant, user=user, reservation_id=reservation_id, amount=amount))

    @rule(who=WHO)
    def housekeeping(self, who: tuple[str, str]) -> None:
        self.run(c.ExpireSessions(tenant=who[0], user=who[1]))
        self.run(c.RecordRefusals(tenant=who[0], user=who[1]))
        self.run(c.ReportQuota(tenant=who[0], user=who[1]))

    @rule(tenant=st.sampled_from(TENANTS), skills=st.sets(st.sampled_from("ab")))
    def register(self, tenant: str, skills: set[str]) -> None:
        agent_id = self.world.ids.at(self.world.now)
        capabilities = tuple(sorted(skills))
        self.run(c.RegisterAgent(tenant=tenant, agent_type="writer", capabilities=capabilities, agent_id=agent_id))
        self.agents.append((tenant, agent_id))

    @rule(tenant=st.sampled_from(TENANTS), index=INDEX, session=st.booleans())
    def register_again(self, tenant: str, index: int, session: bool) -> None:
        """Under the id of a session or of an agent, whoever's: no stream gets two beginnings."""
        agent_id = self.session(index, False)[2] if session else self.agents[-1 - index % len(self.agents)][1]
        self.run(c.RegisterAgent(tenant=tenant, agent_type="writer", agent_id=agent_id))

    @rule(who=WHO, index=INDEX)
    def import_again(self, who: tuple[str, str], index: int) -> None:
        """Under the id of a session that is there already, where its owner's slot lets it through."""
        session_id = self.session(index, False)[2]
        if slot_of_id(session_id) == slot_of_user(*who):
            messages = (c.ImportedMessage("user", "again"),)
            self.run(c.ImportSession(tenant=who[0], user=who[1], session_id=session_id, messages=messages))

    @rule(index=INDEX, stranger=RARELY, skills=st.sets(st.sampled_from("ab"), max_size=1))
    def acquire(self, index: int, stranger: bool, skills: set[str]) -> None:
        tenant, user, session_id = self.session(index, stranger)
        command = c.AcquireAgent(tenant=tenant, user=user, session_id=session_id, agent_type="writer")
        self.run(replace(command, capabilities=tuple(skills)))

    @rule(index=INDEX, session=INDEX)
    def release_agent(self, index: int, session: int) -> None:
        _, agent_id = self.agents[-1 - index % len(self.agents)]
        tenant, user, session_id = self.session(session, False)
        self.run(c.ReleaseAgent(tenant=tenant, user=user, session_id=session_id, agent_id=agent_id, reset="verified"))

    @rule(index=INDEX, force=st.booleans(), stranger=RARELY)
    def retire(self, index: int, force: bool, stranger: bool) -> None:
        tenant, agent_id = self.agents[-1 - index % len(self.agents)]
        self.run(c.RetireAgent(tenant="initech" if stranger else tenant, agent_id=agent_id, force=force))

    @rule(index=INDEX)
    def repeat(self, index: int) -> None:
        """A command that was recorded comes again: the same answer or too old, and never an event."""
        if not self.answered:
            return
        prepared, first = self.answered[-1 - index % len(self.answered)]
        outcome = self.world.run_prepared(prepared)
        assert [] == outcome.events
        if not isinstance(outcome.error, CommandTooOld):
            assert replace(first, repeated=True) == outcome.ok()

    @invariant()
    def the_log_holds_what_it_must(self) -> None:
        for event in self.world.events[self.seen :]:
            self.judge.see(event)
        self.seen = len(self.world.events)
        self.judge.after_an_append()
        self.every_refusal_is_told_or_still_counted()
        self.accounts_hold_what_lives_and_nothing_else()

    def every_refusal_is_told_or_still_counted(self) -> None:
        quotas = [quota for account in self.world.accounts.values() for quota in account.quotas.values()]
        uncounted = sum(quota.uncounted.count for quota in quotas if quota.uncounted is not None)
        assert self.refused == self.judge.refused + uncounted

    def accounts_hold_what_lives_and_nothing_else(self) -> None:
        held = {session_id for account in self.world.accounts.values() for session_id in account.sessions}
        assert held == set().union(self.judge.importing, *self.judge.live.values())
        leases = {agent_id: agent.held_by for agent_id, agent in self.world.agents.agents.items()}
        assert {key: value for key, value in self.judge.holder.items() if key in leases} == leases

    def teardown(self) -> None:
        """Folding the events anew gives the same states, byte for byte."""
        assert self.world.dump() == self.world.folded_anew().dump()


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(
    max_examples=120, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
