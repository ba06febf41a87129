"""The eventsourcing library's mapper on the Avro codec: its event stores and applications then hold our events."""

from __future__ import annotations

from typing import cast
from uuid import UUID

from eventsourcing.domain import DomainEventProtocol
from eventsourcing.persistence import Cipher, Compressor, Mapper, StoredEvent, Transcoder
from eventsourcing.utils import register_topic

from session_ledger.domain.errors import InvalidInput, UndecodableRecord
from session_ledger.domain.events import EVENT_BY_TOPIC, TOPIC_BY_EVENT, Event
from session_ledger.schemas.codec import Codec


class AvroMapper(Mapper[UUID]):
    """Stored events whose state is the record value, and whose topic is the schema's full name.

    The library's environment can name it (MAPPER_TOPIC); the transcoder that the library then hands over is not used,
    since Avro is the transcoder. A compressor or cipher of the library works on the whole value.
    """

    def __init__(
        self,
        transcoder: Transcoder | None = None,
        compressor: Compressor | None = None,
        cipher: Cipher | None = None,
        *,
        codec: Codec | None = None,
    ) -> None:
        super().__init__(cast(Transcoder, transcoder), compressor, cipher)
        self.codec = codec or Codec()

    def to_stored_event(self, domain_event: DomainEventProtocol[UUID]) -> StoredEvent:
        """Raises InvalidInput for what is no event of ours, or does not fit its schema."""
        event = cast(object, domain_event)
        if not isinstance(event, Event) or type(event) not in TOPIC_BY_EVENT:
            raise InvalidInput("domain_event", f"a {type(event).__name__}", "must be one of EVENT_TYPES")
        state = self.codec.encode(event)
        if self.compressor:
            state = self.compressor.compress(state)
        if self.cipher:
            state = self.cipher.encrypt(state)
        return StoredEvent(
            originator_id=UUID(bytes=event.originator_id),
            originator_version=event.version,
            topic=TOPIC_BY_EVENT[type(event)],
            state=state,
        )

    def to_domain_event(self, stored_event: StoredEvent) -> DomainEventProtocol[UUID]:
        """Raises UndecodableRecord; also where id, version or topic beside the value disagree with the value."""
        state = stored_event.state
        if self.cipher:
            state = self.cipher.decrypt(state)
        if self.compressor:
            state = self.compressor.decompress(state)
        event = self.codec.decode(state, stored_event.topic)
        place = (str(stored_event.originator_id), stored_event.originator_version)
        if place != (str(UUID(bytes=event.originator_id)), event.version):
            raise UndecodableRecord(f"the event is of another stream or version than its place, {place}, says")
        return cast(DomainEventProtocol[UUID], event)


def register_topics() -> None:
    """Let the library resolve the stable topics (`session_ledger.events.MessageAdded`). Repeatable."""
    for topic, event_type in EVENT_BY_TOPIC.items():
        register_topic(topic, event_type)
