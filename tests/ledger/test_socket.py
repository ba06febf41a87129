"""The command socket's place, and what it stands."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from session_ledger.domain.errors import LogUnavailable, Misconfigured, OutcomeUnknown
from session_ledger.ledger import commandsocket, socketplace
from session_ledger.ledger.ledger import Ledger


def test_a_socket_in_a_directory_that_somebody_else_owns_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may make directories there could listen in the owner's place, and be told what people say."""
    place = socketplace.SocketPlace(tmp_path / "run" / "command.sock", set_apart=True, owners=frozenset())
    place.path.parent.mkdir(mode=0o755)
    place.check()
    monkeypatch.setattr(os, "geteuid", lambda: 12_345)
    with pytest.raises(Misconfigured, match="or own it"):
        place.check()


def test_who_floods_the_socket_does_not_end_it_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More connections than are taken are hung up at once; when some have gone, commands are answered again."""
    monkeypatch.setattr(commandsocket, "CONNECTIONS_MAX", 3)
    url = f"sqlite:{tmp_path / 'ledger'}"
    with Ledger.open(url) as owner:
        flood = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(6)]
        for one in flood:
            one.settimeout(5)
            one.connect(str(socketplace.socket_path(tmp_path / "ledger")))
        assert [b""] * 3 == [one.recv(1) for one in flood[3:]]
        for one in flood:
            one.close()
        deadline_s = time.monotonic() + 10
        while True:
            try:
                with Ledger.open(url) as client:
                    assert not client.is_owner
                    client.create_session("t", "u")
                break
            except (LogUnavailable, OutcomeUnknown):  # hung up: the others are not gone yet
                assert time.monotonic() < deadline_s
        assert owner.is_owner
