"""Errors about who may do what, and about access to sessions; see `errors`."""

from __future__ import annotations

from session_ledger.domain.error import SessionLedgerError


class AuthenticationRefused(SessionLedgerError):
    """What was presented does not open the session; why, only the recorded fact tells."""

    code = "authentication_refused"


class AccessTokenExists(SessionLedgerError):
    """The session has an access token that opens it."""

    code = "access_token_exists"


class NoAccessToken(SessionLedgerError):
    """The session has no access token."""

    code = "no_access_token"


class Forbidden(SessionLedgerError):
    """The principal's role or tenants do not allow it. Says who, what, of which tenant, and what to do."""

    code = "forbidden"
