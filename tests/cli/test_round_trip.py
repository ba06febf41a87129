"""What is exported imports back to the same history, into a ledger that never saw it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.cli.shell import Shell, jsonl

_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=40)
_WORD = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=12)
_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)
_TIME = st.none() | st.integers(0, 4_000_000_000) | st.floats(0, 4e9) | st.datetimes(timezones=st.timezones()).map(str)
_PART = st.fixed_dictionaries({"type": _WORD}, optional={"text": _TEXT, "data": _VALUE}) | _TEXT
_MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool"]), "content": st.none() | _TEXT | st.lists(_PART)},
    optional={
        "created_at": st.none() | st.integers(0, 4_000_000_000),
        "name": _WORD,
        "tool_call_id": _WORD,
        "tool_calls": st.lists(
            st.fixed_dictionaries({"id": _WORD, "function": st.dictionaries(_WORD, _TEXT)}), max_size=2
        ),
        "model": _WORD,
        "tokens_in": st.integers(0, 10**6),
        "metadata": st.dictionaries(_WORD, _VALUE, max_size=2),
        "unknown": _VALUE,
    },
)
_CHAT = st.fixed_dictionaries(
    {"messages": st.lists(_MESSAGE, min_size=1, max_size=4)},
    optional={
        "id": _WORD | st.integers(0, 99),
        "user_id": _WORD,
        "created_at": st.integers(0, 4_000_000_000),
        "title": _TEXT,
        "metadata": st.dictionaries(_WORD, _VALUE, max_size=2),
        "tools": _VALUE,
    },
)


def exported(shell: Shell, tenant: str) -> str:
    ran = shell("export", "-t", tenant)
    assert ran.code == 0, ran.err
    return ran.out


@settings(max_examples=8, phases=[Phase.explicit, Phase.reuse, Phase.generate])  # an example takes a second
@given(chats=st.lists(_CHAT, min_size=1, max_size=8))
def test_import_export_import_into_a_fresh_ledger_export_gives_identical_lines(chats: list[dict[str, object]]) -> None:
    """Whatever was imported: every text, part, time, number and field."""
    with tempfile.TemporaryDirectory() as place:
        first, second, file = Shell(Path(place) / "one"), Shell(Path(place) / "two"), Path(place) / "chats.jsonl"
        file.write_bytes(jsonl(*chats))
        ran = first("import", file, "--json", "-t", "acme")
        assert (0, len(chats)) == (ran.code, ran.json["sessions"] + ran.json["already_there"]), ran.err
        lines = exported(first, "acme")
        file.write_text(lines, encoding="utf-8", newline="\n")
        again = second("import", file, "--json")
        assert (0, ran.json["sessions"]) == (again.code, again.json["sessions"]), again.err
        assert lines == exported(second, "acme")
        back = first("import", file, "--json")
        assert ran.json["sessions"] == back.json["already_there"]
        for line in map(json.loads, lines.splitlines()):
            assert [m["role"] for m in line["messages"]]


def test_a_ledgers_own_sessions_are_exported_and_come_back_as_history(shell: Shell, tmp_path: Path) -> None:
    """With title, context, kind, tokens, model, parts and how they ended; exported again the lines are the same."""
    create = ["-U", "alice", "--title", "Order", "--context", '{"a":[1]}', "-m", "k=v", "--kind", "sensitive"]
    session = shell("sessions", "create", *create, "--json").json["session_id"]
    shell("sessions", "message", session, "where?", "-U", "alice")
    details = ["--role", "assistant", "--model", "m", "--tokens-out", "5", "--latency-ms", "70"]
    parts = '[{"type":"function","function":{"name":"f","arguments":"{}"}}]'
    shell("sessions", "message", session, "there", "-U", "alice", *details, "--parts", parts, "-m", "x=y")
    shell("sessions", "end", session, "-U", "alice", "--reason", "completed")
    live = shell("sessions", "create", "-U", "bob", "--json").json["session_id"]
    lines = exported(shell, "default")
    ended, empty = map(json.loads, lines.splitlines())
    assert (session, live) == (ended["id"], empty["id"])
    assert {"status": "ended", "reason": "completed", "by": "user"} == ended["end"]
    assert ("Order", {"a": [1]}, {"k": "v"}, "sensitive") == tuple(
        ended[name] for name in ("title", "context", "metadata", "kind")
    )
    assert "f" == ended["messages"][1]["tool_calls"][0]["function"]["name"]
    assert [] == empty["messages"]
    assert "end" not in empty
    file, other = tmp_path / "export.jsonl", Shell(tmp_path / "other")
    file.write_text(lines, encoding="utf-8")
    assert 2 == other("import", file, "--json").json["sessions"]
    assert lines == exported(other, "default")


def test_export_takes_one_session_or_one_user_and_writes_files_whole(shell: Shell, tmp_path: Path) -> None:
    """-o puts a file in place when it is complete; --session needs --user."""
    ids = [shell("sessions", "create", "-U", user, "--json").json["session_id"] for user in ("alice", "bob", "alice")]
    assert [ids[1]] == [line["id"] for line in shell("export", "-U", "bob").lines]
    assert [ids[2]] == [line["id"] for line in shell("export", "-U", "alice", "--session", ids[2]).lines]
    file = tmp_path / "export.jsonl"
    done = shell("export", "-o", file, "--json")
    assert (0, 3, 0) == (done.code, done.json["sessions"], done.json["messages"])
    assert 3 == len(file.read_text().splitlines())
    assert [file] == sorted(tmp_path.glob("*export*"))
    assert 2 == shell("export", "--session", ids[0]).code
    assert 1 == shell("export", "-U", "bob", "--session", ids[0]).code


def test_who_exported_what_and_why_is_recorded(shell: Shell) -> None:
    """A fact a session, before its line; whoever may not record exports nothing."""
    ids = [shell("sessions", "create", "-U", user, "--json").json["session_id"] for user in ("alice", "bob")]
    shell("sessions", "message", ids[0], "hello", "-U", "alice")
    before = shell("tail").out
    assert "ContentRevealed" not in before
    assert [ids[0]] == [line["id"] for line in shell("export", "-U", "alice", "--reason", "asked", "--by", "eve").lines]
    (told,) = [line for line in shell("tail").out.splitlines() if "ContentRevealed" in line]
    assert all(part in told for part in (ids[0], "revealed_by=eve", "reason=asked", "fields=1"))


def test_what_can_not_be_opened_is_not_exported_and_is_told(shell: Shell) -> None:
    """Without its key a session's content is gone: exit code 1 and the session's id, not a line without content."""
    session = shell("sessions", "create", "-U", "alice", "--json").json["session_id"]
    shell("sessions", "message", session, "hello", "-U", "alice")
    (shell.directory / "vault.db").unlink()
    for left in shell.directory.glob("vault.db-*"):
        left.unlink()
    assert 0 != shell("export", "-U", "alice").code
