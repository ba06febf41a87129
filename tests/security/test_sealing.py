"""Sealing version 1: bound to its place, unchangeable, and never a nonce twice."""

from __future__ import annotations

import json
import os
from pathlib import Path
from threading import Thread

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from session_ledger.domain.errors import ContentUnreadable, InvalidInput, KeyExhausted
from session_ledger.security import keys as keys_module
from session_ledger.security.keys import Places, Scope, SealingKey
from session_ledger.security.sealing import (
    Nonces,
    associated_data,
    commitment_v1,
    digest_key_v1,
    digest_v1,
    plain_digest,
    scope_data,
    seal_v1,
    wrapping_data,
)
from tests.security.made import EVENT, FIELD, MESSAGE, SESSION, TENANT, USER

LEDGER = "support"
KEY, KEY_ID = b"k" * 32, b"i" * 16
GOLDEN = json.loads((Path(__file__).parent / "golden" / "sealing_v1.json").read_text(encoding="utf-8"))
TEXTS = st.text(max_size=30)


def key_of(
    ledger: str = LEDGER, tenant: str = TENANT, user: str = USER, session_id: bytes = SESSION, key_id: bytes = KEY_ID
) -> SealingKey:
    """The same secret under whatever owner and id."""
    scope = Scope(tenant, user, session_id)
    nonce, places = Nonces().take, Places()
    return SealingKey(scope, scope_data(ledger, *scope), key_id, KEY, durable=True, nonce=nonce, places=places)


@given(st.binary(max_size=2000), TEXTS, TEXTS, TEXTS, TEXTS)
def test_what_is_sealed_opens(plaintext: bytes, tenant: str, user: str, event_type: str, field: str) -> None:
    """Any bytes under any owner, event type and field come back."""
    key = key_of(tenant=tenant, user=user)
    assert plaintext == key.open(EVENT, event_type, field, key.seal(EVENT, event_type, field, plaintext))


def test_a_ciphertext_is_29_bytes_longer_and_starts_with_its_format() -> None:
    """Format byte, nonce of 12 bytes, and a tag of 16 behind the text."""
    sealed = key_of().seal(EVENT, MESSAGE, FIELD, b"hello")
    assert (b"\x01", 5 + 29) == (sealed[:1], len(sealed))
    assert b"hello" not in sealed


@pytest.mark.parametrize(
    ("moved", "event_id", "event_type", "field"),
    [
        (key_of(), b"x" * 16, MESSAGE, FIELD),
        (key_of(), EVENT, "session_ledger.events.SessionEnded", FIELD),
        (key_of(), EVENT, MESSAGE, "sealed_parts"),
        (key_of(session_id=b"s" * 16), EVENT, MESSAGE, FIELD),
        (key_of(session_id=b""), EVENT, MESSAGE, FIELD),
        (key_of(user="bob"), EVENT, MESSAGE, FIELD),
        (key_of(tenant="other"), EVENT, MESSAGE, FIELD),
        (key_of(tenant="acmea", user="nn"), EVENT, MESSAGE, FIELD),
        (key_of(ledger="sales"), EVENT, MESSAGE, FIELD),
        (key_of(key_id=b"j" * 16), EVENT, MESSAGE, FIELD),
    ],
    ids=["event", "type", "field", "session", "account", "user", "tenant", "boundary", "ledger", "key id"],
)
def test_a_moved_ciphertext_does_not_open(moved: SealingKey, event_id: bytes, event_type: str, field: str) -> None:
    """With the right secret at any other place, a ciphertext is unreadable."""
    sealed = key_of().seal(EVENT, MESSAGE, FIELD, b"hello")
    with pytest.raises(ContentUnreadable):
        moved.open(event_id, event_type, field, sealed)


def test_any_flipped_bit_makes_it_unreadable() -> None:
    """Format, nonce, text and tag: no single bit can change unnoticed."""
    key = key_of()
    sealed = key.seal(EVENT, MESSAGE, FIELD, b"hello")
    for bit in range(len(sealed) * 8):
        damaged = bytearray(sealed)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ContentUnreadable):
            key.open(EVENT, MESSAGE, FIELD, bytes(damaged))


@given(st.integers(min_value=0, max_value=33))
def test_a_cut_ciphertext_is_unreadable(length: int) -> None:
    """Every proper beginning of a ciphertext fails with the typed error, the empty one too."""
    key = key_of()
    sealed = key.seal(EVENT, MESSAGE, FIELD, b"hello")
    with pytest.raises(ContentUnreadable):
        key.open(EVENT, MESSAGE, FIELD, sealed[:length])


def test_plain_text_is_never_read_under_a_data_key() -> None:
    """Format 0x00 where sealing is on would be a downgrade: refused."""
    with pytest.raises(ContentUnreadable, match="plain text under a data key"):
        key_of().open(EVENT, MESSAGE, FIELD, b"\x00hello")


def test_an_event_id_of_another_length_is_refused() -> None:
    """Event ids are 16 bytes, as the associated data says."""
    with pytest.raises(InvalidInput, match="event_id"):
        key_of().seal(b"short", MESSAGE, FIELD, b"hello")


PARTS = st.tuples(TEXTS, TEXTS, TEXTS, st.binary(max_size=16), TEXTS, TEXTS, st.binary(max_size=16), st.binary())


@given(PARTS, PARTS)
def test_different_places_have_different_associated_data(
    one: tuple[str, str, str, bytes, str, str, bytes, bytes], two: tuple[str, str, str, bytes, str, str, bytes, bytes]
) -> None:
    """The lengths in front make the joined text unambiguous."""
    assert (one == two) == (associated_data(*one) == associated_data(*two))


def test_version_1_gives_the_golden_bytes() -> None:
    """Associated data, ciphertext, commitment and digests are what they have been since version 1."""
    given_ = {name: bytes.fromhex(value) for name, value in GOLDEN["bytes"].items()}
    owner = (GOLDEN["ledger"], GOLDEN["tenant"], GOLDEN["user"], given_["session_id"])
    associated = associated_data(*owner, GOLDEN["event_type"], GOLDEN["field"], given_["key_id"], given_["event_id"])
    sealed = seal_v1(given_["key"], given_["nonce"], associated, GOLDEN["text"].encode())
    body = GOLDEN["text"].encode()
    assert GOLDEN["expected"] == {
        "associated": associated.hex(),
        "sealed": sealed.hex(),
        "commitment": commitment_v1(given_["key_id"], given_["key"]).hex(),
        "digest": digest_v1(digest_key_v1(given_["key"]), body).hex(),
        "plain_digest": plain_digest(body).hex(),
        "wrapping": wrapping_data(scope_data(*owner), given_["key_id"]).hex(),
    }


def test_a_key_seals_opens_and_digests_the_golden_bytes() -> None:
    """The fast path of a key is version 1 to the byte."""
    given_ = {name: bytes.fromhex(value) for name, value in GOLDEN["bytes"].items()}
    scope = Scope(GOLDEN["tenant"], GOLDEN["user"], given_["session_id"])
    key = SealingKey(
        scope,
        scope_data(GOLDEN["ledger"], *scope),
        given_["key_id"],
        given_["key"],
        durable=True,
        nonce=lambda: given_["nonce"],
        places=Places(),
    )
    text = GOLDEN["text"].encode()
    expected = {name: bytes.fromhex(value) for name, value in GOLDEN["expected"].items()}
    place = (given_["event_id"], GOLDEN["event_type"], GOLDEN["field"])
    assert expected["sealed"] == key.seal(*place, text)
    assert text == key.open(*place, expected["sealed"])
    assert expected["digest"] == key.digest(text)
    assert expected["commitment"] == key.commitment


def test_the_golden_ciphertext_is_plain_aes_256_gcm() -> None:
    """Anybody with the key and the written rules can open it, without this package's code."""
    given_ = {name: bytes.fromhex(value) for name, value in GOLDEN["bytes"].items()}
    parts = [GOLDEN["ledger"], GOLDEN["tenant"], GOLDEN["user"], given_["session_id"]]
    parts += [GOLDEN["event_type"], GOLDEN["field"], given_["key_id"], given_["event_id"]]
    raw = [part.encode() if isinstance(part, str) else part for part in parts]
    associated = b"\x01" + b"".join(len(part).to_bytes(4, "big") + part for part in raw)
    sealed = bytes.fromhex(GOLDEN["expected"]["sealed"])
    assert GOLDEN["text"].encode() == AESGCM(given_["key"]).decrypt(sealed[1:13], sealed[13:], associated)


def test_a_key_refuses_to_seal_too_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the limit (2^32, three here) comes KeyExhausted; opening goes on."""
    monkeypatch.setattr(keys_module, "SEALS_MAX", 3)
    key = key_of()
    sealed = [key.seal(EVENT, MESSAGE, FIELD, b"hello") for _ in range(3)]
    with pytest.raises(KeyExhausted, match="rotated"):
        key.seal(EVENT, MESSAGE, FIELD, b"hello")
    assert b"hello" == key.open(EVENT, MESSAGE, FIELD, sealed[2])


def test_no_nonce_repeats_in_200_000_seals_over_threads() -> None:
    """Four threads that seal with one key never share a nonce."""
    key = key_of()
    nonces: list[bytes] = []

    def seal() -> None:
        nonces.extend([key.seal(EVENT, MESSAGE, FIELD, b"")[1:13] for _ in range(50_000)])

    threads = [Thread(target=seal) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 200_000 == len(nonces) == len(set(nonces))


def test_no_nonce_repeats_across_a_fork() -> None:
    """A child process never uses a nonce that its parent drew before the fork."""
    key = key_of()
    before = key.seal(EVENT, MESSAGE, FIELD, b"")[1:13]
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(b"".join(key.seal(EVENT, MESSAGE, FIELD, b"")[1:13] for _ in range(1000)))
        finally:
            os._exit(0)
    os.close(writing)
    nonces = [before] + [key.seal(EVENT, MESSAGE, FIELD, b"")[1:13] for _ in range(1000)]
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    nonces += [told[i : i + 12] for i in range(0, len(told), 12)]
    assert 2001 == len(nonces) == len(set(nonces))
