"""States, differences and timelines from the log's own bytes, at any point, whatever the index says."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from session_ledger.consumers.analytics import Analytics
from session_ledger.consumers.audit.access import accesses
from session_ledger.consumers.audit.difference import difference
from session_ledger.consumers.audit.index import Fact, Index
from session_ledger.consumers.audit.state import SessionState, state_of, up_to
from session_ledger.consumers.records import SessionView, as_datetime
from session_ledger.consumers.tail import Tail
from session_ledger.consumers.views import Views
from session_ledger.domain.errors import LogCorrupt, SessionNotFound
from session_ledger.domain.events import SessionCreated, SessionEvent
from session_ledger.domain.ids import format_id
from session_ledger.ledger.ledger import Ledger
from session_ledger.projections.analytics.snapshots import Publisher, Snapshot, open_latest
from session_ledger.projections.analytics.store import AnalyticsStore
from tests.projections.world import CODEC, World

SAME = (
    *("tenant", "user", "status", "kind", "channel", "domain", "created_at", "last_active_at", "due_at", "expires_at"),
    *("ended_at", "end_reason", "ended_by", "replaced_by", "tokens_in", "tokens_out", "agents", "version", "partition"),
)


def snapshot_of(world: World, place: Path) -> Snapshot:
    """A snapshot of the world as it is now."""
    store = AnalyticsStore(place / "parts1", log_id=world.log.log_id, ledger="l")
    Tail([world.log.control, *world.log.partitions], CODEC, store).catch_up()
    Publisher(store, place).publish()
    store.close()
    return open_latest(place)


def assert_is(state: SessionState, view: SessionView) -> None:
    """The views, which are folded by other code, say the same."""
    assert {name: getattr(view, name) for name in SAME} == {name: getattr(state, name) for name in SAME}
    assert (view.messages, view.errors) == (len(state.messages), len(state.errors))


@pytest.mark.parametrize("seed", range(3))
def test_the_state_at_every_position_is_what_the_views_were_there(tmp_path: Path, seed: int) -> None:
    """Folded from the facts up to a position, found by the index or without one."""
    world = World(seed).play(150)
    with snapshot_of(world, tmp_path) as snapshot:
        world.play(100)  # some is in the snapshot, some only in the log's tail
        indexes = [Index(world.log, CODEC, snapshot), Index(world.log, CODEC, None)]
        views = Views.over(world.log, world.envelope, codec=CODEC, fresh=False)
        found = {}
        compared = 0
        for partition, position, event in world.events:
            if partition < 0:
                continue
            views.refresh({partition: position})
            session_id = getattr(event, "session_id", None)
            if session_id is None:
                continue
            if session_id not in found:
                found[session_id] = [index.of_session(session_id) for index in indexes]
                assert found[session_id][0].facts == found[session_id][1].facts
                assert [True, False] == [facts.by_index for facts in found[session_id]]
            facts = up_to(found[session_id][0].facts, position)
            if not any(isinstance(fact.event, SessionCreated) for fact in facts):
                continue
            created = next(fact.event for fact in facts if isinstance(fact.event, SessionCreated))
            assert_is(state_of(facts), views.session(created.tenant, created.user, session_id))
            compared += 1
        assert compared > 50
        views.close()


def one_session(world: World) -> bytes:
    """The session with the most facts."""
    counted: dict[bytes, int] = {}
    for _, _, event in world.events:
        if isinstance(event, SessionEvent):
            counted[event.session_id] = counted.get(event.session_id, 0) + 1
    return max(counted, key=lambda session_id: counted[session_id])


def test_a_time_takes_in_what_was_recorded_at_it(tmp_path: Path) -> None:
    """A microsecond earlier leaves it out; before the beginning there is no session."""
    world = World(3).play(200)
    facts = Index(world.log, CODEC, None).of_session(one_session(world)).facts
    for fact in facts:
        moment = as_datetime(fact.event.recorded_at)
        assert fact in up_to(facts, moment)
        assert fact not in up_to(facts, moment - timedelta(microseconds=1))
    with pytest.raises(SessionNotFound):
        state_of(up_to(facts, facts[0].position - 1))


@pytest.mark.parametrize(
    ("spoil", "by_index"),
    [
        ("DELETE FROM events WHERE session_id = $id AND event_type = 'MessageAdded' AND message_number = 1", False),
        ("UPDATE events SET session_id = $id WHERE event_type = 'SessionCreated'", False),
        ("UPDATE events SET position = position + 1 WHERE session_id = $id", False),
        ("DELETE FROM events", False),
        ("UPDATE events SET role = 'forged', tokens_in = 1000000 WHERE session_id = $id", True),
    ],
)
def test_a_wrong_index_is_noticed_and_does_no_harm(tmp_path: Path, spoil: str, by_index: bool) -> None:
    """Missing, foreign and moved rows: the log is read whole. Forged values are never looked at."""
    world = World(3).play(200)
    session_id = one_session(world)
    right = Index(world.log, CODEC, None).of_session(session_id).facts
    store = AnalyticsStore(tmp_path / "parts1", log_id=world.log.log_id, ledger="l")
    Tail([world.log.control, *world.log.partitions], CODEC, store).catch_up()
    values = {"id": format_id(session_id)} if "$id" in spoil else {}
    store._db.execute(spoil, values)
    Publisher(store, tmp_path).publish()
    store.close()
    with open_latest(tmp_path) as snapshot:
        found = Index(world.log, CODEC, snapshot).of_session(session_id)
    assert (right, by_index) == (found.facts, found.by_index)


def test_an_index_of_another_log_is_not_used(tmp_path: Path) -> None:
    """Its positions mean nothing here."""
    world, other = World(3).play(100), World(4).play(100)
    with snapshot_of(other, tmp_path) as snapshot:
        assert not Index(world.log, CODEC, snapshot).of_session(one_session(world)).by_index


def test_a_gap_in_the_log_itself_is_corruption(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session whose versions are not dense has no state."""
    world = World(3).play(200)
    session_id = one_session(world)
    tail = Index._tail

    def lossy(*arguments: object) -> list[Fact]:
        return list(tail(*arguments))[:1] + list(tail(*arguments))[2:]  # type: ignore[arg-type]

    monkeypatch.setattr(Index, "_tail", lossy)
    with pytest.raises(LogCorrupt):
        Index(world.log, CODEC, None).of_session(session_id)


@pytest.mark.parametrize("seed", range(2))
def test_timelines_hold_every_fact_and_no_other(tmp_path: Path, seed: int) -> None:
    """Of a user and of an agent, in the order of the log."""
    world = World(seed).play(300)
    with snapshot_of(world, tmp_path) as snapshot:
        world.play(50)
        index = Index(world.log, CODEC, snapshot)
        users = {(event.tenant, event.user) for partition, _, event in world.events if partition >= 0 and event.user}
        for tenant, user in users:
            mine = [(p, n) for p, n, e in world.events if p >= 0 and (e.tenant, e.user) == (tenant, user)]
            assert sorted(mine) == [(f.partition, f.position) for f in index.of_user(tenant, user).facts]
        agents = {event.agent_id for _, _, event in world.events if getattr(event, "agent_id", None)}  # type: ignore[attr-defined]
        assert agents
        for agent_id in agents:
            mine = [(p, n) for p, n, e in world.events if getattr(e, "agent_id", None) == agent_id]
            assert sorted(mine) == [(f.partition, f.position) for f in index.of_agent(agent_id).facts]


def test_a_difference_names_what_changed_and_the_facts_between(directory: Path) -> None:
    """Fields before and after; from before the beginning everything is new."""
    with Ledger.open(f"sqlite:{directory}") as ledger:
        session = ledger.create_session("t", "u").session_id
        ledger.add_message("t", "u", session, role="user", content="hi", tokens_in=3)
        ledger.end_session("t", "u", session, reason="completed")
        facts = Index(ledger.log, CODEC, None).of_session(bytes.fromhex(session.replace("-", ""))).facts
    changed = difference(up_to(facts, 1), up_to(facts, None))
    assert {"messages", "tokens_in", "status", "ended_at", "end_reason", "ended_by", "version"} <= {
        change.field for change in changed.changes
    }
    assert [("messages", 0, 1)] == [(c.field, c.before, c.after) for c in changed.changes if c.field == "messages"]
    assert ["MessageAdded", "SessionEnded"] == [type(fact.event).__name__ for fact in changed.facts]
    assert difference([], up_to(facts, 1)).before is None
    assert () == difference(up_to(facts, 2), up_to(facts, 2)).changes


def test_access_tells_every_reveal_and_read(directory: Path) -> None:
    """Of the snapshot and after it, by tenant and user."""
    url = f"sqlite:{directory}"
    with Ledger.open(url) as ledger:
        ledger.reveal_content("t", "u", revealed_by="eve", reason="case 1", query_digest=b"q" * 16, fields=2)
    with Analytics(url) as analytics:
        analytics.catch_up()
        analytics.publish()
    with Ledger.open(url) as ledger, open_latest(directory / "analytics") as snapshot:
        ledger.record_audit_read("t", "", read_by="bob", action="leaks")
        ledger.record_audit_read("other", "u", read_by="bob", action="state")
        found = accesses(ledger.log, CODEC, snapshot)
        told = [(one.who, one.action, one.fields) for one in found]
        assert [("eve", "reveal", 2), ("bob", "leaks", None), ("bob", "state", None)] == told
        assert 2 == len(accesses(ledger.log, CODEC, snapshot, tenant="t"))
        assert ["reveal"] == [one.action for one in accesses(ledger.log, CODEC, None, tenant="t", user="u")]
