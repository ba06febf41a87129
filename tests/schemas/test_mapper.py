"""The eventsourcing library's event store on our mapper."""

from __future__ import annotations

import zlib
from typing import cast
from uuid import UUID

import pytest
from eventsourcing.domain import DomainEventProtocol
from eventsourcing.persistence import EventStore, Mapper, StoredEvent, Transcoder
from eventsourcing.popo import POPOApplicationRecorder, POPOFactory
from eventsourcing.utils import Environment, resolve_topic
from hypothesis import given

from session_ledger.domain.errors import InvalidInput, UndecodableRecord
from session_ledger.domain.events import EVENT_BY_TOPIC, Event, SessionExpired
from session_ledger.schemas.mapper import AvroMapper, register_topics
from tests.schemas.strategies import any_event

MAPPER = AvroMapper()
SESSION = bytes(range(16))


def expired(version: int) -> SessionExpired:
    return SessionExpired(bytes([version]) * 16, "acme", "ada", version, 1000, None, None, SESSION, "idle", 900)


def as_library_event(event: Event) -> DomainEventProtocol[UUID]:
    return cast(DomainEventProtocol[UUID], event)


@given(event=any_event())
def test_an_event_survives_the_mapper(event: Event) -> None:
    """Stored under its stream, version and stable topic, and back."""
    stored = MAPPER.to_stored_event(as_library_event(event))
    assert (UUID(bytes=event.originator_id), event.version) == (stored.originator_id, stored.originator_version)
    assert type(event) is EVENT_BY_TOPIC[stored.topic]
    assert event == cast(Event, MAPPER.to_domain_event(stored))


def test_the_librarys_event_store_holds_our_events() -> None:
    """Put and get through the library, over its recorder in memory."""
    store: EventStore[UUID] = EventStore(MAPPER, POPOApplicationRecorder())
    events = [expired(version) for version in (1, 2, 3)]
    store.put([as_library_event(event) for event in events])
    assert events[1:] == list(map(as_event, store.get(UUID(bytes=SESSION), gt=1)))


def as_event(event: DomainEventProtocol[UUID]) -> Event:
    return cast(Event, event)


def test_the_librarys_environment_can_name_the_mapper() -> None:
    """MAPPER_TOPIC makes the library's factory construct it."""
    environment = Environment("test", {"MAPPER_TOPIC": "session_ledger.schemas.mapper:AvroMapper"})
    mapper: Mapper[UUID] = POPOFactory(environment).mapper(transcoder=cast(Transcoder, object()))
    assert isinstance(mapper, AvroMapper)


def test_the_librarys_compressor_works_on_the_whole_value() -> None:
    """What the library is configured with is applied, and undone."""
    mapper = AvroMapper(compressor=zlib)  # type: ignore[arg-type]
    stored = mapper.to_stored_event(as_library_event(expired(1)))
    assert MAPPER.codec.encode(expired(1)) == zlib.decompress(stored.state)
    assert expired(1) == as_event(mapper.to_domain_event(stored))


@pytest.mark.parametrize(
    "change",
    [
        {"originator_id": UUID(int=5)},
        {"originator_version": 9},
        {"topic": "session_ledger.events.SessionEnded"},
        {"state": b"\xc3\x01"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_record_that_disagrees_with_its_place_is_undecodable(change: dict[str, object]) -> None:
    """The columns beside the value only repeat it."""
    stored = MAPPER.to_stored_event(as_library_event(expired(1)))
    parts = {
        "originator_id": stored.originator_id,
        "originator_version": stored.originator_version,
        "topic": stored.topic,
        "state": stored.state,
    }
    with pytest.raises(UndecodableRecord):
        MAPPER.to_domain_event(StoredEvent(**{**parts, **change}))  # type: ignore[arg-type]


def test_what_is_no_event_of_ours_is_refused() -> None:
    """The library's own events have no schema here."""
    with pytest.raises(InvalidInput, match="EVENT_TYPES"):
        MAPPER.to_stored_event(cast(DomainEventProtocol[UUID], object()))


def test_the_stable_topics_resolve_to_the_classes() -> None:
    """After registration, which can be repeated, the library finds each class by its topic."""
    register_topics()
    register_topics()
    assert EVENT_BY_TOPIC == {topic: resolve_topic(topic) for topic in EVENT_BY_TOPIC}
