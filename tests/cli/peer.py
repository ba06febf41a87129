"""Commands by another user: python -m tests.cli.peer UID COMMANDS (JSON, a list a command). Last, their exit codes."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from session_ledger.cli.main import run


def main(uid: int, commands: list[list[str]]) -> None:
    """Become that user, and run them."""
    own = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("SESSION_LEDGER_")}
    with tempfile.TemporaryDirectory() as place:  # whatever is imported late, now: who may not read these files
        url = ["-u", f"sqlite:{Path(place) / 'ledger'}"]
        assert 0 == run(["sessions", "create", "-U", "u", *url])
        assert 0 == run(["erase", "user", "-U", "u", "--reason", "r", *url])
        assert 2 == run(["erase", "tenant", "unknown", "--reason", "r", *url])
    os.environ.update(own)
    os.chdir("/")
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    codes = [run(command) for command in commands]
    print(json.dumps(codes))


if __name__ == "__main__":
    main(int(sys.argv[1]), json.loads(sys.argv[2]))
