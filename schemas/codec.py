"""Events to bytes and back, in both wire forms.

- Avro single-object encoding: 0xC3 0x01, the schema's CRC-64-AVRO fingerprint (8 bytes, little-endian), the body.
- Confluent wire format: 0x00, the schema's id in a registry (4 bytes, big-endian), the body.

A codec writes one form (Confluent where it is given a registry) and reads both.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import cast

from session_ledger.domain import events
from session_ledger.domain.errors import InvalidInput, UndecodableRecord
from session_ledger.domain.events import Event
from session_ledger.schemas.decoder import Decoder, compile_decoder
from session_ledger.schemas.encoder import Encoder, compile_encoder
from session_ledger.schemas.fit import misfit
from session_ledger.schemas.library import Library, Schema, parse
from session_ledger.schemas.registry import Registry
from session_ledger.schemas.resolution import compile_resolver
from session_ledger.schemas.shape import Shape, record_shape
from session_ledger.schemas.varint import Damaged

_logger = logging.getLogger("session_ledger.codec")
SINGLE_OBJECT = b"\xc3\x01"
SINGLE_OBJECT_HEADER = 10  # bytes: marker and fingerprint
CONFLUENT = b"\x00"
CONFLUENT_HEADER = 5  # bytes: marker and id


class Codec:
    """Encodes with the current schemas; decodes what any known schema wrote. Thread-safe.

    Made once and shared: making one compiles two functions an event type.
    """

    def __init__(
        self,
        library: Library | None = None,
        registry: Registry | None = None,
        published: Callable[[], Iterable[str]] = tuple,
        ids: Mapping[str, int] | None = None,
    ) -> None:
        """`published` gives the schema texts that newer writers made facts; asked when a fingerprint is not known.

        `ids`: topic to id of all current schemas, as `register` gives them. With them, neither writing nor reading
        what was written so asks the registry; without, it is asked once a schema.
        """
        self.library = library or Library()
        self._registry = registry
        self._published = published
        self._classes: dict[str, type] = {cls.__name__: cls for cls in (*events.EVENT_TYPES, events.QuotaDefault)}
        self._shapes: dict[type[Event], Shape] = {}
        self._encoders: dict[type, tuple[Encoder, bytes]] = {}
        self._decoders: dict[bytes, tuple[str, Decoder]] = {}
        """By the bytes before the body."""
        self._current: dict[str, Decoder] = {}
        for schema in self.library:
            event_type = cast(type[Event], schema.event_type)
            shape = self._shapes[event_type] = record_shape(schema.parsed())
            self._current[schema.topic] = compile_decoder(shape, self._classes)
            header = SINGLE_OBJECT + schema.fingerprint
            self._decoders[header] = schema.topic, self._current[schema.topic]
            if registry is not None:
                header = b"" if ids is None else _confluent(ids[schema.topic])
            if header:
                self._decoders[header] = schema.topic, self._current[schema.topic]
            self._encoders[event_type] = compile_encoder(shape), header

    def encode(self, event: Event) -> bytes:
        """The record value. Raises InvalidInput for what the schema has no place for (never half an event)."""
        try:
            encode, header = self._encoders[type(event)]
            return encode(event, header or self._confluent_header(type(event)))
        except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
            raise self._refused(event) from error

    def decode(
        self, value: bytes, topic: str | None = None, *, partition: int | None = None, position: int | None = None
    ) -> Event:
        """The event. `topic`: what the record's place says it is; `partition` and `position` name it in the error.

        Raises UndecodableRecord, for any bytes that are not exactly one event of that topic, and RegistryUnavailable
        where the registry must be asked and can not be: nothing is known of the bytes then.
        """
        try:
            found = self._decoders.get(value[:SINGLE_OBJECT_HEADER])
            if found is None:
                return self._decode_other(value, topic)
            if topic is not None and topic != found[0]:
                raise Damaged(f"the record is a {found[0]}, its place says {topic}")
            return cast(Event, found[1](value, SINGLE_OBJECT_HEADER))
        except IndexError as error:
            raise UndecodableRecord("the bytes are truncated", partition=partition, position=position) from error
        except UnicodeDecodeError as error:
            raise UndecodableRecord("a text is not UTF-8", partition=partition, position=position) from error
        except Damaged as error:
            raise UndecodableRecord(str(error), partition=partition, position=position) from error

    def fingerprint_of(self, value: bytes) -> bytes | None:
        """The fingerprint of the schema that a record names as its own; None: its bytes are of neither form.

        Raises UndecodableRecord where the registry has no such schema, RegistryUnavailable.
        """
        if value[:2] == SINGLE_OBJECT and len(value) >= SINGLE_OBJECT_HEADER:
            return value[2:SINGLE_OBJECT_HEADER]
        if value[:1] == CONFLUENT and len(value) >= CONFLUENT_HEADER:
            try:
                return self._writer(value[:CONFLUENT_HEADER]).fingerprint
            except Damaged as error:
                raise UndecodableRecord(str(error)) from error
        return None

    def _decode_other(self, value: bytes, topic: str | None) -> Event:
        """A record in the Confluent form, or written with a schema that is not current."""
        if value[:1] == CONFLUENT:
            size = CONFLUENT_HEADER
        elif value[:2] == SINGLE_OBJECT:
            size = SINGLE_OBJECT_HEADER
        else:
            raise Damaged(f"the bytes begin with {value[:2]!r}: no record's form")
        header = value[:size]
        if len(header) < size:
            raise Damaged("the bytes are truncated")
        name, decode = self._decoders.get(header) or self._find(header)
        if topic is not None and topic != name:
            raise Damaged(f"the record is a {name}, its place says {topic}")
        return cast(Event, decode(value, size))

    def _find(self, header: bytes) -> tuple[str, Decoder]:
        writer = self._writer(header)
        reader = self.library.by_topic(writer.topic)
        if reader is None:
            raise Damaged(f"this version has no event type {writer.topic}")
        if writer.fingerprint == reader.fingerprint:
            decode = self._current[reader.topic]
        else:
            decode = compile_resolver(writer, reader, self._classes)
        self._decoders[header] = found = (reader.topic, decode)
        return found

    def _writer(self, header: bytes) -> Schema:
        if header[:1] == CONFLUENT:
            schema_id = int.from_bytes(header[1:], "big")
            if self._registry is None:
                raise Damaged(
                    f"the schema has id {schema_id} in a registry, and no registry is configured: set "
                    "`schema_registry` to the one that the record was written with"
                )
            text = self._registry.text_of(schema_id)
            if text is None:
                raise Damaged(f"the registry has no schema with id {schema_id}")
            try:
                return parse(text)
            except InvalidInput as error:
                raise Damaged(f"the registry's schema with id {schema_id} is {error.seen}") from error
        schema = self.library.by_fingerprint(header[2:])
        if schema is None:
            for text in self._published():
                try:
                    self.library.learn(text)
                except InvalidInput as error:  # another published text may be the one that is looked for
                    _logger.warning("a published schema is left out: %s", error)
            schema = self.library.by_fingerprint(header[2:])
        if schema is None:
            raise Damaged(f"no known schema has the fingerprint {header[2:].hex()}")
        return schema

    def _confluent_header(self, event_type: type[Event]) -> bytes:
        assert self._registry is not None
        schema = self.library.of(event_type)
        header = _confluent(self._registry.id_of(schema.topic, schema.text))
        self._encoders[event_type] = self._encoders[event_type][0], header
        return header

    def _refused(self, event: object) -> InvalidInput:
        name = type(event).__name__
        shape = self._shapes.get(type(event))  # type: ignore[arg-type]
        if shape is None:
            return InvalidInput("event", f"a {name}", "must be one of EVENT_TYPES")
        for field, field_shape in shape.fields:
            rule = misfit(field_shape, getattr(event, field))
            if rule is not None:
                return InvalidInput(f"{name}.{field}", *rule)
        return InvalidInput(name, "values that can not be encoded", "must fit the schema")


def _confluent(schema_id: int) -> bytes:
    return CONFLUENT + schema_id.to_bytes(CONFLUENT_HEADER - 1, "big")
