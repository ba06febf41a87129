"""Marked text through every feature, and a search of every byte that a ledger has left on the disk, packed or not."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
from kafka.record import MemoryRecords

from session_ledger.consumers.erasing import open_eraser
from session_ledger.domain.ids import parse_id
from session_ledger.ledger.ledger import Ledger
from session_ledger.ledger.open import open_envelope
from session_ledger.ledger.settings import Settings
from session_ledger.ledger.url import parse_url
from session_ledger.security.keys import SealingKey
from session_ledger.security.vault import SQLiteVault
from tests.ledger.support import Clock

MARK = "MARKED-PLAINTEXT-7f3a"
STRUCTURE = "readable-7f3a"
"""Stands in the clear wherever sessions do: what a search that can find anything finds."""
ASKED: dict[str, Any] = {"requested_by": "dpo", "reason": "request 7"}
CACHED_S = 300.0


def fill(ledger: Ledger, user: str, tenant: str = "t") -> list[str]:
    """Everything that can be sealed, of one user; the sessions: one that has ended, one that lives."""
    one = ledger.create_session(
        tenant,
        user,
        title=MARK,
        context={"a": MARK},
        metadata={"k": MARK},
        ip_address=MARK,
        domain=STRUCTURE,
    ).session_id
    ledger.add_message(tenant, user, one, role="user", content=MARK, parts=[MARK], audio_url=MARK, metadata={"k": MARK})
    ledger.update_session(tenant, user, one, title=MARK + "2")
    ledger.report_error(tenant, user, one, component="c", error_type="t", message=MARK)
    ledger.end_session(tenant, user, one, note=MARK)
    two = ledger.create_session(tenant, user, title=MARK).session_id
    ledger.report_authentication_failure(tenant, user, method="token", reason="expired", ip_address=MARK)
    return [one, two]


def step(url: str, ledger: Ledger | None = None, clock: Clock | None = None) -> list[Any]:
    """One step of an eraser of its own; what is not complete."""
    with open_eraser(url, Settings(), ledger) as eraser:
        if clock is not None:
            eraser._clock_us = clock
        return eraser.step()


def secrets_of(url: str, user: str, tenant: str = "t", session: str | None = None) -> list[bytes]:
    """With the keys still in hand: whatever opens the user's content, as it is wrapped and as it is.

    `session`: of that one alone. Empty where there is no key.
    """
    place = parse_url(url)
    directory = place.directory
    assert directory is not None
    vault = SQLiteVault(directory / "vault.db", readonly=True)
    query = "SELECT session_id, key_id, wrapped FROM keys WHERE tenant = ? AND user = ?"
    rows = vault.rows(query, (tenant, user))
    vault.close()
    envelope, close = open_envelope(directory, place.name or directory.name, Settings(), readonly=True)
    found: list[bytes] = []
    for session_id, key_id, wrapped in rows:
        assert isinstance(session_id, bytes)
        assert isinstance(key_id, bytes)
        assert isinstance(wrapped, bytes)
        if session is None or parse_id(session) == session_id:
            key = envelope.opening_key(tenant, user, session_id, key_id)
            assert isinstance(key, SealingKey)
            found += [wrapped, key.secret(), base64.b64encode(key.secret()), key.secret().hex().encode()]
    close()
    return found


def found_in(directory: Path, needles: Iterable[bytes], *, but: Iterable[Path] = ()) -> set[str]:
    """The files that hold one of them anywhere: in any byte, or in what the bytes hold compressed.

    `but`: places that are left out.
    """
    wanted, left_out = list(needles), list(but)
    found = set()
    for path in directory.rglob("*"):
        if path.is_file() and not any(path.is_relative_to(place) for place in left_out):
            content = path.read_bytes().rstrip(b"\0")  # Kafka's indexes are megabytes of nothing
            told = b"\0".join([content, *_unpacked(path)])
            if any(needle in told for needle in wanted):
                found.add(str(path.relative_to(directory)))
    return found


def _unpacked(path: Path) -> Iterator[bytes]:
    """What it holds compressed: a segment of a Kafka topic, a DuckDB database, a Parquet file."""
    if path.suffix == ".log" and path.stem.isdecimal():
        batches = MemoryRecords(path.read_bytes())
        while batches.has_next():
            for record in batches.next_batch():
                yield from (record.key or b"", record.value or b"", repr(record.headers).encode())
    elif path.suffix == ".duckdb":
        with duckdb.connect(str(path), read_only=True) as database:
            for schema, table in database.execute("SELECT schema_name, table_name FROM duckdb_tables()").fetchall():
                for row in database.execute(f'SELECT * FROM "{schema}"."{table}"').fetchall():
                    yield from map(_bytes_of, row)
    elif path.suffix == ".parquet":
        for row in pq.ParquetFile(path).read().to_pylist():
            yield from map(_bytes_of, row.values())


def _bytes_of(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
