"""Errors about erasures and what forbids them; see `errors`."""

from __future__ import annotations

from session_ledger.domain.error import SessionLedgerError


class UnderLegalHold(SessionLedgerError):
    """A legal hold keeps the content from being erased; the refusal is recorded."""

    code = "under_legal_hold"


class HoldNotFound(SessionLedgerError):
    """No legal hold of that matter and scope is set."""

    code = "hold_not_found"


class ContentGone(SessionLedgerError):
    """What the command is about was erased, and can not be had again."""

    code = "content_gone"


class HistoryErased(ContentGone):
    """The history was imported before, and its content was erased since. Under another id it comes as new."""

    code = "history_erased"


class NotErasable(SessionLedgerError):
    """The ledger seals nothing, so nothing in its log can be erased."""

    code = "not_erasable"


class ErasureNotComplete(SessionLedgerError):
    """The erasure is recorded, and has no receipt yet. Names the stores that are waited for."""

    code = "erasure_not_complete"
    retriable = True
