"""A schema registry of a test over HTTP: the calls that a ledger makes, and faults on demand."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import unquote

Reply = tuple[int, bytes]
Fault = Callable[[str, str], Reply | None]


def reply(status: int, body: object) -> Reply:
    """A status and a JSON body."""
    return status, json.dumps(body).encode()


class HttpRegistry:
    """Listens on loopback. It refuses what `refused` says; `fault(method, path)` may answer in its place."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.subjects: dict[str, list[int]] = {}
        self.level = "FULL_TRANSITIVE"
        self.refused: set[str] = set()
        self.fault: Fault = lambda method, path: None
        self.asked: list[str] = []
        """``METHOD path`` of every request, in order."""
        self.headers: dict[str, str] = {}
        """Of the last request."""
        self._server: ThreadingHTTPServer | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Where it listens, or did."""
        return f"http://127.0.0.1:{self.port}/apis/ccompat/v7"

    def start(self) -> None:
        """Listen, on the same port after `stop`."""
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer("GET", {})

            def do_POST(self) -> None:
                self._answer("POST", json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def _answer(self, method: str, body: dict[str, str]) -> None:
                path = unquote(self.path.removeprefix("/apis/ccompat/v7"))
                registry.asked.append(f"{method} {path}")
                registry.headers = dict(self.headers)
                status, content = registry.fault(method, path) or registry.answer(method, path, body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Listen no more. Idempotent."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def answer(self, method: str, path: str, body: dict[str, str]) -> Reply:
        """What a registry says."""
        parts = path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["schemas", "ids"]:
            number = int(parts[2])
            if not 1 <= number <= len(self.texts):
                return reply(404, {"error_code": 40403, "message": f"Schema {number} not found."})
            return reply(200, {"schema": self.texts[number - 1]})
        if parts[0] == "config":
            return reply(200, {"compatibilityLevel": self.level})
        subject, text = parts[1], body["schema"]
        known = self.texts.index(text) + 1 if text in self.texts else 0
        if parts[2:] == ["versions"]:
            if subject in self.refused:
                return reply(409, {"error_code": 409, "message": "Incompatible: zz at /fields/3"})
            if not known:
                self.texts.append(text)
                known = len(self.texts)
            self.subjects.setdefault(subject, []).append(known)
            return reply(200, {"id": known})
        if subject not in self.subjects:
            return reply(404, {"error_code": 40401, "message": f"Subject '{subject}' not found."})
        if known not in self.subjects[subject]:
            return reply(404, {"error_code": 40403, "message": "Schema not found"})
        return reply(200, {"subject": subject, "version": 1, "id": known, "schema": text})

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
