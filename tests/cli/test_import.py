"""`import` as a user runs it: what is added, what is there already, what is reported, what stops it."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from session_ledger.cli import import_run
from session_ledger.domain.commands import Command, ImportSession
from session_ledger.domain.errors import Overloaded
from session_ledger.domain.results import Result
from session_ledger.ledger.ledger import Ledger
from tests.cli.shell import Shell, chat, jsonl


def exported(shell: Shell, *arguments: str) -> list[dict[str, object]]:
    """The lines of an export."""
    ran = shell("export", *arguments)
    assert ran.code == 0, ran.err
    return ran.lines


def summary(added: int, messages: int, there: int = 0, failed: int = 0) -> dict[str, object]:
    return {"sessions": added, "messages": messages, "already_there": there, "failed": failed}


def counts(document: dict[str, object]) -> dict[str, object]:
    return {name: document[name] for name in summary(0, 0)}


def imported_of(shell: Shell, user: str) -> list[dict[str, Any]]:
    """The user's imported sessions."""
    ran = shell("sessions", "list", "-U", user, "--status", "imported", "--json")
    return list(ran.json["sessions"])


def test_each_line_becomes_a_session_with_its_times_and_importing_again_adds_nothing(
    shell: Shell, tmp_path: Path
) -> None:
    """By the ids of the lines, or by the file's name and the lines' numbers."""
    path = tmp_path / "chats.jsonl"
    path.write_bytes(
        jsonl(
            chat("hello", "hi", id="a", user_id="alice", created_at=1_700_000_000.5, metadata={"plan": "pro"}),
            chat("no id"),
        )
    )
    assert summary(2, 3) == counts(shell("import", path, "--json").json)
    assert summary(0, 0, there=2) == counts(shell("import", path, "--json").json)
    unnamed, named = exported(shell)
    assert ("chats.jsonl:2", "imported") == (unnamed["id"], unnamed["user_id"])
    assert ("a", "alice", "2023-11-14T22:13:20.500000Z") == (named["id"], named["user_id"], named["created_at"])
    assert {"plan": "pro"} == named["metadata"]
    assert "created_at" not in unnamed
    listed = shell("sessions", "list", "--status", "imported", "--json").json["sessions"]
    assert {"imported"} == {session["end_reason"] for session in listed}


def test_the_same_file_compressed_or_from_standard_input_is_the_same(shell: Shell, tmp_path: Path) -> None:
    """gzip is known by its bytes; standard input has no name, so lines without an id need --source."""
    data = jsonl(chat("one"), chat("two", id="x"))
    path = tmp_path / "chats.jsonl"
    path.write_bytes(data)
    assert summary(2, 2) == counts(shell("import", path, "--json").json)
    packed = tmp_path / "chats.jsonl.gz"
    packed.write_bytes(gzip.compress(data))
    assert summary(0, 0, there=2) == counts(shell("import", packed, "--json").json)
    piped = shell("import", "-", "--source", "chats.jsonl", "--json", stdin=data)
    assert summary(0, 0, there=2) == counts(piped.json)
    unnamed = shell("import", "-", "--json", stdin=gzip.compress(data))
    assert (1, summary(0, 0, there=1, failed=1)) == (unnamed.code, counts(unnamed.json))
    assert "--source" in unnamed.err


def test_a_bad_line_is_reported_with_its_number_and_the_rest_goes_on(shell: Shell, tmp_path: Path) -> None:
    """Exit code 1; file, line and reason on stderr and in the summary; nothing of the line is repeated."""
    path = tmp_path / "chats.jsonl"
    path.write_bytes(jsonl(chat("first"), b'{"messages": [{"role": "user", "content": "secret"', chat("third")))
    ran = shell("import", path, "--json")
    assert (1, summary(2, 2, failed=1)) == (ran.code, counts(ran.json))
    (failure,) = ran.json["failures"]
    assert (str(path), 2, "invalid_input") == (failure["file"], failure["line"], failure["code"])
    assert f"{path}:2: line: no JSON" in ran.err
    assert "secret" not in ran.err + ran.out
    plain = shell("import", path)
    assert "0 sessions with 0 messages added, 2 already there, 1 failed" in plain.out


def test_strict_stops_before_anything_of_a_bad_line_is_recorded(shell: Shell, tmp_path: Path) -> None:
    """What came before stays, what comes after is not looked at."""
    path = tmp_path / "chats.jsonl"
    bad = {"messages": [{"role": "user", "content": "fine"}, {"role": "user", "content": 5}]}
    path.write_bytes(jsonl(chat("first"), bad, chat("third")))
    ran = shell("import", path, "--strict", "--json")
    assert (1, summary(1, 1, failed=1), True) == (ran.code, counts(ran.json), ran.json["stopped"])
    assert ["chats.jsonl:1"] == [line["id"] for line in exported(shell)]
    assert "--strict" in shell("import", path, "--strict").err


@pytest.mark.parametrize(
    ("reason", "content"),
    [
        ("NUL", '"a\\u0000b"'),
        ("half of a surrogate pair", '"\\udfff"'),
        ("1048576 bytes", json.dumps("x" * (1024 * 1024 + 1))),
        ("nested", '[{"type":"x","deep":' + "[" * 3000 + "]" * 3000 + "}]"),
    ],
)
def test_hostile_lines_are_bad_lines(shell: Shell, tmp_path: Path, reason: str, content: str) -> None:
    """NUL, lone surrogates, content over the limit, nesting without end: reported, and nothing else is disturbed."""
    path = tmp_path / "chats.jsonl"
    line = f'{{"messages":[{{"role":"user","content":{content}}}]}}'.encode()
    path.write_bytes(jsonl(line, chat("fine")))
    ran = shell("import", path, "--json")
    assert (1, summary(1, 1, failed=1)) == (ran.code, counts(ran.json))
    assert reason in ran.json["failures"][0]["reason"]
    assert 300 > len(ran.json["failures"][0]["reason"])


def test_numbers_beyond_64_bits_are_kept_or_reported_and_never_a_crash(shell: Shell, tmp_path: Path) -> None:
    """JSON has numbers that no wire format of ours has; whichever it is, the next line goes on."""
    path = tmp_path / "chats.jsonl"
    parts = [{"type": "x", "n": 10**40}]
    path.write_bytes(jsonl({"messages": [{"role": "user", "content": parts}]}, chat("fine")))
    ran = shell("import", path, "--json")
    assert 2 == ran.json["sessions"] + ran.json["failed"]
    assert ran.code == (1 if ran.json["failed"] else 0)
    assert "Traceback" not in ran.err


def test_a_long_history_comes_in_several_appends_and_reads_as_one(shell: Shell, tmp_path: Path) -> None:
    """Above some 2 MiB or 5,000 messages; importing it again adds nothing."""
    path = tmp_path / "chats.jsonl"
    contents = [f"message {n} " + "x" * 1000 for n in range(5_200)]
    path.write_bytes(jsonl(chat(*contents, id="long"), chat("short")))
    assert 5_000_000 < path.stat().st_size
    assert summary(2, 5_201) == counts(shell("import", path, "--json").json)
    assert summary(0, 0, there=2) == counts(shell("import", path, "--json").json)
    (line,) = [line for line in exported(shell) if line["id"] == "long"]
    assert isinstance(line["messages"], list)
    assert contents == [message["content"] for message in line["messages"]]
    created = shell("tail", "--type", "SessionCreated", "--json").lines
    assert 2 == len(created)


def test_what_was_erased_is_imported_again_only_when_that_is_asked_for(shell: Shell, tmp_path: Path) -> None:
    """The other lines go on; what is asked for comes back once, also when it is long, and again when it was erased."""
    path = tmp_path / "chats.jsonl"
    long = chat(*("x" * 500_000 for _ in range(6)), id="long", user_id="bob")
    path.write_bytes(jsonl(chat("hello", "hi", id="a", user_id="alice"), long, chat("still", id="b", user_id="cy")))
    assert summary(3, 9) == counts(shell("import", path, "--json").json)
    (session,) = imported_of(shell, "alice")
    assert 0 == shell("erase", "session", session["session_id"], "-U", "alice", "--reason", "r").code
    assert 0 == shell("erase", "user", "-U", "bob", "--reason", "r").code

    again = shell("import", path, "--json")
    assert (1, summary(0, 0, there=1, failed=2)) == (again.code, counts(again.json))
    refused = {(one["line"], one["code"]) for one in again.json["failures"]}
    assert {(1, "history_erased"), (2, "history_erased")} == refused
    assert "chats.jsonl:1: session" in again.err
    assert "was erased since" in again.err
    assert "--include-erased" in again.err

    asked = shell("import", path, "--include-erased", "--json")
    assert (0, summary(2, 8, there=1)) == (asked.code, counts(asked.json)), asked.err
    assert summary(0, 0, there=3) == counts(shell("import", path, "--include-erased", "--json").json)
    assert summary(0, 0, there=1, failed=2) == counts(shell("import", path, "--json").json)
    messages = {user: sum(one["messages"] for one in imported_of(shell, user)) for user in ("alice", "bob", "cy")}
    assert {"alice": 4, "bob": 12, "cy": 1} == messages
    assert "hello" in shell("export").out
    assert 0 == shell("erase", "user", "-U", "alice", "--reason", "r").code
    assert summary(1, 2, there=2) == counts(shell("import", path, "--include-erased", "--json").json)
    assert 0 == shell("erase", "tenant", "default", "--reason", "r").code
    closed = shell("import", path, "--include-erased", "--json").json
    assert {"content_gone"} == {one["code"] for one in closed["failures"]}
    assert summary(0, 0, failed=3) == counts(closed)


def test_many_that_were_erased_come_back_through_a_queue_that_is_full(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are under way when each is sent again."""
    path = tmp_path / "chats.jsonl"
    path.write_bytes(jsonl(*(chat("hello", id=str(number), user_id="bob") for number in range(600))))
    assert 0 == shell("import", path).code
    assert 0 == shell("erase", "user", "-U", "bob", "--reason", "r").code
    monkeypatch.setattr(import_run, "RETRY_PAUSE_S", 0.0)
    submit, sent = Ledger.submit, Counter[bytes]()

    def full(ledger: Ledger, command: Command) -> Future[Result]:
        assert isinstance(command, ImportSession)
        sent[command.session_id] += 1
        if len(sent) > 600 and sent[command.session_id] == 1:  # they are under way, and each is sent again
            raise Overloaded("the queue is full")
        return submit(ledger, command)

    monkeypatch.setattr(Ledger, "submit", full)
    assert summary(600, 600) == counts(shell("import", path, "--include-erased", "--json").json)


def test_one_id_twice_in_a_file_is_told(shell: Shell, tmp_path: Path) -> None:
    """The second is counted as there already: an id is taken once, whatever it holds."""
    path = tmp_path / "chats.jsonl"
    path.write_bytes(jsonl(chat("one", id="x"), chat("another", id="x"), chat("one", id="x", user_id="bob")))
    ran = shell("import", path, "--json")
    assert summary(2, 2, there=1) == counts(ran.json)


def test_a_session_that_lives_under_the_id_of_a_line_can_not_be_made_by_a_line(shell: Shell, tmp_path: Path) -> None:
    """Ids of imported sessions are derived, so a line that names a live session's id makes another session."""
    session_id = shell("sessions", "create", "-U", "alice", "--json").json["session_id"]
    path = tmp_path / "chats.jsonl"
    path.write_bytes(jsonl(chat("forged", id=session_id, user_id="alice")))
    assert summary(1, 1) == counts(shell("import", path, "--json").json)
    assert [] == shell("sessions", "history", session_id, "-U", "alice", "--json").lines


def test_tenant_and_user_are_options_lines_or_defaults(shell: Shell, tmp_path: Path) -> None:
    """--tenant goes before what a line names; --user counts where a line names nobody."""
    path = tmp_path / "chats.jsonl"
    path.write_bytes(jsonl(chat("one", tenant="acme", user="bob"), chat("two")))
    assert 0 == shell("import", path, "-U", "carol").code
    assert ["bob"] == [line["user_id"] for line in exported(shell, "-t", "acme")]
    assert ["carol"] == [line["user_id"] for line in exported(shell)]
    assert 0 == shell("import", path, "-t", "other").code
    assert ["bob", "imported"] == sorted(str(line["user_id"]) for line in exported(shell, "-t", "other"))


def test_sharegpt_lines_and_arrays_are_imported(shell: Shell, tmp_path: Path) -> None:
    """One conversation a line, or one array of them as the dumps come."""
    turns = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]
    path = tmp_path / "sharegpt.json"
    path.write_text(json.dumps([{"id": "a", "conversations": turns}, {"conversations": turns}], indent=1))
    assert summary(2, 4) == counts(shell("import", path, "--json").json)
    path.write_bytes(jsonl({"id": "a", "conversations": turns}))
    assert summary(0, 0, there=1) == counts(shell("import", path, "--format", "sharegpt", "--json").json)


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("does not exist", ["missing.jsonl"]),
        ("auto, openai, sharegpt", ["-", "--format", "csv"]),
        ("one by one", ["-", "-", "--source", "x"]),
    ],
)
def test_what_can_not_be_imported_at_all_is_usage(shell: Shell, message: str, arguments: list[str]) -> None:
    """Exit code 2 before anything is opened: no ledger is made."""
    ran = shell("import", *arguments)
    assert 2 == ran.code
    assert message in ran.err
    assert not shell.directory.exists()


def test_the_window_of_commands_under_way_is_bounded(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for two commands or one byte at a time, all the same arrives."""
    path = tmp_path / "chats.jsonl"
    path.write_bytes(jsonl(*(chat(f"text {n}") for n in range(20))))
    monkeypatch.setattr(import_run, "WINDOW_COMMANDS", 2)
    assert summary(20, 20) == counts(shell("import", path, "--json").json)
    monkeypatch.setattr(import_run, "WINDOW_BYTES", 1)
    assert summary(0, 0, there=20) == counts(shell("import", path, "--json").json)


def test_the_report_says_how_fast_it_was(shell: Shell, tmp_path: Path) -> None:
    """In words that add up."""
    path = tmp_path / "chats.jsonl"
    path.write_bytes(jsonl(chat("one", "two")))
    ran = shell("import", path)
    assert re.fullmatch(
        r"1 sessions with 2 messages added, 0 already there, 0 failed; 1 lines in [\d.]+ s \([\d,]+ messages/s\)\n",
        ran.out,
    )


def test_what_can_not_be_read_is_told_before_anything_is_recorded(shell: Shell, tmp_path: Path) -> None:
    """A directory among the files: exit code 2, and no ledger is made for those before it."""
    (tmp_path / "a.jsonl").write_bytes(jsonl(chat("x")))
    ran = shell("import", tmp_path / "a.jsonl", tmp_path)
    assert 2 == ran.code
    assert "which is a directory" in ran.err
    assert not shell.directory.exists()


def test_many_bad_lines_are_not_all_named(shell: Shell, tmp_path: Path) -> None:
    """Twenty, and how many more; a file that is no text is one failure."""
    (tmp_path / "bad.jsonl").write_bytes(b"not json\n" * 50)
    ran = shell("import", tmp_path / "bad.jsonl")
    assert 1 == ran.code
    assert 20 == ran.err.count("bad.jsonl:")
    assert "... and 30 more" in ran.err
    (tmp_path / "binary").write_bytes(bytes(range(256)) * 1000 + bytes(500))
    (tmp_path / "text").write_bytes(jsonl(chat("x")).decode().encode("utf-16"))
    for name in ("binary", "text"):
        ran = shell("import", tmp_path / name, "--json")
        assert (1, 1) == (ran.code, ran.json["failed"])
        assert "no text" in ran.err


def test_an_export_names_the_file_that_was_asked_for(shell: Shell, tmp_path: Path) -> None:
    """Not the one that it is written to first."""
    assert 0 == shell("import", "-", "--source", "x", stdin=jsonl(chat("a"))).code
    ran = shell("export", "-o", tmp_path / "none" / "out.jsonl")
    assert 2 == ran.code
    assert f"'{tmp_path}/none/out.jsonl', whose directory does not exist" in ran.err
    assert f"exported to {tmp_path}/out.jsonl" in shell("export", "-o", tmp_path / "out.jsonl").out
