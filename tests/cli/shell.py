"""Runs commands as a user would: in this process with streams of their own, or in a process of their own."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from session_ledger.cli.main import run

PROGRAM = [sys.executable, "-m", "session_ledger.cli.main"]


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on stdout."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """The documents on stdout, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]


class Shell:
    """Commands on one ledger; `-u` is added to each."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.url = f"sqlite:{directory}"

    def __call__(self, *arguments: object, stdin: bytes = b"") -> Ran:
        """Run it in this process."""
        with streams(stdin) as (out, err):
            code = run([*map(str, arguments), "-u", self.url])
            sys.stdout.flush()
            sys.stderr.flush()
        return Ran(code, out.getvalue().decode(), err.getvalue().decode())

    def apart(self, *arguments: object, stdin: bytes = b"") -> Ran:
        """Run it in a process of its own."""
        command = [*PROGRAM, *map(str, arguments), "-u", self.url]
        done = subprocess.run(command, input=stdin, capture_output=True, timeout=60, env=environment())
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())

    @contextmanager
    def started(self, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
        """A process that goes on; killed at the end if it still runs."""
        command = [*PROGRAM, *map(str, arguments), "-u", self.url]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate(timeout=30)


def environment() -> dict[str, str]:
    """Ours, without settings that somebody may have."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SESSION_LEDGER_")}


@contextmanager
def streams(stdin: bytes = b"") -> Iterator[tuple[io.BytesIO, io.BytesIO]]:
    """Standard streams in memory, while the block runs."""
    before = sys.stdin, sys.stdout, sys.stderr
    out, err = io.BytesIO(), io.BytesIO()
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
    sys.stdout = io.TextIOWrapper(out, encoding="utf-8", write_through=True)
    sys.stderr = io.TextIOWrapper(err, encoding="utf-8", write_through=True)
    try:
        yield out, err
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            stream.detach()
        sys.stdin, sys.stdout, sys.stderr = before


def jsonl(*lines: object) -> bytes:
    """Documents, one a line; bytes as they are."""
    return b"".join(line + b"\n" if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)


def chat(*contents: str, **fields: object) -> dict[str, object]:
    """An OpenAI chat whose messages take turns."""
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[n % 2], "content": text} for n, text in enumerate(contents)], **fields}
