"""One owner a ledger; every other process goes through it; who was fenced off answers nothing any more."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import stat
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from session_ledger.domain.commands import AddMessage, CreateSession
from session_ledger.domain.errors import (
    InvalidInput,
    KeyUnavailable,
    LogUnavailable,
    Misconfigured,
    NotOwner,
    OutcomeUnknown,
    QuotaExceeded,
    SessionLedgerError,
    SessionNotFound,
)
from session_ledger.domain.events import SessionCreated
from session_ledger.domain.ids import parse_id
from session_ledger.domain.results import Result
from session_ledger.ledger import commandsocket, wire
from session_ledger.ledger.ledger import Ledger
from session_ledger.ledger.socketplace import socket_path
from session_ledger.security.keyring import Keyring
from session_ledger.security.vault import SQLiteVault
from tests.ledger.process import line, lines, started
from tests.ledger.support import (
    Clock,
    assert_folds_equal_the_log,
    events,
    fresh_id,
    judged,
    shard_of,
    shards_of,
    stored,
)

LOCK_S = 0.5  # after which a new owner has picked up the lock that a fenced one let go


@pytest.fixture
def owner(sqlite_url: str) -> Iterator[Ledger]:
    """The ledger's owner."""
    with Ledger.open(sqlite_url) as ledger:
        yield ledger


@pytest.fixture
def client(owner: Ledger, sqlite_url: str) -> Iterator[Ledger]:
    """A ledger of the same directory that is not the owner."""
    with Ledger.open(sqlite_url) as ledger:
        assert not ledger.is_owner
        yield ledger


def test_another_process_writes_through_the_owner(owner: Ledger, sqlite_url: str) -> None:
    """Its commands appear once, at the positions that it was told, among the owner's."""
    with started(sqlite_url, "create", "20") as process:
        mine = [owner.create_session("t", f"mine-{number}").command_id for number in range(20)]
        told = lines(process)
    assert [False] * 20 == [one["owner"] for one in told[:-1]]
    by_position = {one.record.position: one.event.command_id for one in judged(stored(owner))}
    assert 40 == len(by_position)
    assert all(parse_id(one["command_id"]) == by_position[one["position"]] for one in told[:-1])
    assert {parse_id(command_id) for command_id in mine} <= set(by_position.values())
    assert told[-1]["positions"] <= owner.positions()
    assert told[-1]["positions"][0] >= max(one["position"] for one in told[:-1])


def test_every_answer_of_the_owner_reaches_a_client(owner: Ledger, client: Ledger) -> None:
    """Results, errors with their class, id and retry time, positions and sweeps are those that the owner gives."""
    assert owner.positions() == client.positions()
    session = client.create_session("t", "u", title="hello", ttl_s=60, command_id=(command_id := fresh_id()))
    assert session == owner.create_session("t", "u", title="hello", ttl_s=60, command_id=command_id).__class__(
        **{name: getattr(session, name) for name in session.__slots__},
        **{name: getattr(session, name) for name in ("partition", "position", "command_id", "repeated")},
    )
    assert 1 == client.add_message("t", "u", session.session_id, role="user", content="hi").message_number
    with pytest.raises(SessionNotFound) as not_found:
        client.end_session("t", "stranger", session.session_id)
    assert not_found.value.command_id is not None
    client.set_quota("t", "u", "calls", 1, 60)
    client.consume_quota("t", "u", "calls")
    with pytest.raises(QuotaExceeded) as refused:
        client.consume_quota("t", "u", "calls")
    assert 50 < (refused.value.retry_after_s or 0) <= 60
    assert owner.positions() == client.positions()
    assert [] == client.expire_due()


def test_a_sweep_over_the_socket_expires_what_is_due(sqlite_url: str) -> None:
    """The owner's clock decides; the client is told which sessions expired."""
    clock = Clock()
    with Ledger.open(sqlite_url, clock_us=clock) as owner, Ledger.open(sqlite_url) as client:
        session = owner.create_session("t", "u", ttl_s=60).session_id
        clock.step(61)
        assert [(session,)] == [expired.session_ids for expired in client.expire_due()]
        assert [] == client.expire_due()


def test_invalid_input_of_a_client_concerns_that_command_alone(owner: Ledger, client: Ledger) -> None:
    """What can not be sent, and what the owner can not read, is InvalidInput; other commands under way go on."""
    session = parse_id(client.create_session("t", "u").session_id)
    under_way = [client.submit(AddMessage(tenant="t", user="u", session_id=session, role="user", content="hi"))]
    hostile: list[dict[str, object]] = [
        {"content": "\ud800"},
        {"content": 5},
        {"content": "nul \x00"},
        {"parts": [object()]},
        {"parts": [2**70]},
        {"parts": [float("nan")]},
        {"tokens_in": -1},
        {"tokens_in": 2**200},
        {"session_id": "text"},
        {"session_id": b"short"},
        {"metadata": {"k": 5}},
        {"tenant": "a/b"},
        {"tenant": ["t"]},
        {"content": "x" * (17 * 1024 * 1024)},
    ]
    for fields in hostile:
        good: dict[str, object] = {"tenant": "t", "user": "u", "session_id": session, "role": "user", "content": "hi"}
        with pytest.raises(InvalidInput):
            client.submit(AddMessage(**(good | fields))).result(10)  # type: ignore[arg-type]
        under_way.append(client.submit(AddMessage(tenant="t", user="u", session_id=session, role="user", content="x")))
    with pytest.raises(InvalidInput):
        client.submit(None).result(10)  # type: ignore[arg-type]
    assert [*range(2, 2 + len(under_way))] == [future.result(10).position for future in under_way]


def test_the_socket_is_for_this_user_alone(owner: Ledger, directory: Path) -> None:
    """Mode 0600, gone after a close."""
    path = socket_path(directory)
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert 0o600 == path.stat().st_mode & 0o777
    owner.close()
    assert not path.exists()


def test_no_thread_outlives_the_ledger(sqlite_url: str) -> None:
    """After a close neither the socket's threads nor the shards' run."""
    before = set(threading.enumerate())
    with Ledger.open(sqlite_url), Ledger.open(sqlite_url) as client:
        client.create_session("t", "u")
    deadline_s = time.monotonic() + 5
    while set(threading.enumerate()) - before and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert set() == set(threading.enumerate()) - before


def test_a_long_path_has_its_socket_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a socket's name can not hold the directory's, it stands in a directory of this user's alone."""
    short = Path(tempfile.mkdtemp(prefix="sl-"))
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    try:
        directory = tmp_path / ("d" * 100) / "ledger"
        path = socket_path(directory)
        assert short in path.parents
        with Ledger.open(f"sqlite:{directory}"), Ledger.open(f"sqlite:{directory}") as client:
            assert 0o600 == path.stat().st_mode & 0o777
            assert 0o700 == path.parent.stat().st_mode & 0o777
            assert 1 == client.create_session("t", "u").position
        path.parent.chmod(0o777)
        with pytest.raises(Misconfigured):
            Ledger.open(f"sqlite:{directory}")
    finally:
        shutil.rmtree(short)


@contextmanager
def _client_of(owner: subprocess.Popen[str], url: str) -> Iterator[Ledger]:
    """A ledger that is not the owner, once that process is."""
    assert line(owner)["owner"]
    with Ledger.open(url) as ledger:
        yield ledger


def test_after_a_kill_the_next_to_open_becomes_the_owner(sqlite_url: str) -> None:
    """A killed owner leaves socket and lock file behind; neither keeps anybody out."""
    with started(sqlite_url, "own") as process, _client_of(process, sqlite_url) as client:
        assert 1 == client.create_session("t", "u").position
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        with pytest.raises((LogUnavailable, OutcomeUnknown)):
            client.create_session("t", "u")
    with Ledger.open(sqlite_url) as ledger:
        assert ledger.is_owner
        assert 2 == ledger.create_session("t", "u").position
        assert_folds_equal_the_log(ledger)


def test_a_client_of_an_owner_that_hangs_is_told_so(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets OutcomeUnknown with the command's id and what to do, and waits on for one that is only slow."""
    monkeypatch.setattr(commandsocket, "LIVES_S", 0.3)
    with started(sqlite_url, "own") as process, _client_of(process, sqlite_url) as client:
        session = client.create_session("t", "u").session_id
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(OutcomeUnknown, match=r"so it hangs: .*take_over=True") as told:
            client.add_message("t", "u", session, role="user", content="hi")
        process.send_signal(signal.SIGCONT)
        again = client.add_message("t", "u", session, role="user", content="hi", command_id=told.value.command_id)
        assert (1, True) == (again.message_number, again.repeated)
    with Ledger.open(sqlite_url) as owner, Ledger.open(sqlite_url) as client:
        threading.Thread(target=shard_of(owner).call, args=(lambda: time.sleep(1.5),)).start()
        time.sleep(0.1)
        started_s = time.monotonic()
        assert 2 == client.add_message("t", "u", session, role="user", content="hi").message_number
        assert time.monotonic() - started_s > 0.6


def test_a_client_of_a_killed_owner_can_find_out_what_became_of_its_command(sqlite_url: str) -> None:
    """It gets OutcomeUnknown with the command's id; after opening again a repeat records once."""
    with started(sqlite_url, "own") as process, _client_of(process, sqlite_url) as client:
        session = parse_id(client.create_session("t", "u").session_id)
        process.send_signal(signal.SIGSTOP)
        under_way = [
            client.submit(AddMessage(tenant="t", user="u", session_id=session, role="user", content=str(number)))
            for number in range(50)
        ]
        threading.Timer(0.02, process.send_signal, [signal.SIGCONT]).start()
        time.sleep(random.random() / 25)
        process.kill()
        process.wait(10)
        outcomes = [_outcome(future) for future in under_way]
    unknown = [outcome for outcome in outcomes if isinstance(outcome, SessionLedgerError)]
    assert all(isinstance(error, OutcomeUnknown) and error.command_id for error in unknown)
    with Ledger.open(sqlite_url) as ledger:
        for number, outcome in enumerate(outcomes):
            command_id = outcome.command_id
            done = ledger.add_message("t", "u", session, role="user", content=str(number), command_id=command_id)
            assert done.command_id == command_id
            assert isinstance(outcome, SessionLedgerError) or done.repeated
        assert 51 == len(judged(stored(ledger)))


def test_the_fenced_owner_answers_nothing_any_more(durable_url: str) -> None:
    """After a take-over its commands, its checks and its repeats all raise NotOwner, with their ids."""
    old = Ledger.open(durable_url)
    command_id = fresh_id()
    session = old.create_session("t", "u").session_id
    old.set_quota("t", "u", "calls", 5, command_id=command_id)
    with Ledger.open(durable_url, take_over=True) as new:
        assert new.is_owner
        new.set_quota("t", "u", "calls", 1)
        time.sleep(shards_of(old).log.partitions[0].proof_age_s)  # how old a proof of ownership may be
        asked: list[Callable[[], object]] = [
            lambda: old.check_quota("t", "u", "calls"),
            lambda: old.set_quota("t", "u", "calls", 5, command_id=command_id),
            lambda: old.add_message("t", "u", session, role="user", content="hi"),
            lambda: old.end_session("t", "u", fresh_id()),
            lambda: old.report_quota("t", "u"),
        ]
        for ask in asked:
            with pytest.raises(NotOwner) as lost:
                ask()
            assert lost.value.command_id is not None
        assert 3 == len(events(new))
        assert 1 == new.check_quota("t", "u", "calls").limit
        time.sleep(LOCK_S)
        with Ledger.open(durable_url) as client:
            assert 4 == client.add_message("t", "u", session, role="user", content="hi").position
        old.close()
        with Ledger.open(durable_url) as client:  # the old owner's close took nothing away from the new one
            assert 5 == client.add_message("t", "u", session, role="user", content="hi").position
        assert_folds_equal_the_log(new)
    with Ledger.open(durable_url) as again:
        assert_folds_equal_the_log(again)


def test_a_keyring_of_another_ledger_serves_nobody(sqlite_url: str, directory: Path) -> None:
    """Told when it is opened, before a key of a new tenant is wrapped by it."""
    with Ledger.open(sqlite_url) as ledger:
        ledger.create_session("t", "u")
    (directory / "keyring.json").rename(directory / "right.json")
    Keyring.open_or_create(directory / "keyring.json")
    with pytest.raises(KeyUnavailable, match="not in the keyring"):
        Ledger.open(sqlite_url)
    (directory / "right.json").rename(directory / "keyring.json")
    with Ledger.open(sqlite_url) as ledger:
        ledger.create_session("t", "v")


@pytest.mark.parametrize("lost", ["keyring.json", "vault.db"])
def test_nobody_is_put_out_for_a_process_that_has_not_the_keys(durable_url: str, directory: Path, lost: str) -> None:
    """Nor for one whose settings do not fit the ledger: it is told what is wrong, and the owner goes on."""
    with Ledger.open(durable_url) as owner:
        session = owner.create_session("t", "u", title="x").session_id
        (directory / lost).rename(directory / "elsewhere")
        with pytest.raises(Misconfigured, match=str(directory / lost)):
            Ledger.open(durable_url, take_over=True)
        Keyring.open_or_create(directory / lost) if lost == "keyring.json" else SQLiteVault(directory / lost).close()
        with pytest.raises(KeyUnavailable):  # another ledger's
            Ledger.open(durable_url, take_over=True)
        (directory / "elsewhere").rename(directory / lost)
        for setting in ({"pseudonyms": True}, {"encryption": "none"}):
            with pytest.raises(Misconfigured):
                Ledger.open(durable_url, take_over=True, **setting)
        assert 1 == owner.add_message("t", "u", session, role="user", content="still here").message_number


def test_a_fenced_owner_that_lets_go_leaves_the_ledger_to_the_new_one(sqlite_url: str) -> None:
    """Who opens just when the old owner learns that it was fenced becomes a client of the new one, not the owner."""
    with Ledger.open(sqlite_url) as old, Ledger.open(sqlite_url, take_over=True) as new:
        with pytest.raises(NotOwner):
            old.create_session("t", "u")
        with Ledger.open(sqlite_url) as client:
            assert not client.is_owner
        assert 1 == new.create_session("t", "u").position


def test_a_first_question_to_a_fenced_owner_is_not_answered(durable_url: str) -> None:
    """Also where a check is the first thing that it is asked after it lost the ledger."""
    with Ledger.open(durable_url) as old:
        old.set_quota("t", "u", "calls", 5)
        with Ledger.open(durable_url, take_over=True):
            time.sleep(shards_of(old).log.partitions[0].proof_age_s)
            with pytest.raises(NotOwner):
                old.check_quota("t", "u", "calls")


def test_a_fenced_owner_that_still_runs_spoils_no_states(sqlite_url: str) -> None:
    """Both write their states to one file; what the next owner finds there is what the log folds to."""
    old = Ledger.open(sqlite_url, accounts_in_memory=16, checkpoint_events=3)
    for number in range(60):
        old.create_session("t", f"u{number % 20}")
    new = Ledger.open(sqlite_url, take_over=True, accounts_in_memory=16, checkpoint_events=3)
    for number in range(60):
        new.create_session("t", f"u{number % 20}")
        if number == 30:
            old.close()
    assert_folds_equal_the_log(new)
    new.close()
    with Ledger.open(sqlite_url) as again:
        assert_folds_equal_the_log(again)


def _outcome(future: Future[Result]) -> Result | SessionLedgerError:
    try:
        return future.result(10)
    except SessionLedgerError as error:
        return error


def _connect(directory: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(10)
    connection.connect(str(socket_path(directory)))
    return connection


def _frame(*parts: object) -> bytes:
    body = msgspec.msgpack.encode(parts)
    return struct.pack(">I", len(body)) + body


def _nested(depth: int) -> bytes:
    body = b"\x86" + b"".join(
        msgspec.msgpack.encode(name) + value
        for name, value in (
            ("tenant", msgspec.msgpack.encode("t")),
            ("user", msgspec.msgpack.encode("u")),
            ("session_id", msgspec.msgpack.encode(bytes(16))),
            ("role", msgspec.msgpack.encode("user")),
            ("content", msgspec.msgpack.encode("hi")),
            ("parts", b"\x91" * depth + b"\x90"),
        )
    )
    return _frame(1, "command:AddMessage", body)


HOSTILE = {
    "nothing": b"",
    "garbage": random.Random(1).randbytes(5000),
    "huge length": b"\xff\xff\xff\xff" + b"x" * 100,
    "cut off": _frame(1, "command:CreateSession", b"")[:-3],
    "no frame": struct.pack(">I", 3) + b"\x93\x01\x02",
    "wrong types": _frame("one", 2, "three"),
    "unknown kind": _frame(1, "destroy", b""),
    "unknown command": _frame(1, "command:Destroy", b""),
    "base class": _frame(1, "command:Command", msgspec.msgpack.encode({"tenant": "t"})),
    "command without fields": _frame(1, "command:CreateSession", msgspec.msgpack.encode({})),
    "fields of wrong types": _frame(1, "command:CreateSession", msgspec.msgpack.encode({"tenant": 1, "user": []})),
    "text that is not UTF-8": _frame(1, "command:CreateSession", b"\x82\xa6tenant\xa2\xff\xff\xa4user\xa1u"),
    "deep": _nested(100_000),
    "number beyond 64 bits": struct.pack(">I", 11) + b"\x93\xcf" + b"\xff" * 8 + b"\xa0",
    "session of nobody": _frame(
        1, "command:EndSession", msgspec.msgpack.encode({"tenant": "t", "user": "u", "session_id": bytes(16)})
    ),
    "schema that is none": _frame(
        1, "command:PublishSchema", msgspec.msgpack.encode({"tenant": "t", "name": "", "fingerprint": b""})
    ),
}


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_bytes_do_not_harm_the_owner(owner: Ledger, client: Ledger, directory: Path, what: str) -> None:
    """Whatever comes over the socket, the owner and its other clients go on."""
    connection = _connect(directory)
    connection.sendall(HOSTILE[what])
    connection.shutdown(socket.SHUT_WR)
    with suppress(ConnectionResetError):
        while connection.recv(65536):
            pass
    connection.close()
    assert 1 == client.create_session("t", "u").position
    assert 2 == owner.create_session("t", "u").position
    assert 2 == len(events(owner))


def test_a_client_that_hangs_up_midway_harms_nobody(owner: Ledger, client: Ledger, directory: Path) -> None:
    """What it asked for is recorded once, although nobody takes the answer."""
    for _ in range(20):
        connection = _connect(directory)
        command = CreateSession(tenant="t", user="gone", command_id=parse_id(fresh_id()))
        connection.sendall(wire.encode_command(1, command) + wire.encode_command(2, command)[:20])
        connection.close()
    deadline_s = time.monotonic() + 10
    while sum(isinstance(event, SessionCreated) for event in events(owner)) < 20 and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert 20 == sum(isinstance(one.event, SessionCreated) for one in judged(stored(owner)))
    assert client.create_session("t", "u").position == owner.positions()[0]


def test_a_client_that_takes_no_answers_stops_nobody(owner: Ledger, client: Ledger, directory: Path) -> None:
    """The owner's thread never waits for a client; it stops reading from one that does not read."""
    connection = _connect(directory)
    connection.setblocking(False)
    asked = b"".join(wire.encode_request(number, wire.POSITIONS) for number in range(1000))
    deadline_s = time.monotonic() + 2
    command = wire.encode_command(1, CreateSession(tenant="t", user="deaf", reuse=True))
    pending = b""
    while time.monotonic() < deadline_s:
        pending = pending or command * 200 + asked
        try:
            pending = pending[connection.send(pending) :]
        except BlockingIOError:
            time.sleep(0.01)
    started = time.monotonic()
    client.create_session("t", "u")
    owner.create_session("t", "u")
    assert 2 > time.monotonic() - started
    connection.close()


def test_many_threads_share_one_client(owner: Ledger, client: Ledger) -> None:
    """Commands of one connection are in flight together, each gets its own answer."""
    session = client.create_session("t", "u").session_id
    told: dict[int, Result] = {}

    def say(number: int) -> None:
        for turn in range(20):
            key = number * 100 + turn
            told[key] = client.add_message("t", "u", session, role="user", content="hi", tokens_in=key)

    threads = [threading.Thread(target=say, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    by_position = {one.record.position: getattr(one.event, "tokens_in", None) for one in judged(stored(owner))}
    assert {key: result.position for key, result in told.items()} == {
        key: position for position, key in by_position.items() if key is not None
    }


def test_closing_the_owner_answers_the_clients_that_wait(sqlite_url: str) -> None:
    """What a client had sent is served by the close that drains; what comes later is LogUnavailable."""
    owner = Ledger.open(sqlite_url)
    with Ledger.open(sqlite_url) as client:
        under_way: list[Future[Result]] = [client.submit(CreateSession(tenant="t", user=f"u{n}")) for n in range(200)]
        owner.close()
        outcomes = [_outcome(future) for future in under_way]
        done = [outcome for outcome in outcomes if isinstance(outcome, Result)]
        with pytest.raises(LogUnavailable):
            client.create_session("t", "u")
    assert len(done) <= len(judged(stored(sqlite_url)))
    recorded = {event.command_id for event in events(sqlite_url)}
    assert {parse_id(result.command_id) for result in done} <= recorded
    told_not = [e for e in outcomes if isinstance(e, SessionLedgerError) and e.code == "ledger_closed"]
    assert not {parse_id(error.command_id or "") for error in told_not} & recorded


def test_a_fork_does_not_inherit_the_ledger(owner: Ledger) -> None:
    """A forked child's commands raise; the parent goes on."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # only this thread lives here
        try:
            shards_of(owner).log.partitions[0].prove_ownership()
            os.write(write, b"owner")
        except SessionLedgerError:
            os.write(write, b"refused")
        finally:
            os._exit(0)
    os.close(write)
    assert b"refused" == os.read(read, 100)
    os.waitpid(child, 0)
    assert 1 == owner.create_session("t", "u").position
