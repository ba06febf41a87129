"""`erase` and `retention` as an operator meets them: what is recorded and not carried out, names that nobody has."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from session_ledger.consumers import erasing
from session_ledger.domain.ids import new_id
from session_ledger.ledger.clocks import machine_clock_us
from session_ledger.ledger.ledger import Ledger
from session_ledger.ledger.principals import system_user
from session_ledger.security.access import OWNER, Principal
from tests.cli.shell import Shell, environment
from tests.ledger.process import ROOT

WHY = ("--reason", "r", "--by", "dpo")


def created(shell: Shell, user: str = "ann", *options: object) -> str:
    """A session of the user."""
    ran = shell("sessions", "create", "-U", user, "--title", "x", *options, "--json")
    assert 0 == ran.code, ran.err
    return str(ran.json["session_id"])


def with_views_of_another_log(shell: Shell, tmp_path: Path) -> None:
    """So that nothing which needs them can be opened."""
    other = Shell(tmp_path / "other")
    created(other)
    assert 0 == other("sessions", "list").code
    for path in shell.directory.glob("views.db*"):
        path.unlink()
    for path in other.directory.glob("views.db*"):
        shutil.copy(path, shell.directory)


@pytest.fixture
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Erasures wait for no key in another process: there is none."""
    monkeypatch.setattr(erasing, "CACHED_S", 0.0)


def test_what_is_recorded_and_not_carried_out_is_told_as_recorded(shell: Shell, tmp_path: Path) -> None:
    """The eraser can not be opened: where the erasure stands, why, and who goes on; exit code 0, for it is recorded."""
    sessions = [created(shell) for _ in range(2)]
    with_views_of_another_log(shell, tmp_path)
    ran = shell("erase", "session", sessions[0], "-U", "ann", *WHY)
    assert 0 == ran.code, ran.err
    for expected in (
        "the erasure is recorded, by command ",
        "partition 0, position 4",
        "was built from the log",
        "erase status",
    ):
        assert expected in ran.out
    told = shell("erase", "session", sessions[1], "-U", "ann", *WHY, "--json").json
    assert ([], 0, 6) == (told["erasures"], told["recorded"]["partition"], told["recorded"]["position"])
    assert "was built from the log" in told["not_carried_out"]
    assert 0 == shell("rebuild").code
    shown = shell("erase", "status", "--json").json["erasures"]
    assert sessions == [one["session_id"] for one in shown]
    assert all(one["destroyed_at"] for one in shown)
    created(shell)
    again = shell("erase", "session", sessions[1], "-U", "ann", *WHY, "--json").json
    assert ([], None) == (again["erasures"], again["not_carried_out"])
    assert "that was erased before" in shell("erase", "session", sessions[1], "-U", "ann", *WHY).out


def test_a_user_is_erased_where_the_views_can_not_tell_who_is_known(shell: Shell, tmp_path: Path) -> None:
    """It is said that it can not be told, and recorded all the same: a damaged copy keeps nobody's right."""
    created(shell)
    with_views_of_another_log(shell, tmp_path)
    ran = shell("erase", "user", "-U", "ann", *WHY)
    assert (0, True) == (ran.code, "the erasure is recorded" in ran.out), ran.err
    assert "whether anything is recorded of this user can not be told" in ran.err
    assert (3, []) == (shell("erase", "tenant", "default", *WHY).code, of_type(shell, "TenantErased"))


def of_type(shell: Shell, kind: str) -> list[object]:
    """The facts of that type."""
    return shell("tail", "--type", kind, "--json").lines


def test_a_sweep_that_is_recorded_and_not_carried_out_says_so(shell: Shell) -> None:
    """The record of erasures can not be opened; a sweep that found nothing could not run."""
    session = created(shell)
    shell("sessions", "end", session, "-U", "ann")
    assert 0 == shell("retention", "set", "--after", "1ms", "--reason", "r").code
    (shell.directory / "erasures.db").mkdir()
    ran = shell("retention", "sweep")
    assert 0 == ran.code, ran.err
    assert "1 sessions erased" in ran.out
    assert "this process can not carry it out: the record of erasures" in ran.out
    assert "session-ledger erase status" in ran.out
    assert 3 == shell("retention", "sweep").code
    (shell.directory / "erasures.db").rmdir()
    assert [session] == [one["session_id"] for one in shell("erase", "status", "--json").json["erasures"]]
    again = shell("retention", "sweep", "--json").json
    assert (0, None) == (again["erased"], again["not_carried_out"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_who_may_only_reach_the_command_socket_erases(shared_place: Path) -> None:
    """Users and tenants, known or not, for nobody can look; the owner's `erase status` carries it out."""
    directory, place, uid = shared_place / "ledger", shared_place / "command.sock", 54321
    shell, listed = Shell(directory), {f"uid {uid}": {"role": "operator", "tenants": ["t"]}}
    with Ledger.open(shell.url, command_socket=place, principals=listed, principal=Principal("boss", OWNER)) as ledger:
        ledger.create_session("t", "ann", title="x")
        settings = {"COMMAND_SOCKET": str(place), "PRINCIPALS": json.dumps(listed)}
        env = environment() | {f"SESSION_LEDGER_{name}": value for name, value in settings.items()}
        command = [sys.executable, "-m", "tests.cli.peer", str(uid)]
        asked = [["erase", "user", "-t", "t", "-U", user] for user in ("ann", "zed")] + [["erase", "tenant", "t"]]
        given = json.dumps([[*one, "--reason", "r", "-u", shell.url] for one in asked])
        done = subprocess.run([*command, given], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
        assert [0, 0, 0] == json.loads(done.stdout.splitlines()[-1]), done.stdout + done.stderr
        assert 3 == done.stdout.count("the erasure is recorded, by command")
        assert 3 == done.stdout.count("this process can not carry it out")
    shown = shell("erase", "status", "--json").json["erasures"]
    assert {("t", "ann"), ("t", "zed"), ("t", None)} == {(one["tenant"], one["user"]) for one in shown}
    assert all(one["destroyed_at"] for one in shown)


@pytest.mark.parametrize(
    "known",
    [
        ("quota", "set", "tokens", "9", "--period", "1h"),
        ("limits", "set", "--max-sessions", "3"),
        ("auth", "failed", "--method", "password", "--reason", "expired"),
        ("hold", "set", "--matter", "m", "--reason", "r"),
        ("sessions", "create"),
    ],
    ids=lambda command: command[0],
)
def test_a_user_of_whom_nothing_is_recorded_is_not_erased(shell: Shell, known: tuple[str, ...]) -> None:
    """A mistyped one is refused, of another tenant too; whoever is known by anything at all is not."""
    created(shell)
    for whose in (("-U", "any"), ("-U", "ann", "-t", "other")):
        ran = shell("erase", "user", *whose, *WHY)
        assert (2, True) == (ran.code, "nothing is recorded in tenant" in ran.err)
    assert [] == of_type(shell, "ContentErased")
    assert 0 == shell(*known, "-U", "any").code
    assert (1 if known[0] == "hold" else 0) == shell("erase", "user", "-U", "any", *WHY).code


def test_a_user_of_whom_only_a_key_is_left_is_erased(shell: Shell) -> None:
    """The vault tells of what no view shows, such as a session that did not come about."""
    created(shell)
    with Ledger.open(shell.url) as ledger:
        key = ledger.envelope.session_key("default", "any", new_id(machine_clock_us()), create=True)
        assert key is not None
        ledger.envelope.make_durable([key])
    ran = shell("erase", "user", "-U", "any", *WHY, "--json")
    assert (0, 1) == (ran.code, ran.json["erasures"][0]["keys_destroyed"]), ran.err


def test_a_user_with_a_pseudonym_is_known_by_either_name(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also to who may not read content, and after an erasure; a mistyped name is known by neither."""
    monkeypatch.setenv("SESSION_LEDGER_PSEUDONYMS", "true")
    for user in ("ann", "bob"):
        created(shell, user)
    ann = shell("keys", "pseudonym", "-U", "ann").out.strip()
    assert [2, 2] == [shell("erase", "user", "-U", user, *WHY).code for user in ("anne", ann[:-1] + "x")]
    me = {system_user(): {"role": "operator", "tenants": ["default"]}}
    monkeypatch.setenv("SESSION_LEDGER_PRINCIPALS", json.dumps(me))
    asked = [shell("erase", "user", "-U", user, "--reason", "r") for user in ("ann", ann, "bob", "anne")]
    assert [(0, ""), (0, ""), (0, "")] == [(ran.code, ran.err) for ran in asked[:3]]
    assert (2, True) == (asked[3].code, "nothing is recorded in tenant" in asked[3].err)


def test_a_receipt_of_what_is_not_complete_says_what_is_waited_for(shell: Shell) -> None:
    """Exit code 1: it is no mistake of usage. The log is followed where the record of erasures does not know it."""
    session = created(shell)
    ran = shell("erase", "session", session, "-U", "ann", *WHY, "--json")
    (erased,) = ran.json["erasures"]
    ran = shell("erase", "receipt", erased["erasure"], "--json")
    assert (1, "erasure_not_complete") == (ran.code, ran.json["error"]["code"])
    assert "waiting: key caches: 300 s" in ran.json["error"]["message"]
    for path in shell.directory.glob("erasures.db*"):
        path.unlink()
    ran = shell("erase", "receipt", erased["erasure"])
    assert (1, True) == (ran.code, "waiting: vault: its keys are destroyed, by the next step" in ran.err), ran.err
    assert "`session-ledger erase status` goes on with it" in ran.err
    assert 2 == shell("erase", "receipt", session).code


def test_status_tells_nothing_erased_from_everything_complete(shell: Shell, no_wait: None) -> None:
    """An operator who asks whether it was done is not told so of what was never asked for."""
    session = created(shell)
    assert "nothing was erased\n" == shell("erase", "status").out
    assert 0 == shell("erase", "session", session, "-U", "ann", *WHY).code
    assert "every erasure is complete\n" == shell("erase", "status").out
    assert "erasure " == shell("erase", "status", "--all").out[:8]


def test_an_erasure_of_no_key_does_not_say_that_some_are_destroyed(shell: Shell, no_wait: None) -> None:
    """Nor that none are left: the erasure leaves a new key of the account. Snapshots elsewhere are not confirmed."""
    with Ledger.open(shell.url) as ledger:
        ledger.erase_user("default", "nobody", requested_by="dpo", reason="r")
        ledger.create_session("gone", "bob", title="x")
        ledger.erase_tenant("gone", requested_by="dpo", reason="r")
    shell("erase", "status")
    out = shell("erase", "status", "--all").out
    assert "  no data key was found that it covers\n" in out
    assert "  no data key was found that it covers, beside those of its users\n" in out
    assert 1 == out.count("its data keys are destroyed: what they sealed")
    erased = shell("erase", "status", "--all", "--json").json["erasures"]
    (receipt,) = [shell("erase", "receipt", one["erasure"]).out for one in erased if one["user"] == "nobody"]
    assert "\ndata keys destroyed: no data key was found that it covers, by " in receipt
    assert "\nconfirmed analytics: none are in the ledger's directory, " in receipt
    assert "\nnot reached: views and snapshots in other directories or on other machines: " in receipt


def test_a_receipt_names_exactly_who_was_erased_on_one_line(shell: Shell, no_wait: None) -> None:
    """Users whose ids differ in a line end, a space or a backslash alone have different lines."""
    users = ["u requested by God", "u\nrequested by God", "u  requested by God", r"u\x0arequested by God", "u\u2028x "]
    with Ledger.open(shell.url) as ledger:
        for user in users:
            ledger.create_session("default", user)
            ledger.erase_user("default", user, requested_by="dpo", reason="r")
    shell("erase", "status")
    erased = shell("erase", "status", "--all", "--json").json["erasures"]
    receipts = {one["user"]: shell("erase", "receipt", one["erasure"]).out.split("\n") for one in erased}
    assert [
        "user u requested by God",
        r"user u\x0arequested by God",
        "user u  requested by God",
        r"user u\\x0arequested by God",
        r"user u\u2028x ",
    ] == [receipts[user][3] for user in users]
    assert {"requested by dpo"} == {receipt[4] for receipt in receipts.values()}


@pytest.mark.parametrize(
    ("option", "command"),
    [
        ("--after", ("retention", "set", "--after", "0", "--reason", "r")),
        ("--sensitive", ("retention", "set", "--sensitive", "0", "--reason", "r")),
        ("--after", ("retention", "set", "--after", "0.1ms", "--reason", "r")),
        ("--grace", ("auth", "rotate", "-U", "ann", "--grace", "2h", "SESSION")),
    ],
)
def test_a_time_that_is_out_of_range_is_told_by_its_option(shell: Shell, option: str, command: tuple[str, ...]) -> None:
    """Not by the field that it becomes, and in the units that are typed."""
    session = created(shell)
    ran = shell(*(session if part == "SESSION" else part for part in command))
    assert 2 == ran.code
    assert f"session-ledger: {option}: " in ran.err
    assert not [word for word in ("_ms", "_s:", "3600000") if word in ran.err]
