"""A ledger whose key service is slow, fails and comes back: commands wait or are told so; nothing is in plain."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from session_ledger.domain.errors import KeyServiceUnavailable
from session_ledger.ledger.ledger import Ledger
from tests.ledger.support import events, fresh_id
from tests.security.made_services import until

REGION = "eu-central-1"
MARK = "marked-plaintext-of-this-test"


class Gate:
    """In front of a KMS on the loopback interface: lets calls through, fails them, or keeps them waiting."""

    def __init__(self, kms: str) -> None:
        self.passed = self.refused = self.waiting = 0
        self.failing = False
        self.open = threading.Event()
        self.open.set()
        gate = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                gate._serve(self, kms)

            def log_message(self, *_: object) -> None:
                return None

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _serve(self, handler: BaseHTTPRequestHandler, kms: str) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        self.waiting += 1
        self.open.wait()
        self.waiting -= 1
        if self.failing:
            self.refused += 1
            answer, status = json.dumps({"__type": "KMSInternalException", "message": "broken"}).encode(), 500
        else:
            self.passed += 1
            connection = http.client.HTTPConnection(kms.removeprefix("http://"))
            connection.request("POST", handler.path, body, dict(handler.headers))
            response = connection.getresponse()
            answer, status = response.read(), response.status
            connection.close()
        try:
            handler.send_response(status)
            handler.send_header("Content-Type", "application/x-amz-json-1.1")
            handler.send_header("Content-Length", str(len(answer)))
            handler.end_headers()
            handler.wfile.write(answer)
        except OSError:
            return  # the caller has given up meanwhile

    def close(self) -> None:
        """Let everything through, and stop."""
        self.open.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """A gate in front of a KMS of its own."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    made = Gate(f"http://{host}:{port}")
    yield made
    made.close()
    server.stop()


@contextmanager
def opened(gate: Gate, directory: Path, **options: Any) -> Iterator[Ledger]:
    """A ledger whose tenants' keys are wrapped behind the gate."""
    kms = boto3.client("kms", region_name=REGION, endpoint_url=gate.url)
    arn = kms.create_key()["KeyMetadata"]["Arn"]
    given = {"key_service": "kms", "kms_key": arn, "kms_region": REGION, "kms_endpoint": gate.url}
    with Ledger.open(f"sqlite:{directory}", **{"key_service_wait_s": 30, **given, **options}) as ledger:
        yield ledger


def test_a_slow_service_makes_commands_wait_and_no_others(gate: Gate, tmp_path: Path) -> None:
    """A tenant whose key is in memory goes on; a new tenant's command waits, and is recorded when the answer comes."""
    with opened(gate, tmp_path / "ledger") as ledger, ThreadPoolExecutor(1) as pool:
        session = ledger.create_session("acme", "ann", title=MARK).session_id
        gate.open.clear()
        slow = pool.submit(ledger.create_session, "slow", "bob", title=MARK)
        until(lambda: gate.waiting > 0)
        ledger.add_message("acme", "ann", session, role="user", content=MARK)
        ledger.create_session("acme", "cleo", title=MARK)
        assert not slow.done()
        gate.open.set()
        assert slow.result().created
        assert 4 == len(events(ledger))
    assert_sealed(tmp_path)


def test_a_service_that_hangs_or_fails_is_a_retriable_error_until_it_is_back(gate: Gate, tmp_path: Path) -> None:
    """Nothing is recorded, nothing is written in plain; the same command succeeds afterwards, once."""
    with opened(gate, tmp_path / "ledger", key_service_wait_s=2) as ledger:
        _again(lambda: ledger.create_session("acme", "ann"))
        before = len(events(ledger))
        command_id = fresh_id()

        def begin() -> str:
            return ledger.create_session("other", "bob", title=MARK, command_id=command_id).session_id

        gate.open.clear()
        with pytest.raises(KeyServiceUnavailable) as raised:
            begin()
        assert raised.value.retriable
        gate.failing = True
        gate.open.set()
        until(lambda: gate.waiting == 0)
        with pytest.raises(KeyServiceUnavailable):
            begin()
        assert gate.refused > 0
        assert before == len(events(ledger))
        assert_sealed(tmp_path)
        gate.failing = False
        first = _again(begin)
        assert first == begin()
        assert before + 1 == len(events(ledger))
    assert_sealed(tmp_path)


def _again(call: Any) -> Any:
    """Repeat while the error says that it may help."""
    while True:
        try:
            return call()
        except KeyServiceUnavailable:
            continue


def assert_sealed(directory: Path) -> None:
    """The text that was said is in no file."""
    for path in directory.rglob("*"):
        if path.is_file():
            assert MARK.encode() not in path.read_bytes(), path
