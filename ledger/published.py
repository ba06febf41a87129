"""Schemas that the control log publishes: how readers resolve what a newer version wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from session_ledger.domain.events import TOPIC_BY_EVENT, SchemaPublished
from session_ledger.ledger.log.port import Log
from session_ledger.schemas.codec import Codec
from session_ledger.schemas.library import Library
from session_ledger.schemas.registry import Registry

READ_RECORDS = 500
_TOPIC = TOPIC_BY_EVENT[SchemaPublished]


def codec_of(log: Log, registry: Registry | None = None, ids: Mapping[str, int] | None = None) -> Codec:
    """A codec for that log's records: those of this version's schemas, and of any that its control log publishes.

    `registry` and `ids` as in `Codec`.
    """
    return Codec(Library(), registry, published=lambda: published_schemas(log, registry), ids=ids)


def published_schemas(log: Log, registry: Registry | None = None) -> Iterator[str]:
    """The text of every schema published so far. Raises what the control log raises, RegistryUnavailable."""
    codec = Codec(registry=registry)
    position = 0
    while records := log.control.read(position, READ_RECORDS):
        position = records[-1].position
        for record in records:
            if record.topic == _TOPIC:
                event = codec.decode(record.value, record.topic, partition=-1, position=record.position)
                assert isinstance(event, SchemaPublished)
                yield event.schema_json
