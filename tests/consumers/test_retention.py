"""Retention: what is due, by tenant and kind, and a sweep that can be stopped and repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from session_ledger.consumers.retention import due, sweep
from session_ledger.consumers.views import Views
from session_ledger.ledger.ledger import Ledger
from tests.cli.shell import Shell
from tests.ledger.support import Clock

DAY_S = 86_400
ASKED: dict[str, Any] = {"requested_by": "dpo", "reason": "request"}


class Kept:
    """A ledger whose clock is set, with its views."""

    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        self.ledger = Ledger.open(f"sqlite:{directory}", clock_us=self.clock)
        self.views = Views.over(self.ledger.log, self.ledger.envelope, directory=directory, clock=self.clock)

    def session(self, tenant: str = "t", user: str = "ada", *, end: bool = True, kind: str = "standard") -> str:
        session_id = self.ledger.create_session(tenant, user, kind=kind, title="x").session_id
        if end:
            self.ledger.end_session(tenant, user, session_id)
        return session_id

    def due(self, tenant: str | None = None) -> set[str]:
        self.views.refresh()
        return {one.session_id for one in due(self.views, self.clock(), tenant)}

    def sweep(self, **options: Any) -> tuple[int, int]:
        self.views.refresh()
        swept = sweep(self.ledger, self.views, self.clock(), **options)
        return swept.erased, swept.held

    def close(self) -> None:
        self.views.close()
        self.ledger.close()


@pytest.fixture
def kept(directory: Path) -> Any:
    """Closed at the end."""
    made = Kept(directory)
    yield made
    made.close()


def test_what_is_due_counts_from_the_end_by_kind_and_tenant(kept: Kept) -> None:
    """30 days, 7 of sensitive sessions, or what the tenant has set; a session that lives is never due."""
    standard, sensitive = kept.session(), kept.session(kind="sensitive")
    other = kept.session("u")
    kept.session(end=False)
    assert set() == kept.due()
    kept.clock.step(7 * DAY_S - 1)
    assert set() == kept.due()
    kept.clock.step(1)
    assert {sensitive} == kept.due()
    kept.ledger.set_retention("u", retention_s=7 * DAY_S, **ASKED)
    assert {sensitive, other} == kept.due()
    assert {other} == kept.due("u")
    kept.ledger.set_retention("u", retention_s=400 * DAY_S, **ASKED)
    kept.clock.step(23 * DAY_S)
    assert {standard, sensitive} == kept.due()


def test_a_sweep_erases_once_and_passes_over_what_is_held(kept: Kept) -> None:
    """A second one finds nothing; a hold is told, adds no fact, and when it is lifted the next sweep erases."""
    sessions = [kept.session(user=user) for user in ("ada", "bob", "cy")]
    kept.ledger.set_legal_hold("t", "bob", matter="case", **ASKED)
    kept.ledger.set_legal_hold("t", "cy", sessions[2], matter="case", **ASKED)
    kept.clock.step(31 * DAY_S)
    positions = kept.ledger.positions()
    assert (1, 2) == kept.sweep()
    assert [positions[0] + 1, *positions[1:]] == kept.ledger.positions()
    assert (0, 2) == kept.sweep()
    kept.ledger.lift_legal_hold("t", "bob", matter="case", **ASKED)
    assert (1, 1) == kept.sweep()
    kept.ledger.set_legal_hold("t", matter="all", **ASKED)
    kept.ledger.lift_legal_hold("t", "cy", sessions[2], matter="case", **ASKED)
    assert (0, 1) == kept.sweep()
    kept.views.refresh()


def test_a_hold_that_comes_between_is_kept(kept: Kept) -> None:
    """The shard decides: what the views did not know yet is refused all the same."""
    kept.session()
    kept.clock.step(31 * DAY_S)
    assert (0, 1) == kept.sweep(on_session=lambda one: kept.ledger.set_legal_hold("t", "ada", matter="m", **ASKED))


def test_a_sweep_that_stops_is_gone_on_with(kept: Kept) -> None:
    """Each is recorded by itself: the next sweep takes the rest, over more than one page."""
    for number in range(520):
        kept.session(user=f"user-{number}")
    kept.clock.step(31 * DAY_S)
    seen = 0

    def stop(_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept.sweep(on_session=stop)
    assert 421 == len(kept.due())
    assert (421, 0) == kept.sweep()
    assert set() == kept.due()


def test_the_commands(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dry run changes nothing; the sweep destroys the keys; holds are listed."""
    shell = Shell(directory)
    session = shell("sessions", "create", "-U", "ada", "-t", "t", "--json").json["session_id"]
    assert 0 == shell("sessions", "end", session, "-U", "ada", "-t", "t").code
    assert 0 == shell("retention", "set", "-t", "t", "--after", "1ms", "--reason", "a test").code
    assert "1 sessions would be erased" in shell("retention", "sweep", "--dry-run").out
    assert "no legal hold" in shell("hold", "list").out
    assert 0 == shell("hold", "set", "-t", "t", "-U", "ada", "--matter", "case", "--reason", "a test").code
    assert 2 == shell("hold", "set", "-t", "t", "--session", session, "--matter", "case", "--reason", "x").code
    (hold,) = shell("hold", "list", "--json").json["holds"]
    assert ("ada", None, "case") == (hold["user"], hold["session_id"], hold["matter"])
    assert (0, 1) == tuple(shell("retention", "sweep", "--json").json[name] for name in ("erased", "held"))
    ran = shell("erase", "session", session, "-U", "ada", "-t", "t", "--reason", "x")
    assert (1, True) == (ran.code, "legal hold (case)" in ran.err)
    assert 0 == shell("hold", "lift", "-t", "t", "-U", "ada", "--matter", "case", "--reason", "a test").code
    assert 1 == shell("hold", "lift", "-t", "t", "-U", "ada", "--matter", "case", "--reason", "a test").code
    assert (1, 0) == tuple(shell("retention", "sweep", "--json").json[name] for name in ("erased", "held"))
    (erased,) = shell("erase", "status", "--all", "--json").json["erasures"]
    assert ("retention", 1) == (erased["requested_by"], erased["keys_destroyed"])
    assert "erased (UTC)" in shell("sessions", "show", session, "-U", "ada", "-t", "t").out
