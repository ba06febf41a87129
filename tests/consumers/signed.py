"""A real ledger in a directory whose log is signed, and ways to tamper with it behind its back."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from session_ledger.consumers.checked_log import check_log
from session_ledger.consumers.checkpointer import Checkpointer
from session_ledger.consumers.proofs import Prover
from session_ledger.consumers.verify_log import LogFindings
from session_ledger.ledger.ledger import Ledger
from session_ledger.ledger.open import open_codec, open_log, open_settings
from session_ledger.ledger.url import parse_url
from session_ledger.security.checkpoint import Checkpoint


class Row(NamedTuple):
    """A record of the SQLite log; the position is its place in the list."""

    originator_id: bytes
    version: int
    topic: int
    value: bytes
    batch_id: bytes


class Signed:
    """A ledger, its checkpoints and their mirror."""

    def __init__(self, directory: Path, url: str | None = None) -> None:
        self.directory = directory
        self.mirror = directory.with_name("mirror")
        self.url = url or f"sqlite:{directory}"
        self.sessions: list[str] = []

    def grow(self, messages: int, *, end: bool = False) -> str:
        """One more session with so many messages; its id."""
        with Ledger.open(self.url) as ledger:
            session: str = ledger.create_session("t", f"u{len(self.sessions)}", title="parcel").session_id
            for number in range(messages):
                ledger.add_message("t", f"u{len(self.sessions)}", session, role="user", content=f"message {number}")
            if end:
                ledger.end_session("t", f"u{len(self.sessions)}", session)
        self.sessions.append(session)
        return session

    def sign(self, *, mirror: bool = True) -> list[Checkpoint]:
        """What `checkpoint --once` does."""
        with Checkpointer(self.url, mirror=self.mirror if mirror else None) as checkpointer:
            checkpointer.catch_up()
            return checkpointer.sign_all()

    def grown_and_signed(self, *messages: int) -> Signed:
        """Several checkpoints, a session before each."""
        for count in messages:
            self.grow(count)
            self.sign()
        return self

    def check(self, *, mirror: bool = False, files: Iterable[Path] = (), key: str | None = None) -> LogFindings:
        """What `verify --log` does."""
        place, settings = parse_url(self.url), open_settings(None, {})
        log = open_log(place, settings, write=False)
        try:
            codec, close = open_codec(log, settings)
            try:
                chosen = self.mirror if mirror else None
                return check_log(log, codec, place, settings, mirror=chosen, files=list(files), key=key)
            finally:
                close()
        finally:
            log.close()

    def found(self, **options: Any) -> list[tuple[str, int | None, int | None]]:
        """(what, partition, position) of each finding."""
        return [(one.what, one.partition, one.position) for one in self.check(**options).findings]

    def prover(self) -> Prover:
        """What makes proofs."""
        return Prover(self.url)

    def copy(self, name: str) -> Signed:
        """A copy of the ledger as it is, with the same name and mirror, elsewhere."""
        return self.copied_to(self.directory.parent / name / self.directory.name)

    def copied_to(self, directory: Path) -> Signed:
        """A copy in that directory, without its mirror."""
        shutil.copytree(self.directory, directory, ignore=shutil.ignore_patterns("*.sock", "*.lock"))
        found = Signed(directory)
        found.sessions = [*self.sessions]
        return found

    def put_back(self, copy: Signed) -> None:
        """Restore the copy over the ledger: everything in its directory is as it was then."""
        shutil.rmtree(self.directory)
        shutil.copytree(copy.directory, self.directory)

    # --- tampering ----------------------------------------------------------------------------------------------------

    def rewrite(self, change: Callable[[list[Row]], list[Row]]) -> None:
        """Change the records of partition 0, with positions and appends as if they had always been so."""
        with closing(sqlite3.connect(self.directory / "log.db")) as db, db:
            rows = [
                Row(*row)
                for row in db.execute(
                    "SELECT originator_id, version, topic, value, (SELECT batch_id FROM batches WHERE first_position <="
                    " position ORDER BY first_position DESC LIMIT 1) FROM events ORDER BY position"
                )
            ]
            db.execute("DROP INDEX IF EXISTS events_by_version")
            db.execute("DELETE FROM events")
            db.execute("DELETE FROM batches")
            for position, row in enumerate(change(rows), 1):
                db.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?)", (position, *row[:4]))
                db.execute("INSERT INTO batches VALUES (?, 1, ?)", (position, row.batch_id))

    def sql(self, file: str, statement: str, *values: object) -> None:
        """A statement on one of the ledger's files."""
        with closing(sqlite3.connect(self.directory / file)) as db, db:
            db.execute(statement, values)
