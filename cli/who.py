"""Who runs a command, for what is recorded about it."""

from __future__ import annotations


def who(given: str | None) -> str:
    """The name that was given, else that of the system's user, whatever the environment says."""
    from session_ledger.ledger.principals import system_user

    return given or system_user()
