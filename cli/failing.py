"""How commands end: exit codes, and the one place where an error becomes a message and a code.

0 done; 1 findings, refusals or failed items; 2 usage; 3 could not run.
"""

from __future__ import annotations

from session_ledger.domain import errors as e

DONE, FINDINGS, USAGE, COULD_NOT_RUN = 0, 1, 2, 3
INTERRUPTED = 130  # what shells give for SIGINT

_EXIT: tuple[tuple[type[e.SessionLedgerError], int], ...] = (
    (e.InvalidInput, USAGE),
    (e.CommandTooOld, FINDINGS),
    (e.CommandIdReused, FINDINGS),
    (e.SessionNotFound, FINDINGS),
    (e.SessionNotActive, FINDINGS),
    (e.SessionLimitReached, FINDINGS),
    (e.SessionExists, FINDINGS),
    (e.QuotaExceeded, FINDINGS),
    (e.QuotaNotSet, FINDINGS),
    (e.ReservationNotOpen, FINDINGS),
    (e.TooManyReservations, FINDINGS),
    (e.AgentTypeUnknown, FINDINGS),
    (e.NoAgentAvailable, FINDINGS),
    (e.AgentNotFound, FINDINGS),
    (e.AgentNotHeld, FINDINGS),
    (e.AgentBusy, FINDINGS),
    (e.LogCorrupt, FINDINGS),
    (e.ContentUnreadable, FINDINGS),
)
"""Everything else of the tree could not run."""

_ADVICE: tuple[tuple[type[e.SessionLedgerError], str], ...] = (
    (e.InvalidInput, "Nothing was recorded: correct the value and try again."),
    (e.SessionNotFound, "`session-ledger sessions list` shows the sessions of a tenant or user."),
    (e.SessionNotActive, "Start another one: `session-ledger sessions create`."),
    (e.SessionLimitReached, "End a session first, or raise the limit: `session-ledger limits set --user`."),
    (e.QuotaNotSet, "Set one: `session-ledger quota set`, or a default: `session-ledger limits set --quota`."),
    (e.AgentTypeUnknown, "Register an instance in the session's partition: `session-ledger agents register`."),
    (e.NoAgentAvailable, "Try again later, or register another instance: `session-ledger agents register`."),
    (e.AgentNotFound, "`session-ledger agents list` shows the instances of a tenant."),
    (e.AgentBusy, "Release it first, or add --force."),
    (e.NotOwner, "Nothing was recorded."),
    (e.ProjectionOutdated, "Run `session-ledger rebuild`."),
    (e.ProjectionForeign, "The views can be thrown away: they are made from the log alone."),
    (e.LogTooNew, "Use the version of session-ledger that wrote it, or a newer one."),
    (e.LogCorrupt, "The log is not what the ledger wrote; `session-ledger verify` reports all that it finds."),
    (e.KeyUnavailable, "The keyring and the vault stand beside the log unless set otherwise (SESSION_LEDGER_KEYRING)."),
)


def exit_code_of(error: e.SessionLedgerError) -> int:
    """1, 2 or 3."""
    return next((code for cls, code in _EXIT if isinstance(error, cls)), COULD_NOT_RUN)


def message_of(error: e.SessionLedgerError) -> str:
    """What happened, to what, and what to do; one line, or two."""
    text = str(error).rstrip(".") + "."
    advice = next((advice for cls, advice in _ADVICE if isinstance(error, cls)), "")
    if advice.startswith("Nothing was recorded") and "nothing was recorded" in text:
        advice = advice.partition(": ")[2].capitalize()
    if error.retry_after_s is not None:
        advice = f"It fits again in {error.retry_after_s:.1f} s. {advice}".rstrip()
    if isinstance(error, e.OutcomeUnknown) and error.command_id is not None:
        advice = f"Repeat it with --command-id {error.command_id}."
    return f"{text}\n{advice}" if advice else text


def document_of(error: e.SessionLedgerError) -> dict[str, object]:
    """The error for machines."""
    found: dict[str, object] = {"code": error.code, "message": str(error), "retriable": error.retriable}
    found["command_id"] = error.command_id
    found["retry_after_s"] = error.retry_after_s
    if isinstance(error, e.InvalidInput):
        found |= {"field": error.field, "seen": error.seen, "rule": error.rule}
    found["exit_code"] = exit_code_of(error)
    return {"error": found}
