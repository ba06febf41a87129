"""The demo's support portal: scripts of visits, each a generator of commands that is sent what became of them.

Everything is drawn from one seeded generator before it is sent, and commands are sent in a fixed order, so a seed gives
the same portal again, but for ids and times.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from decimal import Decimal

from session_ledger.domain import commands as c
from session_ledger.domain.errors import SessionLedgerError
from session_ledger.domain.ids import new_id, parse_id, with_slot
from session_ledger.domain.results import AgentLeased, Result, SessionStarted

SESSIONS = 2_000
SHORT_IDLE_MS = 15 * 60_000  # so that most of what a visitor leaves open has expired when the portal closes
HOUR_MS = 3_600_000
Outcome = Result | SessionLedgerError
Visit = Generator[c.Command, Outcome, None]


@dataclass(frozen=True, slots=True)
class Portal:
    """A tenant of the demo."""

    tenant: str
    website: str
    users: int
    max_sessions: int
    policy: str
    api_calls: int
    """An hour, a user."""
    tokens: int
    topics: tuple[tuple[str, str, str], ...]
    """Title, question, answer."""


PORTALS = (
    Portal(
        "shop",
        "shop.example",
        150,
        3,
        "evict",
        60,
        12_000,
        (
            ("Parcel not arrived", "Where is my parcel? It was sent last week.", "It left the depot this morning."),
            (
                "Wrong size",
                "The shoes are too small. Can I change them?",
                "Yes: a label for the way back is in your mail.",
            ),
            ("Invoice", "I need an invoice with my company's address.", "The new invoice is in your account now."),
        ),
    ),
    Portal(
        "bank",
        "bank.example",
        90,
        2,
        "refuse",
        40,
        9_000,
        (
            (
                "Card blocked",
                "My card was refused twice today.",
                "It was blocked after three wrong codes. Shall I unblock it?",
            ),
            (
                "Transfer abroad",
                "What does a transfer to another country cost?",
                "Within the euro area nothing, else 1 %.",
            ),
        ),
    ),
    Portal(
        "library",
        "library.example",
        60,
        2,
        "evict",
        25,
        6_000,
        (
            (
                "Renew a loan",
                "Can I keep the atlas for two weeks more?",
                "Renewed: it is due on the last day of the month.",
            ),
            ("Opening hours", "Are you open on Sunday?", "The reading room is, from ten to five."),
        ),
    ),
)
AGENTS = (("support", ("chat",), 40), ("support", ("chat", "voice"), 12), ("billing", ("chat", "refunds"), 6))
"""Agent type, capabilities, instances a tenant."""


def setting_up() -> Iterator[c.Command]:
    """Limits and default quotas of every tenant."""
    for portal in PORTALS:
        yield c.SetLimits(
            tenant=portal.tenant,
            max_sessions=portal.max_sessions,
            limit_policy=portal.policy,
            quotas={"api_calls": (Decimal(portal.api_calls), HOUR_MS), "tokens": (Decimal(portal.tokens), HOUR_MS)},
        )
        yield c.SetLimits(
            tenant=portal.tenant,
            plan="pro",
            max_sessions=portal.max_sessions + 2,
            quotas={
                "api_calls": (Decimal(portal.api_calls * 4), HOUR_MS),
                "tokens": (Decimal(portal.tokens * 4), HOUR_MS),
            },
        )


def agents(clock: Callable[[], int]) -> Iterator[c.Command]:
    """Every tenant's instances, all in partition 0; `clock` gives microseconds since the epoch."""
    for portal in PORTALS:
        for agent_type, capabilities, instances in AGENTS:
            for _ in range(instances):
                own = new_id(clock())
                yield c.RegisterAgent(
                    tenant=portal.tenant,
                    agent_type=agent_type,
                    capabilities=capabilities,
                    agent_id=with_slot(own, 0),
                    command_id=own,
                )


def users() -> list[tuple[Portal, str]]:
    """Every user of every tenant."""
    return [(portal, f"visitor-{n:03}") for portal in PORTALS for n in range(1, portal.users + 1)]


def user_settings(randomly: random.Random) -> Iterator[c.Command]:
    """Some users are on the tenant's plan `pro`, and somebody tries passwords."""
    for number, (portal, user) in enumerate(users()):
        if randomly.random() < 0.1:
            yield c.SetUserLimits(tenant=portal.tenant, user=user, plan="pro")
        if number % 60 == 7:
            for _ in range(3):
                yield c.ReportAuthenticationFailure(
                    tenant=portal.tenant, user=user, method="password", reason="bad_credential", ip_address="192.0.2.7"
                )


def visits(randomly: random.Random) -> Iterator[Visit]:
    """Visits without end: first one of each of the 300 users, then some users come much more often than the others."""
    everybody = users()
    weights = [1.0 / (1 + rank) ** 0.45 for rank in range(len(everybody))]
    ranked = randomly.sample(everybody, len(everybody))
    for portal, user in ranked:
        yield visit(portal, user, random.Random(randomly.random()))
    while True:
        portal, user = randomly.choices(ranked, weights)[0]
        yield visit(portal, user, random.Random(randomly.random()))


def visit(portal: Portal, user: str, randomly: random.Random) -> Visit:
    """One visit: a session from its beginning to its end, or to where the visitor leaves it."""
    tenant = portal.tenant
    title, question, answer = randomly.choice(portal.topics)
    kind = randomly.choices(("standard", "website", "sensitive"), (5, 4, 1))[0]
    channel = randomly.choices(("text", "voice", "phone", "api"), (7, 1, 1, 1))[0]
    left_open = randomly.random() < 0.16
    started = yield c.CreateSession(
        tenant=tenant,
        user=user,
        title=title,
        kind=kind,
        channel=channel,
        domain=portal.website if kind == "website" else None,
        context={"page": f"https://{portal.website}/help", "language": randomly.choice(("en", "de", "fr"))},
        metadata={"campaign": randomly.choice(("none", "spring", "newsletter"))},
        ip_address=f"198.51.100.{randomly.randint(1, 254)}",
        idle_timeout_ms=SHORT_IDLE_MS if left_open and randomly.random() < 0.85 else None,
    )
    if not isinstance(started, SessionStarted):
        return  # the user has as many sessions as the tenant allows, and the policy is to refuse
    session_id = parse_id(started.session_id)
    turns = randomly.choices((1, 2, 3, 4, 6), (3, 4, 3, 2, 1))[0]
    agent: bytes | None = None
    for turn in range(turns):
        text = (
            question if turn == 0 else randomly.choice(("And after that?", "Thank you. One more question.", question))
        )
        outcome = yield c.AddMessage(tenant=tenant, user=user, session_id=session_id, role="user", content=text)
        if isinstance(outcome, SessionLedgerError):
            return  # evicted by a newer session of the same user
        outcome = yield c.ConsumeQuota(
            tenant=tenant, user=user, resource="api_calls", amount=Decimal(1), session_id=session_id
        )
        if isinstance(outcome, SessionLedgerError):
            yield _end(tenant, user, session_id, "quota_exceeded", "system")
            return
        if agent is None and randomly.random() < 0.12:
            agent_type = randomly.choices(("support", "billing"), (3, 1))[0]
            needed = (
                ("refunds",) if agent_type == "billing" else ("voice",) if channel in ("voice", "phone") else ("chat",)
            )
            leased = yield c.AcquireAgent(
                tenant=tenant, user=user, session_id=session_id, agent_type=agent_type, capabilities=needed
            )
            if isinstance(leased, AgentLeased):
                agent = parse_id(leased.agent_id)
            elif isinstance(leased, SessionLedgerError):
                yield _failure(tenant, user, session_id, "pool", leased.code, "warning", None)
        if randomly.random() < 0.02:
            component, error_type = randomly.choice(
                (("llm", "timeout"), ("tool", "bad_answer"), ("search", "unreachable"))
            )
            yield _failure(tenant, user, session_id, component, error_type, "error", agent)
        tokens_in, tokens_out = randomly.randint(60, 900), randomly.randint(30, 400)
        yield c.AddMessage(
            tenant=tenant,
            user=user,
            session_id=session_id,
            role="assistant",
            content=answer if turn == 0 else f"{answer} Is there anything else?",
            parts=_tool_call(randomly) if randomly.random() < 0.2 else None,
            model=randomly.choice(("support-small", "support-large")),
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            latency_ms=int(randomly.lognormvariate(6.3, 0.5)),
        )
        yield c.ConsumeQuota(
            tenant=tenant, user=user, resource="tokens", amount=Decimal(tokens_in + tokens_out), session_id=session_id
        )
    if agent is not None and randomly.random() < 0.5:
        reset = randomly.choices(("verified", "failed"), (9, 1))[0]
        yield c.ReleaseAgent(tenant=tenant, user=user, session_id=session_id, agent_id=agent, reset=reset)
    if not left_open:
        reason = randomly.choices(("completed", "user", "transferred", "admin"), (6, 4, 1, 0.3))[0]
        yield _end(tenant, user, session_id, reason, "admin" if reason == "admin" else "user")


def _end(tenant: str, user: str, session_id: bytes, reason: str, ended_by: str) -> c.EndSession:
    return c.EndSession(tenant=tenant, user=user, session_id=session_id, reason=reason, ended_by=ended_by)


def _failure(
    tenant: str, user: str, session_id: bytes, component: str, error_type: str, severity: str, agent: bytes | None
) -> c.ReportError:
    return c.ReportError(
        tenant=tenant,
        user=user,
        session_id=session_id,
        component=component,
        error_type=error_type,
        severity=severity,
        agent_id=agent,
        message=f"{component} failed: {error_type}",
    )


def _tool_call(randomly: random.Random) -> c.Json:
    number = randomly.randint(10_000, 99_999)
    arguments = f'{{"order": {number}}}'
    return [{"type": "function", "id": f"call-{number}", "function": {"name": "look_up", "arguments": arguments}}]
