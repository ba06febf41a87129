"""Failed attempts to authenticate as a user, in a row: what is kept of them, and when they call for an alert."""

from __future__ import annotations

from dataclasses import dataclass

ROW_US = 10 * 60_000_000  # attempts further apart than this are no row
ALERT_AT = 3  # the third in a row within that time raises an alert; while the row goes on, one more each such time
ALERT = "authentication_failures"
"""The alert's kind."""


@dataclass(slots=True)
class Untold:
    """Failed attempts that no event tells yet; the fields are those of the AuthenticationFailed that will."""

    attempts: int
    occurred_at: int | None
    session_id: bytes | None
    method: str
    reason: str
    event_id: bytes
    key_id: bytes | None
    sealed_ip_address: bytes | None


@dataclass(slots=True)
class FailedAttempts:
    """A row: none of the user's attempts succeeded in between, and none came `ROW_US` after the one before."""

    count: int = 0
    times: tuple[int, ...] = ()
    """When the last ones were recorded, `ALERT_AT` at most."""
    alerted_at: int | None = None
    uncounted: Untold | None = None
    """Not folded from events: `decide` counts here what failed within a second of the last AuthenticationFailed."""

    def failed(self, now: int, attempts: int) -> None:
        """Fold some more attempts in, told at `now`."""
        self.count += attempts
        self.times = (*self.times, *(now,) * min(attempts, ALERT_AT))[-ALERT_AT:]
        self.uncounted = None

    def is_over(self, now: int) -> bool:
        """Whether an attempt at `now` begins another row."""
        return not self.times or now - self.times[-1] >= ROW_US

    def is_alerted(self, now: int) -> bool:
        """Whether the row has raised an alert not long ago."""
        return self.alerted_at is not None and now - self.alerted_at < ROW_US

    def calls_for_alert(self, now: int, attempts: int) -> bool:
        """Whether that many attempts more, told at `now`, raise an alert."""
        if self.is_alerted(now):
            return False
        recent = [time for time in self.times if now - time < ROW_US]
        return len(recent) + attempts >= ALERT_AT
