"""What errors share; see `errors` for the errors themselves."""

from __future__ import annotations

from typing import ClassVar


class SessionLedgerError(Exception):
    """Root of the tree. `code` is stable across versions; `command_id` is set where a retry should reuse it."""

    code: ClassVar[str] = "error"
    retriable: bool = False
    """Of the class; an instance may say otherwise (a quota's limit that the amount alone is over)."""
    command_id: str | None = None
    retry_after_s: float | None = None
    """Seconds after which a retry can succeed, where that is known."""
