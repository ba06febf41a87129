"""A key service of another process or network, as a test steers it, and clocks that stand until they are moved."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import ClassVar

from session_ledger.domain.errors import KeyServiceUnavailable
from session_ledger.security.keyring import Keyring
from session_ledger.security.provider import KeyProvider
from session_ledger.security.wrapping import Bound


class RemoteKeyring(KeyProvider):
    """A keyring as a remote service: it may hang, fail and come back. `asked` counts what reached it."""

    remote: ClassVar[bool] = True

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self.asked = 0
        self.seen: list[bytes] = []
        """The tenant keys that it was to wrap."""
        self.failing = False
        self._open = threading.Event()
        self._open.set()

    def hang(self) -> None:
        """From now on calls stay without an answer."""
        self._open.clear()

    def answer(self) -> None:
        """Answer what hangs, and what comes."""
        self._open.set()

    def describe(self) -> str:
        return "the remote keyring"

    def holds(self, provider_key_id: str) -> bool:
        return self._keyring.holds(provider_key_id)

    def current(self) -> str:
        return self._keyring.current()

    def wrap(self, key: bytes, bound: Bound) -> tuple[str, bytes]:
        self.seen.append(bytes(key))
        self._serve()
        return self._keyring.wrap(key, bound)

    def unwrap(self, provider_key_id: str, wrapped: bytes, bound: Bound) -> bytes:
        self._serve()
        return self._keyring.unwrap(provider_key_id, wrapped, bound)

    def _serve(self) -> None:
        self.asked += 1
        self._open.wait()
        if self.failing:
            raise KeyServiceUnavailable("the remote keyring is broken: repeat in a moment")


class Clock:
    """Stands still until it is moved."""

    def __init__(self, start: float = 1000.0) -> None:
        self.now_s = start

    def seconds(self) -> float:
        """For what wants seconds."""
        return self.now_s

    def us(self) -> int:
        """For what wants microseconds since the epoch."""
        return round((1_750_000_000 + self.now_s) * 1_000_000)


def until(condition: Callable[[], bool], at_most_s: float = 30.0) -> None:
    """Wait until that holds, which another thread is about to bring about."""
    deadline_s = time.monotonic() + at_most_s
    while not condition():
        assert time.monotonic() < deadline_s, "it has not come about"
        time.sleep(0.001)
