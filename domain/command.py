"""What commands share; see `commands` for the commands themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from session_ledger.domain.frozen import quick

Json = Any
"""What `json` can write: None, bool, int, float, str, lists and dicts of them."""


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What all commands share."""

    tenant: str
    command_id: bytes | None = None


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class UserCommand(Command):
    """A command about one user."""

    user: str


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class SessionCommand(UserCommand):
    """A command about one session of the user."""

    session_id: bytes
