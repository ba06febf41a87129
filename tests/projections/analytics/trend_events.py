"""Random events for trends, and the connection that holds them."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import duckdb
import pyarrow as pa

from session_ledger.projections.analytics.store import script

Fact = dict[str, Any]
"""A row of `events`, without what trends do not read."""

BEGIN = datetime(2026, 2, 26, 21, 17, 3, tzinfo=UTC)  # a Thursday: a month and a week end soon
SPAN_S = 5 * 86_400
MODELS = ("m-1", "m-2", "m-unpriced", None)
_TIMES = ("happened_at", "recorded_at")
_NUMBERS = (
    "version", "tokens_in", "tokens_out", "tokens_cached", "tokens_reasoning", "latency_ms", "count", "waited_ms",
    "position",
)  # fmt: skip


def connection_of(facts: Sequence[Fact], *, zone: str = "UTC") -> duckdb.DuckDBPyConnection:
    """A database of these events, with the macros."""
    db = duckdb.connect(":memory:", config={"threads": 1})
    db.execute(f"SET TimeZone = '{zone}'")
    db.execute(script("schema.sql"))
    db.execute(script("trends.sql"))
    if facts:
        rows = [{**fact, "position": position} for position, fact in enumerate(facts, 1)]
        names = sorted({name for row in rows for name in row})
        kinds = {**dict.fromkeys(_TIMES, pa.timestamp("us", tz="UTC")), **dict.fromkeys(_NUMBERS, pa.int64())}
        schema = pa.schema([(name, kinds.get(name, pa.string())) for name in names])
        db.register("batch", pa.Table.from_pylist(rows, schema=schema))
        db.execute("INSERT INTO events BY NAME SELECT 0 AS partition, uuid() AS event_id, * FROM batch")
        db.unregister("batch")
    return db


def fact(event_type: str, at: datetime, **fields: object) -> Fact:
    """An event at that time."""
    stream = fields.get("session_id") or fields.get("agent_id") or str(UUID(int=1))
    named = {"tenant": "t-0", "user": "u", "stream": stream, "version": 1, **fields}
    return {"event_type": event_type, "happened_at": at, "recorded_at": at, **named}


def world(seed: int, sessions: int = 40) -> list[Fact]:
    """What happens in five days: sessions with messages, errors and ends, agents, refusals; some of it on the hour."""
    made = _World(random.Random(seed))
    made.agents()
    for number in range(sessions):
        made.session(number)
    made.random.shuffle(made.facts)
    return made.facts


class _World:
    def __init__(self, source: random.Random) -> None:
        self.random = source
        self.facts: list[Fact] = []
        self.agent_ids = [str(UUID(int=900 + number)) for number in range(6)]

    def _time(self, after: datetime = BEGIN, span_s: int = SPAN_S) -> datetime:
        at = after + timedelta(microseconds=self.random.randrange(span_s * 1_000_000))
        if self.random.random() < 0.1:
            at = max(after, at.replace(minute=0, second=0, microsecond=0))
        return at

    def agents(self) -> None:
        for number, agent_id in enumerate(self.agent_ids):
            named = {"tenant": f"t-{number % 3}", "agent_id": agent_id, "agent_type": f"a-{number % 2}", "user": ""}
            at = self._time()
            self.facts.append(fact("AgentRegistered", at, **named))
            for _ in range(self.random.randrange(4)):
                at = self._time(at, 30_000)
                waited = self.random.choice((None, 0, self.random.randrange(9000)))
                self.facts.append(fact("AgentAcquired", at, waited_ms=waited, **named))
                at = self._time(at, 90_000)
                self.facts.append(fact("AgentReleased", at, reason="released", **named))
            if self.random.random() < 0.3:
                self.facts.append(fact("AgentRetired", self._time(at), reason="old", **named))

    def session(self, number: int) -> None:
        choice, tenant = self.random.choice, f"t-{self.random.randrange(3)}"
        named: Fact = {"tenant": tenant, "user": f"u-{self.random.randrange(5)}"}
        owned: Fact = {**named, "session_id": str(UUID(int=1 + number))}
        at = self._time()
        channel, domain = choice(("text", "voice")), choice((None, "a.example", "b.example"))
        self.facts.append(fact("SessionCreated", at, channel=channel, domain=domain, **owned))
        for _ in range(self.random.randrange(6)):
            self._message(self._time(at, 20_000), owned)
        if self.random.random() < 0.4:
            failed = {"severity": choice(("warning", "error")), "agent_id": choice((None, *self.agent_ids))}
            self.facts.append(fact("ErrorReported", self._time(at, 20_000), **failed, **owned))
        if self.random.random() < 0.3:
            refused = {"resource": choice(("tokens", "api_calls")), "count": self.random.randrange(1, 4)}
            self.facts.append(fact("QuotaRefused", self._time(at), **refused, **named))
            waited = choice((None, 1500))
            self.facts.append(
                fact("AgentRefused", self._time(at), agent_type="a-0", count=2, waited_ms=waited, **named)
            )
        self._end(at, owned)

    def _message(self, at: datetime, owned: Fact) -> None:
        choice, number = self.random.choice, self.random.randrange
        said: Fact = {"role": choice(("user", "assistant")), "topic": choice((None, "billing", "refunds"))}
        said |= {"model": choice(MODELS), "agent_id": choice((None, *self.agent_ids))}
        if self.random.random() < 0.8:
            tokens = number(1_000_000)
            said |= {"tokens_in": tokens, "tokens_out": number(1_000_000), "latency_ms": number(9000)}
            said |= {"tokens_cached": choice((None, number(tokens + 1))), "tokens_reasoning": choice((None, 3))}
        self.facts.append(fact("MessageAdded", at, **said, **owned))

    def _end(self, begun: datetime, owned: Fact) -> None:
        at, way = self._time(begun, 40_000), self.random.randrange(5)
        if way == 0:
            self.facts.append(fact("SessionEnded", at, reason="completed", **owned))
        elif way == 1:
            self.facts.append(fact("SessionEvicted", at, **owned))
        elif way == 2:  # recorded by a sweep long after it was due
            due = json.dumps({"due_at": at.isoformat()})
            recorded = at + timedelta(seconds=self.random.randrange(20_000))
            self.facts.append(fact("SessionExpired", recorded, reason="idle", details=due, **owned))
        elif way == 3:  # the caller's clock: over before it began
            self.facts.append(fact("SessionEnded", begun - timedelta(hours=3), reason="user", **owned))
