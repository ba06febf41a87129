"""What changed in a session between two points."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from session_ledger.consumers.audit.index import Fact
from session_ledger.consumers.audit.state import SessionState, state_of
from session_ledger.domain.events import SessionCreated

LISTS = ("messages", "errors")  # shown by what was added


@dataclass(frozen=True, slots=True)
class Change:
    """A field that is not what it was."""

    field: str
    before: object
    after: object


@dataclass(frozen=True, slots=True)
class Difference:
    """The two states, what differs, and the facts in between, in order."""

    before: SessionState | None
    """None: the session was not there yet."""
    after: SessionState
    changes: tuple[Change, ...]
    facts: tuple[Fact, ...]


def difference(before: Sequence[Fact], after: Sequence[Fact]) -> Difference:
    """Of the facts up to one point and up to a later one. Raises SessionNotFound: it was not there at the later."""
    end = state_of(after)
    start = state_of(before) if any(isinstance(fact.event, SessionCreated) for fact in before) else None
    changes: list[Change] = []
    for field in dataclasses.fields(SessionState):
        if field.name.startswith("_"):
            continue
        old, new = None if start is None else getattr(start, field.name), getattr(end, field.name)
        if field.name in LISTS:
            old = 0 if old is None else len(old)
            new = len(new)
        if old != new:
            changes.append(Change(field.name, old, new))
    return Difference(start, end, tuple(changes), tuple(after[len(before) :]))
