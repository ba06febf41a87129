"""Trends from a list of events, in plain Python: what the macros are compared with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from session_ledger.projections.analytics import prices
from session_ledger.projections.analytics.trends import floor_of
from tests.projections.analytics.trend_events import Fact

Values = tuple[Any, ...]
Buckets = dict[tuple[datetime, Any, Any], Values]
"""Values by start, slice and part."""
HOUR = timedelta(hours=1)
LATER = datetime(2100, 1, 1, tzinfo=UTC)
PRICES = prices.parse(
    json.dumps(
        [
            {"model": "m-1", "effective_from": "2026-01-01", "currency": "USD", "input_per_million": "2.5",
             "cached_input_per_million": "0.25", "output_per_million": "10"},
            {"model": "m-1", "effective_from": "2026-02-28T10:30:00Z", "currency": "USD",
             "input_per_million": "1.234567891", "cached_input_per_million": "0", "output_per_million": "7.77"},
            {"model": "m-2", "effective_from": "2026-02-28", "currency": "USD", "input_per_million": "0.333333333",
             "cached_input_per_million": "0.1", "output_per_million": "0.000000001"},
        ]
    ),
    "json",
)  # fmt: skip


class Plain:
    """The same trends from a list of events, slowly."""

    def __init__(self, facts: Sequence[Fact], since: datetime, until: datetime, every: str, by: str | None) -> None:
        self.facts, self.since, self.until, self.every, self.by = facts, since, until, every, by
        self.begun = {one["session_id"]: one for one in facts if one["event_type"] == "SessionCreated"}
        self.types = {one["agent_id"]: one["agent_type"] for one in facts if one["event_type"] == "AgentRegistered"}
        self.starts = [since]
        if every != "window":
            self.starts = [floor_of(since, every)]
            width = {"hour": HOUR, "day": 24 * HOUR, "week": 168 * HOUR}[every]
            while self.starts[-1] + width < until:
                self.starts.append(self.starts[-1] + width)

    def spans(self) -> Iterable[tuple[datetime, datetime, datetime]]:
        """Start of each bucket, and what of it lies in the window."""
        for start, after in pairwise([*self.starts, self.until]):
            yield start, max(start, self.since), after

    def slice(self, one: Fact) -> Any:
        """The value of the dimension."""
        if self.by in ("domain", "channel"):
            return self.begun.get(one.get("session_id"), {}).get(self.by)
        if self.by == "agent_type":
            return one.get("agent_type") or self.types.get(one.get("agent_id"))
        return None if self.by is None else one.get(self.by)

    def of(self, *types: str) -> list[Fact]:
        """Events of these types in the window."""
        return [
            one for one in self.facts if one["event_type"] in types and self.since <= one["happened_at"] < self.until
        ]

    def counted(
        self, facts: Sequence[Fact], make: Callable[[list[Fact]], Values], part: Callable[[Fact], Any] | None = None
    ) -> Buckets:
        """A value tuple of each bucket and series."""
        keys = {(self.slice(one), part(one) if part else None) for one in facts}
        if not keys and self.by is None:
            keys = {(None, None)}
        found: Buckets = {}
        for start, begin, end in self.spans():
            for key in keys:
                mine = [one for one in facts if begin <= one["happened_at"] < end
                        and (self.slice(one), part(one) if part else None) == key]  # fmt: skip
                found[start, *key] = make(mine)
        return found


def total(facts: Iterable[Fact], field: str, missing: int = 0) -> int:
    """The sum of a field."""
    return sum(missing if one.get(field) is None else one[field] for one in facts)


def quantiles(values: Sequence[float], *shares: float) -> Values:
    """Interpolated, and the maximum; None of nothing."""
    if not values:
        return (None,) * (len(shares) + 1)
    return (*(float(np.percentile(values, 100 * share)) for share in shares), max(values))


def end_of(one: Fact) -> datetime:
    """When a session was over by that event."""
    details = json.loads(str(one.get("details") or "{}"))
    at = datetime.fromisoformat(details["due_at"]) if "due_at" in details else one["happened_at"]
    assert isinstance(at, datetime)
    return at


ENDS = ("SessionEnded", "SessionExpired", "SessionEvicted")


def plain_ended(plain: Plain) -> Buckets:
    """Ends by reason, when they were due."""
    moved = [{**one, "happened_at": end_of(one)} for one in plain.facts if one["event_type"] in ENDS]
    inside = [one for one in moved if plain.since <= one["happened_at"] < plain.until]
    return plain.counted(
        inside, lambda mine: (len(mine),), lambda one: one.get("reason") or
        ("evicted" if one["event_type"] == "SessionEvicted" else None)
    )  # fmt: skip


def plain_live(plain: Plain) -> Buckets:
    """Each session, asked at each moment."""
    ends = {one["session_id"]: end_of(one) for one in plain.facts if one["event_type"] in ENDS}
    found: Buckets = {}
    keys = {plain.slice(one) for one in plain.begun.values()} if plain.by else {None}
    for start, moment, _ in plain.spans():
        for key in keys:
            live = [
                one for one in plain.begun.values()
                if plain.slice(one) == key and one["happened_at"] <= moment
                and (one["session_id"] not in ends or ends[one["session_id"]] > moment)
            ]  # fmt: skip
            found[start, key, None] = (len(live),)
    return {at: value for at, value in found.items() if plain.by is None or any(
        other[1] == at[1] and number[0] for other, number in found.items())}  # fmt: skip


def plain_cost(mine: Sequence[Fact]) -> Values:
    """Each message at its price, and the rest counted."""
    cost, priced, unpriced, currency = Decimal(0), 0, 0, False
    for one in mine:
        if one.get("tokens_in") is None and one.get("tokens_out") is None:
            continue
        cached, written, read = total([one], "tokens_cached"), total([one], "tokens_out"), total([one], "tokens_in")
        valid = [price for price in PRICES if price.model == one.get("model") and
                 price.effective_from <= one["happened_at"]]  # fmt: skip
        if not valid:
            unpriced += read + written
            continue
        price = max(valid, key=lambda price: price.effective_from)
        amounts = (price.input_per_million, price.cached_input_per_million, price.output_per_million)
        parts = zip((read - cached, cached, written), amounts, strict=True)
        cost += sum((n * amount for n, amount in parts), Decimal(0)) / 10**6
        priced, currency = priced + read + written, True
    if not currency and unpriced:
        return None, None, 0, unpriced
    return cost, cost.quantize(Decimal("0.01"), ROUND_HALF_UP), priced, unpriced


def plain_utilization(plain: Plain) -> Buckets:
    """Each lease and each registration, laid over each bucket."""
    spans: list[tuple[Any, str, datetime, datetime]] = []
    for agent_id in plain.types:
        own = [one for one in plain.facts if one.get("agent_id") == agent_id and one["event_type"].startswith("Agent")]
        mine = sorted(own, key=lambda one: one["happened_at"])
        retired = [one for one in mine if one["event_type"] == "AgentRetired"]
        first = mine[0]
        end = retired[0]["happened_at"] if retired else LATER
        spans.append((plain.slice(first), "known", first["happened_at"], end))
        for one, following in pairwise(mine):
            if one["event_type"] == "AgentAcquired":
                spans.append((plain.slice(one), "held", one["happened_at"], following["happened_at"]))
    seen = {key for key, _, begin, _ in spans if begin < plain.until} if plain.by else {None}
    found: Buckets = {}
    for start, begin, end in plain.spans():
        for key in seen:
            lasted = {"held": timedelta(), "known": timedelta()}
            for mine_key, what, first_at, last_at in spans:
                if mine_key == key:
                    lasted[what] += max(timedelta(), min(end, last_at) - max(begin, first_at))
            held, known = lasted["held"], lasted["known"]
            found[start, key, None] = (held / known if known else None, held.total_seconds(), known.total_seconds())
    return found


def plain_users(plain: Plain) -> Buckets:
    """Users of each bucket, and those whose first session was before it."""
    first: dict[tuple[object, Any], datetime] = {}
    for one in plain.begun.values():
        at, who = one["happened_at"], (one["tenant"], one["user"])
        first[who] = min(at, first.get(who, at))
    types = ("MessageAdded",) if plain.by in ("agent_type", "model") else ("MessageAdded", "SessionCreated")
    numbers = plain.counted(plain.of(*types), lambda mine: ({(one["tenant"], one["user"]) for one in mine},))
    found: Buckets = {}
    for key, (who,) in numbers.items():
        returning = sum(first[one] < key[0] for one in who)
        found[key] = (len(who), returning, len(who) - returning)
    return found


def plain_topics(plain: Plain) -> Buckets:
    """Messages of each topic, and their share."""
    numbers = plain.counted(plain.of("MessageAdded"), lambda mine: (len(mine),), lambda one: one.get("topic"))
    found: Buckets = {}
    for (start, sliced, topic), (count,) in numbers.items():
        every = sum(v[0] for (at, key, _), v in numbers.items() if (at, key) == (start, sliced))
        found[start, sliced, topic] = (count, 100 * count / every if every else 0)
    return found


def waits(mine: Sequence[Fact]) -> Values:
    """Acquired, refused, and how long they had waited."""
    told = [one["waited_ms"] for one in mine if one.get("waited_ms") is not None]
    acquired = [one for one in mine if one["event_type"] == "AgentAcquired"]
    refused = total((one for one in mine if one["event_type"] == "AgentRefused"), "count")
    return len(acquired), refused, len(told), *quantiles(told, 0.5, 0.95)


def latencies(mine: Sequence[Fact]) -> Values:
    """How many messages, and percentiles."""
    told = [one["latency_ms"] for one in mine if one.get("latency_ms") is not None]
    return len(told), *quantiles(told, 0.5, 0.9, 0.95, 0.99)


TOKENS = ("tokens_in", "tokens_cached", "tokens_out", "tokens_reasoning")
PLAIN: dict[str, Callable[[Plain], Buckets]] = {
    "sessions_started": lambda plain: plain.counted(plain.of("SessionCreated"), lambda mine: (len(mine),)),
    "sessions_ended": plain_ended,
    "sessions_live": plain_live,
    "messages": lambda plain: plain.counted(
        plain.of("MessageAdded"), lambda mine: (len(mine), sum(one["role"] == "user" for one in mine))
    ),
    "tokens": lambda plain: plain.counted(
        plain.of("MessageAdded"), lambda mine: tuple(total(mine, field) for field in TOKENS)
    ),
    "cost": lambda plain: plain.counted(
        [one for one in plain.of("MessageAdded") if one.get("tokens_in") is not None], plain_cost
    ),
    "latency": lambda plain: plain.counted(
        [one for one in plain.of("MessageAdded") if one.get("latency_ms") is not None], latencies
    ),
    "errors": lambda plain: plain.counted(
        plain.of("ErrorReported"), lambda mine: (len(mine),), lambda one: one.get("severity")
    ),
    "quota_refusals": lambda plain: plain.counted(
        plain.of("QuotaRefused"), lambda mine: (total(mine, "count"),), lambda one: one.get("resource")
    ),
    "agent_utilization": plain_utilization,
    "agent_waiting": lambda plain: plain.counted(plain.of("AgentAcquired", "AgentRefused"), waits),
    "users": plain_users,
    "topics": plain_topics,
}


def same(expected: Values, seen: Values) -> bool:
    """Equal; floats nearly."""
    for one, other in zip(expected, seen, strict=True):
        if isinstance(one, float) or isinstance(other, float):
            if one is None or other is None or float(str(one)) != pytest.approx(float(str(other))):
                return False
        elif one != other:
            return False
    return True
