"""Calls to a service that may be slow: one at a time for a purpose, shared by all who wait, and waited for so long."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import TypeVar, cast

from session_ledger.domain.errors import KeyServiceUnavailable, SessionLedgerError

FLIGHTS_MAX = 32  # threads that may hang in calls at the same time

T = TypeVar("T")


class Flights:
    """Makes calls in threads of their own. A call that nobody waits for any more goes on, and the next find it."""

    def __init__(self, wait_s: float, service: str) -> None:
        """`wait_s`: how long a caller waits at most; `service`: who is asked, for errors."""
        self._wait_s = wait_s
        self._service = service
        self._lock = threading.Lock()
        self._under_way: dict[Hashable, Future[object]] = {}

    def call(self, purpose: Hashable, function: Callable[[], T]) -> T:
        """What the function returns or raises. Raises KeyServiceUnavailable where that takes too long."""
        future = self.begin(purpose, function)
        try:
            return cast("T", future.result(self._wait_s))
        except TimeoutError:
            raise KeyServiceUnavailable(
                f"{self._service} has not answered within {self._wait_s:g} s: repeat in a moment"
            ) from None
        except SessionLedgerError as error:
            raise copy.copy(error) from error  # others who wait raise it too, each with frames of its own

    def begin(self, purpose: Hashable, function: Callable[[], object]) -> Future[object]:
        """Begin the call, or join the one that is under way. Raises KeyServiceUnavailable where too many hang."""
        with self._lock:
            future = self._under_way.get(purpose)
            if future is not None:
                return future
            if len(self._under_way) >= FLIGHTS_MAX:
                raise KeyServiceUnavailable(f"{FLIGHTS_MAX} calls to {self._service} hang: repeat in a moment")
            future = self._under_way[purpose] = Future()
            threading.Thread(
                target=self._make, args=(purpose, function, future), name="session-ledger-key-service", daemon=True
            ).start()
            return future

    def _make(self, purpose: Hashable, function: Callable[[], object], future: Future[object]) -> None:
        try:
            result, error = function(), None
        except BaseException as raised:  # noqa: BLE001 - handed to those who wait
            result, error = None, raised
        with self._lock:
            del self._under_way[purpose]
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
