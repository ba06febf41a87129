"""Files that only their owner may read, made whole or not at all."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PRIVATE_MODE = 0o600


def create_private(path: Path, content: bytes) -> None:
    """Make the file with mode 0600 and the content, durable before this returns. Raises FileExistsError, OSError."""
    create_whole(path, content, PRIVATE_MODE)


def exist_private(path: Path) -> None:
    """Make the file, empty and of mode 0600, where it is not there: SQLite's own mode is open to others, and the files
    that it puts beside take over the mode. Raises OSError.
    """
    if not path.exists():
        with suppress(FileExistsError):  # somebody else made it meanwhile
            create_private(path, b"")


def create_whole(path: Path, content: bytes, mode: int) -> None:
    """Make the file with that mode and the content, durable before this returns. Raises FileExistsError, OSError.

    It is written under another name and linked: nobody ever sees it half written, and no descriptor of the file
    itself is closed here (that would drop the locks that this process's SQLite connections hold on it).
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        _write(draft, content, mode)
        os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    _sync_directory(path.parent)


def replace_private(path: Path, content: bytes) -> None:
    """Give the file another content, whole or not at all, durable before this returns. Raises OSError."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        _write(draft, content, PRIVATE_MODE)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    _sync_directory(path.parent)


@contextmanager
def locked_directory(path: Path) -> Iterator[None]:
    """Alone among those who lock the directory of that file, in this process and others, until it is left."""
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Has an OSError of the block name that file, where it names none: those of writing do not."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def _write(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with naming(path), os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def open_to_others(mode: int) -> str | None:
    """What is wrong with a file's mode, in words; None where only the owner can open it."""
    return f"is open to other users (mode {mode & 0o777:03o})" if mode & 0o077 else None


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with naming(directory):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
