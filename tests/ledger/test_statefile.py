"""The local state file: whatever happens to it, the states after opening are what the log folds to."""

from __future__ import annotations

import random
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from session_ledger.domain.account import Account
from session_ledger.domain.errors import LogUnavailable, NotOwner, SessionLedgerError
from session_ledger.ledger.ledger import Ledger
from session_ledger.ledger.statefile import FOLD_VERSION, StateFile, StateFileTaken
from tests.ledger.support import Clock, assert_folds_equal_the_log, judged, partition_folds, shard_of, stored

TENANTS = ("acme", "zeta")
USERS = tuple(f"u{number}" for number in range(25))
DEFECTS = ("error", "append_failed", "log_corrupt", "outcome_unknown")


def _open(place: Path, clock: Clock | None = None, name: str | None = None) -> Ledger:
    """A ledger that keeps few accounts in memory and writes its states often."""
    return Ledger.open(f"sqlite:{place}", name=name, clock_us=clock, accounts_in_memory=16, checkpoint_events=7)


class Caller:
    """Sends random commands of every kind; refusals are fine."""

    def __init__(self, seed: int, clock: Clock) -> None:
        self.rng, self.clock = random.Random(seed), clock
        self.sessions: list[tuple[str, str, str]] = []
        self.agents: list[tuple[str, str]] = []
        self.leases: list[tuple[str, str, str, str]] = []
        self.reservations: list[tuple[str, str, str]] = []

    def step(self, ledger: Ledger) -> None:
        """Some time, and one command."""
        if self.rng.random() < 0.2:
            self.clock.step(self.rng.choice([0.01, 0.5, 20, 400, 2_000]))
        who = self.rng.choice(TENANTS), self.rng.choice(USERS)
        kinds = [self._create, self._say, self._say, self._end, self._limits, self._agent, self._lease, self._return]
        kinds += [self._quota, self._consume, self._consume, self._release, self._sweep]
        try:
            self.rng.choice(kinds)(ledger, *who)
        except SessionLedgerError as error:
            if error.code in DEFECTS:
                raise

    def _create(self, ledger: Ledger, tenant: str, user: str) -> None:
        ttl_s = self.rng.choice([None, 300, 3_000])
        started = ledger.create_session(tenant, user, ttl_s=ttl_s, reuse=self.rng.random() < 0.1)
        self.sessions.append((tenant, user, started.session_id))

    def _session(self) -> tuple[str, str, str]:
        return self.rng.choice(self.sessions[-60:])

    def _say(self, ledger: Ledger, tenant: str, user: str) -> None:
        if self.sessions:
            ledger.add_message(*self._session(), role="user", content="hello")

    def _end(self, ledger: Ledger, tenant: str, user: str) -> None:
        if self.sessions:
            ledger.end_session(*self._session())

    def _limits(self, ledger: Ledger, tenant: str, user: str) -> None:
        ledger.set_user_limits(tenant, user, max_sessions=self.rng.choice([None, 1, 2]))

    def _agent(self, ledger: Ledger, tenant: str, user: str) -> None:
        if len(self.agents) > 6 and self.rng.random() < 0.5:
            ledger.retire_agent(*self.rng.choice(self.agents), force=True)
        self.agents.append((tenant, ledger.register_agent(tenant, "helper").agent_id))

    def _lease(self, ledger: Ledger, tenant: str, user: str) -> None:
        if self.sessions:
            session = self._session()
            self.leases.append((*session, ledger.acquire_agent(*session, "helper").agent_id))

    def _return(self, ledger: Ledger, tenant: str, user: str) -> None:
        if self.leases:
            ledger.release_agent(*self.rng.choice(self.leases))

    def _quota(self, ledger: Ledger, tenant: str, user: str) -> None:
        ledger.set_quota(tenant, user, "tokens", self.rng.choice([5, 50]), 600)

    def _consume(self, ledger: Ledger, tenant: str, user: str) -> None:
        reserve = self.rng.random() < 0.3
        status = ledger.consume_quota(tenant, user, "tokens", self.rng.randint(1, 4), reserve=reserve)
        if status.reservation_id is not None:
            self.reservations.append((tenant, user, status.reservation_id))

    def _release(self, ledger: Ledger, tenant: str, user: str) -> None:
        if self.reservations:
            ledger.release_quota(*self.rng.choice(self.reservations))

    def _sweep(self, ledger: Ledger, tenant: str, user: str) -> None:
        ledger.expire_due()


@pytest.mark.parametrize("seed", range(8))
def test_states_after_any_restart_are_what_the_log_folds_to(tmp_path: Path, seed: int) -> None:
    """Random commands with tiny memory; restarts after a clean close, and from a copy of the files taken mid-way."""
    clock = Clock()
    caller = Caller(seed, clock)
    place = tmp_path / "0"
    ledger = _open(place, clock, "n")
    restarts = since = 0
    for _ in range(500):
        caller.step(ledger)
        since += 1
        folds = partition_folds(ledger)
        assert since < 100 or len(folds._young) + len(folds._old) <= 24  # a comparison has looked at all of them
        luck = caller.rng.random()
        if luck < 0.02:
            restarts, since = restarts + 1, 0
            if luck < 0.01:
                ledger.close()
            else:  # as if the machine had lost its power now
                crashed = tmp_path / str(restarts)
                _copy_of_running(place, crashed)
                ledger.close()
                place = crashed
            ledger = _open(place, clock)
            assert_folds_equal_the_log(ledger)
    assert_folds_equal_the_log(ledger)
    judged(stored(ledger))
    ledger.close()
    assert restarts > 2


@pytest.fixture
def clock() -> Clock:
    """Starts now, is moved by callers."""
    return Clock()


@pytest.fixture
def filled(directory: Path, clock: Clock) -> Path:
    """The directory of a closed ledger with the traces of 300 commands."""
    caller = Caller(1, clock)
    with _open(directory, clock) as ledger:
        for _ in range(300):
            caller.step(ledger)
    return directory


def _change(directory: Path, sql: str, *values: object) -> None:
    with sqlite3.connect(directory / "state-0.db") as connection:
        connection.execute(sql, values)
    connection.close()


def _foreign(directory: Path) -> None:
    _change(directory, "UPDATE meta SET value = 'another' WHERE name = 'log_id'")


def _outdated(directory: Path) -> None:
    _change(directory, "UPDATE meta SET value = ? WHERE name = 'fold_version'", FOLD_VERSION - 1)


def _ahead(directory: Path) -> None:
    _change(directory, "UPDATE meta SET value = value + 1000 WHERE name = 'covered'")


def _another_batch(directory: Path) -> None:
    _change(directory, "UPDATE meta SET value = x'00112233445566778899aabbccddeeff' WHERE name = 'batch_id'")


def _deleted(directory: Path) -> None:
    (directory / "state-0.db").unlink()


def _emptied(directory: Path) -> None:
    (directory / "state-0.db").write_bytes(b"")


def _garbage(directory: Path) -> None:
    (directory / "state-0.db").write_bytes(random.Random(1).randbytes(20_000))


def _cut(directory: Path) -> None:
    path = directory / "state-0.db"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _damaged_pages(directory: Path) -> None:
    path = directory / "state-0.db"
    content = bytearray(path.read_bytes())
    for start in range(4096, len(content), 4096):
        content[start : start + 2000] = random.Random(start).randbytes(2000)
    path.write_bytes(content)


def _damaged_rows(directory: Path) -> None:
    _change(directory, "UPDATE accounts SET state = x'ff00ff00'")


def _damaged_agents(directory: Path) -> None:
    _change(directory, "UPDATE agents SET state = x'ff00ff00'")


def _damaged_meta(directory: Path) -> None:
    _change(directory, "UPDATE meta SET value = 'many' WHERE name = 'covered'")


def _without_tables(directory: Path) -> None:
    for table in ("accounts", "agents", "streams", "meta"):
        _change(directory, f"DROP TABLE {table}")
    _change(directory, "CREATE TABLE accounts (x)")


WRONGS = [_foreign, _outdated, _ahead, _another_batch, _deleted, _emptied, _garbage, _cut, _damaged_pages]
WRONGS += [_damaged_rows, _damaged_agents, _damaged_meta, _without_tables]


@pytest.mark.parametrize("spoil", WRONGS, ids=lambda spoil: spoil.__name__.strip("_"))
def test_a_file_that_is_not_right_is_rebuilt(filled: Path, clock: Clock, spoil: Callable[[Path], None]) -> None:
    """Of another log, of other folding code, ahead of the log, gone, damaged: one command at most must be repeated."""
    spoil(filled)
    with _open(filled, clock) as ledger:
        failed = 0
        for number, user in enumerate(USERS):
            try:
                ledger.create_session(TENANTS[number % 2], user)
            except LogUnavailable:
                failed += 1
                ledger.create_session(TENANTS[number % 2], user)
        assert failed <= 1
        ledger.expire_due()
        assert_folds_equal_the_log(ledger)
    with _open(filled, clock) as ledger:
        assert_folds_equal_the_log(ledger)


def test_a_file_that_was_deleted_after_a_crash_is_rebuilt(tmp_path: Path) -> None:
    """Its write-ahead log, which a crash leaves behind, is not taken for the new file's."""
    place, crashed = tmp_path / "ledger", tmp_path / "crashed"
    with _open(place) as ledger:
        for number in range(60):
            ledger.create_session("t", f"u{number}")
        _copy_of_running(place, crashed)
    assert (crashed / "state-0.db-wal").stat().st_size > 0
    (crashed / "state-0.db").unlink()
    with _open(crashed, name="ledger") as ledger:
        assert_folds_equal_the_log(ledger)


def test_rows_beyond_a_log_that_was_put_back_are_not_believed(tmp_path: Path) -> None:
    """A backup of the log beside a younger state file: what the file knows and the log does not is dropped."""
    place = tmp_path / "ledger"
    with Ledger.open(f"sqlite:{place}", accounts_in_memory=16, checkpoint_events=1_000_000) as ledger:
        for number in range(5):
            ledger.create_session("t", f"early{number}")
    shutil.copy(place / "log.db", tmp_path / "log.db")
    crashed = tmp_path / "crashed"
    with Ledger.open(f"sqlite:{place}", accounts_in_memory=16, checkpoint_events=1_000_000) as ledger:
        for number in range(100):  # most leave memory, so their rows are written, and `covered` stays behind
            ledger.create_session("t", f"late{number}")
        _copy_of_running(place, crashed)
    for name in ("log.db", "log.db-wal", "log.db-shm"):
        (crashed / name).unlink(missing_ok=True)
    shutil.copy(tmp_path / "log.db", crashed / "log.db")
    with _open(crashed, name="ledger") as ledger:
        for number in range(100):
            session = ledger.create_session("t", f"late{number}")
            assert session.evicted == ()
        assert_folds_equal_the_log(ledger)


@pytest.mark.kafka
def test_a_former_owner_leaves_the_states_of_its_follower_alone(kafka: str, ledger_name: str, directory: Path) -> None:
    """One that was followed folds again from the file that both use, where the log ends earlier for it: it ends."""
    url = f"kafka://{kafka}/{ledger_name}?partitions=1&replica={directory}"
    with Ledger.open(url) as first:
        sessions = [first.create_session("t", user).session_id for user in USERS]
        with Ledger.open(url, take_over=True) as second:
            session = second.create_session("t", "late").session_id
            folds = partition_folds(second)
            deadline_s = time.monotonic() + 10
            while folds._covered < folds.position:
                assert time.monotonic() < deadline_s
                time.sleep(0.01)

            def recovered() -> None:
                with pytest.raises(NotOwner, match="taken by another process"):
                    partition_folds(first).recover()
                for user, one in zip(USERS, sessions, strict=True):
                    second.add_message("t", user, one, role="user", content="hello")

            shard_of(first).call(recovered)
            second.end_session("t", "late", session)
            judged(stored(second))
            assert_folds_equal_the_log(second)


@pytest.mark.parametrize("spoilt", [False, True], ids=["whole", "spoilt"])
def test_a_file_is_its_last_openers(tmp_path: Path, spoilt: bool) -> None:
    """Whoever had it before can not read, write, reset or replace it, and what the last one wrote stays."""
    path = tmp_path / "state-0.db"
    first = StateFile(path)
    first.reset("log")
    first.write((3, b"a"), [(("t", "u"), Account(tenant="t", user="u", position=3))], covered=3)
    if spoilt:
        path.write_bytes(b"spoilt" * 1000)
        path.with_name("state-0.db-wal").write_bytes(b"")
    second = StateFile(path)
    if spoilt:
        second.reset("log")
        second.write((3, b"a"), [(("t", "u"), Account(tenant="t", user="u", position=3))], covered=3)
    attempts: list[Callable[[], object]] = [
        first.replace,
        lambda: first.reset("log"),
        lambda: first.write((9, b"z"), [], covered=9),
        first.identity,
        lambda: first.account(("t", "u")),
        lambda: first.account(("t", "nobody")),
        lambda: first.due(0),
    ]
    for attempt in attempts[:1] if spoilt else attempts:
        with pytest.raises(StateFileTaken):
            attempt()
    assert ("log", FOLD_VERSION, 3, (3, b"a")) == second.identity()
    assert second.account(("t", "u")) is not None
    assert second.account(("t", "nobody")) is None
    first.close()
    second.close()
    with closing(StateFile(path)) as third:
        assert ("log", FOLD_VERSION, 3, (3, b"a")) == third.identity()


def test_a_file_whose_owner_stopped_in_the_middle_of_a_write(tmp_path: Path) -> None:
    """The next owner does not wait for it: it gets a file of its own."""
    path = tmp_path / "state-0.db"
    first = StateFile(path)
    first.reset("log")
    first._connection.execute("BEGIN IMMEDIATE")
    second = StateFile(path)
    assert 0 == second.identity()[1]
    second.reset("log")
    first._connection.execute("COMMIT")
    with pytest.raises(StateFileTaken):
        first.replace()
    first.close()
    second.close()


def test_files_are_for_the_owner_alone(filled: Path, clock: Clock) -> None:
    """Every file of the ledger has mode 0600, those of SQLite's write-ahead log included."""
    with Ledger.open(f"sqlite:{filled}", clock_us=clock) as ledger:
        ledger.create_session("t", "u")
        modes = {path.name: oct(path.stat().st_mode & 0o777) for path in filled.iterdir() if path.is_file()}
    assert {"state-0.db", "state-0.db-wal", "log.db", "log.db-wal", "vault.db", "keyring.json"} <= set(modes)
    assert {"0o600"} == set(modes.values()), modes


def _copy_of_running(place: Path, to: Path) -> None:
    """The files as a crash would leave them now: no command is under way, housekeeping may be."""
    to.mkdir()
    for name in ("log.db", "vault.db", "state-0.db"):
        for suffix in ("", "-wal"):
            if (place / (name + suffix)).exists():
                shutil.copy(place / (name + suffix), to / (name + suffix))
    shutil.copy(place / "keyring.json", to / "keyring.json")
