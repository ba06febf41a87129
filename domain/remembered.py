"""Commands that are remembered, so that a repeat answers what the first one did instead of running again.

Folded from the events that carry a command id. An id (UUIDv7) may be used from a minute before its time until ten
minutes after it, by the ledger's clock; an entry leaves once its id is too old to run.

A command is *settled* from the time it was recorded or the time of its id, whichever is later. Of a user with more
than `ENTRIES_MAX` commands in ten minutes the longest settled go first, down to `ENTRIES_KEPT`, and an unknown id at
or below the highest that went is refused, for it may be one of them. What is dated ahead of the ledger's clock never
goes. Hence, whatever other clocks say:

- No command runs twice.
- The last `ENTRIES_KEPT` settled commands are always known, so of a user with n commands a second a repeat is answered
  for `ENTRIES_KEPT` / n seconds (ten minutes up to some 2 a second, 15 s at 100, 1.5 s at 1,000); then it is refused.
- A new id is refused for want of room only if `ENTRIES_KEPT` other commands of the user settled since the id's time.
  So a client may be late, or its clock behind, by as long as above; an id made now by a correct clock always runs.
- Nor does what is dated in the present millisecond go, so that a new id never is among what went.
- At most `AHEAD_MAX` commands dated ahead are kept. When there are as many, further ones are refused (retriable) until
  no more than half are ahead; ids that are not dated ahead run meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from session_ledger.domain.errors import CommandIdReused, CommandTooEarly, CommandTooOld, InvalidInput
from session_ledger.domain.ids import format_id

WINDOW_US = 600_000_000  # ten minutes: longer than any client keeps retrying
FUTURE_US = 60_000_000  # how far a caller's clock may be ahead of the writer's
ENTRIES_MAX = 2048  # a user; some 350 kB
ENTRIES_KEPT = 1536  # after dropping some for want of room, so that looking for them is rare
AHEAD_MAX = 2048  # ids dated ahead of the ledger's clock, besides
PRUNE_FROM = 32  # entries below which looking for old ones is not worth it
DIGEST_BYTES = 16  # of a command's body
BODY_FORGOTTEN = bytes(DIGEST_BYTES)  # the digest's key is destroyed: whatever comes is taken for the same body
_TIME_BYTES = 6  # what a UUIDv7 starts with: its time, milliseconds since the epoch
_POSITION_END, _COUNT_END, _SETTLED_END = 8, 12, 18  # an entry: first position, number of events, settled, digest


@dataclass(slots=True)
class Remembered:
    """The commands of one user.

    An entry is packed, to be small: 8 bytes first position, 4 number of events, 6 when it is settled (milliseconds
    since the epoch), 16 digest.
    """

    entries: dict[bytes, bytes] = field(default_factory=dict)
    prune_at: int = PRUNE_FROM
    """The number of entries from which old ones are looked for."""
    forgotten: bytes = b""
    """The highest id that went before its time; b"": none did."""
    ahead: int = 0
    """How many were dated ahead, at the last look or when they were recorded after it."""
    ahead_until: int = 0
    """Until when new ids that are dated ahead are refused, microseconds since the epoch."""


def recall(commands: Remembered, command_id: bytes, digest: bytes, now: int) -> tuple[int, int] | None:
    """(first position, number of events) of a command recorded before; None if it is new and may run.

    Raises CommandIdReused, CommandTooOld, CommandTooEarly, InvalidInput (an id from the future).
    """
    entry = commands.entries.get(command_id)
    id_time = int.from_bytes(command_id[:_TIME_BYTES], "big") * 1000
    if entry is None:
        if now - WINDOW_US <= id_time <= now + FUTURE_US and command_id > commands.forgotten:
            if now < commands.ahead_until and id_time > now:
                raise _too_early(commands, command_id, id_time, now)
            return None
        if id_time > now + FUTURE_US:
            seen = f"a UUIDv7 {(id_time - now) // 1_000_000} s in the future"
            raise InvalidInput(
                "command_id", seen, f"may be at most {FUTURE_US // 1_000_000} s ahead of the ledger's clock"
            )
        raise CommandTooOld(f"command {format_id(command_id)}: {_age(id_time, now)}; use a new id if it should run")
    if id_time < now - WINDOW_US:
        raise CommandTooOld(f"command {format_id(command_id)}: {_age(id_time, now)}; it was recorded before")
    if entry[_SETTLED_END:] not in (digest, BODY_FORGOTTEN):
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
    recorded, id_time = (recorded_at // 1000).to_bytes(_TIME_BYTES, "big"), command_id[:_TIME_BYTES]
    entries[command_id] = position.to_bytes(8, "big") + b"\x00\x00\x00\x01" + max(recorded, id_time) + digest
    if id_time > recorded:
        commands.ahead += 1
        if commands.ahead >= AHEAD_MAX:
            _prune(commands, recorded_at)
    if len(commands.entries) >= commands.prune_at:
        _prune(commands, recorded_at)


def forget_bodies(commands: Remembered) -> None:
    """The key that the digests were made with is destroyed: repeats are told by their id alone from now on."""
    for command_id, entry in commands.entries.items():
        commands.entries[command_id] = entry[:_SETTLED_END] + BODY_FORGOTTEN


def _prune(commands: Remembered, now: int) -> None:
    """Drop what is older than the window; then of what is settled all but the last `ENTRIES_KEPT`."""
    present = (now // 1000).to_bytes(_TIME_BYTES, "big")
    oldest_ms = -((WINDOW_US - now) // 1000)  # rounded up: an id's time is in whole milliseconds
    oldest = max(oldest_ms, 0).to_bytes(_TIME_BYTES, "big")  # what a UUIDv7 of that time starts with
    kept = {command_id: entry for command_id, entry in commands.entries.items() if command_id >= oldest}
    settled = [command_id for command_id in kept if command_id[:_TIME_BYTES] <= present]
    ahead = len(kept) - len(settled)
    if len(settled) > ENTRIES_KEPT:
        settled.sort(key=lambda command_id: kept[command_id][_COUNT_END:_SETTLED_END])
        for command_id in settled[:-ENTRIES_KEPT]:
            if command_id[:_TIME_BYTES] < present:  # a new id may still be lower than others of this millisecond
                commands.forgotten = max(commands.forgotten, command_id)
                del kept[command_id]
    if commands.ahead >= AHEAD_MAX and ahead > AHEAD_MAX * 3 // 4:
        times = sorted(command_id[:_TIME_BYTES] for command_id in kept if command_id[:_TIME_BYTES] > present)
        commands.ahead_until = int.from_bytes(times[-1 - AHEAD_MAX // 2], "big") * 1000
    commands.ahead = ahead
    commands.entries = kept
    if len(kept) < ENTRIES_KEPT:
        commands.prune_at = max(PRUNE_FROM, min(2 * len(kept), ENTRIES_MAX))
    else:
        commands.prune_at = len(kept) + ENTRIES_MAX - ENTRIES_KEPT


def _too_early(commands: Remembered, command_id: bytes, id_time: int, now: int) -> CommandTooEarly:
    error = CommandTooEarly(
        f"command {format_id(command_id)}: its id is dated ahead of the ledger's clock, and so are as many others of "
        "the user as are remembered; repeat the command in a moment, and set the caller's clock"
    )
    error.retry_after_s = (min(id_time, commands.ahead_until) - now) / 1_000_000
    return error


def _age(id_time: int, now: int) -> str:
    age_s = max(now - id_time, 0) // 1_000_000
    return f"its id is {age_s} s old and no longer remembered (ten minutes, the last {ENTRIES_KEPT} of a user)"
