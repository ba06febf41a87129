"""The leaf of a record: the bytes that a partition's tree is made over. Its encoding, version 1, and back.

    0x01                   the version of this encoding
    position               8 bytes; the leaf's index is the position less one
    batch id               16 bytes
    originator id          16 bytes: the session, account, agent or tenant
    version                8 bytes: the event's place among the originator's, 1, 2, 3, ...
    schema                 32 bytes: SHA-256 of the full text of the schema that the value is written with
    length of topic        2 bytes
    topic                  UTF-8: the name of the event type
    value                  the rest: the event's Avro bytes, as they stand in the log

Numbers are big-endian. What people said stands in the value as ciphertext, so a leaf, its hash and every proof stay
true when a key is destroyed. The schema's text is the one that the control log published first for the value's
fingerprint; 32 zero bytes where the value names none.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from hashlib import sha256

from session_ledger.domain.errors import InvalidInput
from session_ledger.security.merkle import LEAF

VERSION = 1
NO_SCHEMA = bytes(32)
ID_BYTES = 16
_HEAD = struct.Struct(">BQ16s16sQ32sH")
_pack = struct.Struct(">cBQ16s16sQ").pack  # with the byte before it that makes it a leaf's


@dataclass(frozen=True, slots=True)
class Leaf:
    """A record as its tree holds it."""

    position: int
    batch_id: bytes
    originator_id: bytes
    version: int
    schema: bytes
    """SHA-256 of the schema's text."""
    topic: str
    value: bytes

    def encode(self) -> bytes:
        """The leaf's data."""
        topic = self.topic.encode()
        if {len(self.batch_id), len(self.originator_id)} != {ID_BYTES} or len(self.schema) != len(NO_SCHEMA):
            raise ValueError(f"position {self.position}: an id or a digest has another length than it must")
        head = (VERSION, self.position, self.batch_id, self.originator_id, self.version, self.schema, len(topic))
        return _HEAD.pack(*head) + topic + self.value

    @classmethod
    def decode(cls, data: bytes) -> Leaf:
        """The record of a leaf's data. Raises InvalidInput."""
        try:
            encoding, position, batch_id, originator_id, version, schema, size = _HEAD.unpack_from(data)
            topic = data[_HEAD.size : _HEAD.size + size]
            found = cls(position, batch_id, originator_id, version, schema, topic.decode(), data[_HEAD.size + size :])
        except (struct.error, UnicodeDecodeError) as error:
            raise InvalidInput("leaf_data", f"{len(data)} bytes", "must be a record's leaf") from error
        if encoding != VERSION or len(topic) != size:
            raise InvalidInput("leaf_data", f"{len(data)} bytes", f"must be a record's leaf of version {VERSION}")
        return found


def tail_of(topic: str, schema: bytes) -> bytes:
    """What stands between version and value in the leaves of one topic and schema."""
    name = topic.encode()
    if len(schema) != len(NO_SCHEMA):
        raise ValueError(f"a schema's digest has {len(NO_SCHEMA)} bytes, not {len(schema)}")
    return schema + len(name).to_bytes(2, "big") + name


def hash_of(position: int, batch_id: bytes, originator_id: bytes, version: int, tail: bytes, value: bytes) -> bytes:
    """The same as hashing `Leaf(...).encode()`, in a third of the time: it is run for every record."""
    if len(batch_id) != ID_BYTES or len(originator_id) != ID_BYTES:  # it would be cut, or filled up, without a word
        raise ValueError(f"position {position}: a batch id or an originator id has not {ID_BYTES} bytes")
    return sha256(_pack(LEAF, VERSION, position, batch_id, originator_id, version) + tail + value).digest()
