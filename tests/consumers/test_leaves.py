"""Leaves of records in both wire forms: the schema that they name is the control log's, wherever its id came from."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from session_ledger.consumers.checkpointer import Checkpointer
from session_ledger.consumers.leaves import Leaves
from session_ledger.domain.errors import RegistryUnavailable
from session_ledger.domain.events import SchemaPublished
from session_ledger.ledger.ledger import Ledger
from session_ledger.ledger.open import open_codec, open_log, open_settings
from session_ledger.ledger.url import parse_url
from session_ledger.schemas.codec import Codec
from session_ledger.security.leaf import Leaf
from session_ledger.security.merkle import leaf_hash
from tests.schemas.http_registry import HttpRegistry


def leaves_of(url: str, registry: str | None) -> list[Leaf]:
    """Every leaf of partition 0; made one by one they are those that are hashed together."""
    settings = open_settings(None, {"schema_registry": registry})
    log = open_log(parse_url(url), settings, write=False)
    codec, close = open_codec(log, settings)
    leaves, records = Leaves(log, codec), log.partitions[0].read(0, 100)
    found = [leaves.leaf(0, record) for record in records]
    assert [leaf_hash(leaf.encode()) for leaf in found] == leaves.hashes(0, records)
    close()
    log.close()
    return found


def test_a_schema_is_the_same_in_both_wire_forms(tmp_path: Path) -> None:
    """A ledger that gets a registry names the same schemas as before, by another header of the value."""
    url = f"sqlite:{tmp_path / 'ledger'}"
    with HttpRegistry() as registry:
        for one in (None, registry.url):
            with Ledger.open(url, schema_registry=one) as ledger:
                session = ledger.create_session("t", f"{one}").session_id
                ledger.add_message("t", f"{one}", session, role="user", content="hello")
        bare_created, bare_message, created, message = leaves_of(url, registry.url)
    assert [b"\xc3\x01", b"\x00"] == [bare_created.value[:2], created.value[:1]]
    assert (bare_created.schema, bare_message.schema) == (created.schema, message.schema)
    assert created.schema != message.schema


def test_the_text_that_was_published_first_counts(tmp_path: Path) -> None:
    """A later text with the same fingerprint, such as one with another doc, changes no leaf that was signed."""
    url = f"sqlite:{tmp_path / 'ledger'}"
    with Ledger.open(url) as ledger:
        ledger.create_session("t", "u")
    before = leaves_of(url, None)
    log = open_log(parse_url(url), open_settings(None, {}), write=True)
    codec, end = Codec(), log.control.end()
    for record in log.control.read(0, end):
        event = codec.decode(record.value)
        assert isinstance(event, SchemaPublished)
        text = json.dumps({**json.loads(event.schema_json), "doc": "another"})
        later = replace(event, event_id=os.urandom(16), version=event.version + end, schema_json=text)
        position = end + record.position
        changed = record._replace(position=position, version=later.version, batch_id=position.to_bytes(16, "big"))
        log.control.append([changed._replace(value=codec.encode(later))])
    log.close()
    assert before == leaves_of(url, None)


def test_a_registry_that_is_away_is_waited_for(tmp_path: Path) -> None:
    """Nothing is known of the records then, and nothing is signed of them; later they are what they were."""
    url = f"sqlite:{tmp_path / 'ledger'}"
    with HttpRegistry() as registry:
        settings = open_settings(None, {"schema_registry": registry.url})
        with Ledger.open(url, settings=settings) as ledger:
            ledger.create_session("t", "u")
        with Checkpointer(url, settings=settings) as checkpointer:
            checkpointer.catch_up()
            before = checkpointer.sign_all()
        assert 2 == len(before)
        leaves = leaves_of(url, registry.url)
        with Ledger.open(url, settings=settings) as ledger:
            ledger.create_session("t", "v")
    with Checkpointer(url, settings=settings) as checkpointer:
        with pytest.raises(RegistryUnavailable):
            checkpointer.catch_up()
        assert [] == checkpointer.sign_all()
    assert 1 == len(leaves)
