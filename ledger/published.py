"""Schemas that the control log publishes: how readers resolve what a newer version wrote, and what leaves name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256

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


class PublishedDigests:
    """SHA-256 of schema texts by fingerprint: of the text that the control log published first. Not thread-safe.

    A version whose texts differ only in what a fingerprint leaves out (docs, defaults) changes nothing here.
    """

    def __init__(self, log: Log, codec: Codec) -> None:
        self._log, self._codec = log, codec
        self._position = 0
        self._texts: dict[bytes, str] = {}

    def digest_of(self, fingerprint: bytes) -> bytes | None:
        """The digest; None where no such schema is published by now. Raises what the control log raises."""
        text = self.text_of(fingerprint)
        return None if text is None else sha256(text.encode()).digest()

    def text_of(self, fingerprint: bytes) -> str | None:
        """The text, likewise."""
        while fingerprint not in self._texts and (records := self._log.control.read(self._position, READ_RECORDS)):
            for record in records:
                if record.topic == _TOPIC:
                    event = self._codec.decode(record.value, record.topic, partition=-1, position=record.position)
                    assert isinstance(event, SchemaPublished)
                    self._texts.setdefault(event.fingerprint, event.schema_json)
            self._position = records[-1].position
        return self._texts.get(fingerprint)
