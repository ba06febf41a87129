"""Recording that somebody read an audit: a fact like any other, by the ledger's owner."""

from __future__ import annotations

from session_ledger.ledger.ledger import Ledger
from session_ledger.ledger.settings import Settings


def record_read(
    url: str,
    *,
    action: str,
    tenant: str,
    user: str,
    session_id: bytes | None,
    by: str,
    reason: str | None,
    settings: Settings | None = None,
) -> None:
    """Record an AuditRead and wait until it is durable. `user` "": the audit of the whole tenant.

    Where another process owns the ledger it records; where none does, this process does for this moment. Raises
    NotOwner, LogUnavailable and what else hinders it: then the audit is not to be shown.
    """
    with Ledger.open(url, settings=settings) as ledger:
        ledger.record_audit_read(tenant, user, read_by=by, action=action, session_id=session_id, reason=reason)
