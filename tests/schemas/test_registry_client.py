"""The registry's client: what it asks, and what it makes of every kind of answer."""

from __future__ import annotations

import base64
import logging
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from session_ledger.domain.errors import LogCorrupt, LogUnavailable, Misconfigured, RegistryUnavailable
from session_ledger.schemas import registry_client
from session_ledger.schemas.registry import MemoryRegistry, register
from session_ledger.schemas.registry_client import RegistryClient
from tests.schemas.http_registry import HttpRegistry, Reply, reply
from tests.schemas.strategies import LIBRARY

SCHEMAS = list(LIBRARY)
ONE = SCHEMAS[0]


@pytest.fixture
def server() -> Iterator[HttpRegistry]:
    """A registry on loopback, empty."""
    with HttpRegistry() as server:
        yield server


@pytest.fixture
def client(server: HttpRegistry) -> Iterator[RegistryClient]:
    """Its client."""
    client = RegistryClient(server.url, timeout_s=2.0)
    yield client
    client.close()


def test_every_schema_is_registered_once(server: HttpRegistry, client: RegistryClient) -> None:
    """Under the name of its record, as it stands in the repository; a second writer finds it and registers nothing."""
    ids = register(SCHEMAS, client)
    assert {schema.topic: server.texts.index(schema.text) + 1 for schema in SCHEMAS} == ids
    assert {schema.topic: [ids[schema.topic]] for schema in SCHEMAS} == server.subjects
    server.asked.clear()
    second = RegistryClient(server.url)
    assert ids == register(SCHEMAS, second)
    second.close()
    assert [] == [asked for asked in server.asked if asked.endswith("/versions")]


def test_answers_that_never_change_are_remembered(server: HttpRegistry, client: RegistryClient) -> None:
    """An id and its text are asked for once."""
    schema_id = client.id_of(ONE.topic, ONE.text)
    assert ONE.text == client.text_of(schema_id)
    server.stop()
    assert (schema_id, ONE.text) == (client.id_of(ONE.topic, ONE.text), client.text_of(schema_id))


def test_a_refused_schema_names_the_subject_and_what_was_said(server: HttpRegistry, client: RegistryClient) -> None:
    """Misconfigured, which no repetition helps."""
    server.refused.add(ONE.topic)
    with pytest.raises(Misconfigured, match=rf"{ONE.topic} \(409 Incompatible: zz at /fields/3\)") as caught:
        client.id_of(ONE.topic, ONE.text)
    assert not caught.value.retriable
    assert server.url in str(caught.value)


def test_an_id_that_is_not_there_is_none(
    client: RegistryClient, server: HttpRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said by the registry's own code, and for a while: right after a start it says so of ids that it has."""
    for _ in range(2):
        with pytest.raises(RegistryUnavailable, match="no schema with id 77; one that has just started"):
            client.text_of(77)
    schema_id = client.id_of(ONE.topic, ONE.text)
    other = RegistryClient(server.url)
    assert ONE.text == other.text_of(schema_id)
    other.close()
    monkeypatch.setattr(registry_client, "ABSENT_S", 0.0)
    assert client.text_of(77) is None


@pytest.mark.parametrize(
    "answer",
    [
        (404, b"<html>no such page</html>"),
        (404, b""),
        reply(404, {"error_code": 404, "message": "HTTP 404 Not Found"}),
        reply(401, {"message": "who are you"}),
        reply(403, {}),
        reply(429, {}),
        reply(500, {"error_code": 50001, "message": "in the backend"}),
        (503, b"starting"),
        (200, b"<html>a portal</html>"),
        reply(200, {"schema": 5}),
        reply(200, ["schema"]),
        (302, b""),
    ],
    ids=str,
)
def test_an_answer_that_is_not_the_registrys_never_counts_as_no_schema(
    server: HttpRegistry, client: RegistryClient, answer: Reply
) -> None:
    """A wrong path, a proxy, a login or a fault: retriable, so that no reader gives up on a sound record."""
    server.fault = lambda method, path: answer
    with pytest.raises(RegistryUnavailable, match=r"127\.0\.0\.1") as caught:
        client.text_of(1)
    assert caught.value.retriable
    assert isinstance(caught.value, LogUnavailable)
    assert not isinstance(caught.value, LogCorrupt)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((404, b"<html>no such page</html>"), Misconfigured),
        (reply(401, {"message": "who are you"}), Misconfigured),
        (reply(403, {}), Misconfigured),
        ((302, b""), Misconfigured),
        (reply(200, {"id": "7"}), Misconfigured),
        (reply(200, {"id": -1}), Misconfigured),
        (reply(200, {"id": 1 << 31}), Misconfigured),
        ((200, b"<html>a portal</html>"), Misconfigured),
        ((503, b"starting"), RegistryUnavailable),
        (reply(429, {}), RegistryUnavailable),
    ],
    ids=str,
)
def test_a_writer_is_told_what_is_wrong(
    server: HttpRegistry, client: RegistryClient, answer: Reply, error: type[Exception]
) -> None:
    """What a repetition may help is retriable, what the settings must change is Misconfigured; both name the URL."""
    server.fault = lambda method, path: answer
    with pytest.raises(error, match=r"127\.0\.0\.1"):
        client.id_of(ONE.topic, ONE.text)


def test_a_registry_that_is_not_there_is_retriable(server: HttpRegistry, client: RegistryClient) -> None:
    """For writers and readers; the message names the URL and says what to do."""
    server.stop()
    for ask in (lambda: client.id_of(ONE.topic, ONE.text), lambda: client.text_of(1)):
        with pytest.raises(RegistryUnavailable, match=f"{server.url} can not be reached.*nothing is lost") as caught:
            ask()
        assert caught.value.retriable


def test_a_registry_that_does_not_answer_is_not_waited_for(client: RegistryClient) -> None:
    """It is given `timeout_s`."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        waiting = RegistryClient(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.2)
        with pytest.raises(RegistryUnavailable, match="Timeout"):
            waiting.text_of(1)
        waiting.close()


@pytest.mark.parametrize(
    ("options", "header"),
    [
        ({"user": "ada", "password": "pw"}, "Basic " + base64.b64encode(b"ada:pw").decode()),
        ({"token": "abc"}, "Bearer abc"),
        ({}, None),
    ],
)
def test_credentials_are_sent(server: HttpRegistry, options: dict[str, Any], header: str | None) -> None:
    """As HTTP basic, or as a bearer token; without either, nothing is sent."""
    client = RegistryClient(server.url, **options)
    with pytest.raises(RegistryUnavailable, match="no schema with id 1"):
        client.text_of(1)
    client.close()
    assert header == server.headers.get("Authorization")


@pytest.mark.parametrize(
    ("url", "options", "says"),
    [
        ("localhost:8081", {}, "http://HOST:PORT"),
        ("ftp://localhost", {}, "http://HOST:PORT"),
        ("http://", {}, "http://HOST:PORT"),
        ("http://localhost:port", {}, "http://HOST:PORT"),
        ("http://ada:secret@localhost:8081", {}, "belong in `schema_registry_client`"),
        ("http://localhost", {"user": "ada", "token": "abc"}, "not both"),
        ("https://localhost", {"ca_file": "missing.pem"}, r"missing\.pem"),
        ("https://localhost", {"cert_file": "missing.pem"}, r"missing\.pem"),
    ],
)
def test_settings_that_can_not_be_right_are_told(url: str, options: dict[str, Any], says: str) -> None:
    """Before anything is asked, and without the password."""
    with pytest.raises(Misconfigured, match=says) as caught:
        RegistryClient(url, **options)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("level", ["BACKWARD", "FULL", "NONE", ""])
def test_a_level_below_full_transitive_is_warned_of_once(
    server: HttpRegistry, client: RegistryClient, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One line for all subjects, that names one and its level."""
    server.level = level
    with caplog.at_level(logging.WARNING, "session_ledger.registry"):
        register(SCHEMAS, client)
    (line,) = caplog.messages
    assert f"{len(SCHEMAS)} of {len(SCHEMAS)} subjects to less than FULL_TRANSITIVE" in line
    assert f"{ONE.topic} to {level or 'nothing that it tells'}" in line


def test_a_registry_with_the_level_is_not_warned_of(client: RegistryClient, caplog: pytest.LogCaptureFixture) -> None:
    """FULL_TRANSITIVE is what we want."""
    register(SCHEMAS, client)
    assert [] == caplog.messages


def test_nothing_is_written_with_an_id_that_leads_elsewhere() -> None:
    """Ids that were moved, as by a restored registry: refused at once, not found out by readers later."""

    class Moved(MemoryRegistry):
        def text_of(self, schema_id: int) -> str | None:
            return super().text_of(schema_id - 1)

    with pytest.raises(Misconfigured, match="no schema under it"):
        register([ONE], Moved())
    moved = Moved()
    moved.id_of(SCHEMAS[1].topic, SCHEMAS[1].text)
    with pytest.raises(Misconfigured, match=f"{ONE.topic} the id 2 and has another schema under it"):
        register([ONE], moved)


def test_the_packages_of_the_client_are_imported_only_where_a_registry_is_set(tmp_path: Path) -> None:
    """A ledger without one needs no HTTP client; where one is set and the package is missing, the message names it."""
    code = """
import sys
from session_ledger import Ledger, Views
from session_ledger.domain.errors import Misconfigured
with Ledger.open("sqlite:ledger") as ledger:
    ledger.create_session("t", "u")
with Views.open("sqlite:ledger") as views:
    views.stats()
assert "httpx" not in sys.modules
sys.modules["httpx"] = None
try:
    Ledger.open("sqlite:ledger", schema_registry="http://127.0.0.1:1")
except Misconfigured as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "install session-ledger[registry]" in done.stdout
