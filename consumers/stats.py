"""A summary of the views: what an operator looks at first."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from session_ledger.consumers.records import Stats, UserActivity

_TENANT = "(?1 IS NULL OR tenant = ?1)"


def read_stats(db: sqlite3.Connection, tenant: str | None, busiest: int, user_of: Callable[[str, str], str]) -> Stats:
    """Counts of one tenant, or of all (None). A scan of the rows of sessions, agents and quotas.

    `user_of`: tenant and the user's name in the rows, to the user's id.
    """
    by_status: dict[str, int] = {}
    by_reason: dict[tuple[str, str], int] = {}
    for status, reason, count in db.execute(
        f"SELECT status, end_reason, count(*) FROM sessions WHERE {_TENANT} GROUP BY 1, 2 ORDER BY 3 DESC", (tenant,)
    ):
        by_status[status] = by_status.get(status, 0) + count
        if reason is not None:
            by_reason[status, reason] = count
    sessions, messages, errors, tokens_in, tokens_out = db.execute(
        "SELECT count(*), total(messages), total(errors), total(tokens_in), total(tokens_out)"
        f" FROM sessions WHERE {_TENANT}",
        (tenant,),
    ).fetchone()
    refusals = dict(
        db.execute(
            f"SELECT resource, sum(refusals) FROM quotas WHERE {_TENANT} AND refusals > 0 GROUP BY 1 ORDER BY 1",
            (tenant,),
        ).fetchall()
    )
    agents: dict[str, dict[str, int]] = {}
    leases = 0
    for agent_type, status, count, leased in db.execute(
        "SELECT agent_type, CASE WHEN retired_at IS NOT NULL THEN 'retired' WHEN held_by IS NULL THEN 'free'"
        f" ELSE 'held' END, count(*), sum(leases) FROM agents WHERE {_TENANT} GROUP BY 1, 2 ORDER BY 1, 2",
        (tenant,),
    ):
        agents.setdefault(agent_type, {})[status] = count
        leases += leased
    (failures,) = db.execute(
        f"SELECT coalesce(sum(attempts), 0) FROM authentication_failures WHERE {_TENANT}", (tenant,)
    ).fetchone()
    positions = dict(db.execute("SELECT partition, min(position) FROM positions GROUP BY 1").fetchall())
    return Stats(
        sessions=sessions,
        messages=int(messages),
        errors=int(errors),
        tokens_in=int(tokens_in),
        tokens_out=int(tokens_out),
        by_status=by_status,
        by_reason=by_reason,
        busiest=_busiest(db, tenant, busiest, user_of),
        refusals=sum(refusals.values()),
        refusals_by_resource=refusals,
        agents=agents,
        leases=leases,
        authentication_failures=failures,
        positions=positions,
    )


def _busiest(
    db: sqlite3.Connection, tenant: str | None, limit: int, user_of: Callable[[str, str], str]
) -> tuple[UserActivity, ...]:
    rows = db.execute(
        "SELECT tenant, user, count(*), total(messages), total(tokens_in), total(tokens_out), coalesce("
        " (SELECT sum(refusals) FROM quotas WHERE quotas.tenant = sessions.tenant AND quotas.user = sessions.user), 0)"
        f" FROM sessions WHERE {_TENANT} GROUP BY 1, 2 ORDER BY 4 DESC, 1, 2 LIMIT ?2",
        (tenant, limit),
    )
    return tuple(
        UserActivity(
            tenant=of_tenant,
            user=user_of(of_tenant, user),
            sessions=sessions,
            messages=int(messages),
            tokens_in=int(tokens_in),
            tokens_out=int(tokens_out),
            refusals=refusals,
        )
        for of_tenant, user, sessions, messages, tokens_in, tokens_out, refusals in rows
    )
