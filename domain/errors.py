"""Every error of the product: one small tree, each with a stable `code` and a `retriable` flag.

Callers match on the class or on `code`, never on the text. `retriable` means: the same command may succeed later,
unchanged; the ledger did not record it (or says so, in `OutcomeUnknown`).
"""

from __future__ import annotations

from session_ledger.domain.error import SessionLedgerError as SessionLedgerError
from session_ledger.domain.errors_access import AccessTokenExists as AccessTokenExists
from session_ledger.domain.errors_access import AuthenticationRefused as AuthenticationRefused
from session_ledger.domain.errors_access import Forbidden as Forbidden
from session_ledger.domain.errors_access import NoAccessToken as NoAccessToken
from session_ledger.domain.errors_erasure import ContentGone as ContentGone
from session_ledger.domain.errors_erasure import ErasureNotComplete as ErasureNotComplete
from session_ledger.domain.errors_erasure import HistoryErased as HistoryErased
from session_ledger.domain.errors_erasure import HoldNotFound as HoldNotFound
from session_ledger.domain.errors_erasure import NotErasable as NotErasable
from session_ledger.domain.errors_erasure import UnderLegalHold as UnderLegalHold
from session_ledger.domain.errors_proofs import NothingSigned as NothingSigned
from session_ledger.domain.errors_proofs import ProofInvalid as ProofInvalid

# --- the caller's input -------------------------------------------------------------------------------------------


class InvalidInput(SessionLedgerError):
    """A field breaks a rule. Names the field, the shape of the value seen and the rule; never the value itself."""

    code = "invalid_input"

    def __init__(self, field: str, seen: str, rule: str) -> None:
        self.field, self.seen, self.rule = field, seen, rule
        super().__init__(f"{field}: {seen}; {rule}")

    def __reduce__(self) -> tuple[type[InvalidInput], tuple[str, str, str]]:
        return type(self), (self.field, self.seen, self.rule)


class CommandTooOld(SessionLedgerError):
    """The command id is older than the window in which repeats are remembered, so it is never run."""

    code = "command_too_old"


class CommandTooEarly(SessionLedgerError):
    """The command id is dated ahead of the ledger's clock, and as many such ids of the user as are kept are known."""

    code = "command_too_early"
    retriable = True


class CommandIdReused(SessionLedgerError):
    """The command id was used before with another body."""

    code = "command_id_reused"


# --- the state says no --------------------------------------------------------------------------------------------


class SessionNotFound(SessionLedgerError):
    """No session of this tenant and user has that id (whether another's has is not told)."""

    code = "session_not_found"


class SessionNotActive(SessionLedgerError):
    """The session has ended, expired or been evicted."""

    code = "session_not_active"


class SessionLimitReached(SessionLedgerError):
    """The user has as many live sessions as the limit allows, and the policy is to refuse."""

    code = "session_limit_reached"


class SessionExists(SessionLedgerError):
    """The id of an imported session is in use already: recorded with another history, or not of an import."""

    code = "session_exists"


class TooManyImports(SessionLedgerError):
    """The user has as many histories whose import is not finished as may be open: finish one."""

    code = "too_many_imports"
    retriable = True


class QuotaExceeded(SessionLedgerError):
    """The amount does not fit into the window. `retry_after_s` says when it will.

    None, and not retriable: the amount is over the limit itself.
    """

    code = "quota_exceeded"
    retriable = True


class QuotaNotSet(SessionLedgerError):
    """No quota of that resource is set for the user, the user's plan or the tenant."""

    code = "quota_not_set"


class ReservationNotOpen(SessionLedgerError):
    """The reservation does not exist, was settled, or its period is over."""

    code = "reservation_not_open"


class TooManyReservations(SessionLedgerError):
    """The user holds as many open reservations as are remembered."""

    code = "too_many_reservations"
    retriable = True


class AgentTypeUnknown(SessionLedgerError):
    """No instance of that agent type is registered in the session's partition."""

    code = "agent_type_unknown"


class NoAgentAvailable(SessionLedgerError):
    """Every instance of that type with those capabilities is held by a session."""

    code = "no_agent_available"
    retriable = True


class AgentNotFound(SessionLedgerError):
    """No such agent instance is registered for this tenant."""

    code = "agent_not_found"


class AgentNotHeld(SessionLedgerError):
    """The session does not hold that agent instance."""

    code = "agent_not_held"


class AgentBusy(SessionLedgerError):
    """The agent instance is held by a session, so it can not be retired without `force`."""

    code = "agent_busy"
    retriable = True


class FindingNotFound(SessionLedgerError):
    """No leakage finding with that id is recorded for this user."""

    code = "finding_not_found"


class TooManyFindings(SessionLedgerError):
    """The user has as many leakage findings as are kept: acknowledge some."""

    code = "too_many_findings"


# --- the ledger can not do it now ---------------------------------------------------------------------------------


class Overloaded(SessionLedgerError):
    """The queue of the partition is full; nothing was recorded."""

    code = "overloaded"
    retriable = True


class NotOwner(SessionLedgerError):
    """This process does not own the ledger. Names the holder; nothing was recorded."""

    code = "not_owner"
    retriable = True


class LedgerClosed(SessionLedgerError):
    """The ledger was closed before the command was taken."""

    code = "ledger_closed"


class AppendFailed(SessionLedgerError):
    """The log refused the append; nothing of it was recorded."""

    code = "append_failed"
    retriable = True


class OutcomeUnknown(SessionLedgerError):
    """It is not known whether the command was recorded. Repeat it with the same command id to find out."""

    code = "outcome_unknown"
    retriable = True


class ClockUnreliable(SessionLedgerError):
    """The writer's clock disagrees with the broker's or with the last record by too much to serve."""

    code = "clock_unreliable"
    retriable = True


# --- the log, the keys, the configuration -------------------------------------------------------------------------


class LogUnavailable(SessionLedgerError):
    """The log can not be reached or opened. `fenced`: brokers answer, and another process is in the way."""

    code = "log_unavailable"
    retriable = True
    fenced: bool = False


class RegistryUnavailable(LogUnavailable):
    """The schema registry, without which records can not be told, can not be asked now. Names its URL."""

    code = "registry_unavailable"


class LogRefused(LogUnavailable):
    """The brokers do not let this process in, or not do what it must: credentials, certificate or permission."""

    code = "log_refused"
    retriable = False


class LogCorrupt(SessionLedgerError):
    """A record can not be what the ledger wrote: a gap, a repeat, bytes that no schema explains."""

    code = "log_corrupt"
    position: int | None = None
    """The first position that is not there or not as it must be, where that is known."""


class LogTooNew(SessionLedgerError):
    """The log was written by a newer version of the ledger than this one."""

    code = "log_too_new"


class UndecodableRecord(LogCorrupt):
    """One record's bytes can not be read: unknown schema, truncated or trailing bytes, wrong fingerprint."""

    code = "undecodable_record"

    def __init__(self, reason: str, *, partition: int | None = None, position: int | None = None) -> None:
        self.reason, self.partition, self.position = reason, partition, position
        where = "" if position is None else f" (partition {partition}, position {position})"
        super().__init__(f"{reason}{where}")

    def __reduce__(self) -> tuple[object, ...]:
        return _undecodable, (self.reason, self.partition, self.position)


def _undecodable(reason: str, partition: int | None, position: int | None) -> UndecodableRecord:
    return UndecodableRecord(reason, partition=partition, position=position)


class KeyUnavailable(SessionLedgerError):
    """The data key or its wrapping key is not to be had, so nothing can be sealed or opened."""

    code = "key_unavailable"


class SigningKeyUnavailable(KeyUnavailable):
    """The key that signs checkpoints, outcomes and receipts is not to be had, or is not the one that signed before."""

    code = "signing_key_unavailable"


class KeyNotStored(KeyUnavailable):
    """The vault did not take a new data key: another one came first, or it could not write. Seal again and repeat."""

    code = "key_not_stored"
    retriable = True


class VaultBusy(KeyUnavailable):
    """What was destroyed may still have copies in the vault's file: another process is in the way. Repeated later."""

    code = "vault_busy"
    retriable = True


class KeyServiceUnavailable(KeyUnavailable):
    """The key service can not be asked now, or did not answer in time; nothing was recorded, nothing opened."""

    code = "key_service_unavailable"
    retriable = True


class KeyExhausted(KeyUnavailable):
    """The data key has sealed as often as it safely may, 2^32 times."""

    code = "key_exhausted"


class ContentUnreadable(SessionLedgerError):
    """A ciphertext does not open: wrong key, wrong place, or damaged."""

    code = "content_unreadable"


class ContentWithheld(ContentUnreadable):
    """The principal reads structure alone; content is shown by a reveal, which is recorded."""

    code = "content_withheld"


class Misconfigured(SessionLedgerError):
    """The configuration, URL or directory is not usable as given."""

    code = "misconfigured"


class ProjectionDamaged(Misconfigured):
    """The file of views is damaged, or is none: rebuild them from the log."""

    code = "projection_damaged"


class ProjectionConflict(SessionLedgerError):
    """Another projector moved the position; this batch was rolled back whole."""

    code = "projection_conflict"
    retriable = True


class ProjectionInUse(SessionLedgerError):
    """Another process writes the projection, and only one can."""

    code = "projection_in_use"
    retriable = True


class ProjectionForeign(SessionLedgerError):
    """The views were built from another log than the one they are opened with."""

    code = "projection_foreign"


class ProjectionOutdated(SessionLedgerError):
    """The views were built by another version of the projecting code: rebuild them."""

    code = "projection_outdated"


class QueryFailed(SessionLedgerError):
    """The database refuses the query, or can not run it: its own message says why."""

    code = "query_failed"


class QueryTimeout(SessionLedgerError):
    """The query took longer than it may."""

    code = "query_timeout"


class WaitTimeout(SessionLedgerError):
    """A projection did not reach the position in the time given."""

    code = "wait_timeout"
    retriable = True
