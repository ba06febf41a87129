"""Runs the demo's portal through the real path: rounds of commands in a fixed order, each round waited for."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice

from session_ledger.cli.demo_portal import (
    SESSIONS,
    Outcome,
    Visit,
    agents,
    setting_up,
    user_settings,
    visits,
)
from session_ledger.domain.commands import Command, CreateSession, UserCommand
from session_ledger.domain.errors import SessionLedgerError
from session_ledger.domain.results import SessionStarted
from session_ledger.ledger.ledger import Ledger

VISITORS_AT_ONCE = 256
ROUND_US = 60_000_000  # a visitor does something every minute of the portal's time
OPEN_US = 4 * 3_600_000_000  # the portal opened so long ago and closes now


class PortalClock:
    """The portal's own time, so that an afternoon is played in seconds, and a seed gives the same afternoon again."""

    def __init__(self, closes_at: int) -> None:
        """`closes_at`: microseconds since the epoch, UTC."""
        self._closes_at = closes_at
        self._now = closes_at - OPEN_US

    def __call__(self) -> int:
        return self._now

    def next_round(self) -> None:
        """Some time goes by."""
        self._now = min(self._now + ROUND_US, self._closes_at)

    def close(self) -> None:
        """Closing time."""
        self._now = self._closes_at


Act = tuple[Visit, Command]
"""A visit and what it does next."""


@dataclass(slots=True)
class Ran:
    """What the demo sent, and what came of it."""

    commands: int = 0
    sessions: int = 0
    events: int = 0
    seconds: float = 0.0
    """Of writing."""
    refused: Counter[str] = field(default_factory=Counter)
    """Error code to commands that were answered with it."""
    expired: int = 0
    example: tuple[str, str, str] | None = None
    """Tenant, user and id of a session, for the report's examples."""


def run(ledger: Ledger, clock: PortalClock, seed: int, on_visit: Callable[[int], None]) -> Ran:
    """Play visits until there were 2,000 sessions. `clock` is the ledger's; `on_visit` is told how many are over."""
    ran, randomly = Ran(), random.Random(seed)
    started, before = time.perf_counter(), sum(ledger.positions())
    _round(ledger, setting_up(), ran)
    _round(ledger, agents(clock), ran)
    _round(ledger, user_settings(randomly), ran)
    _play(ledger, clock, randomly, ran, on_visit)
    clock.close()
    ran.expired = sum(len(result.session_ids) for result in ledger.expire_due())
    ran.seconds = time.perf_counter() - started
    ran.events = sum(ledger.positions()) - before
    return ran


def _play(
    ledger: Ledger, clock: PortalClock, randomly: random.Random, ran: Ran, on_visit: Callable[[int], None]
) -> None:
    waiting = visits(randomly)
    here: list[Act] = []
    over = 0
    while ran.sessions < SESSIONS or here:
        coming = sum(isinstance(command, CreateSession) for _, command in here)
        room = min(VISITORS_AT_ONCE - len(here), SESSIONS - ran.sessions - coming)
        here += [(visit, next(visit)) for visit in islice(waiting, room)]
        acting, still = _one_a_user(here)
        outcomes = _round(ledger, (command for _, command in acting), ran)
        for (visit, _), outcome in zip(acting, outcomes, strict=True):
            try:
                still.append((visit, visit.send(outcome)))
            except StopIteration:
                over += 1
        here = still
        clock.next_round()
        on_visit(over)


def _one_a_user(here: list[Act]) -> tuple[list[Act], list[Act]]:
    """(who acts in this round, who waits): a user does one thing at a time, so no two of a user's are simultaneous."""
    acting: dict[tuple[str, str], Act] = {}
    waiting: list[Act] = []
    for act in here:
        command = act[1]
        assert isinstance(command, UserCommand)
        if acting.setdefault((command.tenant, command.user), act) is not act:
            waiting.append(act)
    return list(acting.values()), waiting


def _round(ledger: Ledger, commands: Iterable[Command], ran: Ran) -> list[Outcome]:
    """Send all, then wait for all. Refusals are part of the play; what the ledger could not do is raised."""
    futures = [ledger.submit(command) for command in commands]
    outcomes: list[Outcome] = []
    for future in futures:
        try:
            outcome: Outcome = future.result()
        except SessionLedgerError as error:
            if error.code not in EXPECTED:
                raise
            ran.refused[error.code] += 1
            outcome = error
        if isinstance(outcome, SessionStarted):
            ran.sessions += 1
            ran.example = ran.example or (outcome.tenant, outcome.user, outcome.session_id)
        outcomes.append(outcome)
    ran.commands += len(outcomes)
    return outcomes


EXPECTED = frozenset(
    ("session_not_active", "session_limit_reached", "quota_exceeded", "no_agent_available", "agent_not_held")
)
"""What a busy portal's commands may be refused with."""
