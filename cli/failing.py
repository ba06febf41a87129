"""How commands end: exit codes, and the one place where an error becomes a message and a code.

0 done; 1 findings, refusals or failed items; 2 usage; 3 could not run.
"""

from __future__ import annotations

import errno
import re

from session_ledger.domain import errors as e

DONE, FINDINGS, USAGE, COULD_NOT_RUN = 0, 1, 2, 3
INTERRUPTED = 130  # what shells give for SIGINT


class UnusableUrl(e.Misconfigured):
    """The URL on the command line (or of the settings) is none, or names a file: a mistake of usage."""


_EXIT: tuple[tuple[type[e.SessionLedgerError], int], ...] = (
    (e.InvalidInput, USAGE),
    (UnusableUrl, USAGE),
    (e.CommandTooEarly, FINDINGS),
    (e.TooManyImports, FINDINGS),
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
    (e.AuthenticationRefused, FINDINGS),
    (e.AccessTokenExists, FINDINGS),
    (e.NoAccessToken, FINDINGS),
    (e.FindingNotFound, FINDINGS),
    (e.TooManyFindings, FINDINGS),
    (e.UnderLegalHold, FINDINGS),
    (e.Forbidden, FINDINGS),
    (e.HoldNotFound, FINDINGS),
    (e.ContentGone, FINDINGS),
    (e.NotErasable, FINDINGS),
    (e.ErasureNotComplete, FINDINGS),
    (e.QueryFailed, USAGE),
    (e.QueryTimeout, FINDINGS),
    (e.LogCorrupt, FINDINGS),
    (e.ProofInvalid, FINDINGS),
    (e.ContentUnreadable, FINDINGS),
)
"""Everything else of the tree could not run."""

_ADVICE: tuple[tuple[type[e.SessionLedgerError], str], ...] = (
    (e.InvalidInput, "Correct the value and try again."),
    (e.SessionNotFound, "`session-ledger sessions list` shows the sessions of a tenant or user."),
    (e.SessionNotActive, "`session-ledger sessions create` begins one."),
    (e.SessionLimitReached, "End a session first, or raise the limit: `session-ledger limits set --user`."),
    (e.QuotaNotSet, "Set one: `session-ledger quota set`, or a default: `session-ledger limits set --quota`."),
    (e.AgentTypeUnknown, "Register an instance in the session's partition: `session-ledger agents register`."),
    (e.NoAgentAvailable, "Try again later, or register another instance: `session-ledger agents register`."),
    (e.AgentNotFound, "`session-ledger agents list` shows the instances of a tenant."),
    (e.AgentBusy, "Release it first, or add --force."),
    (e.AuthenticationRefused, "`session-ledger auth list` shows why, to who may know."),
    (e.AccessTokenExists, "`session-ledger auth rotate` replaces it."),
    (e.NoAccessToken, "`session-ledger auth issue` makes one."),
    (e.UnderLegalHold, "`session-ledger hold list` shows them, `hold lift` lifts one."),
    (e.ProjectionOutdated, "Run `session-ledger rebuild`."),
    (e.ProjectionDamaged, "Run `session-ledger rebuild`: the views are made from the log alone."),
    (e.LogTooNew, "Use the version of session-ledger that wrote it, or a newer one."),
    (e.LogCorrupt, "The log is not what the ledger wrote; `session-ledger verify` reports all that it finds."),
    (e.SigningKeyUnavailable, ""),  # it is neither in a keyring nor in a vault; the error says where it belongs
    (e.ErasureNotComplete, "`session-ledger erase status` goes on with it."),
    (e.VaultBusy, "It passes: `session-ledger erase status` goes on with what waits."),
    (e.KeyUnavailable, "The keyring and the vault stand beside the log unless set otherwise (SESSION_LEDGER_KEYRING)."),
)

_OPTIONS = {
    field: f"--{option}"
    for field, option in {
        "idle_timeout_ms": "idle-timeout",
        "idle_timeout_s": "idle-timeout",
        "website_idle_timeout_ms": "website-idle-timeout",
        "website_idle_timeout_s": "website-idle-timeout",
        "ttl_ms": "ttl",
        "ttl_s": "ttl",
        "sensitive_ttl_ms": "sensitive-ttl",
        "sensitive_ttl_s": "sensitive-ttl",
        "retention_ms": "after",
        "retention_s": "after",
        "sensitive_retention_ms": "sensitive",
        "sensitive_retention_s": "sensitive",
        "grace_ms": "grace",
        "grace_s": "grace",
        "period_ms": "period",
        "period_s": "period",
        "quotas, a period_ms": "quota",
        "latency_ms": "latency-ms",
        "audio_duration_ms": "audio-duration-ms",
        "limit_policy": "policy",
        "max_sessions": "max-sessions",
        "alert_threshold_percent": "alert-threshold",
        "command_id": "command-id",
    }.items()
}
"""Fields of commands by the name of the option that sets them."""
_PLAIN = ("--latency-ms", "--audio-duration-ms")  # numbers of milliseconds, typed as such
_WORDS = (
    ("a UUID as text, UUID or 16 bytes", "a UUID"),
    (", or None", ""),
    (" or None", ""),
    ("an int out", "a number out"),
    ("must be an int", "must be a whole number"),
    ("a str that", "a text that"),
    ("a str of", "a text of"),
)
"""What errors call things for callers in Python, and what people at a terminal call them."""
_BY_ID = "; repeat "  # and so on: what is said to callers in Python, who have the id
_ADDS_WHAT_IS_MISSING = dict.fromkeys(("import", "retention sweep", "expire"), ": it adds only what is missing")
_NUMBER = re.compile(r"-?\b\d+(?:\.\d+)?\b")


def exit_code_of(error: e.SessionLedgerError) -> int:
    """1, 2 or 3."""
    return next((code for cls, code in _EXIT if isinstance(error, cls)), COULD_NOT_RUN)


def message_of(error: e.SessionLedgerError, command: str = "", *, by_id: bool = True) -> str:
    """What happened, to what, and what to do; one line, or two.

    `command`: was just run, and is not advised, such as "erase status". `by_id`: it takes --command-id.
    """
    text = text_of(error).rstrip(".") + "."
    advice = next((advice for cls, advice in _ADVICE if isinstance(error, cls)), "")
    if f"`session-ledger {command}`" in advice:
        advice = ""
    if error.retry_after_s is not None:
        advice = f"It fits again in {error.retry_after_s:.1f} s. {advice}".rstrip()
    if isinstance(error, e.OutcomeUnknown) and not by_id:
        text = text.partition(_BY_ID)[0].rstrip(".") + "."
        advice = f"Run the command again{_ADDS_WHAT_IS_MISSING.get(command, '')}."
    elif isinstance(error, e.OutcomeUnknown) and error.command_id is not None:
        advice = f"Repeat it with --command-id {error.command_id}."
    return f"{text}\n{advice}" if advice else text


def os_error_text(error: OSError) -> str:
    """What the operating system refused, of which file where that is known, and what to do."""
    where = error.filename or "a file that is not named"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{where}: the disk, or this user's share of it, is full; make room, and run it again"
    what = error.strerror or str(error)
    return f"{where}: {what}; see that it is there, that this user may use it and that the disk has room"


def text_of(error: e.SessionLedgerError) -> str:
    """The error's text; a field that breaks a rule by the name of its option, durations as they are typed."""
    if not isinstance(error, e.InvalidInput):
        return str(error)
    option, seen, rule = _OPTIONS.get(error.field, error.field), error.seen, error.rule
    for of_python, of_people in _WORDS:
        seen, rule = seen.replace(of_python, of_people), rule.replace(of_python, of_people)
    if error.field.endswith(("_ms", "_s")) and option not in _PLAIN:
        unit = 1000 if error.field.endswith("_ms") else 1
        seen, rule = (_NUMBER.sub(lambda found: _typed(float(found[0]) / unit), text) for text in (seen, rule))
    return f"{option}: {seen}; {rule}"


def _typed(seconds: float) -> str:
    """A duration as options take it, such as 8h."""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{int(seconds // size)}{unit}"
    return f"{seconds * 1000:g}ms" if 0 < seconds < 1 else f"{seconds:g}s"


def document_of(error: e.SessionLedgerError) -> dict[str, object]:
    """The error for machines."""
    found: dict[str, object] = {"code": error.code, "message": text_of(error), "retriable": error.retriable}
    found["command_id"] = error.command_id
    found["retry_after_s"] = error.retry_after_s
    if isinstance(error, e.InvalidInput):
        found |= {"field": error.field, "seen": error.seen, "rule": error.rule}
    found["exit_code"] = exit_code_of(error)
    return {"error": found}
