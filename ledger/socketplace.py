"""Where the command socket stands, and whether that place is safe."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from session_ledger.domain.errors import Misconfigured

SOCKET_PATH_BYTES_MAX = 100  # sun_path holds 108 on Linux, 104 elsewhere
_OWN, _SHARED = 0o600, 0o666


@dataclass(frozen=True, slots=True)
class SocketPlace:
    """Where the owner of a ledger listens."""

    path: Path
    set_apart: bool = False
    """By the settings: outside of the ledger's directory."""
    shared: bool = False
    """Any user of the system may connect: the peer decides what is answered."""
    owners: frozenset[int] = frozenset((0,))
    """Of a place set apart: user ids that may own its directory and what that lies in."""

    @property
    def mode(self) -> int:
        """Of the socket."""
        return _SHARED if self.shared else _OWN

    def make_directory(self) -> None:
        """See that its directory is there, and safe; it is made where its parent is there. Raises Misconfigured."""
        directory = self.path.parent
        try:
            if self.set_apart and not directory.exists():
                if not directory.parent.exists():  # a path that was mistyped is not made, least of all under the root
                    raise Misconfigured(
                        f"`command_socket` is {self.path}, and there is no {directory.parent}: make it, or correct the "
                        "setting; only the socket's own directory is made by itself"
                    )
                directory.mkdir()
                directory.chmod(0o755 if self.shared else 0o700)
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Misconfigured(
                f"the directory {directory} of the command socket can not be used: {error.strerror}"
            ) from error
        self.check()

    def check(self) -> None:
        """Raise Misconfigured where others could put a socket of theirs into the directory."""
        directory = self.path.parent
        own = directory == temporary_place()
        if not own and not self.set_apart:
            return  # the ledger's own, which is this user's alone
        if own:
            status = directory.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_mode & 0o022 or status.st_uid != os.getuid():
                raise Misconfigured(
                    f"{directory} is not this user's alone: remove it, or use a shorter directory's name"
                )
            return
        directory = directory.resolve()
        for place in (directory, *directory.parents):
            status = place.stat()
            others = status.st_mode & 0o022 and (place == directory or not status.st_mode & stat.S_ISVTX)
            if others or not stat.S_ISDIR(status.st_mode) or status.st_uid not in self.owners | {os.geteuid()}:
                raise Misconfigured(
                    f"others may write in {place}, or own it, and so put a socket of theirs there: take that right "
                    "away (chmod go-w), or set `command_socket` where only root and the ledger's owner may"
                )


def socket_place(directory: Path, command_socket: Path | None = None, *, shared: bool = False) -> SocketPlace:
    """Where the owner of the ledger in that directory listens; `command_socket`: where it was told to. Raises
    Misconfigured for a path that no socket can have.
    """
    if command_socket is None:
        return SocketPlace(socket_path(directory))
    path = command_socket.absolute()
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
        raise Misconfigured(
            f"`command_socket` is {path}, and a socket's path has at most {SOCKET_PATH_BYTES_MAX} bytes"
        )
    try:
        owners = frozenset((0, directory.stat().st_uid))
    except OSError:  # the ledger's directory is not there yet, or can not be looked at
        owners = frozenset((0,))
    return SocketPlace(path, set_apart=True, shared=shared, owners=owners)


def socket_path(directory: Path) -> Path:
    """Where the owner of the ledger in that directory listens unless it was told otherwise."""
    path = directory.resolve() / "command.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
        return path
    name = hashlib.blake2b(os.fsencode(path), digest_size=12).hexdigest()
    return temporary_place() / f"{name}.sock"


def temporary_place() -> Path:
    """The directory of this user's sockets under the temporary one."""
    return Path(tempfile.gettempdir()) / f"session-ledger-{os.getuid()}"
