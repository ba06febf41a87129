"""Who may do what: principals with a role and tenants, and the tables that every command and read is looked up in.

Pure: names, roles and tables, no I/O. `ledger.guard` asks for every command, `consumers.views` for every read, and
`cli.permitted` for every command of the command line. What is in no table is forbidden to everybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from session_ledger.domain import commands as c
from session_ledger.domain.commands import Command
from session_ledger.domain.errors import Forbidden, InvalidInput, Misconfigured
from session_ledger.domain.shapes import shape

OWNER, OPERATOR, AUDITOR, SERVICE = "owner", "operator", "auditor", "service"
EVERY_TENANT = "*"
_TENANTS_TOLD = 5  # in an error


class Right(StrEnum):
    """What a role may do in the tenants of a principal."""

    SERVE = "serve"
    CONFIGURE = "configure"
    ERASE = "erase"
    HOLD = "hold"
    READ_STRUCTURE = "read structure"
    READ_CONTENT = "read content"
    REVEAL = "reveal"
    AUDIT = "audit"
    ALERT = "alert"
    OPERATE = "operate"
    ITSELF = "itself"
    """What the ledger alone sends; no role has it."""


ROLES: Mapping[str, frozenset[Right]] = {
    OWNER: frozenset(Right) - {Right.ITSELF},
    OPERATOR: frozenset((Right.CONFIGURE, Right.ERASE, Right.READ_STRUCTURE, Right.ALERT, Right.OPERATE)),
    AUDITOR: frozenset((Right.HOLD, Right.READ_STRUCTURE, Right.REVEAL, Right.AUDIT, Right.ALERT)),
    SERVICE: frozenset((Right.SERVE, Right.READ_STRUCTURE, Right.READ_CONTENT)),
}

COMMANDS: Mapping[type[Command], Right] = {
    c.CreateSession: Right.SERVE,
    c.UpdateSession: Right.SERVE,
    c.AddMessage: Right.SERVE,
    c.EndSession: Right.SERVE,
    c.ReportError: Right.SERVE,
    c.ImportSession: Right.SERVE,
    c.ConsumeQuota: Right.SERVE,
    c.CheckQuota: Right.SERVE,
    c.ReportQuota: Right.SERVE,
    c.ReleaseQuota: Right.SERVE,
    c.AcquireAgent: Right.SERVE,
    c.ReleaseAgent: Right.SERVE,
    c.IssueAccessToken: Right.SERVE,
    c.RotateAccessToken: Right.SERVE,
    c.Authenticate: Right.SERVE,
    c.ReportAuthenticationFailure: Right.SERVE,
    c.ReportAuthenticationSuccess: Right.SERVE,
    c.SetQuota: Right.CONFIGURE,
    c.SetUserLimits: Right.CONFIGURE,
    c.SetLimits: Right.CONFIGURE,
    c.SetRetention: Right.CONFIGURE,
    c.RegisterAgent: Right.CONFIGURE,
    c.RetireAgent: Right.CONFIGURE,
    c.RotateSessionKey: Right.CONFIGURE,
    c.EraseSession: Right.ERASE,
    c.EraseUser: Right.ERASE,
    c.EraseTenant: Right.ERASE,
    c.SetLegalHold: Right.HOLD,
    c.LiftLegalHold: Right.HOLD,
    c.SetTenantHold: Right.HOLD,
    c.LiftTenantHold: Right.HOLD,
    c.RevealContent: Right.REVEAL,
    c.RecordAuditRead: Right.AUDIT,
    c.ReportLeak: Right.AUDIT,
    c.AcknowledgeLeak: Right.AUDIT,
    c.RaiseAlert: Right.ALERT,
    c.ExpireSessions: Right.ITSELF,
    c.RecordRefusals: Right.ITSELF,
    c.PublishSchema: Right.ITSELF,
}
"""Every command, by the right that it needs in its tenant."""

ACTORS: Mapping[type[Command], str] = {
    c.SetRetention: "requested_by",
    c.EraseSession: "requested_by",
    c.EraseUser: "requested_by",
    c.EraseTenant: "requested_by",
    c.SetLegalHold: "requested_by",
    c.LiftLegalHold: "requested_by",
    c.SetTenantHold: "requested_by",
    c.LiftTenantHold: "requested_by",
    c.RevealContent: "revealed_by",
    c.RecordAuditRead: "read_by",
    c.AcknowledgeLeak: "acknowledged_by",
}
"""Commands that record who did it, by the field that says so."""

READS: Mapping[str, Right] = {
    "session": Right.READ_STRUCTURE,
    "sessions": Right.READ_STRUCTURE,
    "tenant_sessions": Right.READ_STRUCTURE,
    "has": Right.READ_STRUCTURE,
    "count": Right.READ_STRUCTURE,
    "current": Right.READ_STRUCTURE,
    "history": Right.READ_STRUCTURE,
    "errors": Right.READ_STRUCTURE,
    "authentication_failures": Right.READ_STRUCTURE,
    "quotas": Right.READ_STRUCTURE,
    "user_quotas": Right.READ_STRUCTURE,
    "tenant_quotas": Right.READ_STRUCTURE,
    "limits": Right.READ_STRUCTURE,
    "agents": Right.READ_STRUCTURE,
    "legal_holds": Right.READ_STRUCTURE,
    "stats": Right.READ_STRUCTURE,
}
"""Every read of `Views`. Sealed fields are opened for who has READ_CONTENT, and withheld from the others."""


class Over(StrEnum):
    """Which tenants a command of the command line is about."""

    TENANT = "tenant"
    """The one of its option or argument; none named: every tenant."""
    MET = "met"
    """Found while it runs, and checked then: by the ledger's owner, or by the read. One at least must be reached."""
    LEDGER = "ledger"
    """All: it works on the whole ledger."""


@dataclass(frozen=True, slots=True)
class Need:
    """A right that a command of the command line needs."""

    right: Right
    over: Over
    option: str | None = None
    """Only where this parameter is given."""


def _over(over: Over, right: Right, *names: str) -> dict[str, tuple[Need, ...]]:
    return {name: (Need(right, over),) for name in names}


CLI: Mapping[str, tuple[Need, ...]] = {
    **_over(Over.TENANT, Right.SERVE, "sessions create", "sessions message", "sessions update", "sessions end"),
    **_over(Over.TENANT, Right.SERVE, "sessions error", "quota consume", "quota check", "quota release", "auth failed"),
    **_over(Over.TENANT, Right.SERVE, "agents acquire", "agents release", "auth issue", "auth rotate", "auth check"),
    **_over(Over.MET, Right.SERVE, "import"),
    **_over(Over.TENANT, Right.CONFIGURE, "quota set", "limits set", "agents register", "agents retire"),
    **_over(Over.TENANT, Right.CONFIGURE, "retention set", "keys rotate session"),
    **_over(Over.TENANT, Right.ERASE, "erase session", "erase user", "erase tenant", "retention sweep"),
    **_over(Over.LEDGER, Right.ERASE, "erase status"),
    **_over(Over.TENANT, Right.HOLD, "hold set", "hold lift"),
    **_over(Over.TENANT, Right.READ_STRUCTURE, "sessions list", "sessions show", "sessions history", "quota report"),
    **_over(Over.TENANT, Right.READ_STRUCTURE, "limits show", "agents list", "hold list", "auth list", "stats"),
    **_over(Over.TENANT, Right.READ_STRUCTURE, "trends"),
    **_over(Over.LEDGER, Right.READ_STRUCTURE, "tail", "sql", "lag", "position", "erase receipt"),
    **_over(Over.LEDGER, Right.READ_STRUCTURE, "keys list", "keys status", "keys verifier", "prices show"),
    **_over(Over.LEDGER, Right.READ_STRUCTURE, "proof inclusion", "proof consistency", "proof session"),
    "verify": (Need(Right.READ_STRUCTURE, Over.LEDGER), Need(Right.OPERATE, Over.LEDGER, "sign")),
    "monitor": (Need(Right.READ_STRUCTURE, Over.TENANT), Need(Right.ALERT, Over.TENANT, "record")),
    "archive": (Need(Right.READ_STRUCTURE, Over.LEDGER), Need(Right.REVEAL, Over.LEDGER, "contents")),
    **_over(Over.TENANT, Right.READ_CONTENT, "keys pseudonym"),
    "export": (Need(Right.READ_CONTENT, Over.TENANT), Need(Right.REVEAL, Over.TENANT)),
    **_over(Over.TENANT, Right.REVEAL, "audit reveal"),
    **_over(Over.MET, Right.AUDIT, "audit timeline", "audit state", "audit diff", "audit acknowledge"),
    **_over(Over.TENANT, Right.AUDIT, "audit access", "audit leaks"),
    **_over(Over.LEDGER, Right.OPERATE, "serve", "expire", "checkpoint", "project", "rebuild", "quarantine"),
    **_over(Over.LEDGER, Right.OPERATE, "keys rotate tenant", "keys rotate provider", "prices load"),
    "demo": (),  # makes a ledger of its own; the others below work on files that they are given
    "bench": (),
    "verify-receipt": (),
    "proof verify": (),
    "keys init": (),
}
"""Every command of the command line, by its path."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who does things: a name, a role, and the tenants (None: every one) in which the role counts.

    Raises Misconfigured for a role that there is not, an empty name, and no tenants at all.
    """

    name: str
    role: str
    tenants: frozenset[str] | None = None
    _rights: frozenset[Right] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise Misconfigured(f"principal {self.name!r}: the role is {self.role!r}, and there are {', '.join(ROLES)}")
        if not self.name:
            raise Misconfigured("a principal without a name: name the system's user")
        if self.tenants is not None:
            named = frozenset() if isinstance(self.tenants, str) else frozenset(self.tenants)
            if not named or not all(named) or EVERY_TENANT in named:
                raise Misconfigured(f"principal {self.name!r}: tenants are a set of names, or None for every one")
            object.__setattr__(self, "tenants", named)
        object.__setattr__(self, "_rights", ROLES[self.role])

    @property
    def names_others(self) -> bool:
        """Whether it may record that somebody else did a thing: as who serves others does."""
        return self.role in (OWNER, SERVICE)

    def has(self, right: Right) -> bool:
        """Whether the role has it."""
        return right in self._rights

    def reaches(self, tenant: str | None) -> bool:
        """Whether the tenant (None: every tenant) is among its own."""
        return self.tenants is None or (tenant is not None and tenant in self.tenants)

    def require(self, right: Right, tenant: str | None, what: str, over: Over = Over.TENANT) -> None:
        """Raise Forbidden unless the role has the right, and it counts there. `what`: as in "may not ..."."""
        if right not in self._rights:
            having = [role for role, rights in ROLES.items() if right in rights]
            whose = f"that takes the right to {right}, which {_listed(having)} have: ask one" if having else (
                "the ledger does that by itself"
            )  # fmt: skip
            raise Forbidden(f"{self._who} may not {what}{self._of(tenant, over)}: {whose}")
        if over is not Over.MET and not self.reaches(tenant):
            raise Forbidden(
                f"{self._who} may not {what}{self._of(tenant, over)}: the role counts in {self._own}; ask somebody of "
                f"{'every tenant' if tenant is None else 'that tenant'}, or have it added to the principal's tenants"
            )

    @property
    def _who(self) -> str:
        return f"{self.name} ({self.role})"

    @property
    def _own(self) -> str:
        named = sorted(self.tenants or ())
        more = f" and {len(named) - _TENANTS_TOLD} more" if len(named) > _TENANTS_TOLD else ""
        return f"tenant{'s' if len(named) > 1 else ''} {', '.join(named[:_TENANTS_TOLD])}{more}"

    def _of(self, tenant: str | None, over: Over) -> str:
        if over is Over.MET and tenant is None:
            return ""
        return " of every tenant" if tenant is None else f" of tenant {tenant[:60]}"


def _listed(roles: list[str]) -> str:
    return " and ".join([", ".join(roles[:-1]), roles[-1]] if len(roles) > 1 else roles)


def check_command(principal: Principal, command: Command) -> None:
    """Raise Forbidden unless the principal may have that command run; InvalidInput for what is none of the ledger's."""
    right = COMMANDS.get(type(command))
    if right is None:
        raise InvalidInput("command", f"a {type(command).__name__}", "must be a command of session_ledger.domain")
    tenant = command.tenant
    if not isinstance(tenant, str):
        raise InvalidInput("tenant", shape(tenant), "must be a text")
    principal.require(right, tenant, f"run {type(command).__name__}")
    actor = ACTORS.get(type(command))
    if actor is not None and not principal.names_others and (named := getattr(command, actor)) != principal.name:
        seen = named[:60] if isinstance(named, str) else shape(named)
        raise Forbidden(
            f"{principal.name} ({principal.role}) may not record in {actor} that {seen!r} did it: what a principal of "
            f"that role does is recorded under its own name; leave it out, or give {principal.name!r}"
        )


def check_read(principal: Principal, name: str, tenant: str | None) -> None:
    """Raise Forbidden unless the principal may read that of the tenant (None: of every tenant)."""
    principal.require(READS[name], tenant, f"read {name.replace('_', ' ')}")


def check_cli(principal: Principal, path: str, parameters: Mapping[str, object]) -> None:
    """Raise Forbidden unless the principal may run that command of the command line, with those parameters."""
    for need in CLI[path]:
        if need.option is not None and not parameters.get(need.option):
            continue
        named = parameters.get("tenant") if need.over is Over.TENANT else None
        principal.require(need.right, named if isinstance(named, str) else None, f"run `{path}`", need.over)


@dataclass(frozen=True, slots=True)
class Principals:
    """Who there is, by the system's user name. Empty: roles are off, and everybody is an owner of every tenant."""

    by_user: Mapping[str, Principal]

    def of(self, user: str) -> Principal:
        """Who that user of the system is. Raises Forbidden for one who is not listed, where anybody is."""
        if not self.by_user:
            return Principal(user, OWNER)
        found = self.by_user.get(user)
        if found is None:
            raise Forbidden(
                f"{user} is no principal of this ledger, so nothing of any tenant is theirs to do or to read: ask who "
                f"runs it for a role in the settings, [principals.{user}]"
            )
        return found
