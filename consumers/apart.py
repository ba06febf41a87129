"""Work side by side: processes of their own, each a module's `main`, told what to do by JSON on the standard input.

Such a process ends when its parent does, however that ends: nothing writes on behalf of somebody who is gone.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import IO, Any

from session_ledger.domain.errors import LogUnavailable


def run_apart(
    module: str,
    tasks: Sequence[Mapping[str, object]],
    on_line: Callable[[int, str], None] = lambda which, line: None,
    *,
    what: str,
) -> None:
    """Run the module once a task and wait for all; `on_line(which, line)` hears what they print, one call at a time.
    `what` they are of is said in an error.

    Raises LogUnavailable with the last line of what a process said that failed; the others are ended then.
    """
    lock = threading.Lock()

    ended: queue.SimpleQueue[int] = queue.SimpleQueue()

    def listen(which: int, output: IO[str]) -> None:
        try:
            for line in output:
                with lock:
                    on_line(which, line)
        finally:
            ended.put(which)

    with ExitStack() as closing:
        running: list[tuple[subprocess.Popen[str], IO[str], threading.Thread]] = []
        for which, task in enumerate(tasks):
            said: IO[str] = closing.enter_context(tempfile.TemporaryFile("w+"))
            process = subprocess.Popen(
                [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True
            )
            closing.callback(_end, process)
            assert process.stdin is not None
            assert process.stdout is not None
            with suppress(BrokenPipeError):  # it failed before it listened: its exit code tells
                process.stdin.write(json.dumps(task) + "\n")
                process.stdin.flush()
            listening = threading.Thread(target=listen, args=(which, process.stdout), daemon=True)
            listening.start()
            running.append((process, said, listening))
        for _ in running:
            process, said, listening = running[ended.get()]
            code = process.wait()
            listening.join()
            if code:
                said.seek(0)
                last = said.read().strip().splitlines()[-1:] or [f"exit code {code}"]
                raise LogUnavailable(f"a process of {what} failed: {last[0]}")


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        assert stream is not None
        with suppress(BrokenPipeError):
            stream.close()


def told() -> Any:
    """In such a process: what it is to do. From then on it ends with its parent."""
    task = json.loads(sys.stdin.readline())

    def follow_the_parent() -> None:
        sys.stdin.read()  # ends when nobody holds the other end any more
        os._exit(1)

    threading.Thread(target=follow_the_parent, daemon=True).start()
    return task
