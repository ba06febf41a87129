"""Every command of the facade, on every log: what it answers, what it records, what stands after opening again."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from session_ledger.domain.commands import AddMessage, ImportedMessage, ImportSession
from session_ledger.domain.errors import (
    AgentBusy,
    AgentNotFound,
    AgentNotHeld,
    AgentTypeUnknown,
    InvalidInput,
    NoAgentAvailable,
    QuotaExceeded,
    QuotaNotSet,
    ReservationNotOpen,
    SessionExists,
    SessionLimitReached,
    SessionNotActive,
    SessionNotFound,
)
from session_ledger.domain.events import (
    AuthenticationFailed,
    Event,
    MessageAdded,
    QuotaRefused,
    QuotaThresholdReached,
    SessionCreated,
    SessionEnded,
    SessionExpired,
)
from session_ledger.domain.ids import derived_session_id, parse_id, slot_of_id, slot_of_user
from session_ledger.domain.results import MessageRecorded
from session_ledger.ledger.aio import AsyncLedger
from session_ledger.ledger.ledger import Ledger
from session_ledger.ledger.methods_access import AccessMethods
from session_ledger.ledger.methods_agents import AgentMethods
from session_ledger.ledger.methods_audit import AuditMethods
from session_ledger.ledger.methods_erasure import ErasureMethods
from session_ledger.ledger.methods_quotas import QuotaMethods
from session_ledger.ledger.methods_sessions import SessionMethods
from tests.ledger.support import Clock, assert_folds_equal_the_log, events, judged, shards_of, stored

AHEAD_S = 10_000_000  # how far a test may set the clock ahead of the broker's


@pytest.fixture
def clock() -> Clock:
    """The ledger's clock."""
    return Clock()


@pytest.fixture
def ledger(ledger_url: str, clock: Clock) -> Iterator[Ledger]:
    """An open ledger; afterwards its log is judged and its states are compared with it."""
    with Ledger.open(ledger_url, clock_us=clock, clock_skew_max_s=AHEAD_S, metadata_allow=("channel_id",)) as ledger:
        yield ledger
        judged(stored(ledger))
        assert_folds_equal_the_log(ledger)


def _last(ledger: Ledger, user: str = "u") -> Event:
    return [event for event in events(ledger) if event.user == user][-1]


def test_a_session_from_its_creation_to_its_end(ledger: Ledger, ledger_url: str) -> None:
    """Created, updated, spoken in, complained about and ended; each answer carries its place in the log."""
    started = ledger.create_session(
        "t", "u", title="Hello", context={"a": [1, None]}, metadata={"channel_id": "c", "secret": "s"}, domain="x.org"
    )
    session = started.session_id
    assert (True, (), session) == (started.created, started.evicted, started.thread_id)
    assert slot_of_user("t", "u") == slot_of_id(parse_id(session))
    created = _last(ledger)
    assert isinstance(created, SessionCreated)
    assert {"channel_id": "c"} == created.metadata
    assert (5, "evict") == (created.session_limit, created.limit_policy)
    assert 2 == ledger.update_session("t", "u", session, title="Bye", metadata={}).version
    when = datetime(2026, 1, 2, tzinfo=UTC)
    said = ledger.add_message("t", "u", session, role="user", content="hi", parts=[{"x": 1}], occurred_at=when)
    assert (1, session) == (said.message_number, said.session_id)
    message = _last(ledger)
    assert isinstance(message, MessageAdded)
    assert int(when.timestamp()) * 1_000_000 == message.occurred_at
    assert 2 == ledger.add_message("t", "u", session, role="assistant", content="").message_number
    assert 5 == ledger.report_error("t", "u", session, component="llm", error_type="timeout", message="x").version
    ended = ledger.end_session("t", "u", session, reason="completed", note="done")
    assert (6, ()) == (ended.version, ended.released_agents)
    with pytest.raises(SessionNotActive):
        ledger.add_message("t", "u", session, role="user", content="hi")
    with pytest.raises(SessionNotFound):
        ledger.add_message("t", "stranger", session, role="user", content="hi")
    with pytest.raises(SessionNotFound):
        ledger.end_session("another", "u", session)
    assert [1, 2, 3, 4, 5, 6] == [one.record.position for one in stored(ledger)]
    assert ledger.positions()[started.partition] == ended.position == 6


def test_get_or_create(ledger: Ledger, clock: Clock) -> None:
    """`reuse` gives the user's most recently active live session, and begins one where there is none."""
    first = ledger.create_session("t", "u", reuse=True)
    second = ledger.create_session("t", "u")
    assert (True, True) == (first.created, second.created)
    clock.step(1)
    ledger.add_message("t", "u", first.session_id, role="user", content="hi")
    again = ledger.create_session("t", "u", reuse=True)
    assert (False, first.session_id) == (again.created, again.session_id)
    ledger.end_session("t", "u", first.session_id)
    assert second.session_id == ledger.create_session("t", "u", reuse=True).session_id
    assert ledger.create_session("t", "another", reuse=True).created


def test_the_least_recently_active_session_makes_room(ledger: Ledger, clock: Clock) -> None:
    """At the limit a new session evicts, in the same append, and answers which."""
    sessions = []
    for _ in range(5):
        sessions.append(ledger.create_session("t", "u").session_id)
        clock.step(1)
    ledger.add_message("t", "u", sessions[0], role="user", content="hi")
    assert (sessions[1],) == ledger.create_session("t", "u").evicted
    with pytest.raises(SessionNotActive):
        ledger.add_message("t", "u", sessions[1], role="user", content="hi")
    ledger.set_user_limits("t", "u", max_sessions=2)
    assert 4 == len(ledger.create_session("t", "u").evicted)


def test_a_policy_of_refusal(ledger: Ledger) -> None:
    """At the limit a new session is refused, until one ends."""
    ledger.set_user_limits("t", "u", max_sessions=1, limit_policy="refuse")
    session = ledger.create_session("t", "u").session_id
    with pytest.raises(SessionLimitReached) as refused:
        ledger.create_session("t", "u")
    assert refused.value.command_id is not None
    ledger.end_session("t", "u", session)
    assert ledger.create_session("t", "u").created


def test_limits_of_tenant_plan_and_user(ledger: Ledger) -> None:
    """The user's own goes before the plan's, the plan's before the tenant's; each creation records what applied."""

    def applied(user: str) -> tuple[int | None, str, int]:
        ledger.create_session("t", user)
        event = _last(ledger, user)
        assert isinstance(event, SessionCreated)
        return event.session_limit, event.limit_policy, event.idle_timeout_ms

    assert (5, "evict", 1_800_000) == applied("u")
    limits = ledger.set_limits("t", max_sessions=7, limit_policy="refuse", idle_timeout_s=60)
    assert (-1, ledger.positions()[-1]) == (limits.partition, limits.position)
    assert (7, "refuse", 60_000) == applied("u")
    ledger.set_limits("t", plan="pro", max_sessions=9)
    ledger.set_user_limits("t", "u", plan="pro")
    assert (9, "refuse", 60_000) == applied("u")
    ledger.set_user_limits("t", "u", plan="pro", max_sessions=4, limit_policy="evict")
    assert (4, "evict", 60_000) == applied("u")
    assert (7, "refuse", 60_000) == applied("another")
    ledger.set_limits("t")
    assert (5, "evict", 1_800_000) == applied("another")


def test_sessions_expire_by_the_ledgers_clock(ledger: Ledger, clock: Clock) -> None:
    """Idle or too old: the next command records it and is refused; a sweep records what nobody asks for."""
    idle = ledger.create_session("t", "u", idle_timeout_s=60).session_id
    old = ledger.create_session("t", "u", ttl_s=100).session_id
    swept = ledger.create_session("t", "another", ttl_s=90).session_id
    clock.step(59)
    ledger.add_message("t", "u", idle, role="user", content="hi")
    clock.step(36)
    assert [(swept,)] == [expired.session_ids for expired in ledger.expire_due()]
    clock.step(23)
    with pytest.raises(SessionNotActive):
        ledger.add_message("t", "u", old, role="user", content="hi")
    clock.step(2)
    with pytest.raises(SessionNotActive):
        ledger.add_message("t", "u", idle, role="user", content="hi")
    reasons = {event.session_id: event.reason for event in events(ledger) if isinstance(event, SessionExpired)}
    assert {parse_id(idle): "idle", parse_id(old): "ttl", parse_id(swept): "ttl"} == reasons
    assert [] == ledger.expire_due()


def test_sensitive_sessions_live_a_week_at_most(ledger: Ledger, clock: Clock) -> None:
    """Whatever the caller or the tenant asks for."""
    with pytest.raises(InvalidInput):
        ledger.create_session("t", "u", kind="sensitive", ttl_s=8 * 86_400)
    session = ledger.create_session("t", "u", kind="sensitive", idle_timeout_s=90 * 86_400).session_id
    clock.step(7 * 86_400)
    with pytest.raises(SessionNotActive):
        ledger.add_message("t", "u", session, role="user", content="hi")


def test_quotas_over_a_sliding_window(ledger: Ledger, clock: Clock) -> None:
    """Consume, check, report; what does not fit is refused and says when it will; amounts leave after the period."""
    with pytest.raises(QuotaNotSet):
        ledger.consume_quota("t", "u", "tokens")
    ledger.set_quota("t", "u", "tokens", 10, 60)
    assert (Decimal(4), Decimal(6)) == (
        ledger.consume_quota("t", "u", "tokens", 4).used,
        ledger.check_quota("t", "u", "tokens", 6).remaining,
    )
    clock.step(10)
    assert Decimal("9.5") == ledger.consume_quota("t", "u", "tokens", "5.5").used
    assert any(isinstance(event, QuotaThresholdReached) for event in events(ledger))
    with pytest.raises(QuotaExceeded) as refused:
        ledger.consume_quota("t", "u", "tokens", 1)
    assert 50 == refused.value.retry_after_s
    assert isinstance(_last(ledger), QuotaRefused)
    with pytest.raises(QuotaExceeded) as too_much:
        ledger.consume_quota("t", "u", "tokens", 11)
    assert too_much.value.retry_after_s is None
    assert not ledger.check_quota("t", "u", "tokens", 1).allowed
    clock.step(50)
    assert ledger.check_quota("t", "u", "tokens", "4.5").allowed
    assert [("tokens", Decimal("5.5"), "user")] == [
        (quota.resource, quota.used, quota.source) for quota in ledger.report_quota("t", "u").quotas
    ]
    ledger.set_quota("t", "u", "tokens", None)
    with pytest.raises(QuotaNotSet):
        ledger.check_quota("t", "u", "tokens")


def test_default_quotas_of_tenant_and_plan(ledger: Ledger) -> None:
    """Where the user has none of their own, the plan's counts, else the tenant's."""
    ledger.set_limits("t", quotas={"calls": (3, 60), "tokens": ("0.5", 60)})
    ledger.set_limits("t", plan="pro", quotas={"calls": (30, 60)})
    ledger.set_user_limits("t", "pro-user", plan="pro")
    assert [("calls", "tenant"), ("tokens", "tenant")] == [
        (quota.resource, quota.source) for quota in ledger.report_quota("t", "u").quotas
    ]
    assert (Decimal(30), "plan") == (
        (status := ledger.consume_quota("t", "pro-user", "calls")).limit,
        status.source,
    )


def test_reservations(ledger: Ledger, clock: Clock) -> None:
    """A reserved amount is settled once, within its period; the unused part counts no more."""
    ledger.set_quota("t", "u", "tokens", 10, 60)
    held = ledger.consume_quota("t", "u", "tokens", 8, reserve=True)
    assert held.reservation_id is not None
    with pytest.raises(InvalidInput):
        ledger.release_quota("t", "u", held.reservation_id, 9)
    assert Decimal(5) == ledger.release_quota("t", "u", held.reservation_id, 5).amount
    assert Decimal(3) == ledger.check_quota("t", "u", "tokens").used
    with pytest.raises(ReservationNotOpen):
        ledger.release_quota("t", "u", held.reservation_id)
    late = ledger.consume_quota("t", "u", "tokens", 1, reserve=True)
    assert late.reservation_id is not None
    clock.step(60)
    with pytest.raises(ReservationNotOpen):
        ledger.release_quota("t", "u", late.reservation_id)


def test_agents_are_leased_and_given_back(ledger: Ledger) -> None:
    """Register, acquire by capabilities, release, retire; an end gives back what the session holds."""
    partition = slot_of_user("t", "u") & (len(shards_of(ledger).log.partitions) - 1)
    session = ledger.create_session("t", "u").session_id
    other = ledger.create_session("t", "u").session_id
    with pytest.raises(AgentTypeUnknown):
        ledger.acquire_agent("t", "u", session, "helper")
    plain = ledger.register_agent("t", "helper", partition=partition).agent_id
    able = ledger.register_agent("t", "helper", capabilities=["sql", "art"], partition=partition).agent_id
    assert able == ledger.acquire_agent("t", "u", session, "helper", capabilities=["sql"]).agent_id
    with pytest.raises(NoAgentAvailable):
        ledger.acquire_agent("t", "u", other, "helper", capabilities=["sql"])
    with pytest.raises(AgentNotHeld):
        ledger.release_agent("t", "u", other, able)
    with pytest.raises(AgentBusy):
        ledger.retire_agent("t", able)
    assert able == ledger.release_agent("t", "u", session, able, reset="verified").agent_id
    assert plain == ledger.acquire_agent("t", "u", session, "helper").agent_id
    assert (plain,) == ledger.end_session("t", "u", session).released_agents
    ledger.acquire_agent("t", "u", other, "helper", capabilities=["sql"])
    assert able == ledger.retire_agent("t", able, force=True).agent_id
    with pytest.raises(AgentNotFound):
        ledger.retire_agent("t", able)
    with pytest.raises(AgentNotFound):
        ledger.retire_agent("another", plain)


def test_failed_authentication_is_a_fact(ledger: Ledger) -> None:
    """Recorded in the user's account."""
    ledger.report_authentication_failure("t", "u", method="password", reason="bad_credential", ip_address="10.0.0.1")
    event = _last(ledger)
    assert isinstance(event, AuthenticationFailed)
    assert ("password", "bad_credential") == (event.method, event.reason)


def _history(count: int, user: str = "u", **fields: object) -> ImportSession:
    given: dict[str, object] = {
        "tenant": "t",
        "user": user,
        "session_id": derived_session_id("source", 1_700_000_000_000_000, slot_of_user("t", user)),
        "messages": tuple(ImportedMessage("user", f"line {number}") for number in range(count)),
        "occurred_at": 1_700_000_000_000_000,
        "source": "file:1",
    }
    return ImportSession(**(given | fields))  # type: ignore[arg-type]


def test_imported_history(ledger: Ledger) -> None:
    """One append from created to ended, counted against no limit; again it adds nothing, another is refused."""
    for _ in range(5):
        ledger.create_session("t", "u")
    done = ledger.import_session(_history(3))
    assert (3, True, True) == (done.added, done.complete, done.created)
    own = [event for event in events(ledger) if getattr(event, "session_id", b"") == parse_id(done.session_id)]
    assert [SessionCreated, *[MessageAdded] * 3, SessionEnded] == [type(event) for event in own]
    assert isinstance(own[-1], SessionEnded)
    assert "imported" == own[-1].reason
    again = ledger.import_session(_history(3))
    assert (0, True, False) == (again.added, again.complete, again.created)
    assert 10 == len(events(ledger))


def test_imported_history_in_parts(ledger: Ledger) -> None:
    """Parts that overlap add the rest; a gap and another history under the same id are refused."""
    assert 2 == ledger.import_session(_history(2, final=False)).added
    with pytest.raises(InvalidInput):
        ledger.import_session(_history(1, first_message=4, final=False))
    with pytest.raises(SessionExists):
        ledger.import_session(_history(2, final=False, title="another"))
    assert 1 == ledger.import_session(_history(2, first_message=2, final=False)).added
    last = ledger.import_session(_history(0, first_message=4))
    assert (0, True) == (last.added, last.complete)


def test_an_imported_session_belongs_to_its_users_partition(ledger: Ledger) -> None:
    """An id that carries another slot than its user's is refused: all that is one user's is in one partition."""
    wrong = derived_session_id("source", 1_700_000_000_000_000, slot_of_user("t", "u") ^ 1)
    with pytest.raises(InvalidInput) as refused:
        ledger.import_session(_history(1, session_id=wrong))
    assert "session_id" == refused.value.field
    assert [] == events(ledger)


def test_submit_gives_futures(ledger: Ledger) -> None:
    """Commands that are submitted together are recorded in that order."""
    session = parse_id(ledger.create_session("t", "u").session_id)
    command = AddMessage(tenant="t", user="u", session_id=session, role="user", content="hi")
    numbers = []
    for future in [ledger.submit(command) for _ in range(50)]:
        result = future.result(30)
        assert isinstance(result, MessageRecorded)
        numbers.append(result.message_number)
    assert [*range(1, 51)] == numbers
    failing = ledger.submit(AddMessage(tenant="t", user="x", session_id=session, role="user", content="hi"))
    assert isinstance(failing.exception(30), SessionNotFound)


def test_the_async_form_answers_the_same(ledger: Ledger) -> None:
    """Every method is there, and its results and errors are those of the other form."""
    methods = {
        name
        for group in (SessionMethods, AccessMethods, QuotaMethods, AgentMethods, AuditMethods, ErasureMethods)
        for name, method in vars(group).items()
        if inspect.isfunction(method)
    }
    assert methods == {name for name in vars(AsyncLedger) if not name.startswith("_")}

    async def run() -> None:
        aio = ledger.aio
        started = await aio.create_session("t", "u")
        said = await asyncio.gather(
            *(aio.add_message("t", "u", started.session_id, role="user", content="hi") for _ in range(20))
        )
        assert [*range(1, 21)] == [message.message_number for message in said]
        again = await aio.add_message(
            "t", "u", started.session_id, role="user", content="hi", command_id=said[0].command_id
        )
        assert (said[0].position, True) == (again.position, again.repeated)
        with pytest.raises(SessionNotFound):
            await aio.end_session("t", "stranger", started.session_id)
        with pytest.raises(InvalidInput):
            await aio.create_session("t/x", "u")
        await aio.set_quota("t", "u", "calls", 1)
        assert Decimal(1) == (await aio.consume_quota("t", "u", "calls")).used
        with pytest.raises(QuotaExceeded):
            await aio.consume_quota("t", "u", "calls")
        assert 1 == len((await aio.report_quota("t", "u")).quotas)

    asyncio.run(run())


def test_what_was_acknowledged_stands_after_opening_again(durable_url: str) -> None:
    """Sessions, quotas, limits and leases go on where they were."""
    clock = Clock()
    with Ledger.open(durable_url, clock_us=clock) as ledger:
        ledger.set_limits("t", max_sessions=2)
        session = ledger.create_session("t", "u").session_id
        partition = ledger.add_message("t", "u", session, role="user", content="hi").partition
        ledger.set_quota("t", "u", "calls", 2)
        ledger.consume_quota("t", "u", "calls")
        agent = ledger.register_agent("t", "helper", partition=partition).agent_id
        ledger.acquire_agent("t", "u", session, "helper")
        before, positions = stored(ledger), ledger.positions()
    with Ledger.open(durable_url, clock_us=clock) as ledger:
        assert (before, positions) == (stored(ledger), ledger.positions())
        assert 2 == ledger.add_message("t", "u", session, role="user", content="hi").message_number
        assert Decimal(1) == ledger.check_quota("t", "u", "calls").used
        clock.step(1)
        second = ledger.create_session("t", "u")
        clock.step(1)
        assert () == second.evicted
        with pytest.raises(NoAgentAvailable):
            ledger.acquire_agent("t", "u", second.session_id, "helper")
        third = ledger.create_session("t", "u")
        assert (session,) == third.evicted
        assert agent == ledger.acquire_agent("t", "u", third.session_id, "helper").agent_id
        judged(stored(ledger))
