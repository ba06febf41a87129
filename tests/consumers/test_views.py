"""The read side: one's own, complete, opened, paged; nothing of another's, and no page lost to an unreadable row."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from session_ledger.consumers.records import Page, SessionView
from session_ledger.consumers.tail import PartitionStopped
from session_ledger.consumers.views import Views
from session_ledger.domain import commands as c
from session_ledger.domain.errors import InvalidInput, LogUnavailable, SessionNotFound, WaitTimeout
from session_ledger.domain.events import QuotaRefused
from session_ledger.domain.ids import derived_session_id, format_id, slot_of_user
from session_ledger.ledger.ledger import Ledger
from session_ledger.ledger.log.memory import MemoryLog
from session_ledger.ledger.open import open_envelope
from session_ledger.ledger.settings import Settings
from tests.projections.world import MINUTE_US, SECOND_US, START_US, TENANTS, USERS, World, record_of

ADA: dict[str, Any] = {"tenant": "acme", "user": "ada"}


@pytest.fixture
def world() -> World:
    """An empty world of two partitions."""
    return World()


@pytest.fixture
def views(world: World) -> Iterator[Views]:
    """Its views, on its clock."""
    with Views.over(world.log, world.envelope, clock=lambda: world.now) as views:
        yield views


def create(world: World, tenant: str = "acme", user: str = "ada", **fields: object) -> bytes:
    """A new session's id."""
    assert world.run(c.CreateSession(tenant=tenant, user=user, **fields)) is None  # type: ignore[arg-type]
    return world.sessions[-1][2]


def say(world: World, session_id: bytes, content: str, **fields: object) -> None:
    """A message in a session of Ada's."""
    command = c.AddMessage(**ADA, session_id=session_id, role="user", content=content, **fields)  # type: ignore[arg-type]
    assert world.run(command) is None


def ids(page: Page[SessionView]) -> list[str]:
    return [session.session_id for session in page]


# --- sessions -----------------------------------------------------------------------------------------------------


def test_a_session_is_read_with_everything_that_was_recorded(world: World, views: Views) -> None:
    """Initial state, activity and counts, with content opened and metadata merged."""
    session_id = create(
        world,
        title="Billing",
        context={"page": 3},
        metadata={"colour": "red", "secret": "x"},
        ip_address="192.0.2.7",
        channel="voice",
        kind="website",
        domain="example.com",
    )
    world.now += SECOND_US
    say(world, session_id, "hello", tokens_in=3, tokens_out=4, model="m-1")
    say(world, session_id, "again", tokens_in=5)
    world.run(c.ReportError(**ADA, session_id=session_id, component="llm", error_type="timeout", message="it hung"))
    session = views.session("acme", "ada", format_id(session_id))
    created = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=START_US)
    assert ("live", True, False) == (session.status, session.active, session.timed_out)
    assert ("Billing", {"page": 3}, "192.0.2.7") == (session.title, session.context, session.ip_address)
    assert {"colour": "red", "secret": "x"} == session.metadata
    assert ("voice", "website", "example.com") == (session.channel, session.kind, session.domain)
    assert (2, 8, 4, 1) == (session.messages, session.tokens_in, session.tokens_out, session.errors)
    assert (created, created + timedelta(seconds=1)) == (session.created_at, session.last_active_at)
    assert created + timedelta(seconds=1, hours=24) == session.due_at
    assert session.session_id == session.thread_id
    assert (4, None) == (session.version, session.unreadable)
    (error,) = views.errors("acme", "ada", session_id)
    assert ("llm", "timeout", "it hung") == (error.component, error.error_type, error.message)


def test_updates_replace_title_context_and_metadata(world: World, views: Views) -> None:
    """Title and context stay where an update leaves them out; metadata is replaced as a whole."""
    session_id = create(world, title="Old", context={"page": 1}, metadata={"colour": "red", "secret": "x"})
    world.run(c.UpdateSession(**ADA, session_id=session_id, title="New"))
    session = views.session("acme", "ada", session_id)
    assert ("New", {"page": 1}, {"colour": "red", "secret": "x"}) == (session.title, session.context, session.metadata)
    world.run(c.UpdateSession(**ADA, session_id=session_id, metadata={"colour": "blue"}, context={"page": 2}))
    session = views.session("acme", "ada", session_id)
    assert ("New", {"page": 2}, {"colour": "blue"}) == (session.title, session.context, session.metadata)
    world.run(c.UpdateSession(**ADA, session_id=session_id, metadata={}))
    assert {} == views.session("acme", "ada", session_id).metadata


@pytest.mark.parametrize(("tenant", "user"), [("acme", "bob"), ("globex", "ada"), ("acm", "e/ada"), ("", "")])
def test_the_session_of_another_is_not_found(world: World, views: Views, tenant: str, user: str) -> None:
    """Every read of a session demands its own tenant and user; whether it exists is not told."""
    session_id = create(world)
    say(world, session_id, "secret")
    for read in (views.session, views.history, views.errors):
        with pytest.raises(SessionNotFound):
            read(tenant, user, session_id)
    assert not views.has(tenant, user, session_id)
    assert ([], 0, None) == (
        ids(views.sessions(tenant, user, status=None)), views.count(tenant, user), views.current(tenant, user),
    )  # fmt: skip


@given(seed=st.integers(0, 2**32))
@settings(max_examples=5, deadline=None)
def test_no_list_holds_what_is_anothers(seed: int) -> None:
    """Pages by user and by tenant hold exactly that user's and that tenant's sessions."""
    world = World(seed).play(150)
    with Views.over(world.log, world.envelope, clock=lambda: world.now) as views:
        for tenant in TENANTS:
            of_tenant = {format_id(s) for t, _, s in world.sessions if t == tenant}
            assert of_tenant == set(ids(views.tenant_sessions(tenant, status=None, limit=1000)))
            assert all(agent.tenant == tenant for agent in views.agents(tenant, retired=True))
            for user in USERS:
                expected = {format_id(s) for t, u, s in world.sessions if (t, u) == (tenant, user)}
                assert expected == set(ids(views.sessions(tenant, user, status=None, limit=1000)))
                assert len(expected) == views.count(tenant, user, status=None)


@given(seed=st.integers(0, 2**32), limit=st.integers(1, 7), status=st.sampled_from([None, "live", "expired", "ended"]))
@settings(max_examples=10, deadline=None)
def test_pages_hold_every_session_once_newest_activity_first(seed: int, limit: int, status: str | None) -> None:
    """Following `next` gives every session once, in order, whatever the page size and the filter."""
    world = World(seed).play(120)
    with Views.over(world.log, world.envelope, clock=lambda: world.now) as views:
        found: list[SessionView] = []
        page = views.tenant_sessions("acme", status=status, limit=limit)
        while True:
            assert len(page) <= limit
            found.extend(page)
            if page.next is None:
                break
            page = views.tenant_sessions("acme", status=status, limit=limit, after=page.next)
        keys = [(session.last_active_at, session.session_id) for session in found]
        assert sorted(set(keys), reverse=True) == keys
        whole = views.tenant_sessions("acme", status=status, limit=1000)
        assert ids(whole) == [session.session_id for session in found]


def test_a_session_whose_time_is_over_is_live_and_timed_out_until_that_is_recorded(world: World, views: Views) -> None:
    """The views tell what is recorded, and what the next command would find: not active any more."""
    session_id = create(world)
    world.now += 31 * MINUTE_US
    session = views.session("acme", "ada", session_id)
    assert ("live", True, False) == (session.status, session.timed_out, session.active)
    assert [format_id(session_id)] == ids(views.sessions("acme", "ada"))
    assert (False, None) == (views.has("acme", "ada", session_id), views.current("acme", "ada"))
    world.run(c.ExpireSessions(**ADA))
    session = views.session("acme", "ada", session_id)
    assert ("expired", "idle", "system", False) == (
        session.status, session.end_reason, session.ended_by, session.timed_out,
    )  # fmt: skip
    assert (session.due_at, session.end_occurred_at) == (session.end_occurred_at, session.due_at)


def test_the_current_session_is_the_one_last_active(world: World, views: Views) -> None:
    """Of several live sessions the one with the newest activity is current."""
    first, second = create(world), create(world)
    world.now += SECOND_US
    say(world, first, "hello")
    current = views.current("acme", "ada")
    assert current is not None
    assert format_id(first) == current.session_id
    assert [format_id(first), format_id(second)] == ids(views.sessions("acme", "ada"))
    assert (True, True, 2) == (views.has("acme", "ada", first), views.has("acme", "ada", second), views.count(**ADA))


def test_every_end_has_its_status_and_reason(world: World, views: Views) -> None:
    """Ended, evicted and imported sessions say how and by whom."""
    world.run(c.SetUserLimits(**ADA, max_sessions=1))
    evicted, ended = create(world), create(world)
    world.run(c.EndSession(**ADA, session_id=ended, reason="completed", ended_by="admin", note="all done"))
    session = views.session("acme", "ada", evicted)
    assert ("evicted", "evicted", format_id(ended)) == (session.status, session.end_reason, session.replaced_by)
    session = views.session("acme", "ada", ended)
    assert ("ended", "completed", "admin", "all done") == (
        session.status, session.end_reason, session.ended_by, session.note,
    )  # fmt: skip


def test_imported_history_has_a_status_of_its_own(world: World, views: Views) -> None:
    """It never counts as live, not even while its import is under way, and stays told from what was ended here."""
    session_id = derived_session_id("history:1", START_US, slot_of_user("acme", "ada"))
    parts = [(c.ImportedMessage(role="user", content=text),) for text in ("one", "two")]
    common: dict[str, Any] = {**ADA, "session_id": session_id, "source": "history:1"}
    world.run(c.ImportSession(**common, messages=parts[0], final=False))
    session = views.session("acme", "ada", session_id)
    assert ("imported", None, 0) == (session.status, session.ended_at, views.count("acme", "ada"))
    world.run(c.ImportSession(**common, messages=parts[1], first_message=2))
    session = views.session("acme", "ada", session_id)
    assert ("imported", "imported", "system", 2) == (
        session.status, session.end_reason, session.ended_by, session.messages,
    )  # fmt: skip


# --- messages -----------------------------------------------------------------------------------------------------


def test_history_is_paged_by_number_and_by_the_last(world: World, views: Views) -> None:
    """`after` and `limit` walk forward; `last` gives the end, in order."""
    session_id = create(world)
    for number in range(1, 8):
        say(world, session_id, f"message {number}")
    assert [1, 2, 3] == [m.number for m in views.history("acme", "ada", session_id, limit=3)]
    assert [4, 5, 6] == [m.number for m in views.history("acme", "ada", session_id, limit=3, after=3)]
    assert ["message 6", "message 7"] == [m.content for m in views.history("acme", "ada", session_id, last=2)]
    assert [] == views.history("acme", "ada", session_id, after=7)


def test_a_message_is_read_with_everything_that_was_recorded(world: World, views: Views) -> None:
    """Content, parts, model, tokens, latency, audio and metadata come back as they were given."""
    session_id = create(world)
    fields = {"parts": [{"tool": "search"}], "model": "m-1", "tokens_in": 1, "tokens_out": 2, "latency_ms": 30}
    audio = {"audio_url": "https://example.com/a.wav", "audio_duration_ms": 900}
    metadata = {"colour": "red", "mood": "good"}
    say(world, session_id, "größer", **fields, **audio, metadata=metadata, occurred_at=START_US - 7)
    (message,) = views.history("acme", "ada", session_id)
    assert ("größer", [{"tool": "search"}], metadata) == (message.content, message.parts, message.metadata)
    assert ("m-1", 1, 2, 30) == (message.model, message.tokens_in, message.tokens_out, message.latency_ms)
    assert (audio["audio_url"], 900) == (message.audio_url, message.audio_duration_ms)
    assert timedelta(microseconds=7) == message.recorded_at - (message.occurred_at or message.recorded_at)


def test_failed_authentications_are_listed_newest_first(world: World, views: Views) -> None:
    """With their method, reason and opened address; paged by position."""
    for method in ("password", "api_key"):
        world.run(c.ReportAuthenticationFailure(**ADA, method=method, reason="bad_credential", ip_address="192.0.2.9"))
    newest, oldest = views.authentication_failures("acme", "ada")
    assert ("api_key", "password", "192.0.2.9") == (newest.method, oldest.method, oldest.ip_address)
    assert [oldest] == views.authentication_failures("acme", "ada", before=newest.position)


# --- what can not be opened -----------------------------------------------------------------------------------------


@pytest.fixture
def sealed(tmp_path: Path) -> Iterator[tuple[World, Views]]:
    """A world whose content is sealed by a vault's keys, and its views."""
    envelope, close = open_envelope(tmp_path, "memory", Settings())
    world = World(envelope=envelope)
    with Views.over(world.log, envelope, clock=lambda: world.now) as views:
        yield world, views
    close()


def test_sealed_content_is_ciphertext_in_the_views_and_opened_on_the_way_out(sealed: tuple[World, Views]) -> None:
    """No plaintext of title, context or messages stands in the file; reads give it."""
    world, views = sealed
    session_id = create(world, title="a very secret title", metadata={"note": "hidden away"})
    say(world, session_id, "what nobody else may read")
    session = views.session("acme", "ada", session_id)
    assert ("a very secret title", {"note": "hidden away"}) == (session.title, session.metadata)
    assert ["what nobody else may read"] == [m.content for m in views.history("acme", "ada", session_id)]
    stored = b"".join(path.read_bytes() for path in Path(views.store.directory).glob("views.db*"))
    for text in (b"secret title", b"hidden away", b"nobody else"):
        assert text not in stored


def test_content_whose_key_is_gone_is_none_and_says_why(sealed: tuple[World, Views], tmp_path: Path) -> None:
    """A page with an unreadable session still comes; the others on it are opened."""
    world, views = sealed
    session_id, other = create(world, title="lost"), create(world, title="kept")
    say(world, session_id, "lost too")
    views.refresh()
    (tmp_path / "other").mkdir()
    other_envelope, close = open_envelope(tmp_path / "other", "memory", Settings())
    with Views.over(world.log, other_envelope, clock=lambda: world.now) as keyless:
        session = keyless.session("acme", "ada", session_id)
        assert session.title is None
        assert (session.unreadable or "").startswith("key_unavailable")
        (message,) = keyless.history("acme", "ada", session_id)
        assert (None, True) == (message.content, "key_unavailable" in (message.unreadable or ""))
    close()
    with views.store.reading() as db:
        row = db.execute(
            "SELECT sealed FROM session_content WHERE session_id = ? AND field = 'title'", (session_id,)
        ).fetchone()
    damaged = row[0][:-1] + bytes([row[0][-1] ^ 1])
    views.store._db.execute(
        "UPDATE session_content SET sealed = ? WHERE session_id = ? AND field = 'title'", (damaged, session_id)
    )
    page = {session.session_id: session for session in views.sessions("acme", "ada")}
    assert (page[format_id(session_id)].unreadable or "").startswith("content_unreadable")
    assert ("kept", None) == (page[format_id(other)].title, page[format_id(other)].unreadable)


# --- freshness ----------------------------------------------------------------------------------------------------


def test_a_read_sees_what_was_in_the_log_when_it_began(world: World, views: Views) -> None:
    """By default every read folds first; `fresh=False` answers from the rows as they are."""
    first = create(world)
    assert 1 == views.count("acme", "ada")
    create(world)
    assert 1 == views.count("acme", "ada", fresh=False)
    assert 2 == views.count("acme", "ada")
    assert views.has("acme", "ada", first, fresh=False)


def test_waiting_for_an_answers_position_reads_ones_own_writes(world: World, views: Views) -> None:
    """`wait` folds up to the position; one that the log does not show in time is a WaitTimeout."""
    session_id = create(world)
    partition = views.partition_of("acme", "ada")
    end = world.log.partitions[partition].end()
    views.wait(partition, end, timeout_s=5)
    assert views.has("acme", "ada", session_id, fresh=False)
    with pytest.raises(WaitTimeout):
        views.wait(partition, end + 1, timeout_s=0.05)
    late = threading.Timer(0.05, lambda: say(world, session_id, "late"))
    late.start()
    views.wait(partition, end + 1, timeout_s=10)
    assert 1 == views.session("acme", "ada", session_id, fresh=False).messages
    late.join()


def test_a_read_behind_a_stopped_partition_says_so(world: World, views: Views) -> None:
    """A fresh read of a partition that can not be read to its end fails; a stale one and other partitions answer."""
    session_id = create(world)
    views.refresh()
    partition = views.partition_of("acme", "ada")
    assert isinstance(world.log, MemoryLog)
    say(world, session_id, "damaged")
    records = world.log._store.records[partition]
    records[-1] = records[-1]._replace(value=b"")
    with pytest.raises(PartitionStopped):
        views.session("acme", "ada", session_id)
    assert 0 == views.session("acme", "ada", session_id, fresh=False).messages
    elsewhere = next(u for u in "abcdefgh" if views.partition_of("acme", u) != partition)
    assert 0 == views.count("acme", elsewhere)


def test_many_threads_read_and_one_writes(world: World, views: Views) -> None:
    """Every thread has its own connection; none sees half an append."""
    session_id = create(world)
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            messages = views.history("acme", "ada", session_id)
            assert [*range(1, len(messages) + 1)] == [message.number for message in messages]

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read) for _ in range(4)]
        for number in range(60):
            say(world, session_id, f"message {number}")
        stop.set()
        for reader in readers:
            reader.result()
    assert 60 == len(views.history("acme", "ada", session_id))


# --- agents, quotas, summary ----------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32))
@settings(max_examples=5, deadline=None)
def test_agents_are_those_of_the_pools(seed: int) -> None:
    """Free and held instances are what the ledger leases; sessions list what they hold; pages are complete."""
    world = World(seed).play(250)
    with Views.over(world.log, world.envelope, clock=lambda: world.now) as views:
        for tenant in TENANTS:
            pool = {
                format_id(agent.agent_id): agent.held_by and format_id(agent.held_by)
                for pool in world.pools.values()
                for agent in pool.agents.values()
                if agent.tenant == tenant
            }
            assert pool == {agent.agent_id: agent.held_by for agent in views.agents(tenant)}
            first = views.agents(tenant, limit=1)
            rest = list(views.agents(tenant, after=first.next)) if first.next else []
            assert len(pool) == len(first) + len(rest)
            held = {a for s in views.tenant_sessions(tenant, status=None, limit=1000) for a in s.agents}
            assert {agent for agent, holder in pool.items() if holder} == held


def test_a_quota_report_names_where_it_was_read(world: World, views: Views) -> None:
    """The answer is ReportQuota's, with the partition and position of the views."""
    world.run(c.SetQuota(**ADA, resource="tokens", limit=Decimal(10), period_ms=60_000))
    world.run(c.ConsumeQuota(**ADA, resource="tokens", amount=Decimal("2.5")))
    report = views.quotas("acme", "ada")
    expected = [replace(q, partition=-1, position=0, command_id="") for q in world.report("acme", "ada").quotas]
    assert expected == list(report.quotas)
    partition = views.partition_of("acme", "ada")
    assert (partition, world.log.partitions[partition].end()) == (report.partition, report.position)
    (later,) = views.quotas("acme", "ada", at=world.now + MINUTE_US).quotas
    assert Decimal(0) == later.used


def test_limits_are_told_with_the_account_they_apply_to(world: World, views: Views) -> None:
    """What counts for a user is resolved by the domain from what the views hold."""
    world.run(c.SetLimits(tenant="acme", max_sessions=7))
    world.run(c.SetLimits(tenant="acme", plan="gold", max_sessions=9))
    world.run(c.SetUserLimits(**ADA, plan="gold"))
    limits, account = views.limits("acme", "ada")
    assert (9, "gold") == (limits.max_sessions(account), account.plan)
    limits, nobody = views.limits("acme")
    assert 7 == limits.max_sessions(nobody)


def test_a_summary_counts_what_the_lists_hold() -> None:
    """Sessions by status and reason, messages, refusals and agents add up to what the log says."""
    world = World(9).play(400)
    kinds = [type(event).__name__ for _, _, event in world.events]
    with Views.over(world.log, world.envelope, clock=lambda: world.now) as views:
        stats = views.stats()
        assert (len(world.sessions), kinds.count("MessageAdded")) == (stats.sessions, stats.messages)
        assert kinds.count("SessionExpired") == stats.by_status["expired"]
        assert kinds.count("AgentAcquired") == stats.leases
        assert kinds.count("AuthenticationFailed") == stats.authentication_failures
        assert sum(e.count for _, _, e in world.events if isinstance(e, QuotaRefused)) == stats.refusals
        assert stats.sessions == sum(stats.by_status.values())
        assert sorted(stats.busiest, key=lambda user: -user.messages) == list(stats.busiest)
        parts = [views.stats(tenant) for tenant in TENANTS]
        assert stats.messages == sum(part.messages for part in parts)


@pytest.mark.parametrize(
    "options", [{"limit": 0}, {"limit": 1001}, {"limit": True}, {"after": "?"}, {"status": "dead"}]
)
def test_what_is_no_page_is_refused(views: Views, options: dict[str, object]) -> None:
    """Limits, cursors and filters are checked before anything is read."""
    with pytest.raises(InvalidInput):
        views.sessions("acme", "ada", **options)  # type: ignore[arg-type]


# --- opening ------------------------------------------------------------------------------------------------------


def test_views_are_opened_beside_a_running_ledger(tmp_path: Path) -> None:
    """A second process, so to speak: the log for reading, the vault for opening, rows in the ledger's directory."""
    url = f"sqlite:{tmp_path / 'ledger'}"
    with Ledger.open(url) as ledger:
        started = ledger.create_session("acme", "ada", title="Billing")
        ledger.add_message("acme", "ada", started.session_id, role="user", content="hello")
        with Views.open(url) as views:
            assert "Billing" == views.session("acme", "ada", started.session_id).title
            assert ["hello"] == [m.content for m in views.history("acme", "ada", started.session_id)]
            answer = ledger.add_message("acme", "ada", started.session_id, role="user", content="more")
            views.wait(answer.partition, answer.position)
            assert 2 == views.session("acme", "ada", started.session_id, fresh=False).messages
    with Views.open(tmp_path / "ledger", fresh=False) as later:
        assert 2 == later.session("acme", "ada", started.session_id).messages


def test_there_are_no_views_of_a_ledger_that_is_not_there(tmp_path: Path) -> None:
    """Reading creates nothing."""
    with pytest.raises(LogUnavailable):
        Views.open(f"sqlite:{tmp_path / 'nothing'}")
    assert [] == list(tmp_path.iterdir())


def test_records_of_the_worlds_are_those_of_a_ledger() -> None:
    """What these tests write is what a ledger's codec reads: their records decode to their events."""
    world = World(2).play(60)
    for partition, position, event in world.events:
        log = world.log.control if partition == -1 else world.log.partitions[partition]
        (record,) = log.read(position - 1, 1)
        assert record_of(position, event, record.batch_id) == record
