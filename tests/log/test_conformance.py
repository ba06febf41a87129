"""Our suite on the log in memory and on the log in a directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from session_ledger.ledger.log.memory import MemoryLog, MemoryStore
from session_ledger.ledger.log.port import Log
from session_ledger.ledger.log.sqlite import SQLiteLog
from tests.log.conformance import LogConformance, Storage


class MemoryStorage(Storage):
    """A store in memory of two partitions."""

    def __init__(self) -> None:
        super().__init__()
        self._store = MemoryStore("conformance", 2)

    def open_log(self, *, write: bool, take_over: bool) -> Log:
        return MemoryLog(store=self._store, write=write, take_over=take_over)


class SQLiteStorage(Storage):
    """A directory."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory

    def open_log(self, *, write: bool, take_over: bool) -> Log:
        return SQLiteLog.open(self._directory, write=write, take_over=take_over, create=True)

    def opener(self) -> tuple[str, str]:
        return f"{__name__}:open_sqlite", str(self._directory)


def open_sqlite(directory: str) -> Log:
    """The log in that directory, for a process of its own."""
    return SQLiteLog.open(directory, write=True, create=True)


class TestMemoryLog(LogConformance):
    """The log in memory."""

    @pytest.fixture
    def storage(self) -> Iterator[Storage]:
        storage = MemoryStorage()
        yield storage
        storage.close_all()


class TestSQLiteLog(LogConformance):
    """The log in a directory."""

    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[Storage]:
        storage = SQLiteStorage(tmp_path / "ledger")
        yield storage
        storage.close_all()
