"""The facade's commands about access to sessions."""

from __future__ import annotations

from session_ledger.domain import commands as c
from session_ledger.domain import results as r
from session_ledger.domain.ids import parse_id
from session_ledger.ledger.methods import Commands, Id, Time, optional_id, optional_ms, optional_us, whole_ms
from session_ledger.security.tokens import presented_digest, token_digest


class AccessMethods(Commands):
    """Access tokens of sessions; attempts to authenticate."""

    def issue_access_token(
        self,
        tenant: str,
        user: str,
        session_id: Id,
        token: str,
        *,
        ttl_s: float | None = None,
        command_id: Id | None = None,
    ) -> r.AccessTokenSet:
        """Let whoever has the token, a fresh one of `new_access_token()`, authenticate for a live session.

        Only its SHA-256 leaves this process. `ttl_s` None: as long as the session may live; never longer. Raises
        AccessTokenExists, SessionNotFound, SessionNotActive.
        """
        command = c.IssueAccessToken(
            tenant=tenant,
            user=user,
            session_id=parse_id(session_id, "session_id"),
            token_digest=token_digest(token),
            ttl_ms=optional_ms(ttl_s, "ttl_s"),
            command_id=optional_id(command_id, "command_id"),
        )
        return self._run(command, r.AccessTokenSet)

    def rotate_access_token(
        self,
        tenant: str,
        user: str,
        session_id: Id,
        token: str,
        *,
        ttl_s: float | None = None,
        grace_s: float = 0,
        command_id: Id | None = None,
    ) -> r.AccessTokenSet:
        """Put another token, likewise fresh, in the place of the session's.

        `grace_s`: how long the replaced one still opens the session, an hour at most, and never longer than it did
        anyway. Raises NoAccessToken, SessionNotFound, SessionNotActive.
        """
        command = c.RotateAccessToken(
            tenant=tenant,
            user=user,
            session_id=parse_id(session_id, "session_id"),
            token_digest=token_digest(token),
            ttl_ms=optional_ms(ttl_s, "ttl_s"),
            grace_ms=whole_ms(grace_s, "grace_s"),
            command_id=optional_id(command_id, "command_id"),
        )
        return self._run(command, r.AccessTokenSet)

    def authenticate(
        self, tenant: str, user: str, session_id: Id, token: str, *, ip_address: str | None = None
    ) -> r.Authenticated:
        """Whether what somebody presents as the session's token opens it now: whose it is, and until when.

        Raises AuthenticationRefused, which tells nobody why; the recorded AuthenticationFailed does, and the third in
        a row within ten minutes raises an alert. It is no activity of the session.
        """
        command = c.Authenticate(
            tenant=tenant,
            user=user,
            session_id=parse_id(session_id, "session_id"),
            token_digest=presented_digest(token),
            ip_address=ip_address,
        )
        return self._run(command, r.Authenticated)

    def report_authentication_failure(
        self,
        tenant: str,
        user: str,
        *,
        method: str,
        reason: str,
        session_id: Id | None = None,
        ip_address: str | None = None,
        occurred_at: Time = None,
        command_id: Id | None = None,
    ) -> r.Recorded:
        """Record an attempt to authenticate as this user that failed elsewhere; the third in a row raises an alert."""
        command = c.ReportAuthenticationFailure(
            tenant=tenant,
            user=user,
            method=method,
            reason=reason,
            session_id=optional_id(session_id, "session_id"),
            ip_address=ip_address,
            occurred_at=optional_us(occurred_at),
            command_id=optional_id(command_id, "command_id"),
        )
        return self._run(command, r.Recorded)

    def report_authentication_success(
        self,
        tenant: str,
        user: str,
        *,
        method: str,
        session_id: Id | None = None,
        command_id: Id | None = None,
    ) -> r.Recorded:
        """Say that an attempt succeeded elsewhere, which ends a row of failed ones; else nothing is recorded."""
        command = c.ReportAuthenticationSuccess(
            tenant=tenant,
            user=user,
            method=method,
            session_id=optional_id(session_id, "session_id"),
            command_id=optional_id(command_id, "command_id"),
        )
        return self._run(command, r.Recorded)
