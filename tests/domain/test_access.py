"""Access tokens and attempts to authenticate: what opens a session, what is recorded, and when an alert is raised."""

from __future__ import annotations

import hashlib
from decimal import Decimal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from session_ledger.domain import commands as c
from session_ledger.domain.attempts import ROW_US
from session_ledger.domain.errors import (
    AccessTokenExists,
    AuthenticationRefused,
    InvalidInput,
    NoAccessToken,
    SessionNotActive,
    SessionNotFound,
)
from session_ledger.domain.events import (
    AccessTokenIssued,
    AccessTokenRotated,
    AlertRaised,
    AuthenticationFailed,
    AuthenticationSucceeded,
    SessionExpired,
)
from session_ledger.domain.results import AccessTokenSet, Authenticated
from tests.domain.world import DAY, KEY_ID, MINUTE, SECOND, START, TENANT, USER, Outcome, World

A, B, C = (hashlib.sha256(text).digest() for text in (b"a", b"b", b"c"))


def issue(world: World, session_id: bytes, digest: bytes = A, ttl_ms: int | None = None, user: str = USER) -> Outcome:
    """IssueAccessToken."""
    command = c.IssueAccessToken(tenant=TENANT, user=user, session_id=session_id, token_digest=digest, ttl_ms=ttl_ms)
    return world.run(command)


def rotate(world: World, session_id: bytes, digest: bytes = B, grace_ms: int = 0) -> Outcome:
    """RotateAccessToken."""
    command = c.RotateAccessToken(
        tenant=TENANT, user=USER, session_id=session_id, token_digest=digest, grace_ms=grace_ms
    )
    return world.run(command)


def present(
    world: World, session_id: bytes, digest: bytes = A, user: str = USER, ip_address: str | None = None
) -> Outcome:
    """Authenticate."""
    command = c.Authenticate(
        tenant=TENANT, user=user, session_id=session_id, token_digest=digest, ip_address=ip_address
    )
    return world.run(command)


def why(outcome: Outcome) -> str | None:
    """The recorded reason of a refusal; None: no fact of it."""
    assert isinstance(outcome.error, AuthenticationRefused)
    assert outcome.result is None
    reasons = [event.reason for event in outcome.events if isinstance(event, AuthenticationFailed)]
    return reasons[0] if reasons else None


def test_a_token_opens_its_session_and_nothing_else_does() -> None:
    """Until it expires; another user's session, another token and a session without one stay closed."""
    world = World()
    session_id, without, of_bob = world.create(), world.create(), world.create(user="bob")
    issued = issue(world, session_id, ttl_ms=60_000).ok()
    assert isinstance(issued, AccessTokenSet)
    assert (2, START + MINUTE) == (issued.version, issued.expires_at)
    issue(world, of_bob, B, user="bob").ok()
    opened = present(world, session_id)
    assert [] == opened.events
    assert isinstance(opened.result, Authenticated)
    assert (TENANT, USER, START + MINUTE) == (opened.result.tenant, opened.result.user, opened.result.expires_at)
    assert "bad_credential" == why(present(world, session_id, B))
    assert "no_token" == why(present(world, without, A))
    assert why(present(world, of_bob, B)) is None
    assert "bad_credential" == why(present(world, of_bob, A, user="bob"))
    world.now = START + MINUTE - 1
    present(world, session_id).ok()
    world.now += 1
    assert "expired" == why(present(world, session_id))


def test_a_token_never_outlives_its_session() -> None:
    """It expires with the session at the latest, and opens nothing that has ended, timed out or was never there."""
    world = World()
    session_id, ended = world.create(), world.create()
    issued = issue(world, session_id, ttl_ms=400 * DAY // 1000).ok()
    assert isinstance(issued, AccessTokenSet)
    assert START + 30 * DAY == issued.expires_at
    issue(world, ended).ok()
    world.run(c.EndSession(tenant=TENANT, user=USER, session_id=ended)).ok()
    assert "session_over" == why(present(world, ended))
    assert why(present(world, b"?" * 16)) is None
    world.now += 31 * MINUTE
    outcome = present(world, session_id)
    assert "session_over" == why(outcome)
    assert [SessionExpired, AuthenticationFailed] == [type(event) for event in outcome.events]
    assert isinstance(issue(world, session_id).error, SessionNotActive)
    assert isinstance(issue(world, b"?" * 16).error, SessionNotFound)


def test_authenticating_is_no_activity() -> None:
    """A session idles out although its token is presented all the time."""
    world = World()
    session_id = world.create()
    issue(world, session_id).ok()
    for _ in range(3):
        world.now += 9 * MINUTE
        present(world, session_id).ok()
    world.now = START + 30 * MINUTE
    assert "session_over" == why(present(world, session_id))


def test_a_second_token_is_refused_unless_the_first_is_over() -> None:
    """AccessTokenExists; NoAccessToken where there is none to rotate."""
    world = World()
    session_id = world.create()
    assert isinstance(rotate(world, session_id).error, NoAccessToken)
    issue(world, session_id, ttl_ms=60_000).ok()
    assert isinstance(issue(world, session_id, B).error, AccessTokenExists)
    world.now += MINUTE
    (event,) = issue(world, session_id, B).events
    assert isinstance(event, AccessTokenIssued)
    present(world, session_id, B).ok()


def test_a_rotated_token_opens_until_its_grace_is_over() -> None:
    """At once with none; never longer than it did anyway; a replay of it later is told as such."""
    world = World()
    session_id = world.create()
    issue(world, session_id, ttl_ms=10_000).ok()
    (event,) = rotate(world, session_id, B, grace_ms=60_000).events
    assert isinstance(event, AccessTokenRotated)
    assert (A, B, START + 10 * SECOND) == (event.replaced_digest, event.token_digest, event.replaced_until)
    world.now += 10 * SECOND - 1
    present(world, session_id, A).ok()
    world.now += 1
    assert "replaced" == why(present(world, session_id, A))
    present(world, session_id, B).ok()
    rotate(world, session_id, C).ok()
    assert "replaced" == why(present(world, session_id, B))
    assert "bad_credential" == why(present(world, session_id, A))
    assert isinstance(rotate(world, session_id, C).error, InvalidInput)
    present(world, session_id, C).ok()


def test_a_repeated_issue_answers_the_same() -> None:
    """With the same command id and token."""
    world = World()
    session_id = world.create()
    command_id = world.ids.at(world.now)
    command = c.IssueAccessToken(tenant=TENANT, user=USER, session_id=session_id, token_digest=A, command_id=command_id)
    first = world.run(command).ok()
    again = world.run(command)
    assert [] == again.events
    assert isinstance(first, AccessTokenSet)
    assert isinstance(again.result, AccessTokenSet)
    assert (first.version, first.expires_at) == (again.result.version, again.result.expires_at)


@pytest.mark.parametrize("digest", [b"", b"x" * 31, b"x" * 33, "x" * 32, None])
def test_what_is_no_digest_is_refused(digest: object) -> None:
    """Of whatever type or length."""
    world = World()
    session_id = world.create()
    with pytest.raises(InvalidInput, match="token_digest"):
        issue(world, session_id, digest)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="grace_ms"):
        rotate(world, session_id, B, grace_ms=3_600_001)


def test_the_third_failure_in_a_row_within_ten_minutes_raises_an_alert() -> None:
    """With the third; one more every ten minutes of a row; none for failures that a success parts, or far apart."""
    world = World()
    session_id = world.create()
    issue(world, session_id).ok()

    def fail(after: int) -> list[AlertRaised]:
        world.now += after
        return [event for event in present(world, session_id, B).events if isinstance(event, AlertRaised)]

    assert [] == fail(0) + fail(SECOND)
    (succeeded,) = present(world, session_id).events
    assert isinstance(succeeded, AuthenticationSucceeded)
    assert 2 == succeeded.failed_attempts
    assert [] == present(world, session_id).events
    assert [] == fail(SECOND) + fail(8 * MINUTE) + fail(8 * MINUTE)
    (alert,) = fail(MINUTE)
    assert ("authentication_failures", "warning", session_id) == (alert.kind, alert.severity, alert.session_id)
    assert (Decimal(4), Decimal(3)) == (alert.value, alert.threshold)
    world.say(session_id).ok()
    assert [] == fail(5 * MINUTE) + fail(5 * MINUTE - 1)
    (again,) = fail(1)
    assert 7 == again.value


def test_a_flood_of_failures_is_one_fact_a_second() -> None:
    """Once it has its alert: the first three are told one by one, the others counted; the last one's address stays."""
    world = World()
    session_id = world.create()
    issue(world, session_id).ok()
    told: list[tuple[int, int]] = []
    for number in range(25):
        for event in present(world, session_id, B, ip_address=f"192.0.2.{number}").events:
            if isinstance(event, AuthenticationFailed):
                told.append((event.recorded_at - START, event.attempts))
                assert repr(f"192.0.2.{number}").encode() == event.sealed_ip_address
                assert KEY_ID == event.key_id
        world.now += 100_000
    assert [(0, 1), (100_000, 1), (200_000, 1), (1_200_000, 10), (2_200_000, 10)] == told
    command = c.RecordRefusals(tenant=TENANT, user=USER)
    world.now = START + 3_200_000 - 1
    assert [] == world.run(command).events
    world.now += 1
    (last,) = world.run(command).events
    assert isinstance(last, AuthenticationFailed)
    assert (2, repr("192.0.2.24").encode()) == (last.attempts, last.sealed_ip_address)
    assert not world.account().has_uncounted_refusals


def test_what_was_counted_tells_no_address_after_an_erasure() -> None:
    """It was sealed by the key that the erasure destroys, so it is dropped; the count stays."""
    world = World()
    session_id = world.create()
    for _ in range(5):
        present(world, session_id, ip_address="192.0.2.1")
    assert world.account().has_uncounted_refusals
    world.run(c.EraseUser(tenant=TENANT, user=USER, requested_by="dpo", reason="asked")).ok()
    world.now += 2 * SECOND
    (told,) = world.run(c.RecordRefusals(tenant=TENANT, user=USER)).events
    assert isinstance(told, AuthenticationFailed)
    assert (2, None, None) == (told.attempts, told.key_id, told.sealed_ip_address)


def test_what_authenticators_report_is_told_each_and_counts_in_the_row() -> None:
    """ReportAuthenticationFailure and ...Success, beside the ledger's own tokens."""
    world = World()
    session_id = world.create()
    issue(world, session_id).ok()
    failure = c.ReportAuthenticationFailure(tenant=TENANT, user=USER, method="password", reason="bad_credential")
    success = c.ReportAuthenticationSuccess(tenant=TENANT, user=USER, method="password")
    assert [] == world.run(success).events
    kinds = [type(event) for _ in range(2) for event in world.run(failure).events]
    kinds += [type(event) for event in present(world, session_id, B).events]
    assert [*[AuthenticationFailed] * 3, AlertRaised] == kinds
    assert [] == present(world, session_id, B).events
    (told,) = world.run(failure).events
    assert isinstance(told, AuthenticationFailed)
    assert 2 == told.attempts
    (succeeded,) = world.run(success).events
    assert isinstance(succeeded, AuthenticationSucceeded)
    assert ("password", 5) == (succeeded.method, succeeded.failed_attempts)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 1, 100_000, SECOND - 1, SECOND, MINUTE, 3 * MINUTE, 10 * MINUTE - 1, 10 * MINUTE]),
            st.sampled_from(["good", "bad", "bad", "bad"]),
        ),
        max_size=40,
    )
)
@example([*[(0, "bad")] * 4, (10 * MINUTE - 1, "bad"), (0, "bad"), (SECOND, "bad")])  # told by what is told late
@example([*[(0, "bad")] * 4, (10 * MINUTE - 1, "bad"), (0, "bad"), (1, "good")])  # and by what ends the row
def test_nothing_is_lost_or_told_twice_and_alerts_come_in_time(steps: list[tuple[int, str]]) -> None:
    """Of any sequence of attempts: the facts' counts, the alerts, and the same states when folded anew."""
    world, failures = World(), 0
    session_id = world.create()
    issue(world, session_id).ok()
    row: list[int] = []  # of failures: when each was
    alerts: list[int] = []
    for pause, step in steps:
        later, failed, before = world.now + pause, world.account().failed, len(world.events)
        if failed is not None and failed.uncounted is not None and later >= failed.times[-1] + SECOND:
            world.now = failed.times[-1] + SECOND  # as the shard does when it is time
            world.run(c.RecordRefusals(tenant=TENANT, user=USER)).ok()
        world.now = later
        if session_id not in world.account().sessions or world.account().sessions[session_id].is_due(world.now):
            world.say(session_id)
            session_id = world.create()
            issue(world, session_id).ok()
        present(world, session_id, A if step == "good" else B)
        if step == "bad":
            failures += 1
            row.append(world.now)
            told_at = [e.recorded_at for e in world.events if isinstance(e, AuthenticationFailed)]
            assert world.now - told_at[-1] < SECOND  # a failure is told within a second of another, or at once
        for alert in (event for event in world.events[before:] if isinstance(event, AlertRaised)):  # of this row, still
            alerts.append(alert.recorded_at)
            # what was counted stands in the row when it was told, up to a second later
            assert sum(alert.recorded_at - time < ROW_US + SECOND for time in row if time <= alert.recorded_at) >= 3
        if step == "good":
            row = []
        recent = [time for time in row if world.now - time < ROW_US]
        if len(recent) >= 3 and step == "bad":
            since = [time for time in alerts if world.now - time < ROW_US]
            assert since  # the third within ten minutes never passes without an alert in that time
    facts = [event for event in world.events if isinstance(event, AuthenticationFailed)]
    failed = world.account().failed
    uncounted = 0 if failed is None or failed.uncounted is None else failed.uncounted.attempts
    assert failures == sum(event.attempts for event in facts) + uncounted
    assert world.dump() == world.folded_anew().dump()
