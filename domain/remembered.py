"""Commands that are remembered, so that a repeat answers what the first one did instead of running again.

Folded from the events that carry a command id. An id (UUIDv7) is remembered for as long as it may be used: an id older
than ten minutes is never run, so an entry whose id is older may go. At most `ENTRIES_MAX` are kept; where more come in
the time, the lowest ids go first, and an unknown id at or below the highest that went is refused, for it may be one of
them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from session_ledger.domain.errors import CommandIdReused, CommandTooOld, InvalidInput
from session_ledger.domain.ids import format_id

WINDOW_US = 600_000_000  # ten minutes: longer than any client keeps retrying
FUTURE_US = 60_000_000  # how far a caller's clock may be ahead of the writer's
ENTRIES_MAX = 1024  # a user; some 160 kB
ENTRIES_KEPT = 768  # after dropping some for want of room, so that looking for them is rare
PRUNE_FROM = 32  # entries below which looking for old ones is not worth it
DIGEST_BYTES = 16  # of a command's body
_POSITION_END, _COUNT_END = 8, 12  # an entry: first position, number of events, digest


@dataclass(slots=True)
class Remembered:
    """The commands of one user. An entry is packed, to be small: 8 bytes first position, 4 number of events, digest."""

    entries: dict[bytes, bytes] = field(default_factory=dict)
    prune_at: int = PRUNE_FROM
    """The number of entries above which old ones are looked for."""
    forgotten: bytes = b""
    """The highest id that went before its time; b"": none did."""


def recall(commands: Remembered, command_id: bytes, digest: bytes, now: int) -> tuple[int, int] | None:
    """(first position, number of events) of a command recorded before; None if it is new and may run.

    Raises CommandIdReused, CommandTooOld, InvalidInput (an id from the future).
    """
    entry = commands.entries.get(command_id)
    id_time = int.from_bytes(command_id[:6], "big") * 1000
    if entry is None:
        if now - WINDOW_US <= id_time <= now + FUTURE_US and command_id > commands.forgotten:
            return None
        if id_time > now + FUTURE_US:
            seen = f"a UUIDv7 {(id_time - now) // 1_000_000} s in the future"
            raise InvalidInput(
                "command_id", seen, f"may be at most {FUTURE_US // 1_000_000} s ahead of the ledger's clock"
            )
        raise CommandTooOld(f"command {format_id(command_id)}: {_age(id_time, now)}; use a new id if it should run")
    if id_time < now - WINDOW_US:
        raise CommandTooOld(f"command {format_id(command_id)}: {_age(id_time, now)}; it was recorded before")
    if entry[_COUNT_END:] != digest:
        raise CommandIdReused(f"command {format_id(command_id)} was recorded with another body; use a new id")
    return int.from_bytes(entry[:_POSITION_END], "big"), int.from_bytes(entry[_POSITION_END:_COUNT_END], "big")


def remember(commands: Remembered, command_id: bytes, digest: bytes, recorded_at: int, position: int) -> None:
    """Fold one event of a command in. The events of a command stand at adjacent positions."""
    entries = commands.entries
    entry = entries.get(command_id)
    if entry is not None:
        count = int.from_bytes(entry[_POSITION_END:_COUNT_END], "big") + 1
        entries[command_id] = entry[:_POSITION_END] + count.to_bytes(4, "big") + entry[_COUNT_END:]
        return
    if len(entries) >= commands.prune_at:
        entries = _prune(commands, recorded_at)
    entries[command_id] = position.to_bytes(8, "big") + b"\x00\x00\x00\x01" + digest


def _prune(commands: Remembered, now: int) -> dict[bytes, bytes]:
    """Drop what is older than the window; more, down to three quarters, where that leaves little room."""
    oldest_ms = -((WINDOW_US - now) // 1000)  # rounded up: an id's time is in whole milliseconds
    oldest = max(oldest_ms, 0).to_bytes(6, "big")  # what a UUIDv7 of that time starts with
    kept = {command_id: entry for command_id, entry in commands.entries.items() if command_id >= oldest}
    if len(commands.entries) >= ENTRIES_MAX and len(kept) > ENTRIES_KEPT:
        going = sorted(kept)[: len(kept) - ENTRIES_KEPT]
        for command_id in going:
            del kept[command_id]
        commands.forgotten = max(commands.forgotten, going[-1])
    commands.entries = kept
    commands.prune_at = min(max(2 * len(kept), PRUNE_FROM), ENTRIES_MAX)
    return kept


def _age(id_time: int, now: int) -> str:
    age_s = max(now - id_time, 0) // 1_000_000
    return f"its id is {age_s} s old and no longer remembered (ten minutes, {ENTRIES_MAX} a user)"
