"""A ledger with a schema registry: what it writes, what it reads, and what happens when the registry is away."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from session_ledger import Ledger, Views
from session_ledger.consumers.tail import PartitionStopped
from session_ledger.domain.errors import (
    LogUnavailable,
    Misconfigured,
    NotOwner,
    RegistryUnavailable,
    UndecodableRecord,
)
from session_ledger.domain.events import EVENT_TYPES
from session_ledger.ledger.open import open_log
from session_ledger.ledger.settings import Settings
from session_ledger.ledger.url import parse_url
from session_ledger.schemas import registry_client
from tests.schemas.http_registry import HttpRegistry, reply

CONFLUENT, SINGLE_OBJECT = 0x00, 0xC3
WAIT_S = 10.0


@pytest.fixture
def registry() -> Iterator[HttpRegistry]:
    """A registry on loopback."""
    with HttpRegistry() as server:
        yield server


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A ledger's place."""
    return f"sqlite:{tmp_path / 'ledger'}"


def write(url: str, user: str, registry: str | None) -> str:
    """One session with a message; the session's id."""
    with Ledger.open(url, schema_registry=registry) as ledger:
        session = ledger.create_session("acme", user).session_id
        ledger.add_message("acme", user, session, role="user", content=f"of {user}")
    return session


def forms(url: str) -> list[int]:
    """The first byte of each record, the control log's first."""
    log = open_log(parse_url(url), Settings(), write=False)
    try:
        return [record.value[0] for part in (log.control, *log.partitions) for record in part.read(0, 1000)]
    finally:
        log.close()


def contents(url: str, sessions: dict[str, str], registry: str | None) -> list[str | None]:
    """What each user's session says."""
    with Views.open(url, schema_registry=registry) as views:
        return [message.content for user, one in sessions.items() for message in views.history("acme", user, one)]


def eventually(holds: Callable[[], bool]) -> bool:
    """Whether it comes to hold."""
    deadline = time.monotonic() + WAIT_S
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


def test_with_a_registry_every_record_is_in_its_form(url: str, registry: HttpRegistry) -> None:
    """Events and control log; the schemas are facts of the control log all the same."""
    session = write(url, "ada", registry.url)
    assert [CONFLUENT] * (len(EVENT_TYPES) + 2) == forms(url)
    assert ["of ada"] == contents(url, {"ada": session}, registry.url)


def test_a_ledger_that_gets_a_registry_keeps_what_it_has(url: str, registry: HttpRegistry) -> None:
    """Old records stay in the single-object form, new ones are in the registry's; one reader takes both."""
    sessions = {"ada": write(url, "ada", None)}
    old = forms(url)
    sessions["bob"] = write(url, "bob", registry.url)
    assert [SINGLE_OBJECT] * len(old) + [CONFLUENT] * 2 == forms(url)
    assert ["of ada", "of bob"] == contents(url, sessions, registry.url)


def test_a_ledger_whose_registry_is_taken_out_of_the_settings_says_so(url: str, registry: HttpRegistry) -> None:
    """Neither writer nor reader guesses: both name the setting; nothing is written, and with it all is read again."""
    sessions = {"ada": write(url, "ada", registry.url)}
    before = forms(url)
    with pytest.raises(UndecodableRecord, match="set `schema_registry` to the one that the record was written with"):
        Ledger.open(url)
    with Views.open(url) as views, pytest.raises(PartitionStopped, match="set `schema_registry`"):
        views.refresh()
    assert before == forms(url)
    assert ["of ada"] == contents(url, sessions, registry.url)


def test_a_reader_without_a_registry_reads_what_was_written_before(url: str, registry: HttpRegistry) -> None:
    """The partition stops at the first record that it can not tell, and with the setting it goes on from there."""
    sessions = {"ada": write(url, "ada", None)}
    sessions["bob"] = write(url, "bob", registry.url)
    with Views.open(url) as views:
        with pytest.raises(PartitionStopped, match="partition 0 stopped at position 3"):
            views.refresh()
        assert ["of ada"] == [m.content for m in views.history("acme", "ada", sessions["ada"], fresh=False)]
    assert ["of ada", "of bob"] == contents(url, sessions, registry.url)


def test_a_running_ledger_never_asks_the_registry(url: str, registry: HttpRegistry) -> None:
    """Every event type's id is known before the first command; with the registry gone, nothing changes."""
    with Ledger.open(url, schema_registry=registry.url) as ledger:
        asked = len(registry.asked)
        registry.stop()
        session = ledger.create_session("acme", "ada").session_id
        ledger.set_quota("acme", "ada", "tokens", limit=5)
        ledger.consume_quota("acme", "ada", "tokens")
        ledger.add_message("acme", "ada", session, role="user", content="of ada")
        ledger.report_error("acme", "ada", session, component="c", error_type="e")
        ledger.end_session("acme", "ada", session)
    registry.start()
    assert asked == len(registry.asked)
    assert ["of ada"] == contents(url, {"ada": session}, registry.url)


def test_a_registry_that_is_away_keeps_a_ledger_from_opening_and_nothing_is_lost(
    url: str, registry: HttpRegistry
) -> None:
    """Retriable, names the URL; once the registry is back, the same opens and finds everything."""
    sessions = {"ada": write(url, "ada", registry.url)}
    registry.stop()
    with pytest.raises(RegistryUnavailable, match=f"{registry.url} can not be reached") as caught:
        Ledger.open(url, schema_registry=registry.url)
    assert caught.value.retriable
    registry.start()
    sessions["bob"] = write(url, "bob", registry.url)
    assert ["of ada", "of bob"] == contents(url, sessions, registry.url)


def test_a_refused_schema_keeps_a_ledger_from_opening(url: str, registry: HttpRegistry) -> None:
    """Misconfigured with subject and reason, before anything is written; without the registry it opens."""
    registry.refused.add("session_ledger.events.MessageAdded")
    with pytest.raises(
        Misconfigured, match=r"refuses the schema of session_ledger\.events\.MessageAdded \(409 Incompat"
    ):
        Ledger.open(url, schema_registry=registry.url)
    assert [] == forms(url)
    write(url, "ada", None)


def test_nobody_is_put_out_by_a_process_that_can_not_serve(url: str, registry: HttpRegistry) -> None:
    """`take_over` asks the registry first; the owner of now stays, and goes on."""
    with Ledger.open(url, schema_registry=registry.url) as owner:
        registry.stop()
        with pytest.raises(RegistryUnavailable):
            Ledger.open(url, schema_registry=registry.url, take_over=True)
        owner.create_session("acme", "ada")
        registry.start()
        with Ledger.open(url, schema_registry=registry.url, take_over=True) as successor:
            successor.create_session("acme", "bob")
            with pytest.raises(NotOwner):
                owner.create_session("acme", "eve")


def test_a_command_through_the_owner_needs_no_registry(url: str, registry: HttpRegistry) -> None:
    """The process that sends it writes nothing itself."""
    with Ledger.open(url, schema_registry=registry.url):
        registry.stop()
        with Ledger.open(url, schema_registry=registry.url) as client:
            assert not client.is_owner
            client.create_session("acme", "ada")


def test_a_reader_waits_for_a_registry_that_is_away(url: str, registry: HttpRegistry) -> None:
    """The partition is in trouble, not stopped: what stands before is folded, and it goes on by itself afterwards."""
    sessions = {"ada": write(url, "ada", None)}
    sessions["bob"] = write(url, "bob", registry.url)
    registry.stop()
    with Views.open(url, schema_registry=registry.url) as views:
        with pytest.raises(RegistryUnavailable, match="can not be reached"):
            views.refresh()
        assert ["of ada"] == [m.content for m in views.history("acme", "ada", sessions["ada"], fresh=False)]
        views.projector.start()
        assert eventually(lambda: 0 in views.projector.trouble)
        assert isinstance(views.projector.trouble[0], LogUnavailable)
        assert {} == views.projector.stopped
        registry.start()
        assert eventually(lambda: views.projector.position(0) == 4)
        assert {} == views.projector.trouble
        views.projector.stop()
        assert ["of bob"] == [m.content for m in views.history("acme", "bob", sessions["bob"], fresh=False)]


def test_an_id_that_the_registry_does_not_have_stops_the_partition(
    url: str, registry: HttpRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registry that lost its schemas: the record is named, and is read when the registry has been restored."""
    monkeypatch.setattr(registry_client, "ABSENT_S", 0.0)
    sessions = {"ada": write(url, "ada", registry.url)}
    kept, registry.texts = registry.texts, []
    with Views.open(url, schema_registry=registry.url) as views:
        with pytest.raises(PartitionStopped, match="the registry has no schema with id"):
            views.refresh()
        registry.texts = kept
        assert ["of ada"] == [m.content for m in views.history("acme", "ada", sessions["ada"])]


def test_an_id_that_leads_to_another_event_type_is_undecodable(url: str, registry: HttpRegistry) -> None:
    """Ids that were given anew: the record's type and its schema disagree, and nothing is guessed."""
    write(url, "ada", registry.url)
    registry.texts.reverse()
    with (
        Views.open(url, schema_registry=registry.url) as views,
        pytest.raises(PartitionStopped, match="its place says"),
    ):
        views.refresh()


def test_a_registry_that_answers_like_a_portal_is_waited_for(url: str, registry: HttpRegistry) -> None:
    """A 404 that is not the registry's own word condemns no record."""
    session = write(url, "ada", registry.url)
    registry.fault = lambda method, path: (404, b"<html>moved</html>")
    with Views.open(url, schema_registry=registry.url) as views:
        with pytest.raises(RegistryUnavailable, match="does not tell the schema"):
            views.refresh()
        registry.fault = lambda method, path: reply(401, {"message": "who are you"})
        with pytest.raises(RegistryUnavailable, match="401 who are you"):
            views.refresh()
        registry.fault = lambda method, path: None
        assert ["of ada"] == [m.content for m in views.history("acme", "ada", session)]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"schema_registry": "nonsense"}, "http://HOST:PORT"),
        ({"schema_registry_client": {"passwort": "x"}}, "passwort"),
        ({"schema_registry_client": {"timeout_s": "x"}}, "timeout_s must be a number"),
        ({"schema_registry_client": {"user": 5}}, "user must be a text"),
    ],
)
def test_settings_that_are_wrong_are_told(url: str, options: dict[str, object], says: str) -> None:
    """Before anything is opened."""
    with pytest.raises(Misconfigured, match=says):
        Ledger.open(url, **options)  # type: ignore[arg-type]
