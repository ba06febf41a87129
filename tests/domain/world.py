"""A ledger without log, schemas or seals: commands are decided and folded in memory, in one partition."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace

import msgspec

from session_ledger.domain import commands as c
from session_ledger.domain.account import Account
from session_ledger.domain.agents import AgentPool
from session_ledger.domain.control import DEFAULTS, TenantSettings
from session_ledger.domain.decide import Context, Decision, decide, evolve, result_of
from session_ledger.domain.errors import SessionLedgerError
from session_ledger.domain.events import (
    AgentRetired,
    Event,
    SessionCreated,
    SessionEnded,
    SessionEvicted,
    SessionExpired,
)
from session_ledger.domain.ids import format_id, slot_of_user, with_slot
from session_ledger.domain.results import Result
from session_ledger.domain.session import IMPORTED
from session_ledger.domain.validate import Rules, validate

START = 1_700_000_000_000_000
SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
KEY_ID = b"k" * 16
TENANT, USER = "acme", "ada"
RULES = Rules()

_ENDINGS = {SessionEnded: "ended", SessionExpired: "expired", SessionEvicted: "evicted", AgentRetired: "retired"}


class Ids:
    """Fresh UUIDv7 ids, the same in every run."""

    def __init__(self) -> None:
        self.made = 0

    def at(self, now: int) -> bytes:
        """The next id, for that time."""
        self.made += 1
        random = self.made.to_bytes(10, "big")
        return (now // 1000).to_bytes(6, "big") + bytes([0x70, random[1], 0x80]) + random[3:]


@dataclass
class Outcome:
    """What one command led to."""

    events: list[Event]
    error: SessionLedgerError | None
    result: Result | None

    def ok(self) -> Result:
        """The result, where there is one."""
        if self.error is not None:
            raise self.error
        assert self.result is not None
        return self.result


def texts_of(command: c.Command | c.ImportedMessage) -> dict[str, bytes]:
    """Stand-ins for ciphertexts: the plaintext's repr."""
    names = ("title", "context", "metadata", "ip_address", "content", "parts", "audio_url", "note", "message")
    given = {name: getattr(command, name, None) for name in names}
    return {f"sealed_{name}": repr(value).encode() for name, value in given.items() if value not in (None, {})}


@dataclass
class World:
    """`run` decides a command at `now` and folds what it led to; `events` is the log, position 1 first."""

    settings: TenantSettings = DEFAULTS
    now: int = START
    ids: Ids = field(default_factory=Ids)
    accounts: dict[tuple[str, str], Account] = field(default_factory=dict)
    agents: AgentPool = field(default_factory=AgentPool)
    events: list[Event] = field(default_factory=list)
    ended: dict[bytes, str] = field(default_factory=dict)
    owners: dict[bytes, tuple[str, str]] = field(default_factory=dict)
    """Of sessions and of agents that were retired; live agents are in the pool."""

    def account(self, tenant: str = TENANT, user: str = USER) -> Account:
        """The account of a user, made where there is none."""
        return self.accounts.setdefault((tenant, user), Account(tenant, user))

    def prepare(self, command: c.Command) -> c.Prepared:
        """What the edge would make of a command."""
        validate(command, RULES)
        command_id = command.command_id or self.ids.at(self.now)
        body = repr(replace(command, command_id=None)).encode()
        digest = hashlib.blake2b(body, digest_size=16).digest()
        sealed: list[c.Sealed] = [c.Sealed(self.ids.at(self.now), KEY_ID, {}, texts_of(command))]
        if isinstance(command, c.ImportSession):
            sealed += [c.Sealed(self.ids.at(self.now), KEY_ID, {}, texts_of(message)) for message in command.messages]
            if command.final:
                sealed.append(c.Sealed(self.ids.at(self.now), KEY_ID, {}, {}))
        session_id = None
        if isinstance(command, c.CreateSession):
            session_id = with_slot(self.ids.at(self.now), slot_of_user(command.tenant, command.user))
        return c.Prepared(command, command_id, digest, tuple(sealed), session_id, b"c" * 32)

    def decide(self, prepared: c.Prepared) -> Decision:
        """Decide, changing nothing."""
        command = prepared.command
        who = (command.tenant, command.user if isinstance(command, c.UserCommand) else "")
        named = getattr(command, "session_id", None) or getattr(command, "agent_id", None) or b""
        taken = self.owners.get(named, who) != who
        ended = None if taken else self.ended.get(named)
        context = Context(self.account(*who), self.agents, self.settings, 0, ended, taken)
        return decide(context, prepared, self.now, lambda: self.ids.at(self.now))

    def fold(self, events: Sequence[Event]) -> None:
        """Append events to the log and fold them."""
        for event in events:
            self.events.append(event)
            evolve(self.account(event.tenant, event.user), self.agents, event, len(self.events))
            if isinstance(event, SessionCreated | AgentRetired):
                self.owners[event.originator_id] = (event.tenant, event.user)
            if isinstance(event, SessionEnded) and event.reason == IMPORTED:
                self.ended[event.originator_id] = IMPORTED
            elif type(event) in _ENDINGS:
                self.ended[event.originator_id] = _ENDINGS[type(event)]

    def run(self, command: c.Command) -> Outcome:
        """Decide, fold and answer one command, as a shard does."""
        return self.run_prepared(self.prepare(command))

    def run_prepared(self, prepared: c.Prepared) -> Outcome:
        """Likewise, for a command that comes again with the same id and body."""
        decision = self.decide(prepared)
        self.fold(decision.events)
        if decision.error is not None:
            return Outcome(decision.events, decision.error, None)
        if decision.repeat is not None:
            first, count = decision.repeat
            before = self.events[first - 1 : first - 1 + count]
            result = result_of(prepared.command, before, 0, first + count - 1)
            return Outcome([], None, replace(result, repeated=True))
        if decision.result is not None:
            return Outcome(decision.events, None, replace(decision.result, partition=0, position=len(self.events)))
        result = result_of(prepared.command, decision.events, 0, len(self.events))
        return Outcome(decision.events, None, replace(result, command_id=format_id(prepared.command_id)))

    def create(self, user: str = USER, **fields: object) -> bytes:
        """Create a session and return its id."""
        outcome = self.run(c.CreateSession(tenant=TENANT, user=user, **fields))  # type: ignore[arg-type]
        outcome.ok()
        return outcome.events[-1].originator_id

    def say(self, session_id: bytes, content: str = "hello", user: str = USER) -> Outcome:
        """Add a message."""
        return self.run(c.AddMessage(tenant=TENANT, user=user, session_id=session_id, role="user", content=content))

    def folded_anew(self) -> World:
        """Another world with the same settings and time, folded from the events alone."""
        other = World(self.settings, self.now)
        other.fold(self.events)
        return other

    def dump(self) -> bytes:
        """The folded states as the state file would hold them; refusals that no event tells yet are left out."""
        accounts = {f"{tenant}/{user}": deepcopy(a) for (tenant, user), a in self.accounts.items() if a.position}
        for account in accounts.values():
            for counting in account.counting.values():
                counting.uncounted = None
        return msgspec.msgpack.encode([sorted(accounts.items()), self.agents])
