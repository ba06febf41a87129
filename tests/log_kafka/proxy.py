"""A TCP proxy before a broker that loses a commit, or its answer, and goes dark."""

from __future__ import annotations

import socket
import struct
import threading
from typing import Self

from tests.broker.broker import Broker

END_TXN = 26  # the request's api key
COMMITTED_AT = -2  # version 3: ..., committed, tagged fields


class Proxy:
    """Clients that bootstrap at `address` stay behind it. `lose` names what is lost of the next commit."""

    def __init__(self, broker: Broker) -> None:
        self.address = f"127.0.0.1:{broker.proxy_port}"
        self.lose: str | None = None
        """"request" or "answer" of the next commit; after that nothing passes until `dark` is cleared."""
        self.dark = threading.Event()
        self._to = ("127.0.0.1", broker.behind_proxy_port)
        self._listener = socket.create_server(("127.0.0.1", broker.proxy_port))
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.dark.is_set():
                client.close()
                continue
            try:
                server = socket.create_connection(self._to)
            except OSError:  # the broker is away
                client.close()
                continue
            self._open |= {client, server}
            swallowed = threading.Event()
            for pump in (self._requests, self._answers):
                threading.Thread(target=pump, args=(client, server, swallowed), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket, swallowed: threading.Event) -> None:
        """Whole requests, one by one, so that the commit is seen."""
        try:
            while header := _exactly(client, 4):
                body = _exactly(client, struct.unpack(">i", header)[0])
                is_commit = struct.unpack(">h", body[:2])[0] == END_TXN and body[COMMITTED_AT] == 1
                if is_commit and self.lose:
                    lost, self.lose = self.lose, None
                    self.dark.set()
                    if lost == "answer":
                        server.sendall(header + body)
                        swallowed.wait(10)  # the broker has done it
                    self._cut()
                    return
                server.sendall(header + body)
        except OSError:
            pass
        self._drop(client, server)

    def _answers(self, client: socket.socket, server: socket.socket, swallowed: threading.Event) -> None:
        """Whatever the broker says, unless it is dark."""
        try:
            while data := server.recv(65536):
                if self.dark.is_set():
                    swallowed.set()
                    return
                client.sendall(data)
        except OSError:
            pass
        self._drop(client, server)

    def _drop(self, *sockets: socket.socket) -> None:
        for one in sockets:
            self._open.discard(one)
            one.close()

    def _cut(self) -> None:
        self._drop(*self._open)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._cut()


def _exactly(connection: socket.socket, count: int) -> bytes:
    """So many bytes, b"" when the connection has ended."""
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            return b""
        data += more
    return data
