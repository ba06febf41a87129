"""What callers, states and log are left with when the log, the vault or the disk fails in the middle of an append."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from session_ledger.domain.commands import AddMessage, CreateSession
from session_ledger.domain.errors import (
    AppendFailed,
    KeyNotStored,
    LogUnavailable,
    NotOwner,
    OutcomeUnknown,
    SessionLedgerError,
)
from session_ledger.domain.events import MessageAdded, SessionCreated
from session_ledger.domain.ids import parse_id
from session_ledger.domain.results import MessageRecorded
from session_ledger.ledger.ledger import Ledger
from session_ledger.ledger.log.port import PartitionLog, Record
from tests.ledger.support import (
    assert_folds_equal_the_log,
    events,
    fresh_id,
    judged,
    keys_in_vault,
    partition_folds,
    shards_of,
    stored,
)

Fault = Exception | Callable[[], None]


class Faults:
    """Stands before a real partition: what is queued happens to the next calls, then all is as it was."""

    def __init__(self, partition: PartitionLog) -> None:
        self._append, self._settle = partition.append, partition.settle
        self._prove_ownership = partition.prove_ownership
        self.before: deque[Exception] = deque()
        """Raised by appends, nothing written."""
        self.after: deque[Exception] = deque()
        """Raised by appends after they were written."""
        self.settling: deque[Exception] = deque()
        self.proving: deque[Exception] = deque()
        self.appending = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        self.appends = 0
        partition.append = self.append  # type: ignore[method-assign]
        partition.settle = self.settle  # type: ignore[method-assign]
        partition.prove_ownership = self.prove_ownership  # type: ignore[method-assign]

    def append(self, records: Sequence[Record]) -> None:
        self.appends += 1
        self.appending.set()
        assert self.go_on.wait(30)
        if self.before:
            raise self.before.popleft()
        self._append(records)
        if self.after:
            raise self.after.popleft()

    def settle(self, batch_id: bytes, first_position: int) -> bool:
        if self.settling:
            raise self.settling.popleft()
        return self._settle(batch_id, first_position)

    def prove_ownership(self) -> None:
        if self.proving:
            raise self.proving.popleft()
        self._prove_ownership()

    def hold(self) -> None:
        """Hold up the next append until `release`."""
        self.appending.clear()
        self.go_on.clear()

    def release(self) -> None:
        """Let appends go."""
        self.go_on.set()


@pytest.fixture(params=["memory", "sqlite"])
def ledger(request: pytest.FixtureRequest, sqlite_url: str) -> Iterator[Ledger]:
    """A ledger whose user "u" has one session with one message."""
    url = "memory:" if request.param == "memory" else sqlite_url
    ledger = Ledger.open(url, settle_timeout_s=0.5, accounts_in_memory=16, checkpoint_events=10)
    yield ledger
    ledger.close()


@pytest.fixture
def faults(ledger: Ledger) -> Faults:
    """The faults of its partition."""
    return Faults(shards_of(ledger).log.partitions[0])


def test_a_refused_append_leaves_nothing_and_the_next_command_sees_the_state_before(
    ledger: Ledger, faults: Faults
) -> None:
    """AppendFailed: a retriable error with the command's id; a retry with that id does it once."""
    session = ledger.create_session("t", "u").session_id
    faults.before.append(AppendFailed("disk full"))
    with pytest.raises(AppendFailed) as failed:
        ledger.add_message("t", "u", session, role="user", content="hi")
    assert failed.value.command_id is not None
    assert 1 == len(events(ledger))
    again = ledger.add_message("t", "u", session, role="user", content="hi", command_id=failed.value.command_id)
    assert (1, 2, False) == (again.message_number, again.position, again.repeated)
    assert failed.value.command_id == again.command_id
    assert_folds_equal_the_log(ledger)


def test_every_command_of_a_refused_append_is_told_with_its_own_id(ledger: Ledger, faults: Faults) -> None:
    """Commands that shared the append each get the error, each with its own command id, and none is recorded."""
    session = ledger.create_session("t", "u").session_id
    faults.hold()
    first = ledger.submit(_message(session, "first"))
    assert faults.appending.wait(10)
    others = [ledger.submit(_message(session, str(number))) for number in range(20)]
    faults.before.extend([AppendFailed("disk full")] * 2)
    faults.release()
    errors = [future.exception(10) for future in (first, *others)]
    assert all(isinstance(error, AppendFailed) for error in errors)
    assert 21 == len({error.command_id for error in errors if isinstance(error, SessionLedgerError)})
    assert 1 == len(events(ledger))
    assert 1 == ledger.add_message("t", "u", session, role="user", content="hi").message_number
    assert_folds_equal_the_log(ledger)


def test_an_append_of_unknown_outcome_that_stands_is_acknowledged(ledger: Ledger, faults: Faults) -> None:
    """OutcomeUnknown after the write: the batch is found, and the caller never learns of it."""
    faults.after.append(OutcomeUnknown("connection lost"))
    assert 1 == ledger.create_session("t", "u").position
    assert [SessionCreated] == [type(event) for event in events(ledger)]
    assert_folds_equal_the_log(ledger)


def test_an_append_of_unknown_outcome_that_does_not_stand_was_refused(ledger: Ledger, faults: Faults) -> None:
    """OutcomeUnknown before the write: the batch is not found, so the caller is told that nothing was recorded."""
    faults.before.append(OutcomeUnknown("connection lost"))
    with pytest.raises(AppendFailed) as failed:
        ledger.create_session("t", "u")
    assert [] == events(ledger)
    again = ledger.create_session("t", "u", command_id=failed.value.command_id)
    assert (1, False) == (again.position, again.repeated)
    assert_folds_equal_the_log(ledger)


@pytest.mark.parametrize("written", [True, False])
def test_an_outcome_is_looked_for_until_the_log_can_tell(ledger: Ledger, faults: Faults, written: bool) -> None:
    """While `settle` can not tell it is asked again; the answer is that of the log."""
    (faults.after if written else faults.before).append(OutcomeUnknown("connection lost"))
    faults.settling.extend([LogUnavailable("away")] * 2)
    if written:
        assert 1 == ledger.create_session("t", "u").position
    else:
        with pytest.raises(AppendFailed):
            ledger.create_session("t", "u")
    assert int(written) == len(events(ledger))
    assert_folds_equal_the_log(ledger)


@pytest.mark.parametrize("written", [True, False])
def test_an_outcome_that_stays_unknown_is_told_and_a_repeat_finds_out(
    ledger: Ledger, faults: Faults, written: bool
) -> None:
    """Past `settle_timeout_s` the caller gets OutcomeUnknown with the command's id; a repeat of it records once."""
    session = ledger.create_session("t", "u").session_id
    (faults.after if written else faults.before).append(OutcomeUnknown("connection lost"))
    faults.settling.extend([LogUnavailable("away")] * 5)
    with pytest.raises(OutcomeUnknown) as unknown:
        ledger.add_message("t", "u", session, role="user", content="hi")
    assert unknown.value.command_id is not None
    again = _until_it_answers(ledger, session, unknown.value.command_id)
    assert (1, 2, written) == (again.message_number, again.position, again.repeated)
    assert [SessionCreated, MessageAdded] == [type(event) for event in events(ledger)]
    assert_folds_equal_the_log(ledger)


@pytest.mark.parametrize("written", [True, False])
def test_losing_the_ledger_while_an_outcome_is_unknown_does_not_make_it_known(
    ledger: Ledger, faults: Faults, written: bool
) -> None:
    """NotOwner says that nothing was recorded; where that is not known, the caller gets OutcomeUnknown."""
    session = ledger.create_session("t", "u").session_id
    (faults.after if written else faults.before).append(OutcomeUnknown("connection lost"))
    faults.settling.extend([NotOwner("taken over")] * 2)
    with pytest.raises(OutcomeUnknown):
        ledger.add_message("t", "u", session, role="user", content="hi")
    with pytest.raises(NotOwner):
        ledger.add_message("t", "u", session, role="user", content="hi")


def test_answers_without_events_need_a_proof_of_ownership(ledger: Ledger, faults: Faults) -> None:
    """A check, a refusal and a repeat are answered with NotOwner where another process took over."""
    command_id = fresh_id()
    ledger.set_quota("t", "u", "tokens", 10, command_id=command_id)
    faults.proving.append(LogUnavailable("away"))
    with pytest.raises(LogUnavailable):
        ledger.check_quota("t", "u", "tokens")
    assert ledger.check_quota("t", "u", "tokens").allowed
    faults.proving.append(NotOwner("taken over"))
    with pytest.raises(NotOwner) as lost:
        ledger.set_quota("t", "u", "tokens", 10, command_id=command_id)
    assert command_id == lost.value.command_id
    with pytest.raises(NotOwner) as later:
        ledger.check_quota("t", "u", "tokens")
    assert later.value.command_id is not None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the shard's thread ends by it
@pytest.mark.parametrize("method", ["append", "prove_ownership"])
def test_a_defect_in_the_log_answers_those_who_wait(ledger: Ledger, faults: Faults, method: str) -> None:
    """An exception that no port allows ends the shard, but nobody waits for ever."""
    session = ledger.create_session("t", "u").session_id
    (faults.before if method == "append" else faults.proving).append(ZeroDivisionError("a defect"))
    if method == "append":
        waiting = ledger.submit(_message(session, "hi"))
    else:
        waiting = ledger.submit(_message(fresh_id(), "hi"))
    error = waiting.exception(10)
    assert isinstance(error, SessionLedgerError)
    assert error.command_id is not None
    with pytest.raises(LogUnavailable):
        ledger.add_message("t", "u", session, role="user", content="hi")
    assert 1 == len(events(ledger))


def test_states_of_a_refused_append_never_reach_the_state_file(sqlite_url: str) -> None:
    """With more users in an append than memory holds, a refused append leaves no trace in memory or on disk."""
    with Ledger.open(sqlite_url, accounts_in_memory=16, checkpoint_events=5) as ledger:
        faults = Faults(shards_of(ledger).log.partitions[0])
        for number in range(30):
            ledger.create_session("t", f"u{number}")
        for _ in range(3):
            faults.hold()
            first = ledger.submit(CreateSession(tenant="t", user="u0"))
            assert faults.appending.wait(10)
            futures = [ledger.submit(CreateSession(tenant="t", user=f"u{number}")) for number in range(300)]
            faults.before.extend([AppendFailed("disk full")] * 2)
            faults.release()
            for future in (first, *futures):
                future.exception(10)
            faults.before.clear()
            assert_folds_equal_the_log(ledger)
        for number in range(30):
            ledger.create_session("t", f"u{number}")
    with Ledger.open(sqlite_url) as ledger:
        judged(stored(ledger))
        assert_folds_equal_the_log(ledger)


def test_states_of_an_append_that_lost_the_ledger_never_reach_the_state_file(sqlite_url: str) -> None:
    """An owner that is fenced in the middle of an append closes without writing what it never recorded."""
    ledger = Ledger.open(sqlite_url, accounts_in_memory=16, checkpoint_events=5)
    faults = Faults(shards_of(ledger).log.partitions[0])
    session = ledger.create_session("t", "u").session_id
    faults.before.append(NotOwner("taken over"))
    with pytest.raises(NotOwner):
        ledger.add_message("t", "u", session, role="user", content="hi")
    ledger.close()
    with Ledger.open(sqlite_url) as ledger:
        assert_folds_equal_the_log(ledger)
        assert 1 == ledger.add_message("t", "u", session, role="user", content="hi").message_number


def test_a_key_that_the_vault_does_not_take_stops_the_append(sqlite_url: str, directory: Path) -> None:
    """KeyNotStored before anything is appended; later the same command with the same id is recorded."""
    with Ledger.open(sqlite_url) as ledger:
        envelope = shards_of(ledger).envelope
        real = envelope.make_durable

        def refuse(keys: object) -> None:
            raise KeyNotStored("the vault's disk is full")

        envelope.make_durable = refuse  # type: ignore[method-assign]
        with pytest.raises(KeyNotStored) as failed:
            ledger.create_session("t", "u", title="hello")
        assert [] == events(ledger)
        envelope.make_durable = real  # type: ignore[method-assign]
        again = ledger.create_session("t", "u", title="hello", command_id=failed.value.command_id)
        assert (1, False) == (again.position, again.repeated)
        assert _key_ids(ledger) <= keys_in_vault(directory)


def test_a_crash_between_vault_and_log_leaves_a_key_and_nothing_else(sqlite_url: str, directory: Path) -> None:
    """Keys are durable first, so a crash in between costs a key that nothing uses; the user goes on."""
    process = subprocess.run(
        [sys.executable, "-c", CRASH_BETWEEN_VAULT_AND_LOG, sqlite_url], timeout=60, capture_output=True, text=True
    )
    assert 9 == process.returncode, process.stderr
    assert 2 <= len(keys_in_vault(directory))  # the user's and the session's
    with Ledger.open(sqlite_url) as ledger:
        assert [] == events(ledger)
        session = ledger.create_session("t", "u", title="hello").session_id
        ledger.add_message("t", "u", session, role="user", content="hi")
        assert _key_ids(ledger) <= keys_in_vault(directory)


CRASH_BETWEEN_VAULT_AND_LOG = """
import os, sys
from session_ledger.ledger.ledger import Ledger
ledger = Ledger.open(sys.argv[1])
ledger._backend.log.partitions[0].append = lambda records: os._exit(9)
ledger.create_session("t", "u", title="hello")
"""


def test_a_full_disk_of_the_log_is_told_and_passes(sqlite_url: str) -> None:
    """With no room for log.db commands fail with AppendFailed and leave nothing; with room again they are recorded."""
    with Ledger.open(sqlite_url) as ledger:
        session = ledger.create_session("t", "u").session_id
        writer = shards_of(ledger).log.partitions[0]._writer  # type: ignore[attr-defined]
        pages = writer._connection.execute("PRAGMA page_count").fetchone()[0]
        writer._connection.execute(f"PRAGMA max_page_count = {pages}")
        failed: set[str | None] = set()
        for _ in range(20):
            try:
                ledger.add_message("t", "u", session, role="user", content="x" * 20_000)
            except AppendFailed as error:
                failed.add(error.command_id)
        assert len(failed - {None}) > 10
        assert_folds_equal_the_log(ledger)
        assert ledger.report_quota("t", "u").quotas == ()
        writer._connection.execute("PRAGMA max_page_count = 1000000")
        before = len(events(ledger))
        assert before == ledger.add_message("t", "u", session, role="user", content="x" * 20_000).message_number
        assert_folds_equal_the_log(ledger)
        judged(stored(ledger))


def test_a_full_disk_of_the_state_file_stops_no_command(sqlite_url: str) -> None:
    """States then stay in memory; when there is room again they are written, and a restart reads only the tail."""
    with Ledger.open(sqlite_url, accounts_in_memory=16, checkpoint_events=5) as ledger:
        folds = partition_folds(ledger)
        connection = folds._file._connection
        ledger.create_session("t", "u")
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
        for number in range(200):
            session = ledger.create_session("t", f"u{number}", metadata={"k": "v" * 100}).session_id
            ledger.end_session("t", f"u{number}", session)
        assert folds._file_failing
        assert_folds_equal_the_log(ledger)
        connection.execute("PRAGMA max_page_count = 1000000")
        for _ in range(3):
            ledger.create_session("t", "u")
        assert_folds_equal_the_log(ledger)
    with Ledger.open(sqlite_url) as ledger:
        assert 403 <= partition_folds(ledger)._covered
        assert_folds_equal_the_log(ledger)


def test_files_that_may_not_grow_fail_as_typed_errors(sqlite_url: str) -> None:
    """With every file of the process limited in size, each command is answered, and what was acknowledged stands."""
    process = subprocess.run(
        [sys.executable, "-c", LIMITED_FILES, sqlite_url], timeout=100, capture_output=True, text=True
    )
    assert 0 == process.returncode, process.stderr
    told = json.loads(process.stdout)
    assert told["errors"]
    assert {"AppendFailed", "KeyNotStored", "LogUnavailable", "OutcomeUnknown"} >= set(told["errors"])
    found = judged(stored(sqlite_url))
    by_command = {one.event.command_id for one in found}
    assert {parse_id(command_id) for command_id in told["done"]} <= by_command
    with Ledger.open(sqlite_url) as ledger:
        assert_folds_equal_the_log(ledger)
        ledger.create_session("t", "later")


LIMITED_FILES = """
import json, resource, signal, sys
from session_ledger.domain.errors import SessionLedgerError
from session_ledger.ledger.ledger import Ledger
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ledger = Ledger.open(sys.argv[1], accounts_in_memory=16, checkpoint_events=5, settle_timeout_s=0.2)
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))
done, errors = [], []
for number in range(400):
    try:
        session = ledger.create_session("t", f"u{number % 50}").session_id
        done.append(ledger.add_message("t", f"u{number % 50}", session, role="user", content="x" * 3000).command_id)
    except SessionLedgerError as error:
        errors.append(type(error).__name__)
        if len(errors) == 8:
            break
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
while errors:
    try:
        done.append(ledger.create_session("t", "after").command_id)
        break
    except SessionLedgerError as error:
        errors.append(type(error).__name__)
        assert error.retriable and len(errors) < 200, error
ledger.close()
print(json.dumps({"done": done, "errors": errors}))
"""


def _message(session: str, content: str) -> AddMessage:
    return AddMessage(tenant="t", user="u", session_id=parse_id(session), role="user", content=content)


def _until_it_answers(ledger: Ledger, session: str, command_id: str) -> MessageRecorded:
    for _ in range(50):
        try:
            return ledger.add_message("t", "u", session, role="user", content="hi", command_id=command_id)
        except LogUnavailable:
            continue
    raise AssertionError("the ledger did not recover")


def _key_ids(ledger: Ledger) -> set[bytes]:
    return {key for event in events(ledger) if (key := getattr(event, "key_id", None)) is not None}


@pytest.mark.parametrize("written", [True, False])
def test_an_interrupt_of_the_caller_in_an_append(
    durable_url: str, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    """Ctrl-C reaches the caller; the ledger finds out what was recorded, and goes on with every record once."""
    with Ledger.open(durable_url) as ledger:
        session = ledger.create_session("t", "u").session_id
        ledger.add_message("t", "u", session, role="user", content="before")
        shard = next(shard for shard in shards_of(ledger)._shards if shard.position)
        partition = shard._log
        append = partition.append

        def interrupted(records: Sequence[Record]) -> None:
            if threading.current_thread() is not threading.main_thread():
                return append(records)  # the loop was not idle at that moment
            monkeypatch.undo()
            if written:
                append(records)
            raise KeyboardInterrupt

        monkeypatch.setattr(partition, "append", interrupted)
        said, told = 1, False
        while not told:
            command_id = fresh_id()
            try:
                ledger.add_message("t", "u", session, role="user", content="in doubt", command_id=command_id)
                said += 1
            except KeyboardInterrupt:
                told = True
        assert said + 1 + written == shard.proven_position()
        again = ledger.add_message("t", "u", session, role="user", content="in doubt", command_id=command_id)
        assert said + 2 == again.position
        ledger.add_message("t", "u", session, role="user", content="after")
        assert_folds_equal_the_log(ledger)
        assert list(range(1, said + 4)) == [
            one.event.version for one in stored(ledger) if one.partition == again.partition
        ]
