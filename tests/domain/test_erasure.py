"""Erasures and legal holds as decisions: what is recorded, what is refused, and what goes on afterwards."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from session_ledger.domain import commands as c
from session_ledger.domain.control import TenantSettings
from session_ledger.domain.errors import (
    CommandIdReused,
    ContentGone,
    HistoryErased,
    HoldNotFound,
    InvalidInput,
    NoAgentAvailable,
    SessionExists,
    SessionNotActive,
    SessionNotFound,
    UnderLegalHold,
)
from session_ledger.domain.events import (
    AgentReleased,
    ContentErased,
    ErasureRefused,
    LegalHoldLifted,
    LegalHoldSet,
    SessionEnded,
    TenantErased,
    TenantHoldLifted,
    TenantHoldSet,
)
from session_ledger.domain.ids import derived_session_id, slot_of_user
from session_ledger.domain.remembered import BODY_FORGOTTEN
from session_ledger.domain.results import Recorded
from tests.domain.test_control import Control
from tests.domain.world import SECOND, TENANT, USER, World

ASKED: dict[str, Any] = {"requested_by": "dpo", "reason": "request 7"}
WHO: dict[str, Any] = {"tenant": TENANT, "user": USER}


def erase(world: World, session_id: bytes, user: str = USER) -> Any:
    """Erase a session."""
    return world.run(c.EraseSession(tenant=TENANT, user=user, session_id=session_id, **ASKED))


def hold(matter: str = "case", session_id: bytes | None = None) -> c.SetLegalHold:
    """A hold."""
    return c.SetLegalHold(**WHO, matter=matter, session_id=session_id, **ASKED)


def test_erasing_a_live_session_ends_it_and_lets_its_agents_go() -> None:
    """In one decision: the end, what it held, and the erasure, which comes last."""
    world = World()
    session_id = world.create()
    world.run(c.RegisterAgent(tenant=TENANT, agent_type="worker", agent_id=session_id[:15] + b"\x01")).ok()
    world.run(c.AcquireAgent(**WHO, session_id=session_id, agent_type="worker")).ok()
    outcome = erase(world, session_id)
    assert isinstance(outcome.ok(), Recorded)
    assert [SessionEnded, AgentReleased, ContentErased] == [type(event) for event in outcome.events]
    ended, _, erased = outcome.events
    assert ("erased", "admin") == (ended.reason, ended.ended_by)
    assert (session_id, "dpo", "request 7", None) == (
        erased.session_id, erased.requested_by, erased.reason, erased.key_id,
    )  # fmt: skip
    assert isinstance(world.say(session_id).error, SessionNotActive)


def test_erasing_a_session_that_is_over_and_again() -> None:
    """It need not live; a second time adds nothing; one of somebody else is not found."""
    world = World()
    session_id = world.create()
    world.run(c.EndSession(**WHO, session_id=session_id, reason="done", ended_by="user")).ok()
    assert [ContentErased] == [type(event) for event in erase(world, session_id).events]
    again = erase(world, session_id)
    assert ([], True) == (again.events, isinstance(again.ok(), Recorded))
    assert isinstance(erase(world, session_id, "bob").error, SessionNotFound)
    assert isinstance(erase(world, b"n" * 16).error, SessionNotFound)


def test_erasing_a_user_ends_every_session_and_names_the_key_that_stays() -> None:
    """Whoever comes back begins anew; quotas and limits stay as they were."""
    world = World()
    sessions = [world.create(), world.create()]
    world.run(c.SetQuota(**WHO, resource="tokens", limit=Decimal(5), period_ms=60_000)).ok()
    outcome = world.run(c.EraseUser(**WHO, **ASKED))
    assert isinstance(outcome.ok(), Recorded)
    assert [SessionEnded, SessionEnded, ContentErased] == [type(event) for event in outcome.events]
    assert sorted(sessions) == [event.originator_id for event in outcome.events[:2]]
    erased = outcome.events[-1]
    assert isinstance(erased, ContentErased)
    assert (None, b"k" * 16, b"c" * 32) == (erased.session_id, erased.key_id, erased.key_commitment)
    assert not world.account().sessions
    world.create()
    assert world.account().quotas["tokens"].limit == 5


def test_commands_from_before_are_repeated_by_their_id_alone() -> None:
    """The key of their digests is destroyed: a repeat is answered and does not run again, whatever its body says."""
    world = World()
    world.run(c.SetQuota(**WHO, resource="tokens", limit=Decimal(5), period_ms=60_000)).ok()
    spend = c.ConsumeQuota(**WHO, resource="tokens", amount=Decimal(2), command_id=world.ids.at(world.now))
    world.run(spend).ok()
    other = c.ConsumeQuota(**WHO, resource="tokens", amount=Decimal(3), command_id=spend.command_id)
    assert isinstance(world.run(other).error, CommandIdReused)
    world.run(c.EraseUser(**WHO, **ASKED)).ok()
    again = world.run(other)
    assert ([], True) == (again.events, again.ok().repeated)
    assert all(entry.endswith(BODY_FORGOTTEN) for entry in list(world.account().commands.entries.values())[:-1])


@pytest.mark.parametrize("of_session", [True, False])
def test_a_hold_forbids_erasures_until_every_matter_is_lifted(of_session: bool) -> None:
    """Each refusal is recorded; one matter lifted leaves the other's."""
    world = World()
    session_id = world.create()
    scope = session_id if of_session else None
    for matter in ("b", "a"):
        assert [LegalHoldSet] == [type(event) for event in world.run(hold(matter, scope)).events]
    assert [] == world.run(hold("a", scope)).events
    for command in (c.EraseUser(**WHO, **ASKED), c.EraseSession(**WHO, session_id=session_id, **ASKED)):
        refused = world.run(command)
        assert isinstance(refused.error, UnderLegalHold)
        (event,) = refused.events
        assert isinstance(event, ErasureRefused)
        assert ("a", "dpo") == (event.matter, event.requested_by)
    world.say(session_id).ok()
    lift = {"session_id": scope, **WHO, **ASKED}
    assert [LegalHoldLifted] == [type(e) for e in world.run(c.LiftLegalHold(matter="a", **lift)).events]
    assert isinstance(erase(world, session_id).error, UnderLegalHold)
    assert isinstance(world.run(c.LiftLegalHold(matter="a", **lift)).error, HoldNotFound)
    world.run(c.LiftLegalHold(matter="b", **lift)).ok()
    erase(world, session_id).ok()
    assert world.dump() == world.folded_anew().dump()


def test_a_hold_on_another_session_does_not_keep_this_one() -> None:
    """But it keeps the user from being erased."""
    world = World()
    one, other = world.create(), world.create()
    world.run(hold(session_id=one)).ok()
    erase(world, other).ok()
    assert isinstance(world.run(c.EraseUser(**WHO, **ASKED)).error, UnderLegalHold)


def test_a_held_tenant_and_an_erased_one() -> None:
    """A tenant's hold counts for all of its users; an erased tenant takes nothing but erasures and holds."""
    world = World(settings=TenantSettings(holds=frozenset(("audit",))))
    session_id = world.create()
    assert isinstance(erase(world, session_id).error, UnderLegalHold)
    world.settings = TenantSettings(erased=True)
    assert isinstance(world.say(session_id).error, ContentGone)
    assert isinstance(world.run(c.CreateSession(**WHO)).error, ContentGone)
    world.run(c.EraseUser(**WHO, **ASKED)).ok()


def test_tenants_are_held_and_erased_in_the_control_log() -> None:
    """Facts of the control log; a repeat adds nothing, and an erased tenant gets no limits."""
    control = Control()
    set_hold, lift = (kind(tenant="acme", matter="m", **ASKED) for kind in (c.SetTenantHold, c.LiftTenantHold))
    assert [TenantHoldSet] == [type(event) for event in control.run(set_hold).events]
    assert [] == control.run(set_hold).events
    gone = c.EraseTenant(tenant="acme", **ASKED)
    assert isinstance(control.run(gone).error, UnderLegalHold)
    assert [TenantHoldLifted] == [type(event) for event in control.run(lift).events]
    assert isinstance(control.run(lift).error, HoldNotFound)
    control.run(c.SetLimits(tenant="acme", max_sessions=2))
    assert [TenantErased] == [type(event) for event in control.run(gone).events]
    assert ([], None) == (control.run(gone).events, control.run(gone).error)
    assert isinstance(control.run(c.SetLimits(tenant="acme", max_sessions=3)).error, ContentGone)
    of_tenant = control.state.settings_of("acme")
    assert (True, frozenset(), 2) == (of_tenant.erased, of_tenant.holds, of_tenant.own.max_sessions)


def test_history_that_was_erased_is_not_imported_again() -> None:
    """The vault has no key of that session any more: that tells it from a repeat of the import."""

    world = World()
    history = c.ImportSession(
        **WHO,
        session_id=derived_session_id("chat", world.now, slot_of_user(TENANT, USER)),
        messages=(c.ImportedMessage(role="user", content="hi"),),
        final=True,
    )
    world.run(history).ok()
    assert [] == world.run(history).events
    erase(world, history.session_id).ok()
    refused = world.run_prepared(replace(world.prepare(history), key_is_new=True))
    assert isinstance(refused.error, HistoryErased)
    assert not isinstance(refused.error, SessionExists)
    other = replace(history, session_id=derived_session_id("other", world.now, slot_of_user(TENANT, USER)))
    world.run(other).ok()
    assert world.run_prepared(replace(world.prepare(other), key_is_new=True)).error is None  # of the same append
    world.run(c.EraseUser(**WHO, **ASKED)).ok()
    assert isinstance(world.run_prepared(replace(world.prepare(other), key_is_new=True)).error, HistoryErased)


def test_an_unfinished_history_that_was_erased_is_told_as_that() -> None:
    """By its first part; a later one is told that the session is over."""
    world = World()
    session_id = derived_session_id("chat", world.now, slot_of_user(TENANT, USER))
    said = (c.ImportedMessage(role="user", content="hi"),)
    part = c.ImportSession(**WHO, session_id=session_id, messages=said, final=False)
    world.run(part).ok()
    erase(world, session_id).ok()
    assert isinstance(world.run_prepared(replace(world.prepare(part), key_is_new=True)).error, HistoryErased)
    later = world.run(replace(part, first_message=2))
    assert isinstance(later.error, SessionNotActive)


def test_who_and_why_must_be_told() -> None:
    """Without either nothing is erased."""
    world = World()
    session_id = world.create()
    for missing in ({"requested_by": ""}, {"reason": ""}):
        with pytest.raises(InvalidInput):
            world.run(c.EraseSession(**WHO, session_id=session_id, **{**ASKED, **missing}))
        with pytest.raises(InvalidInput):
            world.run(c.SetLegalHold(**WHO, matter="m", **{**ASKED, **missing}))
    with pytest.raises(InvalidInput):
        world.run(hold(matter=""))


@given(steps=st.lists(st.sampled_from(("create", "say", "hold", "lift", "erase", "erase user", "end")), max_size=40))
@settings(max_examples=60, deadline=None)
def test_nothing_under_a_hold_is_ever_erased(steps: list[str]) -> None:
    """Whatever the order: no ContentErased while a hold covers it, no event of a session after its erasure."""
    world = World()
    sessions: list[bytes] = []
    for number, step in enumerate(steps):
        last = sessions[-1] if sessions else b"n" * 16
        scope = last if number % 2 else None
        if step == "create":
            sessions.append(world.create())
        elif step == "say":
            world.say(last)
        elif step == "end":
            world.run(c.EndSession(**WHO, session_id=last, reason="done", ended_by="user"))
        elif step == "hold":
            world.run(hold(session_id=scope))
        elif step == "lift":
            world.run(c.LiftLegalHold(**WHO, matter="case", session_id=scope, **ASKED))
        elif step == "erase":
            erase(world, last)
        else:
            world.run(c.EraseUser(**WHO, **ASKED))
    held: set[bytes] = set()
    gone: set[bytes] = set()
    made: set[bytes] = set()
    for event in world.events:
        if isinstance(event, LegalHoldSet):
            held.add(event.session_id or b"")
        elif isinstance(event, LegalHoldLifted):
            held.discard(event.session_id or b"")
        elif isinstance(event, ContentErased):
            assert b"" not in held
            assert not held if event.session_id is None else event.session_id not in held
            gone |= made if event.session_id is None else {event.session_id}
        elif event.originator_id in sessions:
            made.add(event.originator_id)
            assert event.originator_id not in gone
    assert world.dump() == world.folded_anew().dump()


def test_an_agent_of_an_erased_session_is_free_for_others() -> None:
    """It was let go of with the session's end."""
    world = World()
    session_id, other = world.create(), world.create()
    world.run(c.RegisterAgent(tenant=TENANT, agent_type="worker", agent_id=session_id[:15] + b"\x01")).ok()
    world.run(c.AcquireAgent(**WHO, session_id=session_id, agent_type="worker")).ok()
    take = c.AcquireAgent(**WHO, session_id=other, agent_type="worker")
    assert isinstance(world.run(take).error, NoAgentAvailable)
    erase(world, session_id).ok()
    world.run(take).ok()


def test_nothing_that_was_erased_is_revealed() -> None:
    """By itself or with its user; what the user did since is, and history that was imported, whatever its id says."""

    def revealed(session_id: bytes | None) -> bool:
        told: dict[str, Any] = {"revealed_by": "eve", "reason": "case 7", "query_digest": bytes(16)}
        outcome = world.run(c.RevealContent(**WHO, session_id=session_id, **told))
        assert outcome.error is None or isinstance(outcome.error, ContentGone)
        return outcome.error is None

    world = World()
    one, two, live = (world.create() for _ in range(3))
    world.run(c.EndSession(**WHO, session_id=two))
    assert revealed(one)
    erase(world, one)
    assert [False, True, True] == list(map(revealed, (one, two, live)))
    world.now += SECOND
    world.run(c.EraseUser(**WHO, **ASKED))
    assert [False, False, False] == list(map(revealed, (one, two, live)))
    world.now += SECOND
    new = world.create()
    assert revealed(new)
    world.run(c.EndSession(**WHO, session_id=new))
    old = derived_session_id("old", world.now - 1000 * SECOND, slot_of_user(TENANT, USER))
    history = (c.ImportedMessage(role="user", content="hi"),)
    world.run(c.ImportSession(**WHO, session_id=old, messages=history, final=True)).ok()
    assert [True, True, True] == list(map(revealed, (new, old, None)))


def test_a_hold_on_what_is_gone_is_refused() -> None:
    """Whoever sets it must know that it keeps nothing; one of the user keeps what comes."""
    world = World()
    one, two = world.create(), world.create()
    erase(world, one)
    assert isinstance(world.run(hold(session_id=one)).error, ContentGone)
    world.run(hold(session_id=two)).ok()
    world.run(c.LiftLegalHold(**WHO, matter="case", session_id=two, **ASKED)).ok()
    world.now += SECOND
    world.run(c.EraseUser(**WHO, **ASKED)).ok()
    assert isinstance(world.run(hold(session_id=two)).error, ContentGone)
    world.run(hold()).ok()
