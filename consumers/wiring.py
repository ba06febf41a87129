"""The one place where the read path is wired: which projections there are, and where their file stands."""

from __future__ import annotations

from pathlib import Path

from session_ledger.ledger.log.port import Log
from session_ledger.projections.agents import AgentsProjection
from session_ledger.projections.port import Projection
from session_ledger.projections.quotas import QuotasProjection
from session_ledger.projections.sessions import SessionsProjection
from session_ledger.projections.settings import SettingsProjection
from session_ledger.projections.store import Store

VIEWS_FILE = "views.db"


def current_projections() -> tuple[Projection, ...]:
    """Every projection of the current state, in the order in which a batch is folded."""
    return (SettingsProjection(), SessionsProjection(), AgentsProjection(), QuotasProjection())


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
