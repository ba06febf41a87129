"""Identifiers: 16 bytes inside, UUID text outside; slots, partitions and the ids that carry them.

A session id and an agent id are UUIDv7 (RFC 9562) whose 12 `rand_a` bits hold a slot, so any process routes a bare id
without a lookup. The slot of a user is Kafka's Java murmur2 of ``tenant/user``, masked to 12 bits, so a Java client
with that record key computes the same partition.
"""

from __future__ import annotations

import hashlib
import os
import re
from functools import lru_cache
from uuid import UUID

from session_ledger.domain.errors import InvalidInput

SLOTS = 4096  # 12 bits: what fits into rand_a, and the largest number of partitions
SESSION_NAMESPACE = b"session-ledger import v1"
_is_pseudonym = re.compile("p-[a-z2-7]{25}[aeimquy4]").fullmatch  # 128 bits in base32 leave 2 of the last 5 zero


def new_id(now_us: int) -> bytes:
    """A fresh UUIDv7 of 16 bytes for the time `now_us` (microseconds since the epoch, UTC)."""
    try:
        tail = _tails.pop()
    except IndexError:
        tail = _draw()
    return (now_us // 1000).to_bytes(6, "big") + tail


def new_slotted_id(now_us: int, slot: int) -> bytes:
    """A fresh UUIDv7 that carries `slot` (0 to 4095) in its `rand_a` bits."""
    return with_slot(new_id(now_us), slot)


_tails: list[bytes] = []  # random tails, drawn in blocks: one system call for 256 ids. pop and extend are atomic


def _draw() -> bytes:
    block = os.urandom(10 * 256)
    tails = [
        bytes((block[i] & 0x0F | 0x70, block[i + 1], block[i + 2] & 0x3F | 0x80)) + block[i + 3 : i + 10]
        for i in range(0, len(block), 10)
    ]
    mine = tails.pop()
    _tails.extend(tails)
    return mine


os.register_at_fork(after_in_child=_tails.clear)  # a child must not hand out its parent's


def with_slot(identifier: bytes, slot: int) -> bytes:
    """The UUIDv7 with `slot` in its `rand_a` bits: the id of an agent, from that of the command that registers it."""
    return identifier[:6] + (0x7000 | slot).to_bytes(2, "big") + identifier[8:]


def derived_session_id(source: str, created_at_us: int, slot: int) -> bytes:
    """The id of an imported session: the same source id, creation time and slot give the same id, for ever."""
    digest = hashlib.blake2b(source.encode(), digest_size=8, key=SESSION_NAMESPACE).digest()
    return _uuid7(created_at_us, (slot << 64) | int.from_bytes(digest, "big"))


def rederived_session_id(session_id: bytes, slot: int, digest: bytes) -> bytes:
    """An imported session's id with another slot and, in place of what it was derived from, 8 bytes of a digest."""
    tail = bytes((digest[0] & 0x3F | 0x80,)) + digest[1:8]
    return with_slot(session_id[:8] + tail, slot)


def is_pseudonym(user: str) -> bool:
    """Whether the user's id has the form of a pseudonym, as `security.pseudonym_keys` makes it."""
    return _is_pseudonym(user) is not None


def _uuid7(now_us: int, random: int) -> bytes:
    """48 bits of milliseconds, version 7, 12 bits `rand_a`, variant 10, 62 bits `rand_b` (RFC 9562, 5.7)."""
    value = ((now_us // 1000) & 0xFFFF_FFFF_FFFF) << 80
    value |= 0x7 << 76 | ((random >> 64) & 0xFFF) << 64
    value |= 0b10 << 62 | (random & 0x3FFF_FFFF_FFFF_FFFF)
    return value.to_bytes(16, "big")


def slot_of_id(identifier: bytes) -> int:
    """The slot that a session id or an agent id carries."""
    return (identifier[6] & 0x0F) << 8 | identifier[7]


def id_time_us(identifier: bytes) -> int:
    """The time that a UUIDv7 carries, in microseconds (its resolution is a millisecond)."""
    return int.from_bytes(identifier[:6], "big") * 1000


@lru_cache(maxsize=65_536)
def slot_of_user(tenant: str, user: str) -> int:
    """The slot of a user: murmur2 of ``tenant/user``, lowest 12 bits of the positive hash."""
    return murmur2(f"{tenant}/{user}".encode()) & (SLOTS - 1)


def account_id(tenant: str, user: str) -> bytes:
    """The originator id of a user's account stream: a UUIDv8 derived from the pair, not from the joined text."""
    digest = hashlib.blake2b(f"{len(tenant)}:{tenant}{user}".encode(), digest_size=16, person=b"sl-account").digest()
    return _as_uuid8(digest)


def tenant_id(tenant: str) -> bytes:
    """The originator id of a tenant's stream in the control log: a UUIDv8 derived from the name."""
    return _as_uuid8(hashlib.blake2b(tenant.encode(), digest_size=16, person=b"sl-tenant").digest())


def _as_uuid8(digest: bytes) -> bytes:
    value = bytearray(digest)
    value[6] = value[6] & 0x0F | 0x80
    value[8] = value[8] & 0x3F | 0x80
    return bytes(value)


@lru_cache(maxsize=65_536)
def _parse_text(text: str) -> bytes:
    return UUID(text).bytes


def format_id(identifier: bytes) -> str:
    """The UUID text of 16 bytes: ``0192b3c4-....``."""
    text = identifier.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


@lru_cache(maxsize=65_536)
def session_text(session_id: bytes) -> str:
    """`format_id`, remembered: a session's id is told with each of its messages."""
    return format_id(session_id)


def parse_id(value: str | UUID | bytes, field: str = "id") -> bytes:
    """The 16 bytes of an id given as text, UUID or bytes. Raises InvalidInput."""
    if isinstance(value, str):
        try:
            return _parse_text(value)
        except ValueError:
            pass
    elif isinstance(value, bytes) and len(value) == 16:
        return value
    elif isinstance(value, UUID):
        return value.bytes
    raise InvalidInput(field, f"a {type(value).__name__} that is no id", "must be a UUID as text, UUID or 16 bytes")


def murmur2(data: bytes) -> int:
    """The murmur2 of Kafka's Java client (org.apache.kafka.common.utils.Utils.murmur2), as an unsigned 32-bit int."""
    length = len(data)
    h = (0x9747B28C ^ length) & 0xFFFFFFFF
    whole = length - length % 4
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * 0x5BD1E995 & 0xFFFFFFFF
        k = (k ^ k >> 24) * 0x5BD1E995 & 0xFFFFFFFF
        h = (h * 0x5BD1E995 & 0xFFFFFFFF) ^ k
    rest = data[whole:]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * 0x5BD1E995 & 0xFFFFFFFF
    h = (h ^ h >> 13) * 0x5BD1E995 & 0xFFFFFFFF
    return h ^ h >> 15
