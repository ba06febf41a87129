"""What commands write: JSON for machines, plain lines and tables for people. Nothing here knows a command.

Tables fit 100 columns. Where stdout is no terminal they have no colours and no boxes, and are 100 columns wide.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Literal
from uuid import UUID

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console
    from rich.progress import Progress

    from session_ledger.consumers.findings import Findings
    from session_ledger.consumers.verify_log import LogFindings

PLAIN_COLUMNS = 100
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_FIXED = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?")  # an id or a time
GAP = 2  # columns between two columns of a table
TEXT_COLUMNS_MIN = 8  # a text is not cut to less
_LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}
_UNITS = ("bytes", "kB", "MB", "GB", "TB")

_encode = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=lambda o: as_json(o)
).encode


def as_json(value: object) -> object:
    """What `json` does not write by itself: records as objects, amounts as text, times as ISO 8601 in UTC."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Decimal):
        return format(value.normalize(), "f")
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"a {type(value).__name__} can not be written as JSON")


def json_line(value: object) -> str:
    """One line of JSON, without its end; a line to every reader, also to those that know more line ends than one."""
    line = _encode(value)
    return line if line.isascii() else line.translate(_LINE_ENDS)


def write_json(value: object) -> None:
    """One JSON document on stdout, UTF-8 whatever the locale, and a line end."""
    line = (json_line(value) + "\n").encode("utf-8", "surrogatepass")
    sys.stdout.flush()
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


def write_file(path: Path, text: str) -> None:
    """A file that somebody asked for, UTF-8. Raises OSError, which names it."""
    from session_ledger.security.files import naming

    with naming(path):
        path.write_text(text, encoding="utf-8")


def clean(value: object) -> str:
    """A text without what would steer a terminal: control and direction characters are shown, not sent."""
    return _CONTROL.sub(
        lambda match: f"\\x{ord(match[0]):02x}" if ord(match[0]) < 256 else f"\\u{ord(match[0]):04x}", str(value)
    )


def say(text: str = "") -> None:
    """One line of plain text on stdout; the caller has cleaned what others wrote."""
    sys.stdout.write(text + "\n")


def warn(text: str) -> None:
    """One line on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def terminal_columns() -> int | None:
    """How wide the terminal is; None where stdout is none, so that nothing is cut from what is piped."""
    import shutil

    return shutil.get_terminal_size((PLAIN_COLUMNS, 24)).columns if sys.stdout.isatty() else None


def console() -> Console:
    """Where tables go: as wide as the terminal, or 100 columns where stdout is none."""
    from rich.console import Console

    if sys.stdout.isatty():
        return Console(highlight=False, markup=False, emoji=False)
    return Console(highlight=False, markup=False, emoji=False, no_color=True, width=PLAIN_COLUMNS, force_terminal=False)


def table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, whole: bool = False, keep: Collection[str] = ()
) -> None:
    """Rows under headings; a heading that ends in ``>`` is aligned to the right. Ids and numbers are never cut.

    `keep`: nor are these columns. `whole`: nothing is, however wide the table becomes.
    """
    from rich.table import Table
    from rich.text import Text

    names = [column.removesuffix(">") for column in columns]
    cells = [[shown(value) for value in row] for row in rows]
    out = console()
    room = sys.maxsize if whole else out.width
    kept = [column.endswith(">") or column in keep for column in columns]
    widths = _widths(names, kept, cells, room)
    made = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold" if out.is_terminal else "")
    for column, name, width in zip(columns, names, widths, strict=True):
        justify: Literal["left", "right"] = "right" if column.endswith(">") else "left"
        made.add_column(Text(name), justify=justify, width=width, no_wrap=True, overflow="ellipsis")
    for row in cells:
        made.add_row(*map(Text, row))
    with out.capture() as captured:
        out.width = max(out.width, sum(widths) + GAP * len(widths))
        out.print(made, crop=False)
    for line in captured.get().splitlines():
        say(line.rstrip())


def _widths(names: Sequence[str], kept: Sequence[bool], cells: Sequence[Sequence[str]], room: int) -> list[int]:
    """As wide as what is in them; where that is too much, the widest texts give way, a column at a time."""
    from rich.cells import cell_len

    found = [max([len(name), *(cell_len(row[i]) for row in cells)]) for i, name in enumerate(names)]
    texts = [i for i, is_kept in enumerate(kept) if not is_kept and not any(_FIXED.fullmatch(row[i]) for row in cells)]
    while sum(found) + GAP * (len(found) - 1) > room:
        widest = max(texts, key=lambda i: found[i], default=None)
        if widest is None or found[widest] <= TEXT_COLUMNS_MIN:
            break
        found[widest] -= 1
    return found


def shown(value: object) -> str:
    """A value in a table or a line."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, timedelta):
        return duration(value.total_seconds())
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Decimal):
        return f"{value.normalize():,f}"
    if isinstance(value, (list, tuple)):
        return clean(", ".join(str(item) for item in value)) or "-"
    return clean(value)


def moment(value: datetime, *, seconds: bool = True) -> str:
    """A time in UTC, to the second or the minute."""
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M")


def duration(seconds: float) -> str:
    """Such as 45 s, 15 min, 8 h, 7 d: the largest unit that gives a whole number, or two decimals of seconds."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{int(seconds // size)} {unit}"
    return f"{seconds:g} s"


def size(count: float) -> str:
    """Bytes for people, such as 1.4 MB."""
    for unit in _UNITS:
        if count < 1000 or unit == _UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("the last unit takes whatever is left")


def fields(pairs: Sequence[tuple[str, object]]) -> None:
    """Name and value, a line each, aligned."""
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        say(f"{name:<{width}}  {shown(value)}")


def progress(*, quiet: bool = False) -> Progress:
    """A progress bar on stderr; nothing is shown where that is no terminal, or when `quiet`."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    stderr = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=stderr,
        disable=quiet or not sys.stderr.isatty(),
        transient=True,
    )


def say_findings(found: Findings | LogFindings) -> None:
    """What a check found, a line each."""
    if found.ok:
        say("everything agrees")
        return
    say(f"{len(found.findings) + found.more:,} findings:")
    for finding in found.findings:
        say(f"  {clean(finding)}")
    if found.more:
        say(f"  and {found.more:,} more")
