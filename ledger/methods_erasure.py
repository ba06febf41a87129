"""The facade's commands about erasure and legal holds."""

from __future__ import annotations

from session_ledger.domain import commands as c
from session_ledger.domain import results as r
from session_ledger.domain.ids import parse_id
from session_ledger.ledger.methods import Commands, Id, optional_id, optional_ms


class ErasureMethods(Commands):
    """Erasures, recorded before a key is destroyed (which `consumers.eraser` does), and holds that forbid them.

    `requested_by` and `reason` stand in the clear, for ever: they should name no person.
    """

    def erase_session(
        self, tenant: str, user: str, session_id: Id, *, requested_by: str, reason: str, command_id: Id | None = None
    ) -> r.Recorded:
        """End the session if it lives, and record that its content is erased.

        Raises SessionNotFound, UnderLegalHold (recorded as ErasureRefused), NotErasable (sealing is off).
        """
        command = c.EraseSession(
            tenant=tenant,
            user=user,
            session_id=parse_id(session_id, "session_id"),
            requested_by=requested_by,
            reason=reason,
            command_id=optional_id(command_id, "command_id"),
        )
        return self._run(command, r.Recorded)

    def erase_user(
        self, tenant: str, user: str, *, requested_by: str, reason: str, command_id: Id | None = None
    ) -> r.Recorded:
        """The same for every session of the user so far and for the account. The user may come back, as new.

        Raises UnderLegalHold, also where only one of the sessions is under one; NotErasable.
        """
        command = c.EraseUser(
            tenant=tenant,
            user=user,
            requested_by=requested_by,
            reason=reason,
            command_id=optional_id(command_id, "command_id"),
        )
        return self._run(command, r.Recorded)

    def erase_tenant(self, tenant: str, *, requested_by: str, reason: str, command_id: Id | None = None) -> r.Recorded:
        """Record that the tenant is erased: it takes no command any more. Its users are erased one by one after that.

        Raises UnderLegalHold (a hold on all of the tenant; those of users are met when their turn comes), NotErasable.
        """
        command = c.EraseTenant(
            tenant=tenant,
            requested_by=requested_by,
            reason=reason,
            command_id=optional_id(command_id, "command_id"),
        )
        return self._run(command, r.Recorded)

    def set_legal_hold(
        self,
        tenant: str,
        user: str | None = None,
        session_id: Id | None = None,
        *,
        matter: str,
        requested_by: str,
        reason: str,
        command_id: Id | None = None,
    ) -> r.Recorded:
        """Forbid the erasure of a session, of all of a user (`session_id` None), or of a tenant (`user` None).

        Several matters may hold the same; each is lifted by itself. Raises ContentGone (the session was erased).
        """
        if user is None:
            command: c.Command = c.SetTenantHold(
                tenant=tenant,
                matter=matter,
                requested_by=requested_by,
                reason=reason,
                command_id=optional_id(command_id, "command_id"),
            )
        else:
            command = c.SetLegalHold(
                tenant=tenant,
                user=user,
                session_id=optional_id(session_id, "session_id"),
                matter=matter,
                requested_by=requested_by,
                reason=reason,
                command_id=optional_id(command_id, "command_id"),
            )
        return self._run(command, r.Recorded)

    def lift_legal_hold(
        self,
        tenant: str,
        user: str | None = None,
        session_id: Id | None = None,
        *,
        matter: str,
        requested_by: str,
        reason: str,
        command_id: Id | None = None,
    ) -> r.Recorded:
        """Lift the hold of that matter on the same scope. Raises HoldNotFound."""
        if user is None:
            command: c.Command = c.LiftTenantHold(
                tenant=tenant,
                matter=matter,
                requested_by=requested_by,
                reason=reason,
                command_id=optional_id(command_id, "command_id"),
            )
        else:
            command = c.LiftLegalHold(
                tenant=tenant,
                user=user,
                session_id=optional_id(session_id, "session_id"),
                matter=matter,
                requested_by=requested_by,
                reason=reason,
                command_id=optional_id(command_id, "command_id"),
            )
        return self._run(command, r.Recorded)

    def set_retention(
        self,
        tenant: str,
        *,
        retention_s: float | None = None,
        sensitive_retention_s: float | None = None,
        requested_by: str,
        reason: str,
        command_id: Id | None = None,
    ) -> r.Recorded:
        """Set how long content is kept after a session's end (None: 30 days, 7 of sensitive ones), as a whole.

        A sweep (`consumers.retention`) erases what is older.
        """
        command = c.SetRetention(
            tenant=tenant,
            retention_ms=optional_ms(retention_s, "retention_s"),
            sensitive_retention_ms=optional_ms(sensitive_retention_s, "sensitive_retention_s"),
            requested_by=requested_by,
            reason=reason,
            command_id=optional_id(command_id, "command_id"),
        )
        return self._run(command, r.Recorded)
