"""The processes of a run: workers as the runner sees them, and a guard that ends what a killed runner left behind."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parents[2]
LOOK_EVERY_S = 0.2


class Worker:
    """One worker, killed and started again under the same name and with the same history file."""

    def __init__(self, name: str, url: str, directory: Path, seed: str, partitions: int, callers: int) -> None:
        self.name, self.url = name, url
        self.history = directory / f"{name}.jsonl"
        self.errors = directory / f"{name}.stderr"
        self.said = directory / f"{name}.said"
        self._arguments = [seed, str(partitions), str(callers)]
        self._process: subprocess.Popen[str] | None = None
        self.paused = False
        self.owner_since_ns: int | None = None
        """When it said last that it became the owner; None: it has not, or closed the ledger since."""
        self.served: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
        self.served_as_owner_ns = 0
        """When it was last acknowledged its first command as the owner."""
        self.served_ns = 0

    def start(self, pause_ms: int) -> None:
        """Start the process."""
        command = [sys.executable, "-m", "tests.chaos.worker", self.url, str(self.history), *self._arguments]
        with self.errors.open("a") as errors:
            self._process = subprocess.Popen(
                [*command, str(pause_ms)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,  # Ctrl-C is the runner's
            )
        self.owner_since_ns, self.paused = None, False
        threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with self.said.open("a") as copy:
            for line in process.stdout:
                copy.write(line)
                copy.flush()
                if process is self._process and line.endswith("}\n"):
                    self._hear(json.loads(line))

    def _hear(self, told: dict[str, object]) -> None:
        at = told["at"]
        assert isinstance(at, int)
        if "opened" in told:
            self.owner_since_ns = at if told["opened"] == "owner" else None
        elif "closed" in told:
            self.owner_since_ns = None
        elif "served" in told:
            self.served_ns = at
            if told["served"] == "owner":
                self.served_as_owner_ns = at

    @property
    def running(self) -> bool:
        """Whether the process is there and not paused."""
        return self._process is not None and self._process.poll() is None and not self.paused

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def tell(self, **told: object) -> None:
        """Send it a line; it may just have been killed."""
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(told) + "\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            return

    def pause(self) -> None:
        """SIGSTOP: it neither runs nor ends."""
        os.kill(self.pid, signal.SIGSTOP)
        self.paused = True

    def go_on(self) -> None:
        """SIGCONT. Idempotent."""
        if self.paused:
            os.kill(self.pid, signal.SIGCONT)
            self.paused = False

    def kill(self) -> int:
        """kill -9, wait for its end; when it was sent, in nanoseconds of the monotonic clock."""
        at = time.monotonic_ns()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdin is not None
            self._process.stdin.close()
        self.owner_since_ns, self.paused = None, False
        return at

    def stop(self, timeout_s: float) -> bool:
        """Let it finish what is under way and end; False: it did not in time, and was killed."""
        if self._process is None:
            return False
        if self._process.poll() is None:
            self.go_on()
            self.tell(do="stop")
        try:
            return self._process.wait(timeout_s) == 0
        except subprocess.TimeoutExpired:
            os.kill(self.pid, signal.SIGUSR1)  # it writes what its threads do to its stderr
            time.sleep(1.0)
            self.kill()
            return False


class Guard:
    """A process that kills what its parent started when the parent is gone, however that ended (also by kill -9)."""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.chaos.processes", str(os.getpid())]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def _children(parent: int) -> set[tuple[int, str]]:
    """(pid, start time) of each process whose parent that is."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:  # it has ended
            continue
        if int(fields[1]) == parent:
            found.add((int(path.parent.name), fields[19]))
    return found


def _started(pid: int) -> str | None:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[19]
    except OSError:
        return None


def guard(parent: int) -> None:
    """Watch the parent's children until the standard input ends, then kill those that are left."""
    ended = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=listen, daemon=True).start()
    known: set[tuple[int, str]] = set()
    while not ended.wait(LOOK_EVERY_S):
        known = {(pid, at) for pid, at in known if _started(pid) == at} | _children(parent)
    for pid, at in known:
        if pid != os.getpid() and _started(pid) == at:
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    guard(int(sys.argv[1]))
