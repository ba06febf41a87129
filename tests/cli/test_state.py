"""tail, verify, rebuild, lag, position, stats: what the log and the views are found to be."""

from __future__ import annotations

import os
import sqlite3

import pytest

from tests.cli.shell import Shell


@pytest.fixture
def busy(shell: Shell) -> Shell:
    """A ledger with a session of three messages, a quota and an agent."""
    session = shell("sessions", "create", "-U", "alice", "--title", "a secret title", "--json").json["session_id"]
    for text in ("one secret", "two", "three"):
        assert 0 == shell("sessions", "message", session, text, "-U", "alice").code
    assert 0 == shell("quota", "set", "tokens", "5", "-U", "alice").code
    assert 1 == shell("quota", "consume", "tokens", "6", "-U", "alice").code
    assert 0 == shell("agents", "register", "support").code
    assert 0 == shell("sessions", "end", session, "-U", "alice", "--reason", "completed").code
    return shell


def test_tail_prints_facts_in_order_and_sealed_fields_as_sizes(busy: Shell) -> None:
    """One a line; what people said is not in it; schemas are left out."""
    lines = busy("tail").out.splitlines()
    assert [f"0:{n}" for n in range(1, len(lines) + 1)] == [line.split()[0] for line in lines]
    assert "SessionCreated" in lines[0]
    assert "title=<" in lines[0]
    assert "bytes sealed>" in lines[1]
    assert not any("secret" in line or "SchemaPublished" in line for line in lines)


def test_tail_cuts_long_values_for_people_only(busy: Shell) -> None:
    """A value is at most 60 characters of a line; with --json it is whole."""
    names = [f"capability-{n}" for n in range(40)]
    assert 0 == busy("agents", "register", "billing", *(part for name in names for part in ("-c", name))).code
    only = ("--type", "AgentRegistered", "--last", "1", "--partition", "0")
    assert names[-1] not in busy("tail", *only).out
    assert set(names) == set(busy("tail", *only, "--json").json["capabilities"])


def test_tail_begins_where_it_is_told(busy: Shell) -> None:
    """--from a position, --last so many, --type, --partition."""
    assert [2, 3] == [fact["position"] for fact in busy("tail", "--from", "2", "--json").lines][:2]
    assert ["SessionEnded"] == [
        fact["type"] for fact in busy("tail", "--last", "1", "--partition", "0", "--json").lines
    ]
    assert 3 == len(busy("tail", "--type", "MessageAdded", "--json").lines)
    schemas = busy("tail", "--partition", "-1", "--type", "SchemaPublished", "--json").lines
    assert {-1} == {fact["partition"] for fact in schemas}
    assert 20 <= len(schemas)
    assert [] == busy("tail", "--from", "1000", "--json").lines


def test_tail_goes_past_what_it_can_not_read_and_says_so(busy: Shell) -> None:
    """Exit code 1; the record is named, the others are shown."""
    _damage(busy, "log.db", "UPDATE {table} SET value = x'c301' WHERE position = 3")
    ran = busy("tail", "--partition", "0", "--json")
    assert 1 == ran.code
    assert [3] == [fact["position"] for fact in ran.lines if "unreadable" in fact]
    assert 6 <= len(ran.lines)
    assert "0:3  UNREADABLE" in busy("tail", "--partition", "0").out


def test_verify_says_what_it_checked(busy: Shell) -> None:
    """Exit code 0, records, positions and rows."""
    ran = busy("verify", "--json")
    assert (0, True, []) == (ran.code, ran.json["ok"], ran.json["findings"])
    assert 3 == ran.json["rows"]["messages"]
    assert ran.json["ends"] == ran.json["compared"]
    assert "everything agrees" in busy("verify").out


def test_verify_names_each_difference_and_a_rebuild_mends_the_views(busy: Shell) -> None:
    """A row that was changed behind the ledger's back: exit code 1 until the views are made again."""
    assert 0 == busy("verify").code
    with sqlite3.connect(busy.directory / "views.db") as views:
        views.execute("UPDATE messages SET role = 'forged' WHERE number = 2")
    views.close()
    ran = busy("verify", "--json")
    assert (1, False) == (ran.code, ran.json["ok"])
    assert ["changed_row"] == [finding["what"] for finding in ran.json["findings"]]
    assert "messages" in busy("verify").out
    rebuilt = busy("rebuild", "--json")
    assert (0, sum(rebuilt.json["positions"].values())) == (rebuilt.code, rebuilt.json["records"])
    assert 0 == busy("verify").code


def test_verify_finds_a_damaged_log(busy: Shell) -> None:
    """A record's bytes, a missing record: exit code 1 and where, never a traceback."""
    assert 0 == busy("verify").code
    _damage(busy, "log.db", "UPDATE {table} SET value = substr(value, 1, 20) WHERE position = 4")
    ran = busy("verify", "--json")
    assert 1 == ran.code
    assert "undecodable" in {finding["what"] for finding in ran.json["findings"]}
    assert 4 in {finding["position"] for finding in ran.json["findings"]}


def test_damaged_views_say_rebuild_and_a_rebuild_mends_them(busy: Shell) -> None:
    """Whatever stands in the file, and whatever pages of it: exit code 3 until then."""
    assert 0 == busy("stats").code
    path = busy.directory / "views.db"
    whole = path.read_bytes()
    for damaged in (b"no database at all " * 500, whole[:4096] + b"\xa5" * (len(whole) - 4096)):
        path.write_bytes(damaged)
        ran = busy("sessions", "list")
        assert 3 == ran.code
        assert "session-ledger rebuild" in ran.err
        rebuilt = busy("rebuild", "--json")
        assert (0, True) == (rebuilt.code, rebuilt.json["records"] > 0)
        assert 0 == busy("verify").code


def test_a_record_that_stops_a_partition_can_be_stepped_over(busy: Shell) -> None:
    """On purpose, by its position alone; verify goes on reporting it."""
    _damage(busy, "log.db", "UPDATE {table} SET value = x'c301' WHERE position = 5")
    assert 1 == busy("stats").code
    assert 2 == busy("quarantine", "0", "4", "--reason", "wrong").code
    assert 2 == busy("quarantine", "-1", "1", "--reason", "wrong").code
    ran = busy("quarantine", "0", "5", "--reason", "a bad disk", "--json")
    assert (0, None) == (ran.code, ran.json["stopped"])
    assert 0 == busy("stats").code
    assert "a bad disk" in busy("verify").out
    assert 1 == busy("verify").code


def test_lag_and_position_say_how_far_the_views_are(busy: Shell) -> None:
    """`lag` folds nothing; a read does."""
    _, before = busy("lag", "--json").json["partitions"]
    assert before["end"] == before["behind"] > 0
    assert [] == busy("position", "--json").json["receipts"]
    assert "nothing is folded yet" in busy("position").out
    assert 0 == busy("sessions", "list").code
    _, after = busy("lag", "--json").json["partitions"]
    assert (0, before["end"]) == (after["behind"], after["position"])
    receipts = busy("position", "--json").json["receipts"]
    assert {before["end"]} == {r["position"] for r in receipts if r["partition"] == 0}
    assert "control log" in busy("lag").out
    assert "sessions" in busy("position").out


def test_stats_count_sessions_endings_and_refusals(busy: Shell) -> None:
    """Of all tenants, or of one."""
    found = busy("stats", "--json").json
    assert (1, 3, 1) == (found["sessions"], found["messages"], found["refusals"])
    assert [{"status": "ended", "reason": "completed", "sessions": 1}] == found["by_reason"]
    assert {"support": {"free": 1}} == {k: {s: n for s, n in v.items() if n} for k, v in found["agents"].items()}
    assert 0 == busy("stats", "-t", "nobody", "--json").json["sessions"]
    people = busy("stats").out
    assert "completed" in people
    assert 100 >= max(map(len, people.splitlines()))


def _damage(shell: Shell, file: str, sql: str) -> None:
    """Change the log's file as no program of ours would."""
    db = sqlite3.connect(shell.directory / file)
    tables = [
        name
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        if {"position", "value"} <= {row[1] for row in db.execute(f"PRAGMA table_info({name})")}
    ]
    for table in tables:
        if "control" not in table:
            columns = {row[1] for row in db.execute(f"PRAGMA table_info({table})")}
            db.execute(sql.format(table=table) + (" AND partition = 0" if "partition" in columns else ""))
    db.commit()
    db.close()


def test_a_hint_is_about_what_the_error_is_about(busy: Shell) -> None:
    """Trees are no views, the signing key is in no keyring, and verify does not send to verify."""
    assert 0 == busy("checkpoint", "--once").code
    trees, key = busy.directory / "merkle.db", busy.directory / "signing.key"
    with sqlite3.connect(trees) as opened:
        opened.execute("UPDATE meta SET value = 'another' WHERE key = 'log_id'")
    opened.close()
    ran = busy("checkpoint", "--once")
    assert (3, True, False) == (ran.code, "merkle.db" in ran.err, "rebuild" in ran.err)
    assert "delete the file: it is made again" in ran.err
    trees.unlink()
    key.rename(busy.directory / "elsewhere")
    ran = busy("checkpoint", "--once", "--json")
    assert (3, "signing_key_unavailable") == (ran.code, ran.json["error"]["code"])
    assert (True, False) == ("signing.key" in ran.err, "keyring" in ran.err)
    (busy.directory / "elsewhere").rename(key)
    key.chmod(0o644)
    assert "keyring" not in busy("verify", "--sign", busy.directory / "note").err
    with sqlite3.connect(busy.directory / "log.db") as log:
        log.execute("DELETE FROM meta WHERE name = 'log_id'")
    log.close()
    read, checked = busy("tail"), busy("verify")
    assert (1, 1) == (read.code, checked.code)
    assert (True, False) == ("`session-ledger verify`" in read.err, "`session-ledger verify`" in checked.err)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that is always full")
def test_a_full_disk_is_told_with_the_file(busy: Shell) -> None:
    """Whatever writes: the file is named, and it is said that the disk is full; a lock that can not be written, too."""
    session = busy("sessions", "list", "--status", "any", "--json").json["sessions"][0]["session_id"]
    for command in (("audit", "state", session, "--report"), ("verify", "--sign")):
        ran = busy(*command, "/dev/full", "--json")
        assert (3, "os_error") == (ran.code, ran.json["error"]["code"])
        assert ran.json["error"]["message"].startswith("/dev/full: the disk, or this user's share of it, is full")
    (busy.directory / "checkpointer.lock").symlink_to("/dev/full")
    assert f"{busy.directory}/checkpointer.lock: " in busy("checkpoint", "--once").err
