"""The one place that every command passes: a backend as one principal may use it."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import TYPE_CHECKING

from session_ledger.domain.commands import Command
from session_ledger.domain.errors import Forbidden
from session_ledger.domain.results import Result, SessionsExpired
from session_ledger.security.access import Over, Principal, Right, check_command

if TYPE_CHECKING:
    from session_ledger.ledger.backend import Backend


class Guarded:
    """A backend that refuses what the principal may not do, before anything is validated, looked up or sealed.

    Whoever may do everything (no principals are set) is given the backend itself: then nothing is asked.
    """

    def __init__(self, inner: Backend, principal: Principal) -> None:
        self.inner = inner
        self.principal = principal

    def run(self, command: Command, timeout_s: float | None) -> Result:
        check_command(self.principal, command)
        return self.inner.run(command, timeout_s)

    def submit(self, command: Command) -> Future[Result]:
        check_command(self.principal, command)
        return self.inner.submit(command)

    def in_loop(self, command: Command) -> asyncio.Future[Result]:
        check_command(self.principal, command)
        return self.inner.in_loop(command)

    def positions(self) -> list[int]:
        """For every principal: whoever reads waits for what was acknowledged. They are numbers, and no tenant's."""
        self.principal.require(Right.READ_STRUCTURE, None, "ask for positions", Over.MET)
        return self.inner.positions()

    def expire_due(self) -> list[SessionsExpired]:
        self.principal.require(Right.OPERATE, None, "record what has timed out", Over.LEDGER)
        return self.inner.expire_due()

    def close(self, timeout_s: float) -> int:
        return self.inner.close(timeout_s)


class Refused:
    """What a peer is given who may do nothing: every request is answered with why."""

    def __init__(self, why: str) -> None:
        self._why = why

    def submit(self, command: Command) -> Future[Result]:
        raise Forbidden(self._why)

    def positions(self) -> list[int]:
        raise Forbidden(self._why)

    def expire_due(self) -> list[SessionsExpired]:
        raise Forbidden(self._why)


def bare(backend: Backend) -> Backend:
    """The backend without its guards."""
    while isinstance(backend, Guarded):
        backend = backend.inner
    return backend
