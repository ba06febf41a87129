"""Who may do what: every operation by every role over own and foreign tenants, against a table that is written out."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from session_ledger.cli.main import app
from session_ledger.cli.permitted import leaves
from session_ledger.consumers.views import Views
from session_ledger.domain import commands as c
from session_ledger.domain.commands import Command
from session_ledger.domain.errors import Forbidden, InvalidInput, Misconfigured
from session_ledger.security.access import (
    ACTORS,
    CLI,
    COMMANDS,
    READS,
    ROLES,
    Over,
    Principal,
    Principals,
    Right,
    check_cli,
    check_command,
    check_read,
)

SECURITY = Path(__file__).parents[2] / "docs" / "security.md"
OWN, FOREIGN = "acme", "zoo"
EVERYBODY = "owner operator auditor service"
WHERE = (
    "security/access.py, to its row in docs/security.md (who may do what), to the table of this test, and a command "
    "also to `command` of tests/ledger/test_access.py"
)

COMMANDS_BY_ROLES = {
    "owner service": """CreateSession UpdateSession AddMessage EndSession ReportError ImportSession ConsumeQuota
        CheckQuota ReportQuota ReleaseQuota AcquireAgent ReleaseAgent IssueAccessToken RotateAccessToken
        Authenticate ReportAuthenticationFailure ReportAuthenticationSuccess""",
    "owner operator": """SetQuota SetUserLimits SetLimits SetRetention RegisterAgent RetireAgent RotateSessionKey
        EraseSession EraseUser EraseTenant""",
    "owner auditor": """SetLegalHold LiftLegalHold SetTenantHold LiftTenantHold RevealContent RecordAuditRead ReportLeak
        AcknowledgeLeak""",
    "owner operator auditor": "RaiseAlert",
    "": "ExpireSessions RecordRefusals PublishSchema",
}
READS_BY_ROLES = {
    EVERYBODY: """session sessions tenant_sessions has count current history errors authentication_failures quotas
        user_quotas tenant_quotas limits agents legal_holds stats"""
}
CLI_BY_ROLES = {
    ("owner service", "tenant"): """sessions create, sessions message, sessions update, sessions end, sessions error,
        quota consume, quota check, quota release, agents acquire, agents release, auth issue, auth rotate,
        auth check, auth failed, keys pseudonym""",
    ("owner", "tenant"): "export",
    ("owner service", "met"): "import",
    ("owner operator", "tenant"): """quota set, limits set, agents register, agents retire, retention set,
        retention sweep, keys rotate session, erase session, erase user, erase tenant""",
    ("owner operator", "ledger"): """erase status, serve, expire, checkpoint, project, rebuild, quarantine,
        keys rotate tenant, keys rotate provider, prices load""",
    ("owner auditor", "tenant"): "hold set, hold lift, audit access, audit leaks, audit reveal",
    ("owner auditor", "met"): "audit timeline, audit state, audit diff, audit acknowledge",
    (EVERYBODY, "tenant"): """sessions list, sessions show, sessions history, quota report, limits show, agents list,
        hold list, auth list, stats, trends, monitor""",
    (EVERYBODY, "ledger"): """tail, sql, lag, position, verify, archive, erase receipt, keys list, keys status,
        keys verifier, prices show, proof inclusion, proof consistency, proof session""",
    (EVERYBODY, ""): "demo, bench, verify-receipt, proof verify, keys init",
}
CLI_OPTIONS = {
    ("verify", "sign"): "owner operator",
    ("monitor", "record"): "owner operator auditor",
    ("archive", "contents"): "owner auditor",
}


def may(role: str, roles: str) -> bool:
    return role in roles.split()


def each(table: dict[str, str]) -> Iterator[tuple[str, str]]:
    """(name, roles) of a table."""
    for roles, names in table.items():
        for name in names.split():
            yield name, roles


def each_of_cli() -> Iterator[tuple[str, str, str]]:
    """(path, roles, over)."""
    for (roles, over), names in CLI_BY_ROLES.items():
        for path in names.split(","):
            yield " ".join(path.split()), roles, over


def of_one(role: str) -> Principal:
    return Principal("ann", role, frozenset((OWN,)))


def of_all(role: str) -> Principal:
    return Principal("ann", role)


def command(name: str, tenant: str, by: str = "ann") -> Command:
    """One of that class with something in every field that it needs."""
    cls: type[Command] = getattr(c, name)
    given: dict[str, object] = {
        field.name: by if field.name.endswith("_by") else b"\0" * 16
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    return cls(**given | {"tenant": tenant})  # type: ignore[arg-type]


def allowed(check: typing.Callable[[], None]) -> bool:
    try:
        check()
    except Forbidden:
        return False
    return True


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("name", "roles"), list(each(COMMANDS_BY_ROLES)))
def test_every_command_by_every_role(role: str, name: str, roles: str) -> None:
    """Own tenant: as the table says; a foreign one: never; for who has every tenant: as in an own one."""
    assert may(role, roles) == allowed(lambda: check_command(of_one(role), command(name, OWN)))
    assert not allowed(lambda: check_command(of_one(role), command(name, FOREIGN)))
    assert may(role, roles) == allowed(lambda: check_command(of_all(role), command(name, FOREIGN)))


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("name", "roles"), list(each(READS_BY_ROLES)))
def test_every_read_by_every_role(role: str, name: str, roles: str) -> None:
    """As commands; a read over all tenants needs all."""
    assert may(role, roles) == allowed(lambda: check_read(of_one(role), name, OWN))
    assert not allowed(lambda: check_read(of_one(role), name, FOREIGN))
    assert not allowed(lambda: check_read(of_one(role), name, None))
    assert may(role, roles) == allowed(lambda: check_read(of_all(role), name, None))


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("path", "roles", "over"), list(each_of_cli()))
def test_every_command_of_the_command_line_by_every_role(role: str, path: str, roles: str, over: str) -> None:
    """Of a tenant: own ones; of the whole ledger: only with every tenant; what meets its tenants is asked later."""

    def asks(principal: Principal, tenant: str | None) -> bool:
        return allowed(lambda: check_cli(principal, path, {"tenant": tenant, "url": None}))

    yes = may(role, roles)
    assert (yes and over != "ledger") == asks(of_one(role), OWN)
    assert (yes and over in ("met", "")) == asks(of_one(role), FOREIGN)
    assert (yes and over in ("met", "")) == asks(of_one(role), None)
    assert yes == asks(of_all(role), FOREIGN) == asks(of_all(role), None)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("path", "option"), CLI_OPTIONS)
def test_an_option_that_does_more_needs_more(role: str, path: str, option: str) -> None:
    """Such as `archive --contents`: without the option the smaller right is enough."""
    assert allowed(lambda: check_cli(of_all(role), path, {option: None}))
    expected = may(role, CLI_OPTIONS[path, option])
    assert expected == allowed(lambda: check_cli(of_all(role), path, {option: True}))


@pytest.mark.parametrize(
    ("right", "roles"),
    [
        ("serve", "owner service"),
        ("configure", "owner operator"),
        ("erase", "owner operator"),
        ("hold", "owner auditor"),
        ("read structure", EVERYBODY),
        ("read content", "owner service"),
        ("reveal", "owner auditor"),
        ("audit", "owner auditor"),
        ("alert", "owner operator auditor"),
        ("operate", "owner operator"),
        ("itself", ""),
    ],
)
def test_what_a_role_may(right: str, roles: str) -> None:
    """The table of roles."""
    assert roles.split() == [role for role in ROLES if of_one(role).has(Right(right))]


# --- nothing is left out ----------------------------------------------------------------------------------------------


def test_no_command_is_left_out() -> None:
    """Each command class of the domain has a right."""
    shared = {c.Command, c.UserCommand, c.SessionCommand}
    there = {one for one in vars(c).values() if isinstance(one, type) and issubclass(one, Command)} - shared
    missing = sorted(one.__name__ for one in there - set(COMMANDS))
    assert [] == missing, f"{missing} have no right: add each to COMMANDS in {WHERE}"
    assert there == set(COMMANDS)
    assert {one.__name__ for one in there} == {name for name, _ in each(COMMANDS_BY_ROLES)}, f"see {WHERE}"


def test_no_record_of_who_did_it_is_left_out() -> None:
    """Each field of a command that says who did it is looked at (`ended_by` is a word: user, admin or system)."""
    there = {
        one: field.name for one in COMMANDS for field in dataclasses.fields(one) if field.name.endswith("_by")
    }  # fmt: skip
    del there[c.EndSession]
    assert there == ACTORS, f"add what differs to ACTORS in {WHERE}"


def test_no_read_is_left_out() -> None:
    """Each read of the views has a right."""
    wiring = {"open", "over", "close", "acting_as", "refresh", "wait", "partition_of", "recorded_as"}
    there = {name for name in dir(Views) if not name.startswith("_")} - wiring
    assert there == set(READS), f"add what differs to READS in {WHERE}"
    assert there == {name for name, _ in each(READS_BY_ROLES)}


def test_no_command_of_the_command_line_is_left_out() -> None:
    """Each command of the tree has an entry, and each entry a command."""
    there = {path for path, _ in leaves(typer.main.get_command(app))}
    assert there == set(CLI), f"add what differs to CLI in {WHERE}"
    assert there == {path for path, _, _ in each_of_cli()}


def test_a_command_about_one_tenant_has_a_parameter_of_that_name() -> None:
    """Where the table says that a command is of the tenant it names, it has a place to name one; so with options."""
    parameters = {
        path: {one.name for one in typing.cast(typing.Any, leaf).params}
        for path, leaf in leaves(typer.main.get_command(app))
    }
    of_tenant = {path for path, needs in CLI.items() if any(need.over is Over.TENANT for need in needs)}
    assert set() == {path for path in of_tenant if "tenant" not in parameters[path]}
    options = {(path, need.option) for path, needs in CLI.items() for need in needs if need.option}
    assert options == set(CLI_OPTIONS)
    assert set() == {(path, option) for path, option in options if option not in parameters[path]}


def test_the_document_shows_the_tables() -> None:
    """docs/security.md has a row a right, with the roles that have it and all that it is needed for."""
    rows = {}
    for line in SECURITY.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 7 and cells[0].strip("`") in list(Right):
            named = [set(re.findall(r"`([^`]+)`", cell)) for cell in cells[5:]]
            rows[cells[0].strip("`")] = ([cell == "yes" for cell in cells[1:5]], *named)
    expected = {}
    for right in Right:
        if right is Right.ITSELF:
            continue
        commands = {one.__name__ for one, needed in COMMANDS.items() if needed is right}
        paths = {
            path if need.option is None else f"{path} --{need.option}"
            for path, needs in CLI.items()
            for need in needs
            if need.right is right
        }
        expected[str(right)] = ([right in rights for rights in ROLES.values()], commands, paths)
    assert expected == rows


# --- names, refusals, principals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(one.__name__ for one in ACTORS))
def test_auditors_and_operators_are_recorded_under_their_own_name(name: str) -> None:
    """Another name is Forbidden for who has the right; owners, who act for others, may give one."""
    check_command(of_all("owner"), command(name, OWN, by="somebody"))
    for role in ("operator", "auditor"):
        if COMMANDS[getattr(c, name)] not in ROLES[role]:
            continue
        check_command(of_all(role), command(name, OWN))
        for other in ("somebody", "Ann", "", " ann"):
            with pytest.raises(Forbidden, match="under its own name"):
                check_command(of_all(role), command(name, OWN, by=other))


def test_a_refusal_says_who_what_where_and_what_to_do() -> None:
    """Its text is of use to who reads it, and its code to who matches it."""
    with pytest.raises(Forbidden) as refused:
        check_command(of_one("auditor"), command("AddMessage", OWN))
    assert (
        "ann (auditor) may not run AddMessage of tenant acme: that takes the right to serve, which owner and service "
        "have: ask one"
    ) == str(refused.value)
    assert ("forbidden", False) == (refused.value.code, refused.value.retriable)
    with pytest.raises(Forbidden, match=r"ann \(service\) may not run AddMessage of tenant zoo: .* tenant acme; ask"):
        check_command(of_one("service"), command("AddMessage", FOREIGN))


@pytest.mark.parametrize("tenant", [None, 1, b"acme", ["acme"], {}, ("acme",)])
def test_a_tenant_that_is_no_text_is_nobodys(tenant: object) -> None:
    """What is no tenant's name never counts as an own one."""
    for principal in (of_one("owner"), of_all("owner")):
        with pytest.raises(InvalidInput):
            check_command(principal, c.CheckQuota(tenant=tenant, user="u", resource="r", amount=1))  # type: ignore[arg-type]


@pytest.mark.parametrize("tenant", ["", " acme", "ACME", "acme/", "acme\0", "*", "acm"])
def test_a_tenant_is_its_exact_name(tenant: str) -> None:
    """Nothing that looks like an own tenant is one."""
    with pytest.raises(Forbidden):
        check_command(of_one("owner"), command("AddMessage", tenant))


def test_what_is_no_command_of_the_ledger_is_refused() -> None:
    """Also to owners: a class of one's own is in no table."""

    @dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
    class Mine(Command):
        """A command that somebody made."""

    for one in (Mine(tenant=OWN), "x", None):
        with pytest.raises(InvalidInput):
            check_command(of_all("owner"), one)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "role", "tenants"),
    [
        ("ann", "admin", None),
        ("", "owner", None),
        ("ann", "owner", frozenset()),
        ("ann", "owner", frozenset(("",))),
        ("ann", "owner", frozenset(("*",))),
        ("ann", "owner", "acme"),
    ],
)
def test_a_principal_that_is_none(name: str, role: str, tenants: frozenset[str] | None) -> None:
    """Unknown roles, no name, no tenants, and "*" in the place of None: Misconfigured."""
    with pytest.raises(Misconfigured):
        Principal(name, role, tenants)


def test_who_is_not_listed_may_nothing() -> None:
    """Where there are principals; where there are none, everybody is an owner of every tenant."""
    listed = Principals({"ann": of_one("auditor")})
    assert of_one("auditor") == listed.of("ann")
    with pytest.raises(Forbidden, match=r"bob is no principal .* \[principals.bob\]"):
        listed.of("bob")
    assert Principal("bob", "owner", None) == Principals({}).of("bob")
