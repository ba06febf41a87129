"""`session-ledger serve` and `expire`: owning a ledger for others, and recording what has timed out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from session_ledger.cli.options import AsJson, TakeOver, Url

if TYPE_CHECKING:
    import threading

    from session_ledger.ledger.ledger import Ledger

REMINDED_S = 60.0  # how often a trouble that lasts is told again
REFUSED_S = 60.0  # how long a service that the brokers refuse goes on
OWNED_S = 5.0  # how often a service makes sure that it still owns the ledger
WAKE_S = 0.5  # how soon a stop is noticed where the platform does not wake a waiting thread


def serve(
    expire_every: Annotated[
        str, typer.Option(metavar="TIME", help="How often timed-out sessions are recorded; 0: never.")
    ] = "30s",
    url: Url = None,
    take_over: TakeOver = False,
    as_json: AsJson = False,
) -> None:
    """Own the ledger and answer the commands of other processes on this machine, until SIGINT or SIGTERM.

    What was erased is carried out, whoever asked for it: keys are destroyed, confirmations collected, receipts signed.
    Stopping serves what is queued first. Who is taken over from notices within seconds, and ends (exit code 3).
    With --json: one line when it serves, one a sweep that found something, one at the end.
    """
    from session_ledger.cli.opening import open_ledger, settings
    from session_ledger.cli.output import clean, say, write_json
    from session_ledger.cli.signals import until_stopped
    from session_ledger.cli.values import seconds_of
    from session_ledger.domain.errors import NotOwner
    from session_ledger.ledger.collector import quiet_collector
    from session_ledger.ledger.open import assert_may_own
    from session_ledger.ledger.url import parse_url

    every = seconds_of(expire_every, "--expire-every") or 0.0
    with until_stopped() as stop:
        with open_ledger(url, take_over, create=True) as ledger:
            quiet_collector()
            if not ledger.is_owner:
                assert_may_own(parse_url(ledger.url).directory, settings())
                raise NotOwner(f"another process serves {ledger.url} already: stop it first, or add --take-over")
            _say_serving(ledger, as_json)
            with _erasing(ledger, stop):
                _sweep_until(stop, ledger, every, as_json, check=True)
            positions = ledger.positions()
        if as_json:
            write_json({"stopped": ledger.url, "positions": _by_partition(positions)})
        else:
            say(f"stopped {clean(ledger.url)}: everything taken was served; {_positions(positions)}")


@contextmanager
def _erasing(ledger: Ledger, stop: threading.Event) -> Iterator[None]:
    """Carry out erasures meanwhile, in a thread of its own; nothing to do where nothing is sealed."""
    import threading

    from session_ledger.cli.opening import settings
    from session_ledger.cli.output import clean, warn
    from session_ledger.consumers.erasing import open_eraser
    from session_ledger.domain.errors import SessionLedgerError
    from session_ledger.ledger.url import parse_url

    chosen = settings()
    if chosen.encryption == "none" or parse_url(ledger.url).directory is None:
        yield
        return
    told: set[str] = set()

    def tell(error: SessionLedgerError) -> None:
        if str(error) not in told:
            told.add(str(error))
            warn(f"session-ledger: erasures wait: {clean(error)}")

    def erase() -> None:
        while not stop.is_set():
            try:
                with open_eraser(ledger.url, chosen, ledger) as eraser:
                    eraser.run(stop, tell)
            except SessionLedgerError as error:  # it can not be opened now
                tell(error)
                stop.wait(OWNED_S)

    thread = threading.Thread(target=erase, name="session-ledger-eraser")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def expire(
    every: Annotated[
        str | None,
        typer.Option(metavar="TIME", show_default=False, help="Go on, a sweep every so often, until stopped."),
    ] = None,
    url: Url = None,
    take_over: TakeOver = False,
    as_json: AsJson = False,
) -> None:
    """Record the expiry of every session whose time is over: one sweep, or with --every until SIGINT or SIGTERM."""
    from session_ledger.cli.opening import open_ledger
    from session_ledger.cli.signals import until_stopped
    from session_ledger.cli.values import seconds_of
    from session_ledger.domain.errors import InvalidInput

    seconds = seconds_of(every, "--every")
    if seconds == 0:
        raise InvalidInput("--every", "0", "must be longer")
    if seconds is None:
        with open_ledger(url, take_over) as ledger:
            _sweep(ledger, as_json, quiet=False)
        return
    with until_stopped() as stop, open_ledger(url, take_over) as ledger:
        _sweep(ledger, as_json, quiet=True)
        _sweep_until(stop, ledger, seconds, as_json)


def _sweep_until(stop: threading.Event, ledger: Ledger, every_s: float, as_json: bool, *, check: bool = False) -> None:
    """Sweep every so often (0: never). `check`: raises NotOwner within seconds of being taken over from."""
    import time

    trouble = _Trouble()
    due, check_at = time.monotonic() + every_s, time.monotonic() + OWNED_S
    while not stop.wait(WAKE_S if every_s == 0 else max(0.0, min(WAKE_S, due - time.monotonic()))):
        if check and time.monotonic() >= check_at:
            trouble.going_on(ledger.positions)
            check_at = time.monotonic() + OWNED_S
        if every_s and time.monotonic() >= due:
            trouble.going_on(lambda: _sweep(ledger, as_json, quiet=True), proves=not check)
            due = time.monotonic() + every_s


class _Trouble:
    """What keeps the service from working for a while, such as a broker that is away: told once, then now and then."""

    def __init__(self) -> None:
        self._since_s: float | None = None
        self._told_s = 0.0

    def going_on(self, act: Callable[[], object], *, proves: bool = True) -> None:
        """Do it; what may succeed the next time is told, and is no reason to end.

        `proves`: that it succeeds shows that the trouble is over. A sweep that finds nothing due asks no broker.
        """
        import time

        from session_ledger.cli.output import clean, warn
        from session_ledger.domain.errors import LogRefused, LogUnavailable, NotOwner, SessionLedgerError

        now_s = time.monotonic()
        try:
            act()
        except NotOwner:
            raise
        except SessionLedgerError as error:
            refused = isinstance(
                error, LogRefused
            )  # a permission can be given back; other credentials take a new start
            lasts = self._since_s is not None and now_s - self._since_s > REFUSED_S
            if not error.retriable and (not refused or lasts):
                raise
            if self._since_s is None:
                self._since_s, self._told_s = now_s, now_s
                fenced = isinstance(error, LogUnavailable) and error.fenced
                hint = "" if fenced or refused else ": see that its brokers run and can be reached from here"
                warn(
                    f"session-ledger: {clean(error)}; commands are refused until the log can be used again, which is "
                    f"tried again by itself{hint}"
                )
            elif now_s - self._told_s >= REMINDED_S:
                self._told_s = now_s
                warn(f"session-ledger: for {now_s - self._since_s:.0f} s now: {clean(error)}")
        else:
            if proves and self._since_s is not None:
                warn(f"session-ledger: the log can be used again, after {time.monotonic() - self._since_s:.0f} s")
                self._since_s = None


def _sweep(ledger: Ledger, as_json: bool, *, quiet: bool) -> None:
    """One sweep; `quiet`: one that finds nothing is not told."""
    import sys

    from session_ledger.cli.output import say, write_json

    results = ledger.expire_due()
    sessions = [session_id for result in results for session_id in result.session_ids]
    if quiet and not sessions:
        return
    if as_json:
        write_json({"expired": len(sessions), "users": len(results), "session_ids": sessions})
    else:
        say(f"{len(sessions):,} sessions of {len(results):,} users expired")
    sys.stdout.flush()


def _say_serving(ledger: Ledger, as_json: bool) -> None:
    import os
    import sys

    from session_ledger.cli.output import clean, say, write_json

    positions = ledger.positions()
    if as_json:
        serving = {"serving": ledger.url, "name": ledger.name, "process": os.getpid()}
        write_json({**serving, "durability": ledger.durability, "positions": _by_partition(positions)})
    else:
        say(f"serving {clean(ledger.url)} as process {os.getpid()}; {_positions(positions)}")
        say(f"durability: {ledger.durability}")
        say("commands of other processes on this machine are answered; Ctrl-C stops")
    sys.stdout.flush()


def _by_partition(positions: list[int]) -> dict[str, int]:
    return {str(number): position for number, position in enumerate(positions[:-1])} | {"-1": positions[-1]}


def _positions(positions: list[int]) -> str:
    facts = f"{sum(positions[:-1]):,} facts in {len(positions) - 1} partition{'s' if len(positions) > 2 else ''}"
    return f"{facts}, {positions[-1]:,} in the control log"
