"""Where imported lines come from: files and standard input, plain or gzip, one chat a line or one JSON array of chats.

Constant memory: one line at a time, and a line longer than `LINE_BYTES_MAX` is passed over without being kept.
"""

from __future__ import annotations

import gzip
import io
import re
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from session_ledger.domain.errors import InvalidInput

LINE_BYTES_MAX = 64 * 1024 * 1024  # some 60 times the largest message; a line is held in memory whole
CHUNK_BYTES = 1024 * 1024
LOOK_BYTES = 1024  # at the start of a file
NULS_OF_NO_TEXT = 4  # in them; a single one may be damage of one line
STDIN = "-"
_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
_TOKEN = re.compile(rb'["{}\[\],]')
_STRING_END = re.compile(rb'["\\]')


if TYPE_CHECKING:
    Buffered = io.BufferedReader[Any]


@dataclass(frozen=True, slots=True)
class Line:
    """One chat's bytes; `number` counts lines (in an array: its elements) from 1. `problem`: why there are none."""

    number: int
    data: bytes
    problem: InvalidInput | None = None


class Source:
    """An open input. `lines` is read once; `consumed` is how many bytes of the file are read so far."""

    def __init__(self, path: str, raw: Buffered, name: str | None) -> None:
        self.path = path
        self.name = name
        """What ids are derived from; None: nothing was named, so every line must have its own."""
        self._raw = raw

    @property
    def consumed(self) -> int:
        """Bytes read of the file, as it stands on disk; 0 where that can not be told."""
        return self._raw.tell() if self._raw.seekable() else 0

    def lines(self) -> Iterator[Line]:
        """Every line, in order; damage of the compressed data is a line with a problem, and the last one."""
        number = 0
        try:
            for line in self._split():
                number = line.number
                yield line
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            problem = InvalidInput("line", f"damaged gzip data ({error})", "the rest of the file can not be read")
            yield Line(number + 1, b"", problem)

    def _split(self) -> Iterator[Line]:
        stream: Buffered = self._raw
        if _starts_with(stream, _GZIP):
            stream = io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=stream)), CHUNK_BYTES)
        if stream.peek(LOOK_BYTES)[:LOOK_BYTES].count(0) >= NULS_OF_NO_TEXT:
            seen = "a file that is no text (it has NUL bytes)"
            return iter(
                [Line(1, b"", InvalidInput("line", seen, "must be JSON in UTF-8, a chat a line, plain or gzip"))]
            )
        number, first = 1, stream.readline(CHUNK_BYTES).removeprefix(_BOM)
        while first.isspace():
            number, first = number + 1, stream.readline(CHUNK_BYTES)
        if first.lstrip(_SPACE).startswith(b"["):
            return _array(first, stream)
        return _lines(number, first, stream)


@contextmanager
def open_source(path: str, name: str | None) -> Iterator[Source]:
    """Open a file, or standard input for ``-``. `name`: what ids are derived from, instead of the file's base name."""
    if path == STDIN:
        yield Source(path, io.BufferedReader(cast(io.RawIOBase, _Reader(sys.stdin.buffer)), CHUNK_BYTES), name)
        return
    try:
        raw = io.BufferedReader(io.FileIO(path), CHUNK_BYTES)
    except OSError as error:
        raise InvalidInput("FILE", f"{path!r}: {error.strerror}", "must be a file that can be read, or -") from error
    with raw:
        yield Source(path, raw, name or Path(path).name.removesuffix(".gz"))


class _Reader(io.RawIOBase):
    """Standard input as a raw stream, so that it can be peeked at whatever it is."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        read = getattr(self._stream, "read1", self._stream.read)
        data: bytes = read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _starts_with(stream: Buffered, magic: bytes) -> bool:
    try:
        return stream.peek(len(magic))[: len(magic)] == magic
    except OSError as error:  # a directory can be opened, and not read
        raise InvalidInput("FILE", f"{error.strerror}", "must be a file that can be read, or -") from error


def _too_long(number: int) -> Line:
    problem = InvalidInput("line", f"more than {LINE_BYTES_MAX} bytes", f"must be at most {LINE_BYTES_MAX} bytes")
    return Line(number, b"", problem)


def _lines(number: int, line: bytes, stream: Buffered) -> Iterator[Line]:
    while line:
        if not line.endswith(b"\n"):
            line += stream.readline(LINE_BYTES_MAX + 1 - len(line))
        if len(line) > LINE_BYTES_MAX and not line.endswith(b"\n"):
            while (rest := stream.readline(CHUNK_BYTES)) and not rest.endswith(b"\n"):
                continue
            yield _too_long(number)
        elif not line.isspace():
            yield Line(number, line)
        number += 1
        line = stream.readline(CHUNK_BYTES)


def _array(first: bytes, stream: Buffered) -> Iterator[Line]:
    """The elements of one JSON array, cut by brackets alone; each is parsed by whoever takes it."""
    cutter, chunk = _Cutter(), first
    while chunk:
        yield from cutter.feed(chunk)
        if cutter.rest is not None:
            break
        chunk = stream.read(CHUNK_BYTES)
    if cutter.rest is None:
        problem = InvalidInput("line", "an array that does not end", "must end in ']'")
        yield Line(cutter.number, b"", problem)
    elif (cutter.rest + stream.read(CHUNK_BYTES)).strip(_SPACE):
        problem = InvalidInput("line", "data after the array", "must be one array, or one chat a line")
        yield Line(cutter.number, b"", problem)


class _Cutter:
    """Cuts a JSON array that comes in chunks into its elements."""

    def __init__(self) -> None:
        self.number = 1
        """Of the element that comes next."""
        self.rest: bytes | None = None
        """What follows the end of the array; None: it has not ended."""
        self._depth = 0
        self._in_string = False
        self._escaped = False  # the chunk ended after a backslash
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[Line]:
        start, at = 0, int(self._escaped)
        self._escaped = False
        while match := (_STRING_END if self._in_string else _TOKEN).search(chunk, at):
            token, at = match[0], match.end()
            if token == b"\\":
                at += 1
                self._escaped = at > len(chunk)
            elif token == b'"':
                self._in_string = not self._in_string
            elif token in b"{[":
                self._depth += 1
                start = at if self._depth == 1 else start
            elif token in b"}]":
                self._depth -= 1
                if self._depth == 0:
                    self._keep(chunk[start : match.start()])
                    if not b"".join(self._pieces).isspace() and self._size:
                        yield self._cut()
                    self.rest = chunk[at:]
                    return
            elif self._depth == 1:
                self._keep(chunk[start : match.start()])
                yield self._cut()
                start = at
        self._keep(chunk[start:])

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size <= LINE_BYTES_MAX:
            self._pieces.append(piece)
        else:
            self._pieces.clear()

    def _cut(self) -> Line:
        number, data = self.number, b"".join(self._pieces)
        line = _too_long(number) if self._size > LINE_BYTES_MAX else Line(number, data)
        self.number, self._pieces, self._size = number + 1, [], 0
        return line
