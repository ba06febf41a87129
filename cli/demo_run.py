"""Runs the demo's portal through the real path: rounds of commands in a fixed order, each round waited for."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice

from session_ledger.cli.demo_portal import (
    AGENTS,
    PORTALS,
    SESSIONS,
    SHORT_IDLE_MS,
    Outcome,
    Visit,
    setting_up,
    user_settings,
    visits,
)
from session_ledger.domain.commands import Command
from session_ledger.domain.errors import SessionLedgerError
from session_ledger.domain.results import SessionStarted
from session_ledger.ledger.ledger import Ledger

VISITORS_AT_ONCE = 256


@dataclass(slots=True)
class Ran:
    """What the demo sent, and what came of it."""

    commands: int = 0
    sessions: int = 0
    events: int = 0
    seconds: float = 0.0
    """Of writing: without the wait for idle sessions and the sweep."""
    refused: Counter[str] = field(default_factory=Counter)
    """Error code to commands that were answered with it."""
    expired: int = 0
    example: tuple[str, str, str] | None = None
    """Tenant, user and id of a session, for the report's examples."""


def run(ledger: Ledger, seed: int, on_visit: Callable[[int], None]) -> Ran:
    """Play visits until there were 2,000 sessions. `on_visit` is told how many are over."""
    ran, randomly = Ran(), random.Random(seed)
    started, before = time.perf_counter(), sum(ledger.positions())
    _round(ledger, setting_up(), ran)
    for portal in PORTALS:
        for agent_type, capabilities, instances in AGENTS:
            for _ in range(instances):
                ledger.register_agent(portal.tenant, agent_type, capabilities=capabilities)
                ran.commands += 1
    _round(ledger, user_settings(randomly), ran)
    _play(ledger, randomly, ran, on_visit)
    ran.seconds = time.perf_counter() - started
    ran.events = sum(ledger.positions()) - before
    time.sleep(SHORT_IDLE_MS / 1000 + 0.1)  # what was left open times out
    ran.expired = sum(len(result.session_ids) for result in ledger.expire_due())
    return ran


def _play(ledger: Ledger, randomly: random.Random, ran: Ran, on_visit: Callable[[int], None]) -> None:
    waiting = visits(randomly)
    here: list[tuple[Visit, Command]] = []
    over = 0
    while ran.sessions < SESSIONS or here:
        room = min(VISITORS_AT_ONCE - len(here), SESSIONS - ran.sessions)
        here += [(visit, next(visit)) for visit in islice(waiting, room)]
        outcomes = _round(ledger, (command for _, command in here), ran)
        still: list[tuple[Visit, Command]] = []
        for (visit, _), outcome in zip(here, outcomes, strict=True):
            try:
                still.append((visit, visit.send(outcome)))
            except StopIteration:
                over += 1
        here = still
        on_visit(over)


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
