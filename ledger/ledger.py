"""The facade: a ledger, opened by URL, with every command as a method."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, cast

from session_ledger.domain.commands import Command
from session_ledger.domain.errors import LedgerClosed, NotOwner
from session_ledger.domain.ids import new_id
from session_ledger.domain.results import Result, SessionsExpired
from session_ledger.ledger.backend import Shards
from session_ledger.ledger.clocks import machine_clock_us
from session_ledger.ledger.guard import Guarded, bare
from session_ledger.ledger.methods import R
from session_ledger.ledger.methods_access import AccessMethods
from session_ledger.ledger.methods_agents import AgentMethods
from session_ledger.ledger.methods_audit import AuditMethods
from session_ledger.ledger.methods_erasure import ErasureMethods
from session_ledger.ledger.methods_quotas import QuotaMethods
from session_ledger.ledger.methods_sessions import SessionMethods
from session_ledger.ledger.principals import system_user
from session_ledger.security.access import OWNER, Over, Principal, Right

if TYPE_CHECKING:
    from session_ledger.ledger.aio import AsyncLedger
    from session_ledger.ledger.backend import Backend
    from session_ledger.ledger.log.port import Log
    from session_ledger.ledger.settings import Settings
    from session_ledger.security.port import Envelope


class Ledger(SessionMethods, AccessMethods, QuotaMethods, AgentMethods, AuditMethods, ErasureMethods):
    """A session ledger. Thread-safe; a context manager.

    Every command method waits until its events are durable and returns its result, with `partition` and `position`.
    All raise: Forbidden, InvalidInput (nothing was sent), Overloaded, NotOwner, AppendFailed (nothing was recorded;
    retriable), OutcomeUnknown (repeat with the `command_id` of the error), and the errors that each names.

    `command_id` (a UUIDv7) makes a command safe to repeat for ten minutes: the first outcome is answered again.
    """

    def __init__(
        self,
        backend: Backend,
        url: str,
        name: str,
        durability: str,
        close_timeout_s: float,
        clock_us: Callable[[], int],
        *,
        borrowed: bool = False,
    ) -> None:
        """Use `Ledger.open`, or `acting_as` of an open one (then it is `borrowed`, and closes nothing)."""
        self._backend: Backend = backend
        self._borrowed = borrowed
        self.url = url
        self.name = name
        self.durability = durability
        """One sentence: what an acknowledged command survives."""
        self._close_timeout_s = close_timeout_s
        self._clock_us = clock_us

    @classmethod
    def open(
        cls,
        url: str | None = None,
        *,
        settings: Settings | None = None,
        take_over: bool = False,
        clock_us: Callable[[], int] | None = None,
        principal: Principal | None = None,
        **options: object,
    ) -> Ledger:
        """Open a ledger for commands, and create it where there is none.

        `url`: ``sqlite:DIR``, ``kafka://HOST:PORT[,HOST:PORT]/NAME?partitions=8&replica=DIR`` or ``memory:``; None:
        that of the settings. This process becomes the owner; where another is, commands go to it through its socket.
        `take_over` fences the other owner off. `options` are fields of `Settings` to set for this ledger. `clock_us`
        gives microseconds since the epoch, UTC; None: this machine's clock. `principal`: who does what is done with it;
        None: the system's user, as the settings' `principals` say.

        Raises Misconfigured, LogUnavailable, LogTooNew, LogCorrupt, NotOwner (naming the holder), ClockUnreliable,
        Forbidden for a user who is no principal where there are some.
        """
        from session_ledger.ledger.open import open_ledger  # the place of wiring; imported late: it costs start-up time

        return open_ledger(cls, url, settings, take_over, clock_us or machine_clock_us, options, principal)

    # --- running ----------------------------------------------------------------------------------------------------

    def _new_id(self) -> bytes:
        return new_id(self._clock_us())

    def _run(self, command: Command, result: type[R]) -> R:
        return cast(R, self._backend.run(command, None))

    def submit(self, command: Command) -> Future[Result]:
        """Queue a command; a future of its result. Raises Forbidden, InvalidInput, Overloaded, LedgerClosed."""
        return self._backend.submit(command)

    def asubmit(self, command: Command) -> asyncio.Future[Result]:
        """The same for the running event loop: ``await ledger.asubmit(command)``."""
        return self._backend.in_loop(command)

    @cached_property
    def aio(self) -> AsyncLedger:
        """Every command method in its async form: ``await ledger.aio.add_message(...)``."""
        from session_ledger.ledger.aio import AsyncLedger

        return AsyncLedger(self)

    @property
    def is_owner(self) -> bool:
        """Whether this process owns the ledger; False: another one does, and commands go to it."""
        return isinstance(bare(self._backend), Shards)

    @property
    def principal(self) -> Principal:
        """Who does what is done with it. Where no principals are set: the system's user, an owner of every tenant."""
        return self._backend.principal if isinstance(self._backend, Guarded) else Principal(system_user(), OWNER)

    def acting_as(self, principal: Principal) -> Ledger:
        """The same open ledger with that principal's rights, for a service whose callers are principals of their own.

        Closing it closes nothing. Of one that acts for somebody already: what both may.
        """
        return self._lent(Guarded(self._backend if self._borrowed else bare(self._backend), principal))

    @property
    def itself(self) -> Ledger:
        """The same open ledger as the one who carries out what was asked for, and allowed, before; in the owner's
        process nothing is asked then. Closing it closes nothing. Of one that acts for somebody: that one.
        """
        return self if self._borrowed else self._lent(bare(self._backend))

    def _lent(self, backend: Backend) -> Ledger:
        return Ledger(
            backend, self.url, self.name, self.durability, self._close_timeout_s, self._clock_us, borrowed=True
        )

    @property
    def log(self) -> Log:
        """The open log, for consumers in this process (`Views.over`).

        Raises NotOwner where another process owns it, Forbidden where it acts for who may not read all of it.
        """
        if self._borrowed:
            self.principal.require(Right.READ_STRUCTURE, None, "read the log", Over.LEDGER)
        return self._own().log

    @property
    def envelope(self) -> Envelope:
        """What opens the log's sealed fields, likewise."""
        if self._borrowed:
            self.principal.require(Right.READ_CONTENT, None, "open content", Over.LEDGER)
        return self._own().envelope

    def _own(self) -> Shards:
        backend = bare(self._backend)
        if not isinstance(backend, Shards):
            raise NotOwner(f"{self.url} is owned by another process: open its log for reading instead")
        return backend

    def positions(self) -> list[int]:
        """The acknowledged position of each partition, the control log's last: all that is answered is at or below."""
        return self._backend.positions()

    def expire_due(self) -> list[SessionsExpired]:
        """One sweep: record the expiry of every session whose time is over. One result a user who had any."""
        return self._backend.expire_due()

    def close(self, timeout_s: float | None = None) -> None:
        """Serve what is queued, then give up ownership. Idempotent.

        Raises LedgerClosed naming how many commands were not served in time; each was answered, none was recorded.
        """
        if self._borrowed:
            return
        left = self._backend.close(self._close_timeout_s if timeout_s is None else timeout_s)
        if left:
            raise LedgerClosed(f"closed with {left} commands not served in time; nothing of them was recorded")

    def __enter__(self) -> Ledger:
        """The ledger itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()
