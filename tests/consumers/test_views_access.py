"""Roles on the read side: foreign tenants are refused, content is withheld, a reveal is recorded before it opens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from session_ledger.consumers.revealing import reveal_session
from session_ledger.consumers.views import Views
from session_ledger.domain.errors import Forbidden, KeyUnavailable, SessionNotFound
from session_ledger.domain.events import ContentRevealed
from session_ledger.ledger.ledger import Ledger
from session_ledger.ledger.principals import system_user
from session_ledger.security.access import READS, ROLES, Principal
from session_ledger.security.port import Envelope
from tests.ledger.conftest import KAFKA, url_of
from tests.ledger.support import events

OWN, FOREIGN, SECRET = "acme", "zoo", "my account is 4711"


class Told(NamedTuple):
    """A ledger in which both tenants have a session with something of everything in it."""

    ledger: Ledger
    views: Views
    session: str
    foreign: str


def tell(ledger: Ledger, tenant: str) -> str:
    """A session with a title, context, address, messages and an error."""
    session = ledger.create_session(tenant, "u", title="About money", context={"a": SECRET}, ip_address="10.0.0.1")
    identifier = session.session_id
    ledger.add_message(tenant, "u", identifier, role="user", content=SECRET, metadata={"mood": SECRET})
    ledger.report_error(tenant, "u", identifier, component="llm", error_type="timeout", message=SECRET)
    ledger.report_authentication_failure(tenant, "u", method="password", reason="expired", ip_address="10.0.0.1")
    ledger.set_legal_hold(tenant, "u", matter="m", requested_by="b", reason="r")
    ledger.register_agent(tenant, "support")
    ledger.set_quota(tenant, "u", "tokens", 10)
    ledger.consume_quota(tenant, "u", "tokens", 1)
    return identifier


@pytest.fixture(params=["memory", KAFKA])
def told(request: pytest.FixtureRequest, tmp_path: Path, ledger_name: str) -> Iterator[Told]:
    """In memory, and on a real broker."""
    with Ledger.open(url_of(request, tmp_path, ledger_name)) as ledger:
        session, foreign = tell(ledger, OWN), tell(ledger, FOREIGN)
        with Views.over(ledger.log, ledger.envelope) as views:
            yield Told(ledger, views, session, foreign)


def reads(views: Views, tenant: str, session: str) -> dict[str, Callable[[], object]]:
    """Every read, of that tenant."""
    return {
        "session": lambda: views.session(tenant, "u", session),
        "sessions": lambda: views.sessions(tenant, "u"),
        "tenant_sessions": lambda: views.tenant_sessions(tenant),
        "has": lambda: views.has(tenant, "u", session),
        "count": lambda: views.count(tenant, "u"),
        "current": lambda: views.current(tenant, "u"),
        "history": lambda: views.history(tenant, "u", session),
        "errors": lambda: views.errors(tenant, "u", session),
        "authentication_failures": lambda: views.authentication_failures(tenant, "u"),
        "quotas": lambda: views.quotas(tenant, "u"),
        "user_quotas": lambda: views.user_quotas(tenant),
        "tenant_quotas": lambda: views.tenant_quotas(tenant),
        "limits": lambda: views.limits(tenant, "u"),
        "agents": lambda: views.agents(tenant),
        "legal_holds": lambda: views.legal_holds(tenant),
        "stats": lambda: views.stats(tenant),
    }


@pytest.mark.parametrize("role", ROLES)
def test_every_read_by_every_role(told: Told, role: str) -> None:
    """Of the own tenant it answers, of a foreign one it is refused; a session of another tenant is not found."""
    views = told.views.acting_as(Principal("ann", role, frozenset((OWN,))))
    own, foreign = reads(views, OWN, told.session), reads(views, FOREIGN, told.foreign)
    assert set(READS) == set(own)
    for name, read in own.items():
        assert read(), name
    for name, read in foreign.items():
        with pytest.raises(Forbidden, match=r"ann .* of tenant zoo"):
            read()
        assert reads(told.views.acting_as(Principal("ann", role)), FOREIGN, told.foreign)[name]()
    for over_all in (lambda: views.stats(), lambda: views.legal_holds()):
        with pytest.raises(Forbidden, match="of every tenant"):
            over_all()
    with pytest.raises(SessionNotFound):
        views.session(OWN, "u", told.foreign)


@pytest.mark.parametrize("role", ["auditor", "operator"])
def test_content_is_withheld_from_who_reads_structure(told: Told, role: str) -> None:
    """What was said is None, and says that a reveal shows it; what happened is there."""
    views = told.views.acting_as(Principal("ann", role, frozenset((OWN,))))
    session = views.session(OWN, "u", told.session)
    assert (None, None, None, {}) == (session.title, session.context, session.ip_address, session.metadata)
    assert (OWN, "live", 1, 1) == (session.tenant, session.status, session.messages, session.errors)
    message = views.history(OWN, "u", told.session)[0]
    assert (None, {}, "user", 1) == (message.content, message.metadata, message.role, message.number)
    failed = views.errors(OWN, "u", told.session)[0]
    assert (None, "llm", "timeout") == (failed.message, failed.component, failed.error_type)
    attempt = views.authentication_failures(OWN, "u")[0]
    assert (None, "password") == (attempt.ip_address, attempt.method)
    for view in (session, message, failed, attempt, *views.sessions(OWN, "u"), *views.tenant_sessions(OWN)):
        assert view.unreadable is not None
        assert view.unreadable.startswith("content_withheld: ")
        assert "reveal" in view.unreadable
    assert SECRET not in repr([read() for read in reads(views, OWN, told.session).values()])


@pytest.mark.parametrize("role", ["owner", "service"])
def test_content_is_there_for_who_serves(told: Told, role: str) -> None:
    """In the tenants of their own."""
    views = told.views.acting_as(Principal("ann", role, frozenset((OWN,))))
    assert SECRET == views.history(OWN, "u", told.session)[0].content
    assert ("About money", None) == (views.session(OWN, "u", told.session).title, None)


def test_views_that_act_for_somebody(told: Told) -> None:
    """They close nothing, and act for nobody else."""
    with told.views.acting_as(Principal("ann", "auditor")) as auditor:
        assert 2 == auditor.stats().sessions
        with pytest.raises(Forbidden):
            auditor.acting_as(Principal("ann", "owner"))
    operator = Principal("ann", "operator", frozenset((OWN,)))
    with Views.over(told.ledger.log, told.ledger.envelope, principal=operator) as views:
        assert (1, None) == (views.count(OWN, "u"), views.session(OWN, "u", told.session).title)
    assert 2 == told.views.stats().sessions == auditor.stats().sessions


def test_an_auditor_needs_no_keys(sqlite_url: str, directory: Path) -> None:
    """Views for who reads structure open without a keyring; who may read content is told what is missing."""
    with Ledger.open(sqlite_url) as ledger:
        session = tell(ledger, OWN)
    (directory / "keyring.json").unlink()
    me = {system_user(): {"role": "auditor", "tenants": [OWN]}}
    for views in (Views.open(sqlite_url, principals=me), Views.open(sqlite_url, principal=Principal("a", "operator"))):
        with views:
            assert [None] == [message.content for message in views.history(OWN, "u", session)]
    with pytest.raises(Forbidden), Views.open(sqlite_url, principals=me) as views:
        views.count(FOREIGN, "u")
    with pytest.raises(Forbidden, match="is no principal"):
        Views.open(sqlite_url, principals={"somebody-else": {"role": "owner", "tenants": ["*"]}})
    with Views.open(sqlite_url, principal=Principal("s", "service")) as views:
        (message,) = views.history(OWN, "u", session)
        assert message.unreadable is not None
        assert message.unreadable.startswith("key_unavailable: ")
        assert "keyring" in message.unreadable


def reveal(told: Told, principal: Principal, tenant: str = OWN, by: str = "ann") -> tuple[str | None, list[int]]:
    """(what the message says, how many reveals the log held when the keys were asked for)."""
    recorded: list[int] = []

    def opened() -> Envelope:
        recorded.append(sum(isinstance(event, ContentRevealed) for event in events(told.ledger)))
        return told.ledger.envelope

    session = told.session if tenant == OWN else told.foreign
    ledger, views = told.ledger.acting_as(principal), told.views.acting_as(principal)
    found = reveal_session(views, ledger, opened, tenant, "u", session, revealed_by=by, reason="a complaint")
    assert found.messages[0].unreadable is None
    assert ("About money", SECRET) == (found.session.title, found.errors[0].message)
    return found.messages[0].content, recorded


def test_a_reveal_is_recorded_before_anything_is_opened(told: Told) -> None:
    """One fact that says who, why and how many fields, and then the content."""
    assert (SECRET, [1]) == reveal(told, Principal("ann", "auditor", frozenset((OWN,))))
    revealed = [event for event in events(told.ledger) if isinstance(event, ContentRevealed)]
    assert [(OWN, "u", "ann", "a complaint", 6)] == [
        (one.tenant, one.user, one.revealed_by, one.reason, one.fields) for one in revealed
    ]


@pytest.mark.parametrize(
    ("role", "tenant", "by"),
    [
        ("operator", OWN, "ann"),
        ("service", OWN, "ann"),
        ("auditor", FOREIGN, "ann"),
        ("auditor", OWN, "somebody-else"),
    ],
)
def test_a_reveal_that_is_refused_opens_and_records_nothing(told: Told, role: str, tenant: str, by: str) -> None:
    """Whoever may not reveal, in a foreign tenant, or under another's name."""
    before = len(events(told.ledger))
    with pytest.raises(Forbidden):
        reveal(told, Principal("ann", role, frozenset((OWN,))), tenant, by)
    assert before == len(events(told.ledger))


def test_who_reads_structure_alone_is_told_pseudonyms(tmp_path: Path) -> None:
    """In every record, lent views or opened ones; a user's id is refused, for no key is there to make its pseudonym."""
    url = f"sqlite:{tmp_path / 'ledger'}"
    auditor = Principal("ann", "auditor", frozenset({OWN}))
    with Ledger.open(url, pseudonyms=True) as ledger:
        session = tell(ledger, OWN)
    with Views.open(url) as views:
        (recorded,) = {row.user for row in views.acting_as(auditor).tenant_sessions(OWN).items}
        assert recorded == views.recorded_as(OWN, "u")
        assert "u" == views.session(OWN, "u", session).user
    (tmp_path / "ledger" / "keyring.json").unlink()
    with Views.open(url, principal=auditor) as views:
        for name, read in reads(views, OWN, session).items():
            if name in ("tenant_sessions", "user_quotas", "tenant_quotas", "agents", "legal_holds", "stats"):
                assert "user='u'" not in repr(read())
            else:
                with pytest.raises(KeyUnavailable, match="reads structure alone"):
                    read()
        assert recorded == views.session(OWN, recorded, session).user
        assert views.history(OWN, recorded, session)[0].content is None
