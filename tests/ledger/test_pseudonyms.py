"""Users by pseudonyms: whatever a caller says of a user, nothing that is recorded says who it is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition

from session_ledger.consumers.views import Views
from session_ledger.domain.commands import CreateSession, ImportedMessage, ImportSession
from session_ledger.domain.errors import (
    InvalidInput,
    KeyUnavailable,
    Misconfigured,
    QuotaExceeded,
    SessionLedgerError,
    SessionNotFound,
    UnderLegalHold,
)
from session_ledger.domain.events import AuditRead, ContentErased, LeakFound, SessionCreated
from session_ledger.domain.ids import (
    derived_session_id,
    format_id,
    is_pseudonym,
    new_id,
    parse_id,
    slot_of_id,
    slot_of_user,
)
from session_ledger.ledger.edge import Edge
from session_ledger.ledger.keys import open_envelope, recorded_as
from session_ledger.ledger.ledger import Ledger
from session_ledger.ledger.settings import Settings
from session_ledger.ledger.url import parse_url
from session_ledger.security.envelope import VaultEnvelope
from session_ledger.security.pseudonym_keys import VaultPseudonyms
from tests.ledger.support import Clock, assert_folds_equal_the_log, events, fresh_id, judged, shards_of, stored

MARK = "ann-MARKED-4b1d"
OTHER = "bob-MARKED-4b1d"
NEEDLE = b"MARKED-4b1d"
BY = {"requested_by": "legal", "reason": "case 7"}
DIGEST = bytes(16)
ON: dict[str, Any] = {"pseudonyms": True}


def live(ledger: Ledger, user: str = MARK, other: str = OTHER) -> str:
    """Everything that is said of a user, once at least; one of the user's sessions."""
    ledger.set_limits("t", quotas={"tokens": (100, 3600)})
    session = ledger.create_session("t", user, title="title").session_id
    ledger.add_message("t", user, session, role="user", content="hello")
    ledger.update_session("t", user, session, title="another")
    ledger.report_error("t", user, session, component="c", error_type="e", message="m")
    ledger.rotate_session_key("t", user, session)
    ledger.set_user_limits("t", user, max_sessions=5)
    ledger.set_quota("t", user, "calls", 10)
    ledger.consume_quota("t", user, "calls", 9)
    reserved = ledger.consume_quota("t", user, "tokens", 5, reserve=True)
    ledger.release_quota("t", user, reserved.reservation_id or "", 1)
    with pytest.raises(QuotaExceeded):
        ledger.consume_quota("t", user, "calls", 9)
    ledger.check_quota("t", user, "calls")
    ledger.report_quota("t", user)
    ledger.report_authentication_failure("t", user, method="token", reason="expired", ip_address="::1")
    slot = slot_of_id(parse_id(session)) % len(shards_of(ledger)._shards)
    agent = ledger.register_agent("t", "helper", partition=slot).agent_id
    ledger.acquire_agent("t", user, session, "helper")
    ledger.release_agent("t", user, session, agent)
    ledger.reveal_content("t", user, session_id=session, revealed_by="eve", reason="r", query_digest=DIGEST)
    ledger.record_audit_read("t", user, read_by="eve", action="timeline")
    where: dict[str, Any] = {"session_id": session, "leak_position": 1, "source_tenant": "t", "source_user": other}
    ledger.report_leak("t", user, finding_id=DIGEST, kind="text", severity="error", **where)
    ledger.acknowledge_leak("t", user, DIGEST, acknowledged_by="eve", reason="r")
    ledger.raise_alert("t", user, kind="errors", session_id=session)
    ledger.set_legal_hold("t", user, matter="case-7", **BY)
    with pytest.raises(UnderLegalHold):
        ledger.erase_user("t", user, **BY)
    ledger.lift_legal_hold("t", user, matter="case-7", **BY)
    ledger.import_session(history(user))
    ended = ledger.create_session("t", user).session_id
    ledger.end_session("t", user, ended)
    ledger.erase_session("t", user, ended, **BY)
    return session


def history(user: str, source: str = "chat-1", tenant: str = "t") -> ImportSession:
    """A session from elsewhere, as a client without keys derives it."""
    session_id = derived_session_id(f"{user}{source}", 1_700_000_000_000_000, slot_of_user(tenant, user))
    return ImportSession(
        tenant=tenant, user=user, session_id=session_id, messages=(ImportedMessage("user", "hello"),), source=source
    )


def names(ledger: Ledger) -> VaultPseudonyms:
    """Of the owner."""
    envelope = shards_of(ledger).envelope
    assert isinstance(envelope, VaultEnvelope)
    return envelope.vault_pseudonyms


def has_way_back(ledger: Ledger, user: str) -> bool:
    """Whether the vault holds one to that user."""
    return names(ledger)._store.find("t", names(ledger).made("t", user)) is not None


@pytest.fixture(params=["memory", "sqlite"])
def quick_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a ledger of one's own, in memory and in a directory."""
    return "memory:" if request.param == "memory" else f"sqlite:{tmp_path / 'ledger'}"


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Of a ledger in a directory."""
    return f"sqlite:{tmp_path / 'ledger'}"


def test_no_record_names_the_user(ledger_url: str, tmp_path: Path) -> None:
    """Whatever is said of a user: each fact names the pseudonym, stands in its partition, and folds as ever."""
    with Ledger.open(ledger_url, **ON) as ledger:
        live(ledger)
        assert_folds_equal_the_log(ledger)
        found = judged(stored(ledger))
        about = {one.event.user for one in found if one.event.user}
        assert {names(ledger).made("t", MARK)} == about
        mask = len(shards_of(ledger)._shards) - 1
        for one in found:
            assert NEEDLE not in one.record.value
            assert NEEDLE not in f"{one.record.key}{one.record.topic}".encode()
            if one.event.user:
                assert slot_of_user("t", one.event.user) & mask == one.partition
        (leak,) = (one.event for one in found if isinstance(one.event, LeakFound))
        assert names(ledger).made("t", OTHER) == leak.source_user
        ledger.erase_user("t", MARK, **BY)
        (erased,) = (event for event in events(ledger) if isinstance(event, ContentErased) and not event.session_id)
        assert {erased.user} == about
        if ledger_url.startswith("kafka"):
            _assert_topics_name_nobody(ledger_url, mask + 1)
    assert [] == [path for path in tmp_path.rglob("*") if path.is_file() and NEEDLE in path.read_bytes()]


def _assert_topics_name_nobody(url: str, partitions: int) -> None:
    """Keys, headers and values of every record, as any client of the broker sees them."""
    place = parse_url(url)
    consumer = KafkaConsumer(bootstrap_servers=place.bootstrap, enable_auto_commit=False)
    topics = [f"{place.name}.events"] * partitions
    at = [TopicPartition(topic, number) for number, topic in enumerate(topics)]
    at.append(TopicPartition(f"{place.name}.control", 0))
    consumer.assign(at)
    ends = consumer.end_offsets(at)
    consumer.seek_to_beginning(*at)
    keys = set()
    while any(consumer.position(one) < ends[one] for one in at):
        for records in consumer.poll(1000).values():
            for record in records:
                keys.add(record.key)
                whole = b"".join([record.key or b"", record.value or b"", *(value for _, value in record.headers)])
                assert NEEDLE not in whole
    consumer.close()
    assert any(key and is_pseudonym(key.decode().removeprefix("t/")) for key in keys)


def test_every_call_takes_either_name(quick_url: str) -> None:
    """The answer names the pseudonym, which does whatever the id does; a repeat under either is known again."""
    with Ledger.open(quick_url, **ON) as ledger:
        command_id = fresh_id()
        started = ledger.create_session("t", MARK, command_id=command_id)
        assert is_pseudonym(started.user)
        again = ledger.create_session("t", started.user, command_id=command_id)
        assert (True, started.session_id) == (again.repeated, again.session_id)
        ledger.add_message("t", started.user, started.session_id, role="user", content="one")
        ledger.add_message("t", MARK, started.session_id, role="user", content="two")
        with pytest.raises(SessionNotFound):
            ledger.add_message("t", OTHER, started.session_id, role="user", content="three")
        assert ledger.create_session("t", started.user, reuse=True).session_id == started.session_id
        with Views.over(ledger.log, ledger.envelope) as views:
            for user in (MARK, started.user):
                assert MARK == views.session("t", user, started.session_id).user
                assert ["one", "two"] == [m.content for m in views.history("t", user, started.session_id)]


def test_reads_name_the_user(quick_url: str) -> None:
    """Every view takes either name and tells the user's; what is another's is not found."""
    with Ledger.open(quick_url, **ON) as ledger, Views.over(ledger.log, ledger.envelope) as views:
        assert [] == list(views.sessions("t", MARK))
        session = live(ledger)
        pseudonym = names(ledger).made("t", MARK)
        ledger.set_legal_hold("t", MARK, matter="case-8", **BY)
        for user in (MARK, pseudonym):
            assert {MARK} == {view.user for view in views.sessions("t", user, status=None)}
            assert 3 == views.count("t", user, status=None)
            assert views.has("t", user, session)
            assert MARK == getattr(views.current("t", user), "user", None)
            assert ["m"] == [error.message for error in views.errors("t", user, session)]
            (failure,) = views.authentication_failures("t", user)
            assert (MARK, "::1") == (failure.user, failure.ip_address)
            assert {"calls", "tokens"} == {quota.resource for quota in views.quotas("t", user).quotas}
            assert 5 == views.limits("t", user)[1].max_sessions
            assert views.partition_of("t", pseudonym) == views.partition_of("t", user)
        assert {MARK} == {view.user for view in views.tenant_sessions("t", status=None)}
        assert [MARK] == [failure.user for failure in views.authentication_failures("t", None)]
        assert [MARK] == [one.user for one in views.user_quotas("t")]
        assert [MARK] == [hold.user for hold in views.legal_holds("t")]
        assert [MARK] == [one.user for one in views.stats("t").busiest]
        assert None is views.current("t", OTHER)
        with pytest.raises(SessionNotFound):
            views.session("t", OTHER, session)


def test_a_client_of_the_owner_says_who_it_is(url: str) -> None:
    """Its commands carry the id through the socket, which the owner replaces; a client needs no keys."""
    with Ledger.open(url, **ON) as ledger, Ledger.open(url, encryption="none") as client:
        assert not client.is_owner
        started = client.create_session("t", MARK)
        client.add_message("t", MARK, started.session_id, role="user", content="hello")
        first = client.import_session(history(MARK))
        assert (1, 0) == (first.added, client.import_session(history(MARK)).added)
        assert {names(ledger).made("t", MARK), started.user} == {event.user for event in events(ledger)}
        with Views.open(url) as views:
            assert {MARK} == {view.user for view in views.sessions("t", MARK, status=None)}
            assert "imported" == views.session("t", MARK, first.session_id).status


def test_pseudonyms_stay_the_same(url: str) -> None:
    """After the ledger was closed, in other processes, and after a rotation of the tenant's key."""
    with Ledger.open(url, **ON) as ledger:
        first = ledger.create_session("t", MARK).user
    with Ledger.open(url, **ON) as ledger:
        again = ledger.create_session("t", MARK)
        assert (first, 2) == (again.user, len(events(ledger)))
        assert first != ledger.create_session("another", MARK).user
    directory = parse_url(url).directory
    assert first == recorded_as(directory, "ledger", Settings(), "t", MARK)


# --- imports ----------------------------------------------------------------------------------------------------------


def test_an_imported_session_is_found_again(quick_url: str) -> None:
    """Its id follows from the client's and the key: one a history, in the pseudonym's slot; no guess explains it."""
    with Ledger.open(quick_url, **ON) as ledger:
        result = ledger.import_session(history(MARK))
        assert (True, 1) == (result.created, result.added)
        again = ledger.import_session(history(MARK))
        assert (result.session_id, 0, False) == (again.session_id, again.added, again.created)
        other = ledger.import_session(history(OTHER))
        more = ledger.import_session(history(MARK, "chat-2"))
        assert 3 == len({one.session_id for one in (result, other, more)})
        made, given = parse_id(result.session_id), history(MARK).session_id
        (created,) = (e for e in events(ledger) if isinstance(e, SessionCreated) and e.session_id == made)
        assert slot_of_user("t", created.user) == slot_of_id(made)
        assert (given[:6], False) == (made[:6], given[8:] == made[8:])
        wrong = ImportSession(tenant="t", user=MARK, session_id=new_id(1), messages=())
        with pytest.raises(InvalidInput, match="must carry its user's slot"):
            ledger.import_session(wrong)


def test_a_history_in_parts_is_one_session(url: str) -> None:
    """Each part finds the session that the one before began."""
    with Ledger.open(url, **ON) as ledger:
        whole = history(MARK)
        parts = [
            ImportSession(tenant="t", user=MARK, session_id=whole.session_id, messages=whole.messages,
                          first_message=number, final=number == 2, source="chat-1")
            for number in (1, 2)
        ]  # fmt: skip
        assert [1, 1] == [ledger.import_session(part).added for part in parts]
        assert 1 == len({event.originator_id for event in events(ledger)})


# --- the way back -----------------------------------------------------------------------------------------------------


ABOUT_A_USER: list[Callable[[Ledger, str], object]] = [
    lambda ledger, user: ledger.end_session("t", user, fresh_id()),
    lambda ledger, user: ledger.consume_quota("t", user, "none"),
    lambda ledger, user: ledger.check_quota("t", user, "none"),
    lambda ledger, user: ledger.create_session("gone", user),
    lambda ledger, user: ledger.record_audit_read("t", user, read_by="eve", action="timeline"),
    lambda ledger, user: ledger.raise_alert("t", user, kind="errors"),
    lambda ledger, user: ledger.set_legal_hold("t", user, matter="m", **BY),
    lambda ledger, user: ledger.erase_user("t", user, **BY),
    lambda ledger, user: ledger.report_quota("t", user),
]


def test_only_what_a_user_does_makes_the_way_back(quick_url: str) -> None:
    """What is refused, asked, or recorded about somebody leaves none: it would bring back what an erasure took."""
    with Ledger.open(quick_url, **ON) as ledger:
        ledger.erase_tenant("gone", **BY)
        for number, call in enumerate(ABOUT_A_USER):
            user = f"{MARK}-{number}"
            with suppress(SessionLedgerError):
                call(ledger, user)
            assert (number, False) == (number, has_way_back(ledger, user))
            assert None is names(ledger)._store.find("gone", names(ledger).made("gone", user))


def test_who_was_erased_comes_back_as_new(url: str) -> None:
    """The pseudonym stands in reads until the user does something again, once the vault has been asked again."""
    clock = Clock()
    with Ledger.open(url, clock_us=clock, keys_cached_s=0.000_001, **ON) as ledger:
        started = ledger.create_session("t", MARK)
        assert has_way_back(ledger, MARK)
        ledger.erase_user("t", MARK, **BY)
        names(ledger)._store.destroy("t", started.user)
        with Views.over(ledger.log, ledger.envelope) as views:
            (before,) = views.sessions("t", MARK, status=None)
            assert (started.user, True) == (before.user, before.erased_at is not None)
            ledger.record_audit_read("t", MARK, read_by="eve", action="timeline")
            (read,) = (event for event in events(ledger) if isinstance(event, AuditRead))
            assert (started.user, False) == (read.user, has_way_back(ledger, MARK))
            ledger.create_session("t", MARK)
            assert {MARK} == {view.user for view in views.sessions("t", MARK, status=None)}


def test_what_can_not_be_kept_is_not_recorded(url: str) -> None:
    """Where the vault does not take the way back, the command fails, retriable, and the log stays as it was."""
    with Ledger.open(url, **ON) as ledger:
        store = names(ledger)._store
        taken = store.insert_if_absent
        ledger.create_session("t", OTHER)  # the tenant has its key

        def refuse(rows: object) -> Any:
            raise KeyUnavailable("no room")

        store.insert_if_absent = refuse  # type: ignore[method-assign]
        with pytest.raises(KeyUnavailable, match="no room"):
            ledger.create_session("t", MARK)
        assert 1 == len(events(ledger))
        store.insert_if_absent = taken  # type: ignore[method-assign]
        ledger.create_session("t", MARK)
        assert has_way_back(ledger, MARK)


def test_the_way_back_is_stored_once(url: str) -> None:
    """A user who goes on costs no further look at the vault."""
    with Ledger.open(url, **ON) as ledger:
        session = ledger.create_session("t", MARK).session_id
        names(ledger)._store = None  # type: ignore[assignment]
        for _ in range(3):
            ledger.add_message("t", MARK, session, role="user", content="hello")
        assert 4 == len(events(ledger))


# --- fixed when the ledger is created ---------------------------------------------------------------------------------


def test_the_setting_is_fixed_with_the_first_opening(url: str) -> None:
    """A ledger that has pseudonyms is not opened without, whatever else is set; clear messages, nothing recorded."""
    Ledger.open(url, **ON).close()
    for options in ({}, {"encryption": "none"}):
        with pytest.raises(Misconfigured, match="set pseudonyms = true"):
            Ledger.open(url, **options)  # type: ignore[arg-type]
    with pytest.raises(Misconfigured, match="take away one"):
        Ledger.open(url, pseudonyms=True, encryption="none")
    with Ledger.open(url, **ON) as ledger:
        assert is_pseudonym(ledger.create_session("t", MARK).user)


def test_it_can_not_be_turned_on_later(url: str) -> None:
    """Ids stand in the log, which nothing takes out; a ledger without facts about users may still begin."""
    Ledger.open(url).close()
    with Ledger.open(url) as ledger:
        ledger.create_session("t", MARK)
    with pytest.raises(Misconfigured, match="was created without pseudonyms"):
        Ledger.open(url, **ON)
    with Ledger.open(url) as ledger:
        assert MARK == ledger.create_session("t", MARK).user


def test_without_pseudonyms_nothing_is_different(url: str) -> None:
    """The edge is the plain one, and the vault holds nothing of it; an id that looks like one is an id."""
    form = "p-" + "a" * 26
    with Ledger.open(url) as ledger:
        assert Edge is type(shards_of(ledger)._edge)
        assert [form, MARK] == [ledger.create_session("t", user).user for user in (form, MARK)]
        assert not names(ledger)._store.any()
        with Views.open(url) as views:
            assert {form, MARK} == {view.user for view in views.tenant_sessions("t")}


# --- who has no keys --------------------------------------------------------------------------------------------------


def test_who_can_not_unwrap_takes_pseudonyms_only(url: str, tmp_path: Path) -> None:
    """Reads by a pseudonym go on and tell it; an id is refused with what to do."""
    with Ledger.open(url, **ON) as ledger:
        started = ledger.create_session("t", MARK)
        with Views.open(url, encryption="none") as views:
            assert started.user == views.session("t", started.user, started.session_id).user
            with pytest.raises(KeyUnavailable, match="name the user by the pseudonym"):
                views.session("t", MARK, started.session_id)
    directory = parse_url(url).directory
    assert directory is not None
    (directory / "keyring.json").rename(tmp_path / "away.json")
    assert started.user == recorded_as(directory, "ledger", Settings(), "t", started.user)
    with pytest.raises(KeyUnavailable, match="name the user by the pseudonym"):
        recorded_as(directory, "ledger", Settings(), "t", MARK)
    (directory / "vault.db").rename(tmp_path / "vault.db")
    assert MARK == recorded_as(directory, "ledger", Settings(), "t", MARK)


def test_a_reader_that_may_not_open_the_vault_reads_without(url: str) -> None:
    """Structure is for who has the log; a vault that is kept from them is no reason to fail."""
    with Ledger.open(url) as ledger:
        session = ledger.create_session("t", MARK).session_id
        directory = parse_url(url).directory
        assert directory is not None
        (directory / "vault.db").chmod(0o640)
        with Views.open(url, encryption="none") as views:
            assert MARK == views.session("t", MARK, session).user
        with pytest.raises(Misconfigured, match="chmod 600"):
            open_envelope(directory, "ledger", Settings(encryption="none"))


def test_wrong_users_are_refused_as_ever(quick_url: str) -> None:
    """Before anything is made of them: no text, too long, or no user at all."""
    with Ledger.open(quick_url, **ON) as ledger:
        wrong: list[Any] = [None, 7, "", "x" * 300, b"ann"]
        for user in wrong:
            with pytest.raises(InvalidInput):
                ledger.submit(CreateSession(tenant="t", user=user)).result()
        assert [] == events(ledger)
        assert format_id(parse_id(ledger.create_session("t", "x" * 256).session_id))
