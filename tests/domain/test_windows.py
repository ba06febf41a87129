"""The sliding window against a naive model that remembers every amount."""

from __future__ import annotations

from decimal import Decimal

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from session_ledger.domain.windows import Bucket, Window
from tests.domain.world import DAY, SECOND

AMOUNTS = st.decimals(min_value=0, max_value=1000, places=6)
GAPS = st.one_of(st.just(0), st.integers(0, 50), st.integers(0, 5000), st.integers(0, 2 * SECOND), st.just(SECOND))


class Naive:
    """Every amount with its time."""

    def __init__(self) -> None:
        self.amounts: list[tuple[int, Decimal]] = []

    def used(self, now: int, period_us: int) -> Decimal:
        """What was recorded within the period before `now`."""
        return sum((amount for at, amount in self.amounts if at > now - period_us), Decimal(0))


def test_an_amount_counts_for_exactly_one_period() -> None:
    """It counts from its own time until a microsecond before its period is over."""
    window = Window()
    window.consume(100, Decimal(5), DAY)
    assert Decimal(5) == window.used(100, DAY)
    assert Decimal(5) == window.used(100 + DAY - 1, DAY)
    assert Decimal(0) == window.used(100 + DAY, DAY)
    assert 100 + DAY == window.oldest_expiry(100, DAY)
    assert window.oldest_expiry(100 + DAY, DAY) is None


def test_amounts_in_the_same_thousandth_share_the_expiry_of_the_latest() -> None:
    """Rounding is against the caller: the first amount counts until the last of its bucket leaves."""
    window = Window()
    window.consume(0, Decimal(1), SECOND)
    window.consume(999, Decimal(2), SECOND)
    window.consume(1000, Decimal(4), SECOND)
    assert [Bucket(0, 999, Decimal(3)), Bucket(1000, 1000, Decimal(4))] == window.buckets
    assert Decimal(7) == window.used(SECOND + 998, SECOND)
    assert Decimal(4) == window.used(SECOND + 999, SECOND)


@given(st.lists(st.tuples(GAPS, AMOUNTS), max_size=60), st.integers(0, 2 * SECOND))
def test_it_never_counts_too_little_and_too_much_only_by_a_thousandth(
    steps: list[tuple[int, Decimal]], later: int
) -> None:
    """At every moment: exact use <= counted use <= exact use of a period longer by 1/1000."""
    window, naive, now = Window(), Naive(), 10 * SECOND
    for gap, amount in steps:
        now += gap
        window.consume(now, amount, SECOND)
        naive.amounts.append((now, amount))
        assert naive.used(now, SECOND) <= window.used(now, SECOND) <= naive.used(now, SECOND + SECOND // 1000)
    now += later
    assert naive.used(now, SECOND) <= window.used(now, SECOND) <= naive.used(now, SECOND + SECOND // 1000)
    assert window.total == sum((bucket.amount for bucket in window.buckets[window.head :]), Decimal(0))


@given(st.lists(st.tuples(GAPS, AMOUNTS), max_size=40), AMOUNTS, st.integers(0, 5000))
def test_an_amount_fits_when_it_says_so_and_not_before(
    steps: list[tuple[int, Decimal]], amount: Decimal, limit: int
) -> None:
    """At the time told it fits; a microsecond before, it does not; None is told only for more than the limit."""
    window, now = Window(), 10 * SECOND
    for gap, consumed in steps:
        now += gap
        if window.used(now, SECOND) + consumed <= limit:
            window.consume(now, consumed, SECOND)
    fits_at = window.when_fits(now, amount, Decimal(limit), SECOND)
    if fits_at is None:
        assert amount > limit
        return
    assert window.used(fits_at, SECOND) + amount <= limit
    assert fits_at == now or window.used(fits_at - 1, SECOND) + amount > limit


@given(st.lists(st.tuples(GAPS, AMOUNTS, st.booleans()), max_size=40))
def test_releasing_takes_back_exactly_what_is_still_remembered(steps: list[tuple[int, Decimal, bool]]) -> None:
    """Releasing everything that a window counted leaves nothing, whatever left it in between."""
    window, now = Window(), 10 * SECOND
    consumed: list[tuple[int, Decimal]] = []
    for gap, amount, released in steps:
        now += gap
        window.consume(now, amount, SECOND)
        if released:
            window.release(now, amount)
        else:
            consumed.append((now, amount))
    for at, amount in consumed:
        if window.buckets and at >= window.buckets[window.head].first_us:
            window.release(at, amount)
    assert Decimal(0) == window.used(now, SECOND)
    assert window.oldest_expiry(now, SECOND) is None


def test_a_window_holds_some_thousand_buckets_at_most() -> None:
    """A hundred thousand amounts, evenly spread, take no more memory than a thousand."""
    window = Window()
    for step in range(100_000):
        window.consume(step * 100, Decimal(1), SECOND)
    assert len(window.buckets) - window.head <= 1001
    assert len(window.buckets) <= 2 * 1001
    assert Decimal(10_000) <= window.used(100_000 * 100, SECOND) <= Decimal(10_010)


def test_a_longer_period_starts_from_what_is_still_remembered() -> None:
    """What left the shorter window does not come back; what was in it counts for the longer period."""
    window = Window()
    window.consume(0, Decimal(1), SECOND)
    window.consume(SECOND, Decimal(2), SECOND)  # the first has left
    assert Decimal(2) == window.used(SECOND + 1, DAY)
    assert Decimal(2) == window.used(SECOND + DAY - 1, DAY)
    assert Decimal(0) == window.used(3 * SECOND, SECOND)  # and a shorter one counts at once


def test_reading_changes_nothing() -> None:
    """A window that was asked is the window as it was, so that folding anew gives the same state."""
    window = Window()
    for step in range(5):
        window.consume(step * SECOND, Decimal(1), 2 * SECOND)
    before = msgspec.msgpack.encode(window)
    window.used(100 * SECOND, SECOND)
    window.when_fits(4 * SECOND, Decimal(3), Decimal(3), 2 * SECOND)
    window.oldest_expiry(50 * SECOND, SECOND)
    assert before == msgspec.msgpack.encode(window)
