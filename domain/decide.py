"""`decide`: state and command in, events or a typed error out. No clock, no randomness, no input or output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from session_ledger.domain.account import Account, evolve_account
from session_ledger.domain.agents import AgentPool, evolve_agents
from session_ledger.domain.answers import result_of
from session_ledger.domain.commands import (
    AcknowledgeLeak,
    AcquireAgent,
    AddMessage,
    Authenticate,
    CheckQuota,
    Command,
    ConsumeQuota,
    CreateSession,
    EndSession,
    EraseSession,
    EraseUser,
    ExpireSessions,
    ImportSession,
    IssueAccessToken,
    LiftLegalHold,
    Prepared,
    RaiseAlert,
    RecordAuditRead,
    RecordRefusals,
    RegisterAgent,
    ReleaseAgent,
    ReleaseQuota,
    ReportAuthenticationFailure,
    ReportAuthenticationSuccess,
    ReportError,
    ReportLeak,
    ReportQuota,
    RetireAgent,
    RevealContent,
    RotateAccessToken,
    RotateSessionKey,
    SetLegalHold,
    SetQuota,
    SetUserLimits,
    UpdateSession,
)
from session_ledger.domain.decide_access import (
    authenticate,
    authentication_failed,
    authentication_succeeded,
    issue_access_token,
    rotate_access_token,
)
from session_ledger.domain.decide_agents import acquire_agent, register_agent, release_agent, retire_agent
from session_ledger.domain.decide_audit import (
    acknowledge_leak,
    raise_alert,
    record_audit_read,
    report_leak,
    reveal_content,
)
from session_ledger.domain.decide_erasure import erase_session, erase_user, lift_legal_hold, set_legal_hold
from session_ledger.domain.decide_import import import_session
from session_ledger.domain.decide_keys import rotate_session_key
from session_ledger.domain.decide_quotas import (
    check_quota,
    consume_quota,
    record_refusals,
    release_quota,
    report_quota,
    set_quota,
    set_user_limits,
)
from session_ledger.domain.decide_sessions import (
    add_message,
    create_session,
    end_session,
    expire_sessions,
    report_error,
    update_session,
)
from session_ledger.domain.decision import Context, Decision, NewId
from session_ledger.domain.errors import ContentGone, SessionLedgerError
from session_ledger.domain.events import Event
from session_ledger.domain.remembered import recall

__all__ = ["Context", "Decision", "NewId", "decide", "evolve", "result_of"]

Decide = Callable[[Context, Any, Prepared, int, NewId], Decision]


def decide(context: Context, prepared: Prepared, now: int, new_id: NewId) -> Decision:
    """What the command leads to in this state, at `now` (microseconds since the epoch, never before the last event).

    Errors are in the decision, because events can go with them. The states are not changed, except that refusals
    within a second of the last one told are counted in the account (`uncounted`).
    """
    command_type = type(prepared.command)
    if context.settings.erased and command_type not in _OF_THE_ERASED:
        return Decision([], ContentGone(f"tenant {prepared.command.tenant!r} was erased: it takes no command"))
    remembered = _REMEMBERED.get(command_type)
    if remembered is not None:
        try:
            repeat = recall(context.account.commands, prepared.command_id, prepared.digest, now)
        except SessionLedgerError as error:
            return Decision([], error)
        if repeat is not None:
            return Decision([], None, None, repeat)
        return remembered(context, prepared.command, prepared, now, new_id)
    return _NOT_REMEMBERED[command_type](context, prepared.command, prepared, now, new_id)


def evolve(account: Account, agents: AgentPool, event: Event, position: int) -> None:
    """Fold one event of a partition into the account of its (tenant, user) and into the partition's agents."""
    evolve_account(account, event, position)
    evolve_agents(agents, event)


_REMEMBERED: dict[type[Command], Decide] = {
    AddMessage: add_message,
    CreateSession: create_session,
    UpdateSession: update_session,
    EndSession: end_session,
    ReportError: report_error,
    RotateSessionKey: rotate_session_key,
    SetQuota: set_quota,
    ConsumeQuota: consume_quota,
    ReleaseQuota: release_quota,
    SetUserLimits: set_user_limits,
    IssueAccessToken: issue_access_token,
    RotateAccessToken: rotate_access_token,
    ReportAuthenticationFailure: authentication_failed,
    ReportAuthenticationSuccess: authentication_succeeded,
    RegisterAgent: register_agent,
    AcquireAgent: acquire_agent,
    ReleaseAgent: release_agent,
    RetireAgent: retire_agent,
    RevealContent: reveal_content,
    RecordAuditRead: record_audit_read,
    ReportLeak: report_leak,
    AcknowledgeLeak: acknowledge_leak,
    RaiseAlert: raise_alert,
    EraseSession: erase_session,
    EraseUser: erase_user,
    SetLegalHold: set_legal_hold,
    LiftLegalHold: lift_legal_hold,
}
"""Commands whose repeats answer what the first one did."""

_OF_THE_ERASED: frozenset[type[Command]] = frozenset(
    (
        *(EraseSession, EraseUser, SetLegalHold, LiftLegalHold),
        *(RevealContent, RecordAuditRead, ReportLeak, AcknowledgeLeak),
    )
)
"""What may still be recorded of an erased tenant: who audits it, and what a hold keeps of it."""

_NOT_REMEMBERED: dict[type[Command], Decide] = {
    ImportSession: import_session,  # its session id makes it idempotent
    Authenticate: authenticate,
    CheckQuota: check_quota,
    ReportQuota: report_quota,
    ExpireSessions: expire_sessions,
    RecordRefusals: record_refusals,
}
