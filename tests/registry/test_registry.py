"""The registry of the Compose file, real: what it takes, what it refuses, and what happens when it is killed."""

from __future__ import annotations

import json
import logging
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from session_ledger import Ledger, Views
from session_ledger.domain.errors import Misconfigured, RegistryUnavailable
from session_ledger.schemas import registry_client
from session_ledger.schemas.library import Library, parse
from session_ledger.schemas.registry import FULL_TRANSITIVE, register
from session_ledger.schemas.registry_client import RegistryClient
from tests.registry.apicurio import ANSWER_S, Apicurio, compose_service

SCHEMAS = list(Library())
WAIT_S = 60.0


@pytest.fixture
def client(registry: Apicurio) -> Iterator[RegistryClient]:
    """The registry's client."""
    client = RegistryClient(registry.url)
    yield client
    client.close()


def with_field(text: str, **field: object) -> str:
    """The schema with one more field."""
    schema: dict[str, Any] = json.loads(text)
    return json.dumps({**schema, "fields": [*schema["fields"], field]})


def eventually(holds: Callable[[], bool]) -> bool:
    """Whether it comes to hold."""
    deadline = time.monotonic() + WAIT_S
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()


def test_the_registry_takes_every_schema(
    registry: Apicurio, client: RegistryClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Held to FULL_TRANSITIVE, so nothing is warned of; a second client finds the same ids and the same schemas."""
    ids = register(SCHEMAS, client)
    assert [] == caplog.messages
    assert {FULL_TRANSITIVE} == {client.compatibility_of(schema.topic) for schema in SCHEMAS}
    other = RegistryClient(registry.url)
    assert ids == register(SCHEMAS, other)
    assert {schema.fingerprint for schema in SCHEMAS} == {
        parse(other.text_of(schema_id) or "").fingerprint for schema_id in ids.values()
    }
    other.close()


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.topic.rsplit(".", 1)[1])
def test_the_registry_refuses_a_schema_that_old_records_can_not_be_read_with(
    schema: Any, client: RegistryClient
) -> None:
    """A new field without a default: Misconfigured, with the subject and what was said; with one it is taken."""
    subject = f"refusals.{schema.topic}"
    first = client.id_of(subject, schema.text)
    with pytest.raises(Misconfigured, match=rf"refuses the schema of {subject} \(409 .*zz"):
        client.id_of(subject, with_field(schema.text, name="zz", type="string"))
    taken = client.id_of(subject, with_field(schema.text, name="zz", type=["null", "string"], default=None))
    assert first != taken


def test_an_id_that_was_never_given_is_none(client: RegistryClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry's own 404, in the end."""
    with pytest.raises(RegistryUnavailable, match="asked again"):
        client.text_of(1_000_000)
    monkeypatch.setattr(registry_client, "ABSENT_S", 0.0)
    assert client.text_of(1_000_000) is None


def test_a_subject_with_a_weaker_level_is_warned_of(
    registry: Apicurio, client: RegistryClient, caplog: pytest.LogCaptureFixture
) -> None:
    """As the registry tells its own level, not only that of all subjects."""
    register(SCHEMAS, client)
    config = f"{registry.url}/config/{SCHEMAS[3].topic}"
    httpx.put(config, json={"compatibility": "BACKWARD"}, timeout=ANSWER_S).raise_for_status()
    try:
        with caplog.at_level(logging.WARNING, "session_ledger.registry"):
            register(SCHEMAS, client)
    finally:
        httpx.put(config, json={"compatibility": FULL_TRANSITIVE}, timeout=ANSWER_S).raise_for_status()
    (line,) = caplog.messages
    assert f"1 of {len(SCHEMAS)} subjects" in line
    assert f"{SCHEMAS[3].topic} to BACKWARD" in line


def test_the_health_check_of_the_compose_file_tells_whether_it_is_ready(registry: Apicurio) -> None:
    """The command as the container runs it, on this one's port; it fails where nothing listens."""
    command = compose_service()["healthcheck"]["test"]
    assert "CMD" == command[0]

    def healthy(port: int) -> bool:
        words = [word.replace("$$", "$").replace("/9000", f"/{port}") for word in command[1:]]
        return subprocess.run(words, capture_output=True, timeout=30, check=False).returncode == 0

    assert healthy(registry.management_port)
    assert not healthy(1)


def test_a_ledger_whose_schema_is_refused_does_not_open(
    own_registry: Apicurio, kafka: str, ledger_name: str, tmp_path: Path
) -> None:
    """Somebody registered another history under our subject: the error names it, and nothing is written."""
    schema = next(one for one in SCHEMAS if one.topic.endswith("QuotaSet"))
    foreign = with_field(schema.text, name="zz", type="string")
    with_other = RegistryClient(own_registry.url)
    with_other.id_of(schema.topic, foreign)
    with_other.close()
    url = f"kafka://{kafka}/{ledger_name}?partitions=1&replica={tmp_path / 'replica'}"
    with pytest.raises(Misconfigured, match=f"refuses the schema of {schema.topic}"):
        Ledger.open(url, schema_registry=own_registry.url)
    with Ledger.open(url) as ledger:
        assert [0] == ledger.positions()[:-1]


def test_a_killed_registry_stops_no_ledger_and_loses_no_record(
    own_registry: Apicurio, kafka: str, ledger_name: str, tmp_path: Path
) -> None:
    """The owner goes on writing; a reader that meets an id that it does not know waits, and goes on by itself.

    The registry's schemas stand in Kafka: after `kill -9` and a start the ids are the same.
    """
    url = f"kafka://{kafka}/{ledger_name}?partitions=1&replica={tmp_path / 'replica'}"
    with Ledger.open(url, schema_registry=own_registry.url) as ledger:
        own_registry.kill()
        session = ledger.create_session("acme", "ada").session_id
        ledger.add_message("acme", "ada", session, role="user", content="written without it")
        with pytest.raises(RegistryUnavailable, match=own_registry.url):
            Ledger.open(url, schema_registry=own_registry.url, take_over=True)
        ledger.end_session("acme", "ada", session)
        acknowledged = ledger.positions()
    with Views.open(url, schema_registry=own_registry.url) as views:
        with pytest.raises(RegistryUnavailable):
            views.refresh()
        views.projector.start()
        assert eventually(lambda: {-1, 0} == set(views.projector.trouble))
        assert {} == views.projector.stopped
        own_registry.start()
        assert eventually(lambda: [views.projector.position(0), views.projector.position(-1)] == acknowledged)
        assert {} == views.projector.trouble
        views.projector.stop()
        assert ["written without it"] == [message.content for message in views.history("acme", "ada", session)]
    with Ledger.open(url, schema_registry=own_registry.url) as ledger:
        assert acknowledged == ledger.positions()
