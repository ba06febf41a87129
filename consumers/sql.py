"""Queries on a snapshot, and opening of what their results ask for by `reveal(...)`.

`reveal` is no function that opens: in SQL it only marks a sealed value. What stands in the final rows is opened here,
after the ledger's owner has recorded, for each session, who asks and why; so no filter, join or limit opens anything
that is not shown, and nothing is shown that is not recorded.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any
from uuid import UUID

import duckdb
import pyarrow as pa

from session_ledger.domain.commands import RevealContent
from session_ledger.domain.errors import ContentGone, InvalidInput, QueryFailed, QueryTimeout
from session_ledger.domain.events import TOPIC_PREFIX
from session_ledger.domain.results import Result
from session_ledger.ledger.ledger import Ledger
from session_ledger.projections.analytics.snapshots import Snapshot
from session_ledger.security.opening import as_text, open_sealed
from session_ledger.security.port import Envelope

REVEAL = "reveal"
TIMEOUT_S = 60.0
MEMORY = "2GB"

Owner = tuple[str, str, bytes | None]
"""Tenant, user and session (None: the account)."""


def run_query(
    snapshot: Snapshot,
    query: str,
    parameters: Mapping[str, object] | Sequence[object] | None = None,
    *,
    timeout_s: float = TIMEOUT_S,
) -> pa.Table:
    """The rows of one statement. Raises QueryFailed, QueryTimeout."""
    connection = snapshot.connection
    try:
        statements = connection.extract_statements(query)
    except duckdb.Error as error:
        raise QueryFailed(str(error)) from error
    if len(statements) != 1:
        raise QueryFailed(f"the text holds {len(statements)} statements: send one at a time")
    over = threading.Event()

    def interrupt() -> None:
        over.set()
        connection.interrupt()

    timer = threading.Timer(timeout_s, interrupt)
    timer.start()
    try:
        relation = connection.sql(statements[0], params=parameters)
        return pa.table({}) if relation is None else relation.to_arrow_table()
    except duckdb.InterruptException as error:
        if not over.is_set():
            raise
        raise QueryTimeout(f"the query took longer than {timeout_s:g} s and was ended; allow it more time") from error
    except duckdb.Error as error:
        raise QueryFailed(str(error)) from error
    finally:
        timer.cancel()


def revealing(table: pa.Table) -> list[str]:
    """The names of the columns that ask for sealed values to be opened."""
    return [field.name for field in table.schema if _is_reveal(field.type)]


def _is_reveal(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind) and kind.num_fields == 1 and kind.field(0).name == REVEAL)


def reveal(
    table: pa.Table, ledger: Ledger, envelope: Envelope, *, query: str, revealed_by: str, reason: str
) -> pa.Table:
    """The table with what it asks for opened: recorded first, one ContentRevealed a session and query.

    NULL where a key is gone, or the content was erased since. Raises what the ledger raises where it can not record
    (NotOwner, LogUnavailable, ...): then nothing was opened; ContentUnreadable where a value is none that the ledger
    sealed; KeyUnavailable where a key is there and can not be had; InvalidInput.
    """
    asked = {name: [_sealed(row, name) for row in table.column(name).to_pylist()] for name in revealing(table)}
    counted: Counter[Owner] = Counter(_owner(one) for column in asked.values() for one in column if one is not None)
    digest = hashlib.blake2b(query.encode(), digest_size=16).digest()
    under_way: dict[Owner, Future[Result]] = {
        (tenant, user, session_id): ledger.submit(
            RevealContent(
                tenant=tenant,
                user=user,
                session_id=session_id,
                revealed_by=revealed_by,
                reason=reason,
                query_digest=digest,
                fields=fields,
            )
        )
        for (tenant, user, session_id), fields in counted.items()
    }
    erased: set[Owner] = set()
    for owner, future in under_way.items():
        try:
            future.result()
        except ContentGone:  # since the snapshot
            erased.add(owner)
    for name, column in asked.items():
        opened = [None if one is None or _owner(one) in erased else _opened(envelope, one) for one in column]
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, pa.array(opened, pa.string()))
    return table


def _sealed(row: Mapping[str, Any] | None, name: str) -> Mapping[str, Any] | None:
    """What stands in a marked value; None where nothing does."""
    sealed = None if row is None else row[REVEAL]
    if sealed is None:
        return None
    wanted = {"tenant", "user", "session_id", "event_id", "event_type", "field", "key_id", "sealed"}
    if not isinstance(sealed, dict) or not wanted <= set(sealed):
        raise InvalidInput(name, "a reveal of what is not sealed", "must be reveal(content) of the view messages")
    return None if sealed["sealed"] is None else sealed


def _owner(sealed: Mapping[str, Any]) -> Owner:
    session_id = sealed["session_id"]
    return sealed["tenant"], sealed["user"], None if session_id is None else _bytes(session_id)


def _bytes(value: UUID | str | bytes) -> bytes:
    return value if isinstance(value, bytes) else UUID(str(value)).bytes


def _opened(envelope: Envelope, sealed: Mapping[str, Any]) -> str | None:
    tenant, user, session_id = _owner(sealed)
    key_id = None if sealed["key_id"] is None else _bytes(sealed["key_id"])
    if key_id is not None and envelope.opening_key(tenant, user, session_id or b"", key_id) is None:
        return None  # it is gone; one that is there and does not unwrap is an error
    event_id, topic, field = _bytes(sealed["event_id"]), TOPIC_PREFIX + sealed["event_type"], sealed["field"]
    whose = (tenant, user, session_id or b"")
    return as_text(field, open_sealed(envelope, *whose, event_id, topic, field, key_id, sealed["sealed"]))
