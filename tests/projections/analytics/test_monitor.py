"""Health of live sessions, by the rule, and alerts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from session_ledger.consumers.analytics import Analytics, open_snapshot
from session_ledger.ledger.ledger import Ledger
from session_ledger.projections.analytics.monitor import Limits, Monitored, read_monitor
from tests.cli.shell import Shell


def monitored(directory: Path, later: timedelta = timedelta(0), **limits: float) -> Monitored:
    """What the monitor sees, that much later."""
    with Analytics(f"sqlite:{directory}") as analytics:
        analytics.catch_up()
        analytics.publish()
    with open_snapshot(f"sqlite:{directory}") as snapshot:
        return read_monitor(snapshot.connection, datetime.now(UTC) + later, limits=Limits(**limits))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("errors", "latency_ms", "later_h", "health"),
    [(0, 100, 0, 100), (1, 100, 0, 100), (2, 100, 0, 70), (0, 5001, 0, 80), (0, 5000, 25, 90), (3, 9000, 25, 40)],
)
def test_health_is_100_less_what_is_over(
    directory: Path, errors: int, latency_ms: int, later_h: int, health: int
) -> None:
    """30 for the error rate, 20 for the latency, 10 for the age; at the limit nothing."""
    with Ledger.open(f"sqlite:{directory}") as ledger:
        session = ledger.create_session("t", "u", channel="voice").session_id
        for _ in range(10):
            ledger.add_message("t", "u", session, role="assistant", content="hi", model="m", latency_ms=latency_ms)
        for _ in range(errors):
            ledger.report_error("t", "u", session, component="tool", error_type="timeout")
        ended = ledger.create_session("t", "u").session_id
        ledger.end_session("t", "u", ended)
    found = monitored(directory, timedelta(hours=later_h))
    assert (1, {"voice": 1}) == (found.live, found.by_channel)
    [one] = found.worst
    assert (health, health > 70) == (one.health, one.healthy)
    assert (10, 10, errors, session) == (one.messages, one.model_calls, one.errors, one.session_id)
    assert ("timeout" if errors else None) == one.last_error
    assert int(health <= 70) == found.unhealthy


def test_an_empty_fleet_has_nothing_to_tell(directory: Path) -> None:
    """No session, no division by nothing."""
    Ledger.open(f"sqlite:{directory}").close()
    found = monitored(directory)
    assert (0, 0, None, ()) == (found.live, found.unhealthy, found.latency_ms, found.worst)


def test_more_errors_than_fine_are_an_alert_recorded_once(directory: Path) -> None:
    """Six errors are one; the exit code says so; the fact is recorded once, and shown by the view `alerts`."""
    shell = Shell(directory)
    with Ledger.open(f"sqlite:{directory}") as ledger:
        for user, count in (("five", 5), ("six", 6)):
            session = ledger.create_session("t", user).session_id
            for _ in range(count):
                ledger.report_error("t", user, session, component="tool", error_type="timeout")
    for recorded in (1, 0):
        assert 0 == shell("project", "--once").code
        ran = shell("monitor", "--once", "--record", "--json")
        assert (1, recorded) == (ran.code, ran.json["recorded"])
        assert ["six"] == [alert["user"] for alert in ran.json["fleet"]["alerts"]]
    rows = shell("sql", "SELECT kind, user, value FROM alerts", "--json").json["rows"]
    assert [{"kind": "errors", "user": "six", "value": "6"}] == rows
    ran = shell("monitor", "--once", "--errors", "6")
    assert 0 == ran.code
    assert "live sessions" in ran.out


def test_alerts_on_record_are_told_beside_those_of_the_check(tmp_path: Path) -> None:
    """None of its own, and one of another kind that the ledger holds: both numbers say what they count."""
    shell = Shell(tmp_path / "ledger")
    assert 0 == shell("sessions", "create", "-U", "ann").code
    with Ledger.open(shell.url) as ledger:
        ledger.raise_alert("default", "ann", kind="flood", severity="error", value=3, threshold=1)
    assert 0 == shell("project", "--once").code
    ran = shell("monitor", "--once", "--json")
    assert (0, [], {"flood": 1}) == (ran.code, ran.json["fleet"]["alerts"], ran.json["fleet"]["alerts_on_record"])
    assert {} == shell("monitor", "--once", "--tenant", "other", "--json").json["fleet"]["alerts_on_record"]
    lines = [" ".join(line.split()) for line in shell("monitor", "--once").out.splitlines()]
    assert {"alerts of this check 0", "alerts on record 1 (1 flood)"} <= set(lines)
