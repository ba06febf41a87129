"""What several tests make: keys, ids, and other processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from session_ledger.domain.errors import SessionLedgerError
from session_ledger.security.envelope import VaultEnvelope
from session_ledger.security.keys import SealingKey

TENANT, USER = "acme", "ann"
SESSION = bytes(range(16))
EVENT = bytes(range(16, 32))
MESSAGE = "session_ledger.events.MessageAdded"
FIELD = "sealed_content"


def new_key(envelope: VaultEnvelope, session_id: bytes = SESSION, user: str = USER, tenant: str = TENANT) -> SealingKey:
    """The session's key, made where there is none."""
    key = envelope.session_key(tenant, user, session_id, create=True)
    assert isinstance(key, SealingKey)
    return key


def durable_key(envelope: VaultEnvelope, session_id: bytes = SESSION, user: str = USER) -> SealingKey:
    """The session's key, in the vault."""
    key = new_key(envelope, session_id, user)
    envelope.make_durable([key])
    return key


def raised(call: Callable[[], object]) -> SessionLedgerError:
    """The error of ours that the call raises; its frames hold nothing of the test's."""
    try:
        call()
    except SessionLedgerError as error:
        return error
    raise AssertionError("no error was raised")


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    """Another Python process that runs the script; its lines are read from `stdout`, and it waits on `stdin`."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
