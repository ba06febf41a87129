"""Roles on a real ledger: every command by every role, through facade and socket, and who the peer is."""

from __future__ import annotations

import asyncio
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from session_ledger.domain import commands as c
from session_ledger.domain.commands import Command
from session_ledger.domain.errors import Forbidden, InvalidInput, Misconfigured, NotOwner
from session_ledger.domain.ids import new_id, parse_id, slot_of_id, with_slot
from session_ledger.ledger import principals
from session_ledger.ledger.ledger import Ledger
from session_ledger.ledger.open import open_settings
from session_ledger.ledger.principals import system_user, uid_of_xucred
from session_ledger.ledger.socketplace import SOCKET_PATH_BYTES_MAX, socket_path
from session_ledger.security.access import OWNER, ROLES, Principal
from tests.ledger.conftest import KAFKA
from tests.ledger.process import ROOT, line, started
from tests.ledger.support import events
from tests.security.test_access import COMMANDS_BY_ROLES, FOREIGN, OWN, each, may

OF_ITSELF = COMMANDS_BY_ROLES[""].split()  # no command of a client: tested by itself
ALL = [(name, roles) for name, roles in each(COMMANDS_BY_ROLES) if roles]
ME = system_user()
IDS = iter(range(1, 2**48))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a directory without a settings file."""
    monkeypatch.chdir(tmp_path)


def principal(role: str, *tenants: str) -> Principal:
    return Principal(ME, role, frozenset(tenants) or None)


def settings_of(role: str, *tenants: str, user: str = ME) -> dict[str, object]:
    """The setting `principals` in which the user has that role."""
    return {user: {"role": role, "tenants": tenants or ("*",)}}


def command(ledger: Ledger, name: str, tenant: str) -> Command:
    """One of that class that succeeds: what it needs is there, made by an owner."""
    user = f"u{next(IDS)}"
    boss = ledger.itself
    session = parse_id(boss.create_session(tenant, user).session_id)
    whose: dict[str, object] = {"tenant": tenant, "user": user}
    of_session = whose | {"session_id": session}
    why = {"requested_by": ME, "reason": "r"}
    needs: dict[str, Callable[[], dict[str, object]]] = {
        "CreateSession": lambda: whose,
        "UpdateSession": lambda: of_session | {"title": "t"},
        "AddMessage": lambda: of_session | {"role": "user", "content": "x"},
        "EndSession": lambda: of_session,
        "ReportError": lambda: of_session | {"component": "llm", "error_type": "timeout"},
        "ImportSession": lambda: whose | _history(session),
        "ConsumeQuota": lambda: whose | _quota(boss, tenant, user),
        "CheckQuota": lambda: whose | _quota(boss, tenant, user),
        "ReportQuota": lambda: whose,
        "ReleaseQuota": lambda: whose | _reservation(boss, tenant, user),
        "AcquireAgent": lambda: of_session | {"agent_type": _agent(boss, tenant, session)[0]},
        "ReleaseAgent": lambda: of_session | _lease(boss, tenant, user, session),
        "IssueAccessToken": lambda: of_session | {"token_digest": bytes(32)},
        "RotateAccessToken": lambda: of_session | _token(boss, tenant, user, session) | {"token_digest": b"1" * 32},
        "Authenticate": lambda: of_session | _token(boss, tenant, user, session),
        "ReportAuthenticationSuccess": lambda: whose | {"method": "password"},
        "ReportAuthenticationFailure": lambda: whose | {"method": "password", "reason": "expired"},
        "SetQuota": lambda: whose | {"resource": "r", "limit": Decimal(1)},
        "SetUserLimits": lambda: whose | {"max_sessions": 2},
        "SetLimits": lambda: {"tenant": tenant, "max_sessions": 9},
        "SetRetention": lambda: {"tenant": tenant, **why},
        "RegisterAgent": lambda: {"tenant": tenant, "agent_type": "a", "agent_id": with_slot(new_id(1), 0)},
        "RetireAgent": lambda: {"tenant": tenant, "agent_id": _agent(boss, tenant, session)[1]},
        "RotateSessionKey": lambda: of_session,
        "EraseSession": lambda: of_session | why,
        "EraseUser": lambda: whose | why,
        "EraseTenant": lambda: {"tenant": tenant, **why},
        "SetLegalHold": lambda: whose | why | {"matter": "m"},
        "LiftLegalHold": lambda: whose | why | _hold(boss, tenant, user),
        "SetTenantHold": lambda: {"tenant": tenant, **why, "matter": user},
        "LiftTenantHold": lambda: {"tenant": tenant, **why} | _hold(boss, tenant, None),
        "RevealContent": lambda: whose | {"revealed_by": ME, "reason": "r", "query_digest": bytes(16)},
        "RecordAuditRead": lambda: whose | {"read_by": ME, "action": "timeline"},
        "ReportLeak": lambda: whose | _finding(session),
        "AcknowledgeLeak": lambda: whose | _found(boss, tenant, user, session),
        "RaiseAlert": lambda: whose | {"kind": "errors"},
    }
    cls: type[Command] = getattr(c, name)
    return cls(**needs[name]())  # type: ignore[arg-type]


def _history(session: bytes) -> dict[str, object]:
    said = c.ImportedMessage(role="user", content="x", occurred_at=1)
    imported = with_slot(new_id(2), slot_of_id(session))
    return {"session_id": imported, "messages": (said,), "occurred_at": 1, "source": "s", "ended_at": 2}


def _quota(boss: Ledger, tenant: str, user: str) -> dict[str, object]:
    boss.set_quota(tenant, user, "r", 10)
    return {"resource": "r", "amount": Decimal(1)}


def _reservation(boss: Ledger, tenant: str, user: str) -> dict[str, object]:
    _quota(boss, tenant, user)
    held = boss.consume_quota(tenant, user, "r", 1, reserve=True)
    assert held.reservation_id is not None
    return {"reservation_id": parse_id(held.reservation_id)}


def _agent(boss: Ledger, tenant: str, session: bytes) -> tuple[str, bytes]:
    kind, partition = f"a{next(IDS)}", slot_of_id(session) % (len(boss.positions()) - 1)
    return kind, parse_id(boss.register_agent(tenant, kind, partition=partition).agent_id)


def _lease(boss: Ledger, tenant: str, user: str, session: bytes) -> dict[str, object]:
    kind, agent = _agent(boss, tenant, session)
    boss.acquire_agent(tenant, user, session, kind)
    return {"agent_id": agent}


def _token(boss: Ledger, tenant: str, user: str, session: bytes) -> dict[str, object]:
    one = c.IssueAccessToken(tenant=tenant, user=user, session_id=session, token_digest=bytes(32))
    boss.submit(one).result(10)
    return {"token_digest": bytes(32)}


def _hold(boss: Ledger, tenant: str, user: str | None) -> dict[str, object]:
    matter = f"m{next(IDS)}"
    boss.set_legal_hold(tenant, user, matter=matter, requested_by=ME, reason="r")
    return {"matter": matter}


def _finding(session: bytes) -> dict[str, object]:
    found: dict[str, object] = {"finding_id": bytes(16), "kind": "text", "severity": "error", "direction": "known"}
    return found | {"session_id": session, "leak_position": 1, "source_tenant": OWN, "source_user": "x"}


def _found(boss: Ledger, tenant: str, user: str, session: bytes) -> dict[str, object]:
    boss.submit(c.ReportLeak(tenant=tenant, user=user, **_finding(session))).result(10)  # type: ignore[arg-type]
    return {"finding_id": bytes(16), "acknowledged_by": ME, "reason": "r"}


def tried(ledger: Ledger, one: Command, owner: Ledger) -> bool:
    """Whether it was done; a refusal has recorded nothing."""
    before = owner.positions()
    try:
        ledger.submit(one).result(10)
    except Forbidden:
        assert before == owner.positions()
        return False
    return True


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A ledger in memory, and one in a directory."""
    return "memory:" if request.param == "memory" else f"sqlite:{tmp_path / 'ledger'}"


@pytest.mark.parametrize("role", ROLES)
def test_every_command_by_every_role_through_the_facade(url: str, role: str) -> None:
    """What the table allows in an own tenant is done; nothing else is, and nothing in a foreign one."""
    with Ledger.open(url) as ledger:
        acting = ledger.acting_as(principal(role, OWN))
        for name, roles in ALL:
            tenant = f"{OWN}-{name}" if name == "EraseTenant" else OWN
            own = ledger.acting_as(principal(role, tenant)) if tenant != OWN else acting
            assert may(role, roles) == tried(own, command(ledger, name, tenant), ledger), name
            assert not tried(acting, command(ledger, name, FOREIGN), ledger), name


@pytest.mark.parametrize("role", ROLES)
def test_every_command_by_every_role_through_the_socket(durable_url: str, role: str) -> None:
    """The owner goes by its own settings and by the kernel's word, whatever the client thinks that it is."""
    boss = Principal("boss", OWNER)
    with (
        Ledger.open(durable_url, principal=boss, principals=settings_of(role, OWN, f"{OWN}-EraseTenant")) as ledger,
        Ledger.open(durable_url) as client,
        Ledger.open(durable_url, principal=boss) as bold,
    ):
        assert not client.is_owner
        for name, roles in ALL:
            tenant = f"{OWN}-{name}" if name == "EraseTenant" else OWN
            assert may(role, roles) == tried(client, command(ledger, name, tenant), ledger), name
            assert not tried(bold, command(ledger, name, FOREIGN), ledger), name
        assert len(ledger.positions()) == len(client.positions())
        with pytest.raises(Forbidden):  # not of every tenant
            client.expire_due()


@pytest.mark.parametrize("role", ROLES)
def test_who_may_have_the_whole_ledger_swept(sqlite_url: str, role: str) -> None:
    """Owners and operators of every tenant, at the facade and at the socket."""
    with Ledger.open(sqlite_url, principal=Principal("boss", OWNER), principals=settings_of(role)) as ledger:
        for by in (ledger.acting_as(principal(role)), Ledger.open(sqlite_url)):
            if role in ("owner", "operator"):
                assert [] == by.expire_due()
            else:
                with pytest.raises(Forbidden, match="operate"):
                    by.expire_due()
            by.close()


@pytest.mark.parametrize("name", OF_ITSELF)
def test_what_the_ledger_sends_by_itself_is_nobodys(name: str) -> None:
    """Not even an owner's."""
    fields = {"PublishSchema": {"tenant": "", "name": "n", "fingerprint": bytes(8), "schema_json": "{}"}}
    one = getattr(c, name)(**fields.get(name, {"tenant": OWN, "user": "u"}))
    with Ledger.open("memory:") as ledger, pytest.raises(Forbidden, match="by itself"):
        ledger.acting_as(principal("owner")).submit(one)


def test_a_refusal_through_the_socket_says_who_the_kernel_says(durable_url: str) -> None:
    """The owner's text and code reach the client."""
    with (
        Ledger.open(durable_url, principal=Principal("boss", OWNER), principals=settings_of("auditor", OWN)),
        Ledger.open(durable_url) as client,
        pytest.raises(Forbidden) as refused,
    ):
        client.create_session(OWN, "u")
    assert str(refused.value).startswith(f"{ME} (auditor) may not run CreateSession of tenant acme")
    assert ("forbidden", False) == (refused.value.code, refused.value.retriable)


def test_a_peer_who_is_not_listed_is_refused_everything(durable_url: str) -> None:
    """Commands, positions, sweeps; and in a process of its own the ledger does not open."""
    others = settings_of("owner", user="somebody-else")
    with Ledger.open(durable_url, principal=Principal("boss", OWNER), principals=others) as ledger:
        before = ledger.positions()
        with Ledger.open(durable_url) as client:
            for run in (lambda: client.create_session(OWN, "u"), client.positions, client.expire_due):
                with pytest.raises(Forbidden, match=f"{ME} is no principal"):
                    run()
        assert before == ledger.positions()
    with pytest.raises(Forbidden, match=f"{ME} is no principal"):
        Ledger.open(durable_url, principals=others)


def test_a_second_process_is_the_peer_that_it_is(durable_url: str) -> None:
    """A process of the same user has that user's role."""
    boss = Principal("boss", OWNER)
    with (
        Ledger.open(durable_url, principal=boss, principals=settings_of("service", "t")),
        started(durable_url, "create", "2") as process,
    ):
        assert [False, False] == [line(process)["owner"], line(process)["owner"]]
    with (
        Ledger.open(durable_url, principal=boss, principals=settings_of("auditor", "t")),
        started(durable_url, "create", "1") as process,
    ):
        assert "may not run CreateSession of tenant t" in process.communicate(timeout=60)[1]


# --- another user, through a socket elsewhere -------------------------------------------------------------------------


def as_user(uid: int, url: str, place: Path) -> dict[str, dict[str, str]]:
    """What that user's process was answered, by what it tried; "" holds who and how."""
    command = [sys.executable, "-m", "tests.ledger.peer", url, str(place), str(uid)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert 0 == done.returncode, done.stderr
    return {said.get("try", ""): said for said in map(json.loads, done.stdout.splitlines())}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("log", ["sqlite", KAFKA])
def test_another_user_is_answered_by_role(
    request: pytest.FixtureRequest, log: str, ledger_name: str, shared_place: Path
) -> None:
    """Who may not enter the ledger's directory sends commands to the socket, and has the role of the kernel's word."""
    uid, stranger = 54321, 54322  # without names here
    directory, place = shared_place / "ledger", shared_place / "command.sock"
    url = f"sqlite:{directory}"
    if log == "kafka":
        url = f"kafka://{request.getfixturevalue('kafka')}/{ledger_name}?partitions=2&replica={directory}"
    listed = settings_of("service", OWN, user=f"uid {uid}")
    with Ledger.open(url, command_socket=place, principal=Principal("boss", OWNER), principals=listed) as ledger:
        assert 0o666 == place.stat().st_mode & 0o777
        assert not (directory / "command.sock").exists()
        answered = as_user(uid, url, place)
        assert {"user": f"uid {uid}", "owner": False} == answered.pop("")
        taken = answered.pop("take over")
        assert "forbidden" == taken["code"]
        assert f"uid {uid} may not enter the ledger's directory {directory}, and so can not own" in taken["text"]
        done = {"own": "done", "foreign": "forbidden", "other right": "forbidden", "positions": "done"}
        assert done | {"expire": "forbidden"} == {name: said["code"] for name, said in answered.items()}
        refused = as_user(stranger, url, place)
        assert {"user": f"uid {stranger}", "owner": False} == refused.pop("")
        assert {"forbidden"} == {said["code"] for said in refused.values()}
        del refused["take over"]
        assert {"uid 54322 is no principal"} == {said["text"][:25] for said in refused.values()}
        assert ["acme"] == [event.tenant for event in events(ledger.itself)]
        overflow = as_user(principals.OVERFLOW_UID, url, place)
        assert "can not tell" in overflow["own"]["text"]


def test_a_socket_elsewhere_without_principals_is_for_this_user_alone(sqlite_url: str, shared_place: Path) -> None:
    """Mode 0600: nobody would ask who connects."""
    place = shared_place / "run" / "command.sock"
    with Ledger.open(sqlite_url, command_socket=place), Ledger.open(sqlite_url, command_socket=place) as client:
        assert (0o600, 0o700) == (place.stat().st_mode & 0o777, place.parent.stat().st_mode & 0o777)
        assert 1 == client.create_session("t", "u").position
    assert not place.exists()


def test_a_mistyped_place_is_not_made(sqlite_url: str, shared_place: Path) -> None:
    """The socket's own directory is made; where its parent is not there, that is named, and nothing is made."""
    place = shared_place / "mistyped" / "run" / "command.sock"
    with pytest.raises(Misconfigured, match=f"there is no {shared_place / 'mistyped'}: make it"):
        Ledger.open(sqlite_url, command_socket=place)
    assert not (shared_place / "mistyped").exists()


def test_a_socket_in_the_ledgers_directory_stays_this_users_own(sqlite_url: str, directory: Path) -> None:
    """Also where principals are set."""
    with Ledger.open(sqlite_url, principals=settings_of("owner")):
        assert 0o600 == socket_path(directory).stat().st_mode & 0o777


def test_a_place_where_others_may_write_is_refused(sqlite_url: str, shared_place: Path) -> None:
    """Somebody could put a socket of theirs there: neither the owner nor a client takes it, also under a sticky bit."""
    place = shared_place / "command.sock"
    for mode in (0o777, 0o775, 0o1777):
        shared_place.chmod(mode)
        with pytest.raises(Misconfigured, match="others may write"):
            Ledger.open(sqlite_url, command_socket=place, principals=settings_of("owner"))
    shared_place.chmod(0o755)
    with Ledger.open(sqlite_url, command_socket=place, principals=settings_of("owner")):
        shared_place.chmod(0o777)
        with pytest.raises(Misconfigured, match="others may write"):
            Ledger.open(sqlite_url, command_socket=place)
    long = shared_place / ("s" * SOCKET_PATH_BYTES_MAX)
    with pytest.raises(Misconfigured, match="at most"):
        Ledger.open(sqlite_url, command_socket=long)


def test_nobody_at_a_socket_elsewhere(sqlite_url: str, directory: Path, shared_place: Path) -> None:
    """Whoever can not enter the ledger's directory is told so, and that nobody listens."""
    with Ledger.open(sqlite_url):
        pass
    if os.geteuid() == 0:
        with pytest.raises(AssertionError, match="nobody listens at its command socket"):
            as_user(54321, sqlite_url, shared_place / "command.sock")
    else:
        directory.chmod(0)
        with pytest.raises(NotOwner, match="nobody listens at its command socket"):
            Ledger.open(sqlite_url, command_socket=shared_place / "command.sock")
        directory.chmod(0o700)


def test_the_peer_as_macos_tells_it() -> None:
    """The user stands behind the form's version; another version is not guessed at."""
    assert 501 == uid_of_xucred(struct.pack("=IIh", 0, 501, 1) + bytes(66))
    with pytest.raises(Forbidden):
        uid_of_xucred(struct.pack("=IIh", 1, 501, 1) + bytes(66))


def test_who_runs_this_process_is_the_systems_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the environment's, which anybody sets."""
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(variable, "somebody-else")
    assert ME == system_user()


# --- one process for several ------------------------------------------------------------------------------------------


def test_acting_as_shares_the_ledger_and_closes_nothing(url: str) -> None:
    """The open ledger goes on; who acts as somebody gets no more by acting as another."""
    with Ledger.open(url) as ledger:
        with ledger.acting_as(principal("service", OWN)) as service:
            assert 1 == service.create_session(OWN, "u").position
            assert (principal("service", OWN), ledger.url, True) == (service.principal, service.url, service.is_owner)
            with pytest.raises(Forbidden):
                service.acting_as(principal("owner")).set_limits(OWN, max_sessions=1)
        assert 2 == service.create_session(OWN, "v").position
        assert 3 == ledger.create_session(FOREIGN, "u").position
    with Ledger.open(url, principal=principal("auditor")) as ledger:
        with pytest.raises(Forbidden):
            ledger.create_session(OWN, "u")
        ledger.acting_as(principal("service")).create_session(OWN, "u")


def test_acting_as_in_a_loop() -> None:
    """The async form asks as well."""

    async def run(ledger: Ledger) -> None:
        acting = ledger.acting_as(principal("service", OWN)).aio
        assert 1 == (await acting.create_session(OWN, "u")).position
        with pytest.raises(Forbidden):
            await acting.create_session(FOREIGN, "u")

    with Ledger.open("memory:") as ledger:
        asyncio.run(run(ledger))


def test_the_log_and_the_keys_are_not_lent_to_who_may_not_read_them() -> None:
    """Of a ledger that acts for somebody: all of the log, and its keys, only for who may read all of it."""
    with Ledger.open("memory:") as ledger:
        assert ledger.log is ledger.acting_as(principal("auditor")).log
        assert ledger.envelope is ledger.acting_as(principal("service")).envelope
        for one in (principal("owner", OWN), principal("service", OWN)):
            with pytest.raises(Forbidden):
                _ = ledger.acting_as(one).log
        for one in (principal("owner", OWN), principal("auditor"), principal("operator")):
            with pytest.raises(Forbidden):
                _ = ledger.acting_as(one).envelope


def test_without_principals_nothing_is_asked(url: str) -> None:
    """Everybody is an owner of every tenant, and the backend is the shards themselves."""
    with Ledger.open(url) as ledger:
        assert (Principal(ME, OWNER), True) == (ledger.principal, ledger.principal.names_others)
        assert ledger._backend is ledger.itself._backend
        ledger.set_legal_hold("t", "u", matter="m", requested_by="somebody", reason="r")


@pytest.mark.parametrize(
    ("one", "said"),
    [
        ({"role": "admin", "tenants": ["a"]}, "role"),
        ({"role": "owner", "tenants": []}, "tenants"),
        ({"role": "owner", "tenants": [""]}, "a tenant has a name"),
        ({"role": "owner", "tenants": ["*", "a"]}, "stands alone"),
        ({"role": "owner"}, "tenants"),
        ({"role": "owner", "tenants": ["a"], "more": 1}, "more"),
    ],
)
def test_settings_that_make_no_principal(one: dict[str, object], said: str) -> None:
    """Each is told before anything is opened."""
    with pytest.raises(Misconfigured, match=said):
        open_settings(None, {"principals": {"ann": one}})
    with pytest.raises(Misconfigured, match="name of a user"):
        open_settings(None, {"principals": {"": {"role": "owner", "tenants": ["*"]}}})


def test_principals_of_a_file(tmp_path: Path) -> None:
    """A table a principal."""
    (tmp_path / "session-ledger.toml").write_text(
        '[principals.ann]\nrole = "auditor"\ntenants = ["acme"]\n[principals.root]\nrole = "owner"\ntenants = ["*"]\n'
    )
    found = principals.principals_of(open_settings(None, {}))
    assert Principal("ann", "auditor", frozenset(("acme",))) == found.of("ann")
    assert Principal("root", "owner", None) == found.of("root")


def test_what_is_no_command_is_no_matter_of_roles() -> None:
    """A guarded ledger says what an unguarded one says."""
    with Ledger.open("memory:") as ledger, pytest.raises(InvalidInput):
        ledger.acting_as(principal("owner")).submit("x")  # type: ignore[arg-type]
