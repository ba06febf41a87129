"""Decoding and folding what a log holds, beside bare fastavro; and what a message costs on disk."""

from __future__ import annotations

import io
import json
import sqlite3
import tempfile
import time
from pathlib import Path

import fastavro

from bench.report import Line
from bench.writes import CONTENT, import_sessions, in_turns
from session_ledger.domain.account import Account, evolve_account
from session_ledger.domain.commands import ImportedMessage
from session_ledger.ledger.ledger import Ledger
from session_ledger.schemas.codec import SINGLE_OBJECT_HEADER, Codec

SESSIONS_A_USER = 5


def _filled(directory: str, sessions: int, a_session: int = 10) -> None:
    """Imported sessions of messages with everything that a chat usually has."""
    history = tuple(
        ImportedMessage(
            "user" if n % 2 else "assistant", CONTENT, model="m-large", tokens_in=60, tokens_out=45, latency_ms=800,
            occurred_at=1_700_000_000_000_000 + n * 1_000_000,
        )
        for n in range(a_session)
    )  # fmt: skip
    with Ledger.open(f"sqlite:{directory}") as ledger:
        import_sessions(ledger, sessions, history, max(sessions // SESSIONS_A_USER, 1))


def decode_and_fold(sessions: int) -> Line:
    """Events a second from stored bytes to folded accounts, beside bare fastavro with the schemas as written."""
    with tempfile.TemporaryDirectory() as directory:
        _filled(directory, sessions)
        connection = sqlite3.connect(Path(directory) / "log.db")
        values = [bytes(value) for (value,) in connection.execute("SELECT value FROM events ORDER BY position")]
        connection.close()
    codec = Codec()
    written = {s.fingerprint: fastavro.parse_schema(json.loads(s.text)) for s in codec.library}

    def bare() -> float:
        started = time.perf_counter()
        for value in values:
            stream = io.BytesIO(value)
            stream.seek(SINGLE_OBJECT_HEADER)
            fastavro.schemaless_reader(stream, written[value[2:SINGLE_OBJECT_HEADER]], None)
        return len(values) / (time.perf_counter() - started)

    def ours() -> float:
        accounts: dict[tuple[str, str], Account] = {}
        started = time.perf_counter()
        for position, value in enumerate(values, start=1):
            event = codec.decode(value)
            key = event.tenant, event.user
            account = accounts.get(key)
            if account is None:
                account = accounts[key] = Account(tenant=event.tenant, user=event.user)
            evolve_account(account, event, position)
        return len(values) / (time.perf_counter() - started)

    figure, floor = in_turns(ours, bare)
    return Line(
        "decode and fold", figure, "events/s", "bare fastavro decoding the same bytes, schema as written", floor,
        ">= 1.0", figure >= floor,
    )  # fmt: skip


def disk(sessions: int) -> tuple[Line, str]:
    """Bytes of the log's file a 200-character message in bulk, and what each part of it costs."""
    a_session = 10
    with tempfile.TemporaryDirectory() as directory:
        _filled(directory, sessions, a_session)
        path = Path(directory) / "log.db"
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        total = path.stat().st_size
        rows = connection.execute("SELECT count(*), sum(length(value)) FROM events").fetchone()
        topic = "session_ledger.events.MessageAdded"
        (message,) = connection.execute(
            "SELECT avg(length(value)) FROM events WHERE topic = (SELECT id FROM topics WHERE name = ?)", (topic,)
        ).fetchone()
        connection.close()
    a_message = total / (sessions * a_session)
    a_row = total / rows[0]
    parts = (
        f"a message's value {message:.0f} B (ciphertext 229 of them: 200 text, 1 format, 12 nonce, 16 tag), "
        f"row, index and page overhead {a_row - rows[1] / rows[0]:.0f} B an event, "
        f"and {a_message - a_row:.0f} B its share of the session's other events at {a_session} messages a session"
    )
    figure = message + a_row - rows[1] / rows[0]
    return Line(
        "disk a 200-character message, in bulk, SQLite", figure, "bytes", wanted="< 500", holds=figure < 500
    ), parts
