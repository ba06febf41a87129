"""The limits that commands are validated against, and whose a command is."""

from __future__ import annotations

from dataclasses import dataclass

from session_ledger.domain.command import Command, SessionCommand, UserCommand
from session_ledger.domain.errors import InvalidInput
from session_ledger.domain.shapes import identifier, word

DURATION_MS_MAX = 100 * 366 * 86_400_000  # a century: keeps every time within the year 9999
COUNT_MAX = 2**63 - 1  # what an Avro long holds
SEVERITIES = ("warning", "error", "critical")


@dataclass(frozen=True, slots=True)
class Rules:
    """The limits; sizes are of UTF-8 bytes."""

    content_bytes_max: int = 1024 * 1024
    metadata_bytes_max: int = 64 * 1024
    """Names and values together."""
    id_bytes_max: int = 256
    """Tenants, users, resources, plans, roles, models, reasons and other names."""
    title_bytes_max: int = 4 * 1024
    context_bytes_max: int = 1024 * 1024
    """As JSON."""
    parts_bytes_max: int = 1024 * 1024
    """As JSON."""
    note_bytes_max: int = 64 * 1024
    """Notes and error messages."""
    url_bytes_max: int = 8 * 1024
    capabilities_max: int = 100
    import_messages_max: int = 10_000
    """In one command; a longer history comes in several."""
    limits_quotas_max: int = 1_000
    sessions_max: int = 10_000
    """What a limit of live sessions may be set to."""


def tenant(command: Command, rules: Rules) -> None:
    """The tenant's name."""
    name = command.tenant
    word(name, "tenant", rules.id_bytes_max)
    if "/" in name:
        raise InvalidInput("tenant", f"{len(name)} characters with a '/'", "may not contain '/'")


def user(command: UserCommand, rules: Rules) -> None:
    """Tenant and user."""
    tenant(command, rules)
    word(command.user, "user", rules.id_bytes_max)


def session(command: SessionCommand, rules: Rules) -> None:
    """Tenant, user and session."""
    user(command, rules)
    identifier(command.session_id, "session_id")
