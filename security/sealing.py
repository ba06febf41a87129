"""Sealing version 1 as pure functions, and the source of nonces. Nothing in here may change: see `security.port`."""

from __future__ import annotations

import hashlib
import os
import weakref

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FORMAT_PLAIN = b"\x00"
FORMAT_SEALED = b"\x01"
KEY_BYTES = 32
KEY_ID_BYTES = 16
EVENT_ID_BYTES = 16
NONCE_BYTES = 12
TAG_BYTES = 16
SEALED_BYTES_MIN = 1 + NONCE_BYTES + TAG_BYTES
SEALS_MAX = 2**32  # NIST SP 800-38D, 8.3: with random 96-bit nonces, at most 2^32 invocations a key
DIGEST_BYTES = 16
NONCES_A_DRAW = 256  # one system call for 256 seals: 0.03 us a nonce instead of 0.45


def prefixed(value: bytes) -> bytes:
    """The value behind its length, 4 bytes big-endian."""
    return len(value).to_bytes(4, "big") + value


def scope_data(ledger: str, tenant: str, user: str, session_id: bytes) -> bytes:
    """The first part of the associated data: format byte, ledger, tenant, user, session id (b"": the account)."""
    owner, person = tenant.encode(), user.encode()
    return b"".join((FORMAT_SEALED, prefixed(ledger.encode()), prefixed(owner), prefixed(person), prefixed(session_id)))


def place_data(event_type: str, field: str) -> bytes:
    """The second part: event type (its topic, as `session_ledger.events.MessageAdded`) and field (`sealed_content`)."""
    return prefixed(event_type.encode()) + prefixed(field.encode())


def associated_data(
    ledger: str, tenant: str, user: str, session_id: bytes, event_type: str, field: str, key_id: bytes, event_id: bytes
) -> bytes:
    """The whole associated data of one seal."""
    scope, place = scope_data(ledger, tenant, user, session_id), place_data(event_type, field)
    return scope + place + prefixed(key_id) + prefixed(event_id)


def seal_v1(key: bytes, nonce: bytes, associated: bytes, plaintext: bytes) -> bytes:
    """The ciphertext of version 1: ``0x01 + nonce(12) + AES-256-GCM output`` (the tag, 16 bytes, at its end)."""
    return FORMAT_SEALED + nonce + AESGCM(key).encrypt(nonce, plaintext, associated)


def commitment_v1(key_id: bytes, key: bytes) -> bytes:
    """SHA-256 over the key id and the data key, 32 bytes: it proves later which key it was, and tells nothing else."""
    return hashlib.sha256(b"session-ledger key v1" + key_id + key).digest()


def digest_key_v1(key: bytes) -> bytes:
    """The subkey of a data key that command bodies are digested with, 32 bytes."""
    return hashlib.blake2b(key=key, person=b"sl-digest-key-v1", digest_size=KEY_BYTES).digest()


def digest_v1(digest_key: bytes, body: bytes) -> bytes:
    """The keyed digest of a command's body, 16 bytes."""
    return hashlib.blake2b(body, key=digest_key, digest_size=DIGEST_BYTES).digest()


def plain_digest(body: bytes) -> bytes:
    """The digest of a command's body where sealing is off, 16 bytes. Whoever can guess the body can check the guess."""
    return hashlib.blake2b(body, person=b"sl-digest-none", digest_size=DIGEST_BYTES).digest()


def wrapping_data(scope: bytes, key_id: bytes) -> bytes:
    """What a wrapped data key is bound to: its scope, as `scope_data` gives it, and its id."""
    return b"session-ledger wrap v1" + scope + prefixed(key_id)


class Nonces:
    """Random 96-bit nonces from the system's generator, drawn in blocks. Thread-safe; a fork never repeats any.

    `list.pop` and `list.extend` are atomic, so threads share the block without a lock; a child process that is
    forked off forgets the block before it runs anything else.
    """

    def __init__(self) -> None:
        self._pool: list[bytes] = []
        here = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _forget(here))

    def take(self) -> bytes:
        """A nonce of 12 bytes that is handed out once."""
        try:
            return self._pool.pop()
        except IndexError:
            block = os.urandom(NONCE_BYTES * NONCES_A_DRAW)
            nonces = [block[i : i + NONCE_BYTES] for i in range(0, len(block), NONCE_BYTES)]
            mine = nonces.pop()
            self._pool.extend(nonces)
            return mine

    def forget(self) -> None:
        """Drop what is drawn and not used."""
        self._pool.clear()


def _forget(nonces: weakref.ref[Nonces]) -> None:
    alive = nonces()
    if alive is not None:
        alive.forget()
