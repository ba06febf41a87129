"""Access tokens on every log: issued, rotated, presented, counted under a flood, and never written down."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from session_ledger import new_access_token
from session_ledger.domain.errors import AccessTokenExists, AuthenticationRefused, InvalidInput, LogUnavailable
from session_ledger.domain.events import (
    AlertRaised,
    AuthenticationFailed,
    AuthenticationSucceeded,
    Event,
    SessionCreated,
)
from session_ledger.ledger.ledger import Ledger
from session_ledger.ledger.log.port import PartitionLog, Record
from session_ledger.security.opening import open_text
from session_ledger.security.tokens import presented_digest, token_digest
from tests.ledger.support import Clock, assert_folds_equal_the_log, events, fresh_id, judged, shards_of, stored

WHO = ("t", "u")


@pytest.fixture
def clock() -> Clock:
    """The ledger's clock."""
    return Clock()


@pytest.fixture
def ledger(ledger_url: str, clock: Clock) -> Iterator[Ledger]:
    """An open ledger; afterwards its log is judged and its states are compared with it."""
    with Ledger.open(ledger_url, clock_us=clock, clock_skew_max_s=1e9) as ledger:
        yield ledger
        judged(stored(ledger))
        assert_folds_equal_the_log(ledger)


def failures(found: list[Event]) -> list[AuthenticationFailed]:
    """The facts that tell of failed attempts."""
    return [event for event in found if isinstance(event, AuthenticationFailed)]


def test_a_token_from_its_issue_to_its_replacement(ledger: Ledger, clock: Clock) -> None:
    """It opens its session, the one that replaced it does then, and what is refused is told with its sealed address."""
    session, first, second = ledger.create_session(*WHO).session_id, new_access_token(), new_access_token()
    issued = ledger.issue_access_token(*WHO, session, first, ttl_s=60)
    assert clock() + 60_000_000 == issued.expires_at
    with pytest.raises(AccessTokenExists):
        ledger.issue_access_token(*WHO, session, second)
    opened = ledger.authenticate(*WHO, session, first, ip_address="192.0.2.1")
    assert (*WHO, session, issued.expires_at) == (opened.tenant, opened.user, opened.session_id, opened.expires_at)
    assert issued.position == opened.position
    assert 3 == ledger.rotate_access_token(*WHO, session, second, grace_s=5).version
    ledger.authenticate(*WHO, session, first)
    clock.step(5)
    with pytest.raises(AuthenticationRefused) as refused:
        ledger.authenticate(*WHO, session, first, ip_address="192.0.2.7")
    assert "replaced" not in str(refused.value)
    (failed,) = failures(events(ledger))
    assert "replaced" == failed.reason
    assert "192.0.2.7" == open_text(shards_of(ledger).envelope, failed, "sealed_ip_address")
    ledger.authenticate(*WHO, session, second)
    (succeeded,) = [event for event in events(ledger) if isinstance(event, AuthenticationSucceeded)]
    assert 1 == succeeded.failed_attempts


def test_a_flood_is_told_by_few_facts_that_count_every_attempt(ledger: Ledger) -> None:
    """An alert with the third; what is counted by the end is told before the ledger closes or by the next second."""
    session = ledger.create_session(*WHO).session_id
    ledger.issue_access_token(*WHO, session, new_access_token())

    async def flood() -> list[object]:
        tries = [ledger.aio.authenticate(*WHO, session, "guess") for _ in range(200)]
        return list(await asyncio.gather(*tries, return_exceptions=True))

    outcomes = asyncio.run(flood())
    assert [AuthenticationRefused] * 200 == [type(outcome) for outcome in outcomes]
    (alert,) = [event for event in events(ledger) if isinstance(event, AlertRaised)]
    assert 3 == alert.value
    assert len(failures(events(ledger))) < 10


def test_who_guesses_users_or_sessions_leaves_nothing_behind(ledger: Ledger) -> None:
    """No fact, no key, and the same error as a wrong token's."""
    session = ledger.create_session(*WHO).session_id
    before = stored(ledger)
    for tenant, user, guessed in (("t", "u", fresh_id()), ("t", "stranger", session), ("other", "u", session)):
        with pytest.raises(AuthenticationRefused):
            ledger.authenticate(tenant, user, guessed, new_access_token(), ip_address="192.0.2.1")
    assert before == stored(ledger)
    assert shards_of(ledger).envelope.account_key("t", "stranger") is None


def test_only_what_new_access_token_makes_is_kept(ledger: Ledger) -> None:
    """A password, however long, is no token; what is presented may be anything that is a text."""
    session = ledger.create_session(*WHO).session_id
    for weak in ("", "password", "slt_short", new_access_token() + "x", new_access_token()[:-1] + "/", None):
        with pytest.raises(InvalidInput, match="token"):
            ledger.issue_access_token(*WHO, session, weak)  # type: ignore[arg-type]
    ledger.issue_access_token(*WHO, session, new_access_token())
    for presented in ("", "slt_", "\udcff", "x" * 100_000):
        with pytest.raises(AuthenticationRefused):
            ledger.authenticate(*WHO, session, presented)
    with pytest.raises(InvalidInput, match="token"):
        ledger.authenticate(*WHO, session, b"bytes")  # type: ignore[arg-type]


def test_tokens_are_fresh_and_hashed() -> None:
    """47 characters, never the same, of 256 random bits; the digest is the SHA-256 of the text."""
    made = {new_access_token() for _ in range(1000)}
    assert 1000 == len(made)
    assert {47} == set(map(len, made))
    assert token_digest(next(iter(made))) == presented_digest(next(iter(made)))


def test_the_token_stands_nowhere_and_works_after_opening_again(tmp_path: Path) -> None:
    """Not in the log, nor in the state file, nor the vault; a client's goes to the owner as its digest."""
    url, token = f"sqlite:{tmp_path / 'ledger'}", new_access_token()
    with Ledger.open(url) as owner, Ledger.open(url) as client:
        session = client.create_session(*WHO).session_id
        client.issue_access_token(*WHO, session, token)
        assert owner.is_owner
        assert not client.is_owner
        client.authenticate(*WHO, session, token)
    with Ledger.open(url) as again:
        again.authenticate(*WHO, session, token)
        with pytest.raises(AuthenticationRefused):
            again.authenticate(*WHO, session, new_access_token())
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert any(token_digest(token) in found for found in files)
    assert not any(token.encode() in found or token[4:].encode() in found for found in files)


def test_what_was_counted_is_told_when_the_ledger_closes(tmp_path: Path) -> None:
    """A second later, or on close: no attempt of a flood is forgotten."""
    url = f"sqlite:{tmp_path / 'ledger'}"
    with Ledger.open(url) as ledger:
        session = ledger.create_session(*WHO).session_id
        for _ in range(20):
            with pytest.raises(AuthenticationRefused):
                ledger.authenticate(*WHO, session, "guess")
    assert 20 == sum(event.attempts for event in failures(events(url)))


def test_what_was_counted_survives_an_append_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The states are dropped and folded again, with the second try; the count is carried over."""
    url = f"sqlite:{tmp_path / 'ledger'}"
    with Ledger.open(url) as ledger:
        session = ledger.create_session(*WHO).session_id
        for _ in range(10):
            with pytest.raises(AuthenticationRefused):
                ledger.authenticate(*WHO, session, "guess")
        log: PartitionLog = shards_of(ledger).log.partitions[0]
        real, failed = log.append, list[list[Record]]()

        def fail_once(records: list[Record]) -> None:
            if not failed:
                failed.append(records)
                raise LogUnavailable("as told by the test")
            real(records)

        read, unread = log.read, list[int]()

        def unreadable_once(after: int, limit: int) -> list[Record]:
            if failed and not unread:  # the states are dropped by then, and can not be folded again yet
                unread.append(after)
                raise LogUnavailable("as told by the test")
            return read(after, limit)

        monkeypatch.setattr(log, "append", fail_once)
        monkeypatch.setattr(log, "read", unreadable_once)
        for _ in range(4):  # until the states are there again
            with suppress(LogUnavailable):
                ledger.add_message(*WHO, session, role="user", content="hello")
    assert failed
    assert unread
    assert 10 == sum(event.attempts for event in failures(events(url)))
    assert 1 == sum(isinstance(event, SessionCreated) for event in events(url))
