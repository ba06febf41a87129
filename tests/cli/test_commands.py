"""Every command of the ledger from the command line: what it does, its JSON, its exit codes and what it says."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.shell import PROGRAM, Shell, environment


def created(shell: Shell, user: str = "alice", *more: str) -> str:
    """The id of a new session."""
    session_id = shell("sessions", "create", "-U", user, "--json", *more).json["session_id"]
    assert isinstance(session_id, str)
    return session_id


def refused(shell: Shell, code: str, *arguments: object, exit_code: int = 1) -> None:
    """The command answers with that error: in JSON, in words, and by its exit code."""
    ran = shell(*arguments, "--json")
    assert (exit_code, code) == (ran.code, ran.json["error"]["code"]), ran
    assert exit_code == ran.json["error"]["exit_code"]
    assert {"message", "retriable", "command_id"} <= set(ran.json["error"])
    assert ran.json["error"]["message"] in ran.err.replace("\n", " ")
    plain = shell(*arguments)
    assert (exit_code, "") == (plain.code, plain.out)
    assert plain.err.startswith("session-ledger: ")
    assert "Traceback" not in plain.err


def test_a_session_from_beginning_to_end(shell: Shell) -> None:
    """Created, messaged, updated, failing, ended; each answer carries partition and position, each read sees it."""
    options = ("--title", "Order 42", "--context", '{"page": 1}', "-m", "plan=pro", "--ip-address", "192.0.2.1")
    session = created(shell, "alice", *options, "--ttl", "8h", "--idle-timeout", "15m")
    first = shell("sessions", "message", session, "hello", "-U", "alice", "--json").json
    assert (1, 0) == (first["message_number"], first["partition"])
    piped = shell(
        "sessions", "message", session, "-", "-U", "alice", "--role", "tool", "--json", stdin="naïve\n".encode()
    )
    assert 2 == piped.json["message_number"]
    assert first["position"] + 1 == piped.json["position"]
    assert 0 == shell("sessions", "update", session, "-U", "alice", "--title", "Order 43", "-m", "plan=basic").code
    failure = ("--component", "llm", "--type", "timeout", "--message", "no answer", "--severity", "critical")
    assert 0 == shell("sessions", "error", session, "-U", "alice", *failure).code
    ended = shell("sessions", "end", session, "-U", "alice", "--reason", "completed", "--note", "all well")
    assert f"session {session} ended (partition 0, position " in ended.out
    shown = shell("sessions", "show", session, "-U", "alice", "--json").json
    expected = {"status": "ended", "title": "Order 43", "metadata": {"plan": "basic"}, "end_reason": "completed"}
    assert expected == {name: shown["session"][name] for name in expected}
    assert ("192.0.2.1", {"page": 1}, "all well", 900.0) == tuple(
        shown["session"][name] for name in ("ip_address", "context", "note", "idle_timeout")
    )
    assert ["timeout"] == [error["error_type"] for error in shown["errors"]]
    history = shell("sessions", "history", session, "-U", "alice", "--json").lines
    assert [(1, "user", "hello"), (2, "tool", "naïve")] == [(m["number"], m["role"], m["content"]) for m in history]
    people = shell("sessions", "show", session, "-U", "alice").out
    assert "Order 43" in people
    assert "no answer" in people


def test_sessions_are_listed_in_pages(shell: Shell) -> None:
    """Newest activity first, by user or tenant, by status; the cursor of one page begins the next."""
    ids = [created(shell, user) for user in ("alice", "bob", "alice")]
    assert 0 == shell("sessions", "end", ids[0], "-U", "alice").code
    assert [ids[2], ids[1]] == [s["session_id"] for s in shell("sessions", "list", "--json").json["sessions"]]
    assert [ids[2]] == [s["session_id"] for s in shell("sessions", "list", "-U", "alice", "--json").json["sessions"]]
    page = shell("sessions", "list", "--status", "any", "-n", "2", "--json").json
    rest = shell("sessions", "list", "--status", "any", "--after", page["next"], "--json").json
    assert (2, 1, None) == (len(page["sessions"]), len(rest["sessions"]), rest["next"])
    table = shell("sessions", "list", "-n", "1")
    assert table.out.startswith("session ")
    assert 100 >= max(map(len, table.out.splitlines()))
    assert "--after" in table.err
    assert [] == shell("sessions", "list", "-t", "nobody", "--json").json["sessions"]


def test_what_a_session_refuses(shell: Shell) -> None:
    """Not found, not active, at the limit, not an id: codes and exit codes that scripts can rely on."""
    session = created(shell)
    refused(shell, "session_not_found", "sessions", "message", session, "x", "-U", "bob")
    refused(shell, "session_not_found", "sessions", "show", session, "-U", "alice", "-t", "other")
    refused(shell, "invalid_input", "sessions", "message", "no-id", "x", "-U", "alice", exit_code=2)
    refused(shell, "invalid_input", "sessions", "create", "-U", "a", "--kind", "odd", exit_code=2)
    refused(shell, "invalid_input", "sessions", "create", "-U", "a", "--ttl", "soon", exit_code=2)
    refused(shell, "invalid_input", "sessions", "message", session, "a\x00b", "-U", "alice", exit_code=2)
    refused(shell, "invalid_input", "sessions", "list", "--status", "odd", exit_code=2)
    said = shell("sessions", "list", "--status", "odd").err.splitlines()[0]
    assert said.endswith("--status: 'odd'; must be one of live, ended, expired, evicted, imported or any.")
    assert 0 == shell("sessions", "end", session, "-U", "alice").code
    refused(shell, "session_not_active", "sessions", "message", session, "x", "-U", "alice")
    assert 0 == shell("limits", "set", "-U", "carol", "--max-sessions", "1", "--policy", "refuse").code
    created(shell, "carol")
    refused(shell, "session_limit_reached", "sessions", "create", "-U", "carol")


def test_a_repeated_command_id_answers_what_the_first_did(shell: Shell) -> None:
    """The same id and body: recorded once; another body: refused."""
    session = created(shell)
    command_id = shell("sessions", "message", session, "x", "-U", "alice", "--json").json["command_id"]
    again = shell("sessions", "message", session, "x", "-U", "alice", "--command-id", command_id, "--json").json
    assert (1, True) == (again["message_number"], again["repeated"])
    said = shell("sessions", "message", session, "x", "-U", "alice", "--command-id", command_id)
    assert "recorded before" in said.out
    refused(shell, "command_id_reused", "sessions", "message", session, "y", "-U", "alice", "--command-id", command_id)


def test_reuse_answers_with_the_live_session(shell: Shell) -> None:
    """Get or create."""
    session = created(shell)
    again = shell("sessions", "create", "-U", "alice", "--reuse", "--json").json
    assert (session, False) == (again["session_id"], again["created"])


def test_quotas_are_set_consumed_checked_released_and_reported(shell: Shell) -> None:
    """Exit code 1 where an amount does not fit, with when it will."""
    user = ("-U", "alice")
    created(shell)
    refused(shell, "quota_not_set", "quota", "consume", "tokens", *user)
    assert 0 == shell("quota", "set", "tokens", "100.5", *user, "--period", "1h").code
    held = shell("quota", "consume", "tokens", "60", "--reserve", *user, "--json").json
    assert ("60", "100.5", "40.5", 59.7) == tuple(held[k] for k in ("used", "limit", "remaining", "percentage"))
    check = shell("quota", "check", "tokens", "50", *user, "--json")
    assert (1, False) == (check.code, check.json["allowed"])
    assert 0 == shell("quota", "check", "tokens", "40.5", *user).code
    refused(shell, "quota_exceeded", "quota", "consume", "tokens", "50", *user)
    assert "fits again in" in shell("quota", "consume", "tokens", "50", *user).err
    back = shell("quota", "release", held["reservation_id"], "20.25", *user, "--json").json
    assert "20.25" == back["amount"]
    refused(shell, "reservation_not_open", "quota", "release", held["reservation_id"], *user)
    (report,) = shell("quota", "report", *user, "--json").json["quotas"]
    assert ("39.75", "user", 3_600_000) == (report["used"], report["source"], report["period_ms"])
    sums = shell("quota", "report", "--json").json["quotas"]
    assert [("tokens", 1, "39.75")] == [(q["resource"], q["users"], q["used"]) for q in sums]
    assert "39.75" in shell("quota", "report", *user).out
    refused(shell, "invalid_input", "quota", "consume", "tokens", "nan", *user, exit_code=2)
    assert 0 == shell("quota", "set", "tokens", "none", *user).code
    refused(shell, "quota_not_set", "quota", "consume", "tokens", *user)


def test_limits_of_tenants_plans_and_users(shell: Shell) -> None:
    """The user's go before the plan's, the plan's before the tenant's; `show` says what counts."""
    assert 0 == shell("limits", "set", "--max-sessions", "3", "--quota", "tokens=10/1h", "--idle-timeout", "10m").code
    assert 0 == shell("limits", "set", "--plan", "pro", "--max-sessions", "9").code
    assert 0 == shell("limits", "set", "-U", "alice", "--plan", "pro", "--policy", "refuse").code
    tenant = shell("limits", "show", "--json").json
    assert (3, "evict", 600.0) == tuple(
        tenant["counting"][n] for n in ("max_sessions", "limit_policy", "idle_timeout_s")
    )
    assert {"tokens": {"limit": "10", "period_ms": 3_600_000}} == tenant["own"]["quotas"]
    alice = shell("limits", "show", "-U", "alice", "--json").json
    assert (9, "refuse", "pro") == (
        alice["counting"]["max_sessions"],
        alice["counting"]["limit_policy"],
        alice["user"]["own"]["plan"],
    )
    people = shell("limits", "show").out
    assert "10 min" in people
    assert ["plan", "pro", "max", "sessions", "9"] in [line.split() for line in people.splitlines()]
    changed = shell("limits", "set", "--plan", "pro", "--ttl", "8h").out
    assert "as a whole" in changed
    assert "--max-sessions" in changed
    refused(shell, "invalid_input", "limits", "set", "-U", "alice", "--ttl", "1h", exit_code=2)
    refused(shell, "invalid_input", "limits", "set", "--quota", "tokens", exit_code=2)


def test_agents_are_registered_leased_released_and_retired(shell: Shell) -> None:
    """By type and capabilities; who holds what is listed."""
    session = created(shell)
    refused(shell, "agent_type_unknown", "agents", "acquire", session, "support", "-U", "alice")
    agent = shell("agents", "register", "support", "-c", "voice", "-c", "chat", "--json").json["agent_id"]
    leased = shell("agents", "acquire", session, "support", "-c", "voice", "-U", "alice", "--json").json
    assert agent == leased["agent_id"]
    refused(shell, "no_agent_available", "agents", "acquire", created(shell, "bob"), "support", "-U", "bob")
    refused(shell, "agent_busy", "agents", "retire", agent)
    (listed,) = shell("agents", "list", "--json").json["agents"]
    assert ("held", session, ["chat", "voice"]) == (listed["status"], listed["held_by"], listed["capabilities"])
    assert session in shell("agents", "list").out
    assert 0 == shell("agents", "release", session, agent, "-U", "alice", "--reset", "verified").code
    refused(shell, "agent_not_held", "agents", "release", session, agent, "-U", "alice")
    assert 0 == shell("agents", "retire", agent, "--reason", "old").code
    assert [] == shell("agents", "list", "--json").json["agents"]
    assert "retired" == shell("agents", "list", "--retired", "--json").json["agents"][0]["status"]


def test_failed_authentications_are_recorded_and_listed(shell: Shell) -> None:
    """Newest first, with the address opened."""
    created(shell)
    options = ("-U", "alice", "--method", "password", "--reason", "bad_credential", "--ip-address", "192.0.2.9")
    assert 0 == shell("auth", "failed", *options).code
    (failure,) = shell("auth", "list", "-U", "alice", "--json").json["authentication_failures"]
    assert ("password", "192.0.2.9") == (failure["method"], failure["ip_address"])
    assert "192.0.2.9" in shell("auth", "list", "-U", "alice").out
    assert 0 == shell("auth", "failed", "-U", "bob", "--method", "api_key", "--reason", "expired").code
    both = shell("auth", "list", "--json").json["authentication_failures"]
    assert ["bob", "alice"] == [f["user"] for f in both]
    assert [] == shell("auth", "list", "-t", "nobody", "--json").json["authentication_failures"]


def test_a_sweep_records_what_has_timed_out(shell: Shell) -> None:
    """Once; a second sweep finds nothing."""
    session = created(shell, "alice", "--idle-timeout", "1ms")
    time.sleep(0.05)
    assert "timed out" in shell("sessions", "list").out
    assert {"expired": 1, "users": 1, "session_ids": [session]} == shell("expire", "--json").json
    assert "0 sessions of 0 users expired\n" == shell("expire").out


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["sessions", "create"],
        ["sessions", "list", "--limit", "0"],
        ["tail", "--type", "NoSuchEvent"],
        ["tail", "--from", "1", "--last", "2"],
        ["tail", "--partition", "7"],
        ["sessions", "list", "--odd"],
        ["expire", "--every", "0"],
    ],
)
def test_usage_errors_are_told_and_exit_with_two(shell: Shell, arguments: list[str]) -> None:
    """On stderr; with --json as a document, too."""
    assert 0 == shell("sessions", "create", "-U", "alice").code
    plain = shell(*arguments)
    assert (2, "") == (plain.code, plain.out)
    assert plain.err
    ran = shell(*arguments, "--json")
    assert 2 == ran.code
    assert ran.json["error"]["message"]


@pytest.mark.parametrize(
    "command", ["sessions list", "tail", "verify", "rebuild", "lag", "position", "export", "stats"]
)
def test_reads_of_a_ledger_that_is_not_there_make_none(shell: Shell, command: str) -> None:
    """A mistyped URL is told (exit code 3), and no directory is made for it."""
    ran = shell(*command.split(), "--json")
    assert (3, "log_unavailable") == (ran.code, ran.json["error"]["code"])
    assert str(shell.directory) in ran.err
    assert not shell.directory.exists()


def test_a_url_that_is_none_is_told(shell: Shell) -> None:
    """With the forms that there are."""
    shell.url = "postgres://x"
    ran = shell("sessions", "list")
    assert 2 == ran.code
    assert "sqlite:DIR" in ran.err


def test_a_file_is_no_ledger(shell: Shell) -> None:
    """A directory is: exit code 2, for reads and for what would create one."""
    shell.directory.write_text("mine")
    for command in ("stats", "sessions create -U alice"):
        ran = shell(*command.split())
        assert 2 == ran.code
        assert f"{shell.directory} is a file" in ran.err
    assert "mine" == shell.directory.read_text()


@pytest.mark.parametrize(
    "command",
    [
        "expire",
        "sessions end 01890000-0000-7000-8000-000000000000 -U alice",
        "quota consume tokens -U alice",
        "agents acquire 01890000-0000-7000-8000-000000000000 support -U alice",
        "auth failed -U alice --method password --reason expired",
    ],
)
def test_what_acts_on_a_ledger_makes_none(shell: Shell, command: str) -> None:
    """Only what begins something does: a mistyped directory is told (exit code 3), and stays away."""
    refused(shell, "log_unavailable", *command.split(), exit_code=3)
    assert not shell.directory.exists()


def test_options_are_named_as_they_are_typed(shell: Shell) -> None:
    """Not by the fields of commands; durations as options take them; a negative amount is no option."""
    ran = shell("sessions", "create", "-U", "alice", "--idle-timeout", "0")
    assert (2, "session-ledger: --idle-timeout: ") == (ran.code, ran.err[:32])
    assert "a number out of range; must be between 1ms and " in ran.err
    created(shell)
    assert 0 == shell("quota", "set", "tokens", "5", "-U", "alice", "--period", "90").code
    refused(shell, "invalid_input", "quota", "consume", "tokens", "-3", "-U", "alice", exit_code=2)
    refused(shell, "invalid_input", "limits", "set", exit_code=2)


def test_the_environment_names_ledger_tenant_and_user(shell: Shell) -> None:
    """SESSION_LEDGER_URL, _TENANT and _USER stand in for the options."""
    own = {"SESSION_LEDGER_URL": shell.url, "SESSION_LEDGER_TENANT": "acme", "SESSION_LEDGER_USER": "dora"}
    done = subprocess.run(
        [*PROGRAM, "sessions", "create", "--json"], capture_output=True, env={**environment(), **own}, timeout=60
    )
    assert 0 == done.returncode, done.stderr
    document = json.loads(done.stdout)
    assert ("acme", "dora") == (document["tenant"], document["user"])
    assert 1 == len(shell("sessions", "list", "-t", "acme", "--json").json["sessions"])


def test_a_setting_that_is_none_is_told_without_a_traceback(shell: Shell) -> None:
    """A typo in an environment variable is a configuration error (exit code 3), not a defect."""
    odd = {**environment(), "SESSION_LEDGER_ENCRYPTION": "rot13"}
    done = subprocess.run(
        [*PROGRAM, "sessions", "create", "-U", "a", "-u", shell.url, "--json"], capture_output=True, env=odd, timeout=60
    )
    assert (3, "misconfigured") == (done.returncode, json.loads(done.stdout)["error"]["code"])
    assert b"Traceback" not in done.stderr
    assert b"encryption" in done.stderr


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    """`--help` loads neither the write path nor its libraries."""
    script = (
        "import sys; from session_ledger.cli.main import run; code = run(['--help']);"
        "heavy = {'fastavro', 'kafka', 'sqlite3', 'cryptography', 'eventsourcing', 'pydantic_settings', 'msgspec'};"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([PROGRAM[0], "-c", script], capture_output=True, text=True, timeout=60, env=environment())
    assert (0, "[]") == (done.returncode, done.stderr.strip())
    assert "sessions" in done.stdout


def test_a_reader_that_goes_away_is_no_defect(shell: Shell) -> None:
    """`tail | head` ends without a traceback."""
    for user in range(20):
        created(shell, f"user-{user}")
    read, write = os.pipe()
    os.close(read)
    command = [*PROGRAM, "tail", "--json", "--type", "SchemaPublished", "-u", shell.url]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, env=environment(), timeout=60)
    os.close(write)
    assert (0, b"") == (done.returncode, done.stderr)


def test_the_version_is_said(tmp_path: Path) -> None:
    """And nothing else."""
    done = subprocess.run([*PROGRAM, "--version"], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert (0, "0.1.0\n") == (done.returncode, done.stdout)
