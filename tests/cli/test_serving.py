"""A running service and the commands beside it: who owns, who sends, who is fenced, what a kill leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from session_ledger import Ledger
from session_ledger.cli import owning
from session_ledger.domain.errors import LogUnavailable
from tests.cli.shell import Shell, chat, jsonl, streams


def line_of(process: subprocess.Popen[bytes]) -> dict[str, object]:
    """The next document that it writes."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, (process.wait(30), process.stderr.read() if process.stderr else b"")
    document: dict[str, object] = json.loads(line)
    return document


def test_commands_beside_a_service_go_through_it(shell: Shell) -> None:
    """One writer: the owner serves the commands of other processes, and drains when it is told to end."""
    with shell.started("serve", "--json") as service:
        serving = line_of(service)
        assert service.pid == serving["process"]
        assert "disk" in str(serving["durability"])
        session = shell.apart("sessions", "create", "-U", "alice", "--json").json["session_id"]
        assert 1 == shell("sessions", "message", session, "hello", "-U", "alice", "--json").json["message_number"]
        assert 1 == len(shell("sessions", "history", session, "-U", "alice", "--json").lines)
        imported = shell("import", "-", "--source", "x", "--json", stdin=jsonl(chat("a"), chat("b")))
        assert 2 == imported.json["sessions"]
        assert shell("expire", "--json").json["expired"] == 0
        refused = shell("sessions", "message", session, "x", "-U", "bob", "--json")
        assert (1, "session_not_found") == (refused.code, refused.json["error"]["code"])
        second = shell("serve", "--json")
        assert (3, "not_owner") == (second.code, second.json["error"]["code"])
        service.send_signal(signal.SIGTERM)
        out, err = service.communicate(timeout=30)
        stopped = json.loads(out.splitlines()[-1])
        assert (0, b"") == (service.returncode, err)
        assert stopped["positions"]["0"] == shell("lag", "--json").json["partitions"][1]["end"]
    assert 0 == shell("verify").code


def test_after_a_kill_the_next_command_becomes_the_owner(shell: Shell) -> None:
    """Nothing acknowledged is lost, and nothing has to be cleaned up by hand."""
    with shell.started("serve", "--json") as service:
        line_of(service)
        session = shell("sessions", "create", "-U", "alice", "--json").json["session_id"]
        service.kill()
        service.wait(30)
    assert 0 == shell("sessions", "message", session, "hello", "-U", "alice").code
    assert ["hello"] == [m["content"] for m in shell("sessions", "history", session, "-U", "alice", "--json").lines]
    assert 0 == shell("verify").code


def test_a_stopped_service_can_be_taken_over(shell: Shell) -> None:
    """A process that hangs holds the ledger until somebody says --take-over; then it is fenced off."""
    with shell.started("serve", "--json", "--expire-every", "50ms") as service:
        line_of(service)
        shell("sessions", "create", "-U", "alice", "--idle-timeout", "300ms")
        service.send_signal(signal.SIGSTOP)
        taken = shell("sessions", "create", "-U", "bob", "--take-over", "--json")
        assert 0 == taken.code, taken.err
        time.sleep(0.4)
        service.send_signal(signal.SIGCONT)
        _, err = service.communicate(timeout=30)
        assert 3 == service.returncode
        assert b"Traceback" not in err
    assert 0 == shell("verify").code


def test_a_service_that_was_taken_over_from_notices_by_itself(shell: Shell) -> None:
    """Without a command or a sweep: exit code 3 within seconds, and no word of everything being served."""
    with shell.started("serve", "--expire-every", "0") as service:
        assert service.stdout is not None
        assert service.stdout.readline().startswith(b"serving ")
        assert 0 == shell("sessions", "create", "-U", "bob", "--take-over").code
        out, err = service.communicate(timeout=30)
        assert 3 == service.returncode
        assert b"everything taken was served" not in out
        assert err.startswith(b"session-ledger: ")
        assert b"Traceback" not in err


@pytest.mark.parametrize("fenced", [False, True])
def test_only_a_check_of_the_ownership_tells_that_the_log_can_be_used_again(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, fenced: bool
) -> None:
    """A sweep that finds nothing due asks no broker; who was fenced is not sent to look after its brokers."""
    monkeypatch.setattr(owning, "OWNED_S", 0.0)
    monkeypatch.setattr(owning, "WAKE_S", 0.02)
    stop, swept = threading.Event(), 0

    def away() -> list[int]:
        error = LogUnavailable("it can not be asked")
        error.fenced = fenced
        raise error

    with streams() as (_, err), Ledger.open(sqlite_url) as ledger:
        real_sweep = ledger.expire_due

        def sweep() -> object:
            nonlocal swept
            swept += 1
            return real_sweep()

        monkeypatch.setattr(ledger, "positions", away)
        monkeypatch.setattr(ledger, "expire_due", sweep)
        service = threading.Thread(target=lambda: owning._sweep_until(stop, ledger, 0.02, False, check=True))
        service.start()
        try:
            wait_for(lambda: swept > 5)
            assert b"commands are refused" in err.getvalue()
            assert fenced is not (b"see that its brokers run" in err.getvalue())
            assert b"can be used again, after" not in err.getvalue()
            monkeypatch.undo()
            wait_for(lambda: b"can be used again, after" in err.getvalue())
        finally:
            stop.set()
            service.join(30)
    assert 1 == err.getvalue().count(b"commands are refused")


def test_who_may_not_enter_the_directory_is_not_told_to_take_over(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither `serve` nor --take-over can make an owner of a user who only reaches the command socket."""
    monkeypatch.setenv("SESSION_LEDGER_COMMAND_SOCKET", str(tmp_path / "c.sock"))
    with Ledger.open(shell.url):
        monkeypatch.setattr(os, "access", lambda *arguments, **options: False)
        for command in ("serve", "serve --take-over", "sessions create -U u --take-over"):
            ran = shell(*command.split(), "--json")
            assert (1, "forbidden") == (ran.code, ran.json["error"]["code"]), ran
            assert f"may not enter the ledger's directory {shell.directory}" in ran.err
        assert 0 == shell("sessions", "create", "-U", "u").code


def wait_for(condition: Callable[[], bool]) -> None:
    """Until it holds."""
    deadline_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_a_service_sweeps(shell: Shell) -> None:
    """--expire-every records what has timed out, without anybody asking."""
    with shell.started("serve", "--json", "--expire-every", "50ms") as service:
        line_of(service)
        session = shell("sessions", "create", "-U", "alice", "--idle-timeout", "100ms", "--json").json["session_id"]
        assert [session] == line_of(service)["session_ids"]
        service.send_signal(signal.SIGINT)
        service.communicate(timeout=30)
        assert 0 == service.returncode


def test_sweeping_goes_on_until_it_is_stopped(shell: Shell) -> None:
    """`expire --every`: exit code 0 at SIGTERM."""
    session = shell("sessions", "create", "-U", "alice", "--idle-timeout", "10ms", "--json").json["session_id"]
    time.sleep(0.05)
    with shell.started("expire", "--every", "50ms", "--json") as sweeping:
        assert [session] == line_of(sweeping)["session_ids"]
        sweeping.send_signal(signal.SIGTERM)
        assert 0 == sweeping.wait(30)


def test_tail_follows_what_others_record(shell: Shell) -> None:
    """What is recorded after it began comes at once, a fact a line; it stops cleanly."""
    session = shell("sessions", "create", "-U", "alice", "--json").json["session_id"]
    with shell.started("tail", "--follow", "--json", "--type", "MessageAdded", "--type", "SessionCreated") as tail:
        assert "SessionCreated" == line_of(tail)["type"]
        position = shell("sessions", "message", session, "hello", "-U", "alice", "--json").json["position"]
        fact = line_of(tail)
        assert ("MessageAdded", position, session) == (fact["type"], fact["position"], fact["session_id"])
        tail.send_signal(signal.SIGINT)
        assert 0 == tail.wait(30)


def test_an_import_that_is_killed_and_repeated_is_the_same_as_one_that_was_not(shell: Shell) -> None:
    """kill -9 in the middle, then again: every session is there once, with every message."""
    chats = [chat(*(f"{n} {k} " + "x" * 500 for k in range(30)), id=f"chat-{n}") for n in range(400)]
    chats.append(chat(*(f"long {k} " + "y" * 2000 for k in range(3000)), id="long"))
    path = shell.directory.parent / "chats.jsonl"
    path.write_bytes(jsonl(*chats))
    whole = Shell(shell.directory.parent / "whole")
    assert 401 == whole("import", path, "--json").json["sessions"]
    expected = whole("export").out
    killed_under_way = 0
    for pause in (0.0, 0.05, 0.1, 0.2):
        with shell.started("import", path, "--json") as importing:
            deadline = time.monotonic() + 20
            while not (shell.directory / "log.db").exists() and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(pause)
            importing.kill()
            killed_under_way += importing.wait(30) == -signal.SIGKILL
    assert killed_under_way
    ran = shell("import", path, "--json")
    assert 0 == ran.code, ran
    done = ran.json
    assert (401, 0) == (done["sessions"] + done["already_there"], done["failed"])
    assert expected == shell("export").out
    assert 0 == shell("verify").code
