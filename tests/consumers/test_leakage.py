"""Leakage checks that follow a ledger of several partitions, of which one lags."""

from __future__ import annotations

from pathlib import Path

import pytest

from session_ledger.consumers.analytics import Analytics, open_snapshot
from session_ledger.consumers.leakage import Watch, check
from session_ledger.ledger.ledger import Ledger
from session_ledger.ledger.open import open_envelope
from session_ledger.ledger.settings import Settings
from session_ledger.ledger.url import parse_url

SECRET = "The harbour gate at pier nine opens to whoever says that the heron came home before the tide did. "


@pytest.mark.kafka
@pytest.mark.parametrize("settled", [False, True])
def test_a_source_that_comes_in_after_what_leaked_it(
    kafka: str, ledger_name: str, tmp_path: Path, settled: bool
) -> None:
    """What is later than the lagging partition waits for it; taken in before, it is looked at again."""
    url = f"kafka://{kafka}/{ledger_name}?partitions=2&replica={tmp_path / 'ledger'}"
    with Ledger.open(url) as ledger:
        users: dict[int, str] = {}
        for number in range(20):
            users.setdefault(ledger.create_session("acme", f"user-{number}").partition, f"user-{number}")
        source, leaking = (ledger.create_session("acme", users[partition]) for partition in (0, 1))
        ledger.add_message("acme", users[0], source.session_id, role="user", content=SECRET * 3)
        said = ledger.add_message("acme", users[1], leaking.session_id, role="assistant", content=SECRET * 3)
        assert 1 == said.partition
    envelope, close = open_envelope(parse_url(url).directory, ledger_name, Settings())
    watch, found = Watch(envelope), []
    with Analytics(url) as analytics:
        ends = analytics.ends()
        for to in (ends | {0: source.position}, ends, ends):
            analytics.catch_up(to)
            analytics.publish()
            with open_snapshot(url) as snapshot:
                found.append([leak.kind for leak in watch.step(snapshot, settled=settled).leaks])
                expected = [leak.kind for leak in check(snapshot, envelope).leaks]
        with open_snapshot(url) as snapshot:
            found.append([leak.kind for leak in watch.step(snapshot, settled=True).leaks])
    close()
    assert 1 == len(expected)
    assert [] == found[0]
    assert expected == [kind for kinds in found for kind in kinds]
