"""A server process that tests start, end and start again: one process, one directory, ready or an error."""

from __future__ import annotations

import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

READY_S = 60  # a cold Java on a busy machine; 3 s when idle
STOP_S = 20  # an orderly shutdown


class Server(ABC):
    """One process and its directory. `start` after `kill` or `stop` brings it back. A context manager."""

    def __init__(self, name: str, data: Path) -> None:
        self._name = name
        self.data = data
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def start(self) -> None:
        """Start, and return when it answers. Raises RuntimeError with the end of its log."""

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None, f"the {self._name} is not running"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def output(self) -> Path:
        """The file that holds what it wrote to its standard output and error."""
        return self.data / f"{self._name}.log"

    def _launch(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdout=output, stderr=output, start_new_session=True, env=environment, cwd=cwd
            )

    def _wait_ready(self, answers: Callable[[], bool]) -> None:
        assert self._process is not None
        deadline_s = time.monotonic() + READY_S
        while time.monotonic() < deadline_s:
            if self._process.poll() is not None:
                tail = self.output.read_text(errors="replace")[-3000:]
                raise RuntimeError(f"the {self._name} ended with {self._process.returncode}:\n{tail}")
            if answers():
                return
            time.sleep(0.1)
        self.kill()
        raise RuntimeError(f"the {self._name} was not ready within {READY_S} s; see {self.output}")

    def stop(self) -> None:
        """Shut down in order. Idempotent."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def kill(self) -> None:
        """kill -9: what was not flushed to the operating system is lost. Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
