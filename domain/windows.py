"""The exact sliding window of a quota: an amount counts for exactly one period from the time it was recorded.

Memory is bounded: amounts recorded within the same 1/1000 of the period share a bucket, which leaves the window one
period after its *latest* amount. So an amount may count for up to 1/1000 of the period longer than the period (this
rounds against the caller), never shorter, and a window holds at most some 1,001 buckets.

The period is given with every call, because it may be set anew: a shorter one counts from what is remembered at once;
a longer one starts from what is still remembered (amounts that had left the shorter window do not come back).
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from decimal import Decimal
from operator import attrgetter

SHARES = 1000  # a bucket spans at most this part of the period
COMPACT_AFTER = 64  # buckets that left before the list is cut: keeps consume amortised O(1)
ZERO = Decimal(0)

_first_us = attrgetter("first_us")


@dataclass(slots=True)
class Bucket:
    """Amounts recorded from `first_us` to `last_us`, both included, microseconds since the epoch."""

    first_us: int
    last_us: int
    amount: Decimal


@dataclass(slots=True)
class Window:
    """Buckets in the order of time, those before `head` gone; `total` is the sum of the others.

    Times given to `consume` never go back. Reading (`used`, `when_fits`, `oldest_expiry`) changes nothing.
    """

    buckets: list[Bucket] = field(default_factory=list)
    head: int = 0
    total: Decimal = ZERO

    def used(self, now: int, period_us: int) -> Decimal:
        """What counts at `now`: amounts recorded after `now` - `period_us` (and those sharing a bucket with one)."""
        total, start = self.total, now - period_us
        buckets = self.buckets
        for index in range(self.head, len(buckets)):
            bucket = buckets[index]
            if bucket.last_us > start:
                break
            total -= bucket.amount
        return total

    def consume(self, now: int, amount: Decimal, period_us: int) -> None:
        """Count `amount` from `now` on. Amortised O(1)."""
        buckets = self.buckets
        head, start = self.head, now - period_us
        while head < len(buckets) and buckets[head].last_us <= start:
            self.total -= buckets[head].amount
            head += 1
        if head == len(buckets):
            buckets.clear()
            head = 0
        elif head >= COMPACT_AFTER and head * 2 >= len(buckets):
            del buckets[:head]
            head = 0
        self.head = head
        self.total += amount
        if buckets:
            last = buckets[-1]
            if now - last.first_us < period_us // SHARES or now == last.last_us:
                last.last_us = now
                last.amount += amount
                return
        buckets.append(Bucket(now, now, amount))

    def when_fits(self, now: int, amount: Decimal, limit: Decimal, period_us: int) -> int | None:
        """The earliest time at which `amount` fits if nothing else is consumed; None: never, it is over the limit."""
        if amount > limit:
            return None
        may_stay = limit - amount
        used = self.used(now, period_us)
        if used <= may_stay:
            return now
        buckets, start = self.buckets, now - period_us
        if may_stay * 2 < used:  # fewer buckets stay than go: count those that stay, from the newest back
            staying = ZERO
            for bucket in reversed(buckets):
                staying += bucket.amount
                if staying > may_stay:
                    return bucket.last_us + period_us
        for index in range(self.head, len(buckets)):
            bucket = buckets[index]
            if bucket.last_us > start:
                used -= bucket.amount
                if used <= may_stay:
                    return bucket.last_us + period_us
        raise AssertionError("a window's total is more than its buckets")

    def oldest_expiry(self, now: int, period_us: int) -> int | None:
        """When the oldest amount that counts at `now` leaves the window; None: nothing counts."""
        start = now - period_us
        for bucket in self.buckets[self.head :]:
            if bucket.last_us > start and bucket.amount:
                return bucket.last_us + period_us
        return None

    def release(self, recorded_at: int, amount: Decimal) -> None:
        """Take back part of what was consumed at `recorded_at`; nothing if that has left already."""
        index = bisect_right(self.buckets, recorded_at, lo=self.head, key=_first_us) - 1
        if index >= self.head:
            bucket = self.buckets[index]
            if bucket.last_us >= recorded_at:
                bucket.amount -= amount
                self.total -= amount
