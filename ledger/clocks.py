"""The clock rules of a writer: time never goes back in a partition, and a clock that is far off does not serve."""

from __future__ import annotations

import time

from session_ledger.domain.errors import ClockUnreliable
from session_ledger.ledger.log.port import PartitionLog


def machine_clock_us() -> int:
    """This machine's time, microseconds since the epoch, UTC."""
    return time.time_ns() // 1000


def append_time(log: PartitionLog, last: int, now: int, skew_max_s: float) -> int:
    """The time of the next append, microseconds since the epoch: `now`, but never before the last record's.

    Raises ClockUnreliable where `now` is more than `skew_max_s` behind the last record or off the broker's clock, and
    what `prove_ownership` raises.
    """
    skew_max_us = int(skew_max_s * 1_000_000)
    if last - now > skew_max_us:
        raise ClockUnreliable(
            f"this machine's clock is {(last - now) // 1_000_000} s behind the last record of partition "
            f"{log.partition}; nothing was recorded: set the clock, then repeat the command"
        )
    broker = log.clock_us()
    if broker is not None and abs(broker - now) > skew_max_us:
        log.prove_ownership()  # what is known of the broker's clock is as old as its last answer: ask again
        broker = log.clock_us()
    if broker is not None and abs(broker - now) > skew_max_us:
        raise ClockUnreliable(
            f"this machine's clock is {abs(broker - now) // 1_000_000} s off the broker's; nothing was recorded: "
            "set the clock, then repeat the command"
        )
    return max(now, last)
