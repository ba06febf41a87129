"""The receipt of an erasure: a text, signed, that says what was erased, who has acted, and what no erasure reaches."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from session_ledger.consumers.erasure_store import Erasure, Reveal
from session_ledger.domain.ids import format_id

TITLE = "session-ledger erasure receipt v1"
OUT_OF_REACH = (
    "backups of the vault from before the keys were destroyed: whoever has one, and the wrapping keys, can open",
    "views and snapshots in other directories or on other machines: until they have folded the erasure they hold "
    "ciphertext, which nobody can open any more",
    "copies of contents outside the ledger: exports, screens and programs that were shown them",
    "the blocks of a disk that a file system or a drive keeps after they were overwritten or freed",
)
NONE_FOUND = "no data key was found that it covers"
_STEERING = re.compile(r"[\\\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
"""A backslash, and what would end a line or steer a terminal."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def receipt_of(erasure: Erasure, confirmed: Mapping[str, tuple[str, int]], reveals: Sequence[Reveal], now: int) -> str:
    """One fact a line; ends with a newline."""
    partition = "control" if erasure.partition < 0 else str(erasure.partition)
    lines = [TITLE, f"erasure {format_id(erasure.event_id)}", f"tenant {_line(erasure.tenant)}"]
    if erasure.user:
        lines.append(f"user {_line(erasure.user)}")
    if erasure.session_id is not None:
        lines.append(f"session {format_id(erasure.session_id)}")
    lines.append(f"requested by {_line(erasure.requested_by)}")
    lines.append(f"reason {_line(erasure.reason)}")
    lines.append(f"recorded {_time(erasure.recorded_at)}, partition {partition}, position {erasure.position}")
    lines.append(f"covers everything of it before position {erasure.position}")
    lines.append(f"{keys_destroyed(erasure)}, by {_time(erasure.destroyed_at or now)}")
    lines += [f"confirmed {store}: {detail}, {_time(at)}" for store, (detail, at) in sorted(confirmed.items())]
    for one in reveals:
        when = f"{_time(one.recorded_at)}, partition {one.partition}, position {one.position}"
        lines.append(f"opened before for {_line(one.revealed_by)}: {one.fields} fields, {when}")
    lines += [f"not reached: {what}" for what in OUT_OF_REACH]
    lines.append(f"complete {_time(now)}")
    return "\n".join(lines) + "\n"


def keys_destroyed(erasure: Erasure) -> str:
    """How many data keys it were.

    None are found where nothing was ever sealed, and where the record of an erasure was lost and is made again.
    """
    return f"data keys destroyed {erasure.keys}" if erasure.keys else f"data keys destroyed: {none_found(erasure)}"


def none_found(erasure: Erasure) -> str:
    """What is so of an erasure that destroyed no key. Those of a tenant's users go by erasures of their own."""
    return NONE_FOUND if erasure.partition >= 0 else f"{NONE_FOUND}, beside those of its users"


def _time(microseconds: int) -> str:
    moment = _EPOCH + timedelta(microseconds=microseconds)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _line(text: str) -> str:
    """Whatever it holds, on one line, and no two texts alike: a backslash is escaped too, and nothing is left out."""
    return _STEERING.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return "\\\\" if found[0] == "\\" else f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
