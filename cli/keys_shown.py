"""Keys on the terminal and as JSON: names, ages and counts."""

from __future__ import annotations

from collections.abc import Sequence

from session_ledger.cli.output import fields, say, table, write_json
from session_ledger.ledger.keys_report import KeysStatus, TenantKeyView

OWN = "(the ledger's)"  # what belongs to no tenant
_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60))


def show_keys(found: Sequence[TenantKeyView], as_json: bool) -> None:
    """A row a tenant key."""
    if as_json:
        write_json({"keys": found})
        return
    if not found:
        say("the vault holds no key")
        return
    rows = [
        (
            key.tenant or OWN,
            str(key.generation) if key.generation else "none",
            key.key,
            "itself" if key.wrapped_by is None else key.wrapped_by,
            "" if key.age_s is None else age(key.age_s),
            key.sessions,
            key.accounts,
        )
        for key in found
    ]
    table(("tenant", "generation", "key", "wrapped by", "age", "sessions", "accounts"), rows)


def show_status(status: KeysStatus, as_json: bool) -> None:
    """The whole, one line each."""
    if as_json:
        write_json(status)
        return
    age_s = status.oldest_tenant_key_age_s
    wrapped = ", ".join(f"{name} ({count})" for name, count in sorted(status.wrapped_by.items()))
    fields(
        (
            ("key service", status.key_service),
            ("keyring", "none" if status.keyring is None else f"{status.keyring} ({status.wrapping_keys})"),
            ("vault", status.vault),
            ("tenants", status.tenants),
            ("tenant keys", status.tenant_keys),
            ("wrapped by", wrapped or "none"),
            ("oldest", "none" if age_s is None else age(age_s)),
            ("session keys", status.session_keys),
            ("account keys", status.account_keys),
        )
    )
    for tenant in status.unfinished:
        say(f"the rotation of {tenant or OWN} is not finished: `session-ledger keys rotate tenant`, again")
    if status.direct:
        say(f"{status.direct} data keys are wrapped as in a vault of version 1: `session-ledger keys rotate provider`")


def age(seconds: float) -> str:
    """An age in its largest unit, such as `12 d`."""
    for unit, length_s in _UNITS:
        if seconds >= length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} s"
