"""What people say and are is in no file of the ledger, and a lost key is told before anything is written."""

from __future__ import annotations

import base64
import hashlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from session_ledger.domain.commands import ImportedMessage, ImportSession
from session_ledger.domain.errors import KeyUnavailable, Misconfigured, SessionLedgerError
from session_ledger.domain.events import MessageAdded, SessionCreated, SessionUpdated
from session_ledger.domain.ids import derived_session_id, slot_of_user
from session_ledger.ledger.ledger import Ledger
from tests.ledger.support import events, shards_of, stored

MARK = "marked-plaintext"


def _marked(what: str) -> str:
    """A text that compression and encodings would leave recognisable."""
    return f"{MARK}-{what}-" + hashlib.sha256(what.encode()).hexdigest()


def _say_everything(ledger: Ledger) -> None:
    """Every field that holds what somebody said or is, through every command that has one."""
    metadata = {"open": "allow-listed", "closed": _marked("metadata")}
    session = ledger.create_session(
        "t",
        "u",
        title=_marked("title"),
        context={"said": _marked("context")},
        metadata=metadata,
        ip_address=_marked("ip"),
    ).session_id
    ledger.update_session(
        "t", "u", session, title=_marked("title 2"), context=_marked("context 2"), metadata={**metadata, "more": MARK}
    )
    ledger.add_message(
        "t",
        "u",
        session,
        role="user",
        content=_marked("content"),
        parts=[{"text": _marked("parts")}],
        audio_url=_marked("audio"),
        metadata=metadata,
    )
    ledger.report_error("t", "u", session, component="c", error_type="e", message=_marked("error"))
    ledger.end_session("t", "u", session, note=_marked("note"))
    ledger.report_authentication_failure("t", "u", method="m", reason="r", ip_address=_marked("ip 2"))
    ledger.import_session(
        ImportSession(
            tenant="t",
            user="u",
            session_id=derived_session_id(_marked("source"), 1_700_000_000_000_000, slot_of_user("t", "u")),
            messages=(ImportedMessage("user", _marked("imported"), [_marked("part")], metadata=metadata),),
            title=_marked("imported title"),
            context={"a": _marked("imported context")},
            metadata=metadata,
            source=_marked("source"),
        )
    )
    with pytest.raises(SessionLedgerError):
        ledger.add_message("t", "u", session, role="user", content=_marked("refused"))


def _contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def _found(contents: dict[str, bytes], text: str) -> list[str]:
    forms = [
        text.encode(),
        text.encode("utf-16-le"),
        base64.b64encode(text.encode())[:-4],
        text.encode().hex().encode(),
    ]
    return [name for name, content in contents.items() if any(form in content for form in forms)]


def test_no_marked_text_is_in_any_file(sqlite_url: str, directory: Path) -> None:
    """Log, write-ahead logs, states, vault, keyring: open, closed, and as a crash would leave them."""
    with Ledger.open(sqlite_url, metadata_allow=("open",), checkpoint_events=1) as ledger:
        _say_everything(ledger)
        running = _contents(directory)
    closed = _contents(directory)
    assert {"log.db", "log.db-wal", "state-0.db-wal", "vault.db-wal"} <= running.keys()
    for contents in (running, closed):
        assert [] == _found(contents, MARK)
        assert any(b"allow-listed" in content for content in contents.values())


@pytest.mark.kafka
def test_no_marked_text_is_in_what_kafka_holds(kafka: str, ledger_name: str, directory: Path) -> None:
    """Neither in the records' values, nor in the replica's files."""
    url = f"kafka://{kafka}/{ledger_name}?partitions=1&replica={directory}"
    with Ledger.open(url, metadata_allow=("open",)) as ledger:
        _say_everything(ledger)
        records = b"".join(one.record.value + one.record.key.encode() for one in stored(ledger))
    assert MARK.encode() not in records
    assert b"allow-listed" in records
    assert [] == _found(_contents(directory), MARK)


def test_what_is_found_without_sealing_shows_that_the_search_finds(sqlite_url: str, directory: Path) -> None:
    """`encryption="none"`, which must be asked for: the same texts stand in the log."""
    with Ledger.open(sqlite_url, encryption="none", metadata_allow=("open",)) as ledger:
        _say_everything(ledger)
    contents = _contents(directory)
    for what in (
        "title",
        "context",
        "metadata",
        "ip",
        "content",
        "parts",
        "audio",
        "error",
        "note",
        "imported",
        "ip 2",
    ):
        assert ["log.db"] == _found(contents, _marked(what)), what
    assert not (directory / "keyring.json").exists()


def test_allow_listed_metadata_is_readable_and_the_rest_is_sealed(sqlite_url: str) -> None:
    """In each event that carries metadata."""
    with Ledger.open(sqlite_url, metadata_allow=("open",)) as ledger:
        _say_everything(ledger)
        carrying = [one for one in events(ledger) if isinstance(one, SessionCreated | SessionUpdated | MessageAdded)]
        assert 5 == len(carrying)
        assert [{"open": "allow-listed"}] * 5 == [one.metadata for one in carrying]
        assert all(one.sealed_metadata is not None for one in carrying)


def test_what_was_sealed_opens_to_what_was_said(sqlite_url: str) -> None:
    """By the session's key, in its own place only."""
    with Ledger.open(sqlite_url) as ledger:
        _say_everything(ledger)
        envelope = shards_of(ledger).envelope
        message = next(event for event in events(ledger) if isinstance(event, MessageAdded))
        key = envelope.opening_key("t", "u", message.session_id, message.key_id)
        assert key is not None
        topic = "session_ledger.events.MessageAdded"
        assert _marked("content").encode() == key.open(
            message.event_id, topic, "sealed_content", message.sealed_content
        )
        with pytest.raises(SessionLedgerError):
            key.open(message.event_id, topic, "sealed_parts", message.sealed_content)


def test_digests_of_commands_are_keyed(tmp_path: Path) -> None:
    """The same command in another ledger, user or session leaves another digest: no guessing from a hash."""
    digests: list[bytes | None] = []
    for name in ("a", "b"):
        with Ledger.open(f"sqlite:{tmp_path / name}", name="same") as ledger:
            for user in ("u1", "u2"):
                for _ in range(2):
                    session = ledger.create_session("t", user).session_id
                    ledger.add_message("t", user, session, role="user", content="yes")
            digests += [event.command_digest for event in events(ledger) if isinstance(event, MessageAdded)]
    assert 8 == len(set(digests))
    plain = [hash_(b"yes").digest() for hash_ in (hashlib.sha256, hashlib.md5, hashlib.blake2b)]
    assert not {digest[:16] for digest in plain} & set(digests)


def _lose_keyring(directory: Path) -> None:
    (directory / "keyring.json").unlink()


def _another_keyring(directory: Path) -> None:
    other = directory.parent / "other"
    with Ledger.open(f"sqlite:{other}"):
        shutil.copy(other / "keyring.json", directory / "keyring.json")


def _spoil_keyring(directory: Path) -> None:
    (directory / "keyring.json").write_text("{}")


def _open_keyring_to_others(directory: Path) -> None:
    (directory / "keyring.json").chmod(0o644)


@pytest.mark.parametrize("lose", [_lose_keyring, _another_keyring, _spoil_keyring, _open_keyring_to_others])
def test_a_keyring_that_is_not_there_stops_before_anything_is_written(
    sqlite_url: str, directory: Path, lose: Callable[[Path], None]
) -> None:
    """Lost, another ledger's, damaged or open to others: the log stays as it was, no new keyring is made."""
    with Ledger.open(sqlite_url) as ledger:
        session = ledger.create_session("t", "u", title="x").session_id
    lose(directory)
    keyring = directory / "keyring.json"
    before = keyring.read_bytes() if keyring.exists() else None
    with pytest.raises((Misconfigured, KeyUnavailable)), Ledger.open(sqlite_url) as ledger:
        ledger.add_message("t", "u", session, role="user", content="hi")
    assert 1 == len(events(sqlite_url))
    assert before == (keyring.read_bytes() if keyring.exists() else None)


def test_a_session_whose_key_is_lost_takes_no_more(sqlite_url: str, directory: Path) -> None:
    """Without its key a live session's messages are refused with KeyUnavailable; new sessions go on."""
    with Ledger.open(sqlite_url) as ledger:
        session = ledger.create_session("t", "u").session_id
    with sqlite3.connect(directory / "vault.db") as vault:
        vault.execute("DELETE FROM keys")
    vault.close()
    with Ledger.open(sqlite_url) as ledger:
        with pytest.raises(KeyUnavailable):
            ledger.add_message("t", "u", session, role="user", content="hi")
        assert 1 == len(events(ledger))
        ledger.add_message("t", "u", ledger.create_session("t", "u").session_id, role="user", content="hi")


def test_sealing_can_not_be_turned_off(sqlite_url: str, directory: Path) -> None:
    """A ledger that began sealed takes nothing in plaintext."""
    with Ledger.open(sqlite_url) as ledger:
        ledger.create_session("t", "u")
    with pytest.raises(Misconfigured, match="plaintext"):
        Ledger.open(sqlite_url, encryption="none")
    (directory / "vault.db").unlink()  # also where what would tell is lost
    with pytest.raises(Misconfigured, match="plaintext"):
        Ledger.open(sqlite_url, encryption="none")
    assert [] == _found(_contents(directory), MARK)


def test_a_client_needs_no_key(sqlite_url: str, directory: Path) -> None:
    """The owner seals for it; it never opens the keyring."""
    with Ledger.open(sqlite_url), Ledger.open(sqlite_url) as client:
        (directory / "keyring.json").rename(directory / "hidden")
        client.create_session("t", "u", title=_marked("title"))
        assert [] == _found(_contents(directory), MARK)
        (directory / "hidden").rename(directory / "keyring.json")
