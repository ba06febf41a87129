"""Decisions about access: tokens of sessions, and attempts to authenticate that succeeded or failed."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from hmac import compare_digest

from session_ledger.domain.account import REFUSED_EVERY_US, Account
from session_ledger.domain.attempts import ALERT, ALERT_AT, FailedAttempts, Untold
from session_ledger.domain.commands import (
    Authenticate,
    IssueAccessToken,
    Prepared,
    ReportAuthenticationFailure,
    ReportAuthenticationSuccess,
    RotateAccessToken,
)
from session_ledger.domain.decision import (
    Context,
    Decision,
    NewId,
    expire,
    live_session,
    nothing_new,
    own_event_id,
    own_seal,
)
from session_ledger.domain.errors import (
    AccessTokenExists,
    AuthenticationRefused,
    InvalidInput,
    KeyUnavailable,
    NoAccessToken,
)
from session_ledger.domain.events import (
    AccessTokenIssued,
    AccessTokenRotated,
    AlertRaised,
    AuthenticationFailed,
    AuthenticationSucceeded,
    Event,
)
from session_ledger.domain.ids import format_id
from session_ledger.domain.results import Authenticated
from session_ledger.domain.session import AccessToken, Session

METHOD = "access_token"
BAD_CREDENTIAL, EXPIRED, REPLACED, NO_TOKEN, SESSION_OVER = (
    "bad_credential",
    "expired",
    "replaced",
    "no_token",
    "session_over",
)


def issue_access_token(
    context: Context, command: IssueAccessToken, prepared: Prepared, now: int, new_id: NewId
) -> Decision:
    """AccessTokenIssued; or AccessTokenExists where the session has a token that opens it."""
    session = live_session(context, prepared, command, now, new_id)
    if isinstance(session, Decision):
        return session
    if session.access_token is not None and now < session.access_token.expires_at:
        message = f"session {format_id(command.session_id)} has an access token already: rotate it"
        return Decision([], AccessTokenExists(message))
    head = (command.tenant, command.user, session.version + 1, now, prepared.command_id, prepared.digest)
    told = (command.session_id, command.token_digest, _expires_at(session, command.ttl_ms, now))
    return Decision([AccessTokenIssued(own_event_id(prepared, new_id), *head, *told)])


def rotate_access_token(
    context: Context, command: RotateAccessToken, prepared: Prepared, now: int, new_id: NewId
) -> Decision:
    """AccessTokenRotated; or NoAccessToken where none was ever issued."""
    session = live_session(context, prepared, command, now, new_id)
    if isinstance(session, Decision):
        return session
    token = session.access_token
    if token is None:
        message = f"session {format_id(command.session_id)} has no access token to rotate: issue one"
        return Decision([], NoAccessToken(message))
    if compare_digest(token.digest, command.token_digest):
        return Decision([], InvalidInput("token", "the token that is to be replaced", "must be a new one"))
    head = (command.tenant, command.user, session.version + 1, now, prepared.command_id, prepared.digest)
    replaced_until = max(min(now + command.grace_ms * 1000, token.expires_at), now)
    told = (command.token_digest, _expires_at(session, command.ttl_ms, now), token.digest, replaced_until)
    return Decision([AccessTokenRotated(own_event_id(prepared, new_id), *head, command.session_id, *told)])


def _expires_at(session: Session, ttl_ms: int | None, now: int) -> int:
    return session.expires_at if ttl_ms is None else min(session.expires_at, now + ttl_ms * 1000)


def authenticate(context: Context, command: Authenticate, prepared: Prepared, now: int, new_id: NewId) -> Decision:
    """Authenticated; or AuthenticationRefused, with AuthenticationFailed where the session is or was this user's.

    The error tells nobody why, nor whether there is such a session; the fact does. No fact of a session that never
    was: whoever guesses ids would fill the log.
    """
    error = AuthenticationRefused(f"the token does not open session {format_id(command.session_id)} of this user")
    session = context.account.sessions.get(command.session_id)
    if session is None and context.ended is None:
        return Decision([], error)
    events: list[Event] = []
    if session is None or session.importing:
        reason: str | None = SESSION_OVER
    elif session.is_due(now):
        expire(context, session, now, new_id, events)
        reason = SESSION_OVER
    else:
        reason = _why_not(session.access_token, command.token_digest, now)
    if session is None or reason is not None:
        sealed = own_seal(prepared, new_id)
        address = sealed.fields.get("sealed_ip_address")
        failure = Untold(1, None, command.session_id, METHOD, reason or "", sealed.event_id, sealed.key_id, address)
        return Decision([*events, *_failed(context.account, failure, now, new_id)], error)
    assert session.access_token is not None
    token = session.access_token
    replaced = not compare_digest(token.digest, command.token_digest)
    succeeded = Authenticated(
        command_id=format_id(prepared.command_id),
        tenant=command.tenant,
        user=command.user,
        session_id=format_id(command.session_id),
        expires_at=token.replaced_until if replaced else token.expires_at,
    )
    failed = context.account.failed
    if failed is None or failed.is_over(now):
        return Decision([], result=succeeded)
    events += _told_first(context.account, now, new_id)
    head = (new_id(), command.tenant, command.user, context.account.version + 1 + len(events), now, None, None)
    told = (command.session_id, METHOD, failed.count + _uncounted(failed))
    return Decision([*events, AuthenticationSucceeded(*head, *told)], result=succeeded)


def _why_not(token: AccessToken | None, digest: bytes, now: int) -> str | None:
    """Why what was presented does not open the session; None: it does. Compares in constant time (`hmac`)."""
    if token is None:
        return NO_TOKEN
    is_current = compare_digest(token.digest, digest)
    is_replaced = compare_digest(token.replaced or bytes(len(digest)), digest) and token.replaced is not None
    if is_current:
        return None if now < token.expires_at else EXPIRED
    if is_replaced:
        return None if now < token.replaced_until else REPLACED
    return BAD_CREDENTIAL


def authentication_failed(
    context: Context, command: ReportAuthenticationFailure, prepared: Prepared, now: int, new_id: NewId
) -> Decision:
    """AuthenticationFailed, and AlertRaised with the third in a row. Each is told: who reports decides how many."""
    if command.ip_address is not None and not prepared.sealed:
        return Decision([], KeyUnavailable("the user's data key is not to be had, so the address can not be sealed"))
    sealed = own_seal(prepared, new_id)
    told = Untold(
        1 + _uncounted(context.account.failed),
        command.occurred_at,
        command.session_id,
        command.method,
        command.reason,
        sealed.event_id,
        sealed.key_id,
        sealed.fields.get("sealed_ip_address"),
    )
    version = context.account.version + 1
    return Decision(_told(context.account, told, version, now, new_id, prepared.command_id, prepared.digest))


def authentication_succeeded(
    context: Context, command: ReportAuthenticationSuccess, prepared: Prepared, now: int, new_id: NewId
) -> Decision:
    """AuthenticationSucceeded where attempts failed before, in a row."""
    failed = context.account.failed
    if failed is None or failed.is_over(now):
        return nothing_new(prepared)
    events = _told_first(context.account, now, new_id)
    version = context.account.version + 1 + len(events)
    head = (command.tenant, command.user, version, now, prepared.command_id, prepared.digest)
    told = (command.session_id, command.method, failed.count + _uncounted(failed))
    return Decision([*events, AuthenticationSucceeded(own_event_id(prepared, new_id), *head, *told)])


def _failed(account: Account, failure: Untold, now: int, new_id: NewId) -> Sequence[Event]:
    """The facts of a failed attempt. Of a row that has its alert, one second's are counted and told by one fact."""
    failed = account.failed
    failure.attempts += _uncounted(failed)
    if failed is not None and failed.is_alerted(now) and now - failed.times[-1] < REFUSED_EVERY_US:
        failed.uncounted = failure
        return ()
    return _told(account, failure, account.version + 1, now, new_id, None, None)


def told_later(account: Account, version: int, now: int, new_id: NewId) -> Sequence[Event]:
    """The facts of what was counted and not told, a second after the last one told; none: there is nothing."""
    failed = account.failed
    if failed is None or failed.uncounted is None or now - failed.times[-1] < REFUSED_EVERY_US:
        return ()
    return _told(account, failed.uncounted, version, now, new_id, None, None)


def _told_first(account: Account, now: int, new_id: NewId) -> list[Event]:
    """The facts of what was counted and not told, before what ends the row."""
    if account.failed is None or account.failed.uncounted is None:
        return []
    return _told(account, account.failed.uncounted, account.version + 1, now, new_id, None, None)


def _uncounted(failed: FailedAttempts | None) -> int:
    return 0 if failed is None or failed.uncounted is None else failed.uncounted.attempts


def _told(
    account: Account,
    told: Untold,
    version: int,
    now: int,
    new_id: NewId,
    command_id: bytes | None,
    digest: bytes | None,
) -> list[Event]:
    """AuthenticationFailed, and the alert that it calls for."""
    row, attempts = account.failed, told.attempts
    rest = (now, command_id, digest)
    fact = AuthenticationFailed(
        told.event_id,
        account.tenant,
        account.user,
        version,
        *rest,
        told.occurred_at,
        told.session_id,
        told.method,
        told.reason,
        told.key_id,
        told.sealed_ip_address,
        attempts,
    )
    if row is None or row.is_over(now):
        row = FailedAttempts()
    if not row.calls_for_alert(now, attempts):
        return [fact]
    head = (new_id(), account.tenant, account.user, version + 1, *rest)
    alert = AlertRaised(*head, ALERT, "warning", told.session_id, Decimal(row.count + attempts), Decimal(ALERT_AT))
    return [fact, alert]
