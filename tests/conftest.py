"""Fixtures for every folder of tests: one Kafka broker a run, shared by all test processes, and names of one's own."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.broker.broker import Broker
from tests.broker.libs import ensure_libs
from tests.broker.server import READY_S

RUN_DIRECTORY = pytest.StashKey[Path]()
TEST_KAFKA = "SESSION_LEDGER_TEST_KAFKA"


class SharedBroker:
    """Where the test processes of one run meet: a directory that their controller made."""

    def __init__(self, directory: Path) -> None:
        self._state = directory / "bootstrap"
        self._runner = directory / "runner.pid"
        self._lock = directory / "lock"
        self._output = directory / "runner.log"

    def start(self, watch: int) -> str:
        """The address of the run's broker, started by whoever asks first; it ends when the process `watch` does."""
        with self._lock.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self._runner.exists():
                ensure_libs()
                command = [sys.executable, str(Path(__file__).parent / "broker" / "broker.py"), "run", "--port", "0"]
                command += ["--watch", str(watch), "--state", str(self._state)]
                with self._output.open("wb") as output:
                    runner = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
                self._runner.write_text(str(runner.pid))
            deadline_s = time.monotonic() + READY_S
            while not self._state.exists():
                if time.monotonic() > deadline_s:
                    raise RuntimeError(f"the broker did not start:\n{self._output.read_text(errors='replace')}")
                time.sleep(0.05)
        return self._state.read_text()

    def stop(self) -> None:
        """End the runner, which stops its broker."""
        if self._runner.exists():
            try:
                os.kill(int(self._runner.read_text()), 15)
            except ProcessLookupError:
                return


def pytest_configure(config: pytest.Config) -> None:
    """The controller makes the directory of the run; test processes are told of it."""
    settings.register_profile("session-ledger", deadline=None)  # a busy machine is slow, not wrong
    settings.load_profile("session-ledger")
    told: dict[str, str] | None = getattr(config, "workerinput", None)
    config.stash[RUN_DIRECTORY] = (
        Path(told["run_directory"]) if told else Path(tempfile.mkdtemp(prefix="session-ledger-tests-"))
    )


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: object) -> None:
    """Tell a test process (pytest-xdist) where the run's directory is, and whose end ends the broker."""
    config: pytest.Config = getattr(node, "config")  # noqa: B009 - xdist ships no types
    told: dict[str, str] = getattr(node, "workerinput")  # noqa: B009
    told["run_directory"] = str(config.stash[RUN_DIRECTORY])
    told["run_pid"] = str(os.getpid())


def pytest_unconfigure(config: pytest.Config) -> None:
    """The controller stops the broker and removes the run's directory."""
    if getattr(config, "workerinput", None) is None and RUN_DIRECTORY in config.stash:
        SharedBroker(config.stash[RUN_DIRECTORY]).stop()
        shutil.rmtree(config.stash[RUN_DIRECTORY], ignore_errors=True)


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest) -> str:
    """The address of a real broker: the one that SESSION_LEDGER_TEST_KAFKA names, else the run's own."""
    named = os.environ.get(TEST_KAFKA)
    if named:
        return named
    told: dict[str, str] | None = getattr(request.config, "workerinput", None)
    watch = int(told["run_pid"]) if told else os.getpid()
    return SharedBroker(request.config.stash[RUN_DIRECTORY]).start(watch)


@pytest.fixture
def ledger_name() -> str:
    """A name that no other test uses, so that each has its own topics."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where a ledger of one's own is or will be."""
    return tmp_path / "ledger"


@pytest.fixture
def sqlite_url(directory: Path) -> str:
    """The URL of a ledger in that directory."""
    return f"sqlite:{directory}"


@pytest.fixture
def shared_place() -> Iterator[Path]:
    """A directory that every user of the system may enter, and this one alone may write."""
    place = Path(tempfile.mkdtemp(prefix="sl-"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Broker]:
    """A running broker for one test alone: to be killed, paused and started again."""
    broker = Broker(tmp_path / "broker")
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()
