"""Who runs a command, for what is recorded about it."""

from __future__ import annotations

import getpass


def who(given: str | None) -> str:
    """The name that was given, else that of the system's user. Raises InvalidInput where there is neither."""
    from session_ledger.domain.errors import InvalidInput

    if given:
        return given
    try:
        return getpass.getuser()
    except (OSError, KeyError) as error:
        raise InvalidInput("--by", "none, and the system knows no name for this user", "must be given") from error
