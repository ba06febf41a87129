"""A process of another user: sends commands through the command socket and tells what came of each, one JSON a line.

python -m tests.ledger.peer URL COMMAND_SOCKET UID
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import session_ledger.ledger.open  # noqa: F401 - before the change of user, who may not read these files
from session_ledger.domain.errors import SessionLedgerError
from session_ledger.ledger.ledger import Ledger
from session_ledger.ledger.principals import system_user
from tests.ledger.process import tell


def main(url: str, command_socket: str, uid: int) -> None:
    """Become that user, and try."""
    with Ledger.open("memory:") as warm:  # whatever is imported late, now
        warm.create_session("acme", "u")
    os.chdir("/")
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    with Ledger.open(url, command_socket=command_socket) as ledger:
        tell(user=system_user(), owner=ledger.is_owner)
        tries: dict[str, Callable[[], object]] = {
            "own": lambda: ledger.create_session("acme", "u"),
            "foreign": lambda: ledger.create_session("zoo", "u"),
            "other right": lambda: ledger.set_limits("acme", max_sessions=1),
            "positions": ledger.positions,
            "expire": ledger.expire_due,
            "take over": lambda: Ledger.open(url, command_socket=command_socket, take_over=True),
        }
        for name, run in tries.items():
            try:
                run()
                tell(**{"try": name, "code": "done"})
            except SessionLedgerError as error:
                tell(**{"try": name, "code": error.code, "text": str(error)})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
