"""Who is who on this machine: the system's users as principals, this process's and the peer's of a socket."""

from __future__ import annotations

import socket
import struct
import sys

from session_ledger.domain.errors import Forbidden, Misconfigured
from session_ledger.ledger.settings import Settings
from session_ledger.security.access import EVERY_TENANT, Principal, Principals
from session_ledger.security.users import system_user as system_user
from session_ledger.security.users import user_name

_CREDENTIALS = struct.Struct("=iII")  # Linux, struct ucred: process, user, group
_XUCRED = struct.Struct("=II")  # macOS, how struct xucred begins: version, user
_XUCRED_BYTES, _SOL_LOCAL, _LOCAL_PEERCRED = 76, 0, 1
OVERFLOW_UID = 65534  # Linux's word for a user of another namespace: it could be anybody


def principals_of(settings: Settings) -> Principals:
    """The principals that are set, by the system's user name."""
    found = {}
    for name, one in settings.principals.items():
        found[name] = Principal(name, one.role, None if EVERY_TENANT in one.tenants else frozenset(one.tenants))
    return Principals(found)


def own_principal(settings: Settings) -> Principal:
    """Who runs this process. Raises Forbidden for a user who is not listed, where anybody is."""
    return principals_of(settings).of(system_user())


def peer_of(connection: socket.socket) -> str:
    """The name of the user who made the connection, by the kernel's word. Raises Forbidden where it does not tell."""
    if sys.platform == "darwin":
        uid = uid_of_xucred(connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED_BYTES))
    else:
        _, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        if uid == OVERFLOW_UID:
            raise Forbidden(
                "the peer is of a user that this system can not tell: connect from outside of its container"
            )
    return user_name(uid)


def uid_of_xucred(found: bytes) -> int:
    """The user of what macOS answers. Raises Forbidden for a form that is not known."""
    version, uid = _XUCRED.unpack_from(found)
    if version != 0:
        raise Forbidden(f"the system tells the peer in form {version}, which this version does not know")
    return int(uid)


def assert_peers_are_told() -> None:
    """Raise Misconfigured where the system does not tell who is at the other end of a socket."""
    if sys.platform != "darwin" and not hasattr(socket, "SO_PEERCRED"):
        raise Misconfigured(
            f"`principals` are set, and {sys.platform} does not tell who is at the other end of a socket: "
            "take them out, or run the ledger on Linux or macOS"
        )
