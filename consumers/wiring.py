"""The one place where the read path is wired: which projections there are, and where their file stands."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from session_ledger.domain.errors import Misconfigured, ProjectionForeign
from session_ledger.ledger.log.port import Log
from session_ledger.projections.agents import AgentsProjection
from session_ledger.projections.holds import HoldsProjection
from session_ledger.projections.port import Projection
from session_ledger.projections.quotas import QuotasProjection
from session_ledger.projections.sessions import SessionsProjection
from session_ledger.projections.settings import SettingsProjection
from session_ledger.projections.store import Store

VIEWS_FILE = "views.db"
LOOK_EVERY_S = 1.0  # for what was set aside meanwhile


def current_projections() -> tuple[Projection, ...]:
    """Every projection of the current state, in the order in which a batch is folded."""
    return (SettingsProjection(), SessionsProjection(), AgentsProjection(), QuotasProjection(), HoldsProjection())


def open_store(log: Log, directory: Path | None) -> Store:
    """The views of the log: `views.db` in the directory; without one, a file that `close` deletes.

    Raises ProjectionForeign, Misconfigured.
    """
    projections = current_projections()
    if directory is None:
        return Store.temporary(log_id=log.log_id, projections=projections)
    return Store(directory / VIEWS_FILE, log_id=log.log_id, projections=projections)


def delete_store(directory: Path) -> None:
    """Delete the views in the directory, damaged or not: `open_store` makes them, and they fill from the log."""
    for suffix in ("-wal", "-shm", ""):
        (directory / f"{VIEWS_FILE}{suffix}").unlink(missing_ok=True)


def stepped_over(
    log: Log, directory: Path | None, on_unusable: Callable[[str], None] | None = None
) -> Callable[[int], frozenset[int]]:
    """Partition to the positions that `quarantine` set aside, which every other projection leaves out as well.

    `on_unusable`: told, once, why the views tell none, where they are another log's or can not be opened; None: that is
    raised, as ProjectionForeign or Misconfigured.
    """
    if directory is None or not (directory / VIEWS_FILE).exists():
        return lambda partition: frozenset()

    told = False

    def quarantined(partition: int) -> frozenset[int]:
        nonlocal told
        try:
            with open_store(log, directory) as views:
                return frozenset(record.position for record in views.quarantined(partition))
        except (ProjectionForeign, Misconfigured) as error:
            if on_unusable is None:
                raise
            if not told:
                told = True
                on_unusable(f"which records `quarantine` set aside is not known: {error}")
            return frozenset()

    cached: dict[int, tuple[float, frozenset[int]]] = {}

    def over(partition: int) -> frozenset[int]:
        at, found = cached.get(partition, (0.0, frozenset()))
        if time.monotonic() - at > LOOK_EVERY_S:
            cached[partition] = time.monotonic(), (found := quarantined(partition))
        return found

    return over
