"""The clock of what must end in time: of keys in memory, and of proofs that may not be old."""

from __future__ import annotations

import time

CACHED_S = 300.0  # five minutes: how long a key that was destroyed may still open something, in any process

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # Linux stops its monotonic clock in a suspended machine


def elapsed_s() -> float:
    """Seconds since some moment. Never goes back, and goes on while the machine is suspended."""
    return time.clock_gettime(_CLOCK)
