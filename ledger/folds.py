"""Folded state of a partition: what `decide` looks at. Users at work are in memory, the rest in the state file."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Protocol, TypeVar

from session_ledger.domain.account import Account, AgentRefusals, Refusals, evolve_account
from session_ledger.domain.agents import AgentPool, evolve_agents
from session_ledger.domain.attempts import Untold
from session_ledger.domain.commands import (
    Prepared,
    RegisterAgent,
    RevealContent,
    SessionCommand,
    SetLegalHold,
    UserCommand,
)
from session_ledger.domain.control import TenantSettings
from session_ledger.domain.decide import Context, Decision, decide
from session_ledger.domain.events import (
    AgentRetired,
    Event,
    SessionCreated,
    SessionEnded,
    SessionEvicted,
    SessionExpired,
)
from session_ledger.domain.ids import account_id
from session_ledger.domain.session import IMPORTED
from session_ledger.ledger.log.port import PartitionLog, Record
from session_ledger.ledger.statefile import FOLD_VERSION, LIVE, AccountKey, StateFile, StateFileDamaged, StateFileTaken
from session_ledger.schemas.codec import Codec

REPLAY_RECORDS = 2000  # records read at a time: some 1 MB
CHECKPOINT_ROWS = 256  # accounts written between two appends: about 2 ms, so that no command waits longer

T = TypeVar("T")
_logger = logging.getLogger("session_ledger.folds")
_STREAM_ENDS: dict[type[Event], str] = {
    SessionCreated: LIVE,
    SessionEnded: "ended",
    SessionExpired: "expired",
    SessionEvicted: "evicted",
    AgentRetired: "retired",
}


def _is_batch(records: list[Record], batch_id: bytes) -> bool:
    return bool(records) and records[0].batch_id == batch_id


class Folds(Protocol):
    """What a shard needs of a fold: decide on it, evolve it, bring it up from the log, keep it on disk."""

    position: int
    recorded_at: int
    uncounted: dict[AccountKey, None]
    """Users with refusals that no event tells yet."""
    damaged: bool
    """What is kept on disk can not be read: `recover` replaces it, or says whose it is."""

    def decide(self, prepared: Prepared, now: int, new_id: Callable[[], bytes]) -> Decision:
        """What the command leads to in the present state; changes nothing."""

    def evolve(self, event: Event, position: int) -> None:
        """Fold one event in."""

    def recover(self) -> None:
        """Drop what is in memory and fold again from the state file and the log."""

    def appended(self, batch_id: bytes) -> None:
        """The batch that ends at `position` is durable."""

    def maintain(self, idle: bool) -> None:
        """A bounded step of housekeeping between two appends."""

    def close(self, keep: bool) -> None:
        """Close; `keep`: write what is in memory first."""


class PartitionFolds:
    """Accounts, sessions, quotas and agents of one partition. Used by the shard's thread alone.

    Accounts live in two generations: a full young one becomes the old one, and what was in the old one and not used
    since leaves memory (written first, if it changed). So memory is bounded and a use costs one dictionary look-up.
    """

    def __init__(
        self,
        log: PartitionLog,
        codec: Codec,
        statefile: StateFile,
        log_id: str,
        settings_of: Callable[[str], TenantSettings],
        accounts_max: int,
        checkpoint_events: int,
    ) -> None:
        self._log = log
        self._codec = codec
        self._file = statefile
        self._log_id = log_id
        self._settings_of = settings_of
        self._generation_max = max(accounts_max // 2, 8)
        self._checkpoint_events = checkpoint_events
        self._file_failing = False
        self.damaged = False
        self._carried: list[tuple[AccountKey, tuple[str, str], Refusals | AgentRefusals | Untold]] = []
        self._forget()

    def _forget(self) -> None:
        self.position = 0
        self.recorded_at = 0
        self._young: dict[AccountKey, Account] = {}
        self._old: dict[AccountKey, Account] = {}
        self._agents = AgentPool()
        self._agents_position = 0
        self._dirty: dict[AccountKey, None] = {}  # changed since the checkpoint cycle began
        self._writing: dict[AccountKey, None] = {}  # the cycle's rows still to write
        self._cycle: int | None = None  # the position that the cycle will cover
        self._covered = 0
        self._maintained = 0
        self._last_batch_id = b""
        self._begun: dict[
            bytes, bytes
        ] = {}  # live sessions whose account is not yet in the file, to their account's id
        self._ended: dict[bytes, tuple[bytes, str]] = {}  # not yet in the file
        self.uncounted: dict[AccountKey, None] = {}  # accounts with refusals that no event tells yet

    # --- decide and evolve ----------------------------------------------------------------------------------------

    def decide(self, prepared: Prepared, now: int, new_id: Callable[[], bytes]) -> Decision:
        command = prepared.command
        user = command.user if isinstance(command, UserCommand) else ""
        key = (command.tenant, user)
        account = self._young.get(key) or self.account(key)
        ended, taken = None, False
        if isinstance(command, SessionCommand | RevealContent | SetLegalHold):
            if command.session_id is not None and command.session_id not in account.sessions:
                ended, taken = self._stream(command.session_id, key)
        elif isinstance(command, RegisterAgent) and command.agent_id is not None:
            ended, taken = self._stream(command.agent_id, key)
        settings = self._settings_of(command.tenant)
        context = Context(account, self._agents, settings, self._log.partition, ended, taken)
        decision = decide(context, prepared, now, new_id)
        if account.has_uncounted_refusals:
            self.uncounted[key] = None
        elif self.uncounted:
            self.uncounted.pop(key, None)
        return decision

    def evolve(self, event: Event, position: int) -> None:
        key = (event.tenant, event.user)
        account = self._young.get(key) or self.account(key)
        evolve_account(account, event, position)
        account.position = position
        evolve_agents(self._agents, event)
        self._dirty[key] = None
        self.position = position
        self.recorded_at = event.recorded_at
        if type(event) in _STREAM_ENDS:
            self._note_stream(event, key)

    def _note_stream(self, event: Event, key: AccountKey) -> None:
        """A session began, or a session or agent ended: neither stands in the file yet."""
        stream = event.originator_id
        if type(event) is SessionCreated:
            self._begun[stream] = account_id(*key)
            return
        self._begun.pop(stream, None)
        how = _STREAM_ENDS[type(event)]
        if type(event) is SessionEnded and event.reason == IMPORTED:
            how = IMPORTED
        self._ended[stream] = (account_id(*key), how)

    def account(self, key: AccountKey) -> Account:
        """The user's account, from memory or the file; a new one where there is none."""
        account = self._young.get(key)
        if account is None:
            account = self._old.pop(key, None) or self._kept(key) or Account(tenant=key[0], user=key[1])
            self._young[key] = account
        return account

    def _kept(self, key: AccountKey) -> Account | None:
        account = self._read(partial(self._file.account, key))
        if account is not None and account.has_uncounted_refusals:
            self.uncounted[key] = None
        return account

    def _stream(self, stream: bytes, key: AccountKey) -> tuple[str | None, bool]:
        """(how that user's session or that tenant's agent ended, whether the id is a stream of somebody else's)."""
        mine = account_id(*key)
        begun = self._begun.get(stream)
        if begun is not None:
            return None, begun != mine
        known = self._ended.get(stream) or self._read(partial(self._file.stream, stream))
        if known is None:
            return None, False
        owner, how = known
        return (None, True) if owner != mine else (None if how == LIVE else how, False)

    def _read(self, read: Callable[[], T]) -> T:
        """Read the file; where that fails, the shard is told to recover, which makes a new file or ends the shard."""
        try:
            return read()
        except (StateFileDamaged, StateFileTaken):
            self.damaged = True
            raise

    def due_accounts(self, now: int) -> list[AccountKey]:
        """Users who have a session whose time is over at `now`."""
        due = dict.fromkeys(self._read(partial(self._file.due, now)))
        for generation in (self._old, self._young):
            for key, account in generation.items():
                if account.due_at is not None and account.due_at <= now:
                    due[key] = None
                else:
                    due.pop(key, None)
        return list(due)

    def _turn(self) -> None:
        leaving, self._old, self._young = self._old, self._young, {}
        for key in [key for key in self.uncounted if key in leaving]:
            self._young[key] = leaving.pop(key)
        changed = [(key, leaving[key]) for key in leaving if key in self._dirty or key in self._writing]
        if changed and not self._written(changed):
            self._old.update(changed)

    # --- recovery and checkpoints ---------------------------------------------------------------------------------

    def recover(self) -> None:
        if not self.damaged:
            try:
                return self._recover()
            except StateFileDamaged as error:
                _logger.warning("the local state file is rebuilt from the log: %s", error)
        self._file.replace()
        self.damaged = False
        self._recover()

    def _recover(self) -> None:
        self._carried += self._uncounted_refusals()  # until a recovery comes to its end
        self._forget()
        log_id, fold_version, covered, (reached, batch_id) = self._file.identity()
        last = self._log.read(reached - 1, 1) if reached else []
        if (log_id, fold_version) != (self._log_id, FOLD_VERSION) or (reached and not _is_batch(last, batch_id)):
            if reached and log_id == self._log_id and not _is_batch(last, batch_id):
                _logger.warning(
                    "partition %d: the local state file has seen another batch at position %d than the log, which ends "
                    "at %d: records that were acknowledged may be lost, see that no copy was put back",
                    self._log.partition, reached, self._log.end(),
                )  # fmt: skip
            self._file.reset(self._log_id)
            covered = 0
        last = self._log.read(covered - 1, 1) if covered else []
        self._covered = self._maintained = self.position = covered
        self._last_batch_id = last[0].batch_id if last else b""
        self.recorded_at = self._decode(last[0]).recorded_at if last else 0
        self._agents_position, self._agents = self._file.agents()
        while records := self._log.read(self.position, REPLAY_RECORDS):
            for record in records:
                self._replay(record)
            self.maintain(idle=False)
        carried, self._carried = self._carried, []
        for key, place, told_later in carried:
            counting = self.account(key).counting.get(place)
            if counting is not None and counting.uncounted is None:
                counting.uncounted = told_later  # counted in the same place
                self.uncounted[key] = None

    def _uncounted_refusals(self) -> list[tuple[AccountKey, tuple[str, str], Refusals | AgentRefusals | Untold]]:
        """Refusals that were counted and stand in no event: they outlive the states that are dropped."""
        return [
            (key, place, counting.uncounted)
            for key in self.uncounted
            if (account := self._young.get(key) or self._old.get(key)) is not None
            for place, counting in account.counting.items()
            if counting.uncounted is not None
        ]

    def _decode(self, record: Record) -> Event:
        return self._codec.decode(record.value, record.topic, partition=self._log.partition, position=record.position)

    def _replay(self, record: Record) -> None:
        event = self._decode(record)
        position = record.position
        key = (event.tenant, event.user)
        account = self.account(key)
        if position > account.position:
            evolve_account(account, event, position)
            account.position = position
            self._dirty[key] = None
        if position > self._agents_position:
            evolve_agents(self._agents, event)
        if type(event) in _STREAM_ENDS:
            self._note_stream(event, key)
        self.position = position
        self.recorded_at = max(self.recorded_at, event.recorded_at)
        self._last_batch_id = record.batch_id

    def appended(self, batch_id: bytes) -> None:
        """The batch that ends at `position` is durable: checkpoints may cover it."""
        self._last_batch_id = batch_id

    def maintain(self, idle: bool) -> None:
        if len(self._young) >= self._generation_max:
            self._turn()
        if self._cycle is None:
            behind = self.position - self._covered
            if behind == 0 or (behind < self._checkpoint_events and not idle):
                return
            self._cycle = self.position
            self._writing, self._dirty = self._dirty, {}
        step = max(CHECKPOINT_ROWS, self.position - self._maintained)  # as fast as events come in, or it never ends
        self._maintained = self.position
        rows = []
        for key in list(islice(self._writing, step)):
            del self._writing[key]
            account = self._young.get(key) or self._old.get(key)
            if account is not None:  # else it has left memory, and was written then
                rows.append((key, account))
        if self._writing:
            done = self._written(rows)
        else:
            ended = [(session_id, owner, how) for session_id, (owner, how) in self._ended.items()]
            done = self._written(rows, ended, (self.position, self._agents), self._cycle)
        if not done:
            self._writing.update(dict.fromkeys(key for key, _ in rows))
            return
        if self._writing:
            return
        self._ended = {}
        self._covered = self._cycle
        self._cycle = None

    def _written(
        self,
        accounts: list[tuple[AccountKey, Account]],
        ended: list[tuple[bytes, bytes, str]] | None = None,
        agents: tuple[int, AgentPool] | None = None,
        covered: int | None = None,
    ) -> bool:
        """Write to the file; False where it can not be (a full disk): the states then stay in memory until it can."""
        try:
            self._file.write((self.position, self._last_batch_id), accounts, ended or (), agents, covered)
        except sqlite3.Error as error:
            if not isinstance(error, sqlite3.OperationalError):
                self.damaged = True
            if not self._file_failing:
                _logger.warning("the local state file can not be written, it is tried again later: %s", error)
            self._file_failing = True
            return False
        self._file_failing = False
        if self._begun:
            for _, account in accounts:
                for session_id in account.sessions:
                    self._begun.pop(session_id, None)
        return True

    def close(self, keep: bool) -> None:
        """Bring the file up to date, where that is possible and wanted, and close it."""
        with suppress(StateFileTaken):
            while keep and self.position > self._covered and not self._file_failing:
                self.maintain(idle=True)
        self._file.close()
