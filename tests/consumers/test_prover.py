"""Proofs of a log that is not what was signed: none is made, whatever the change would let them say."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from session_ledger.domain.errors import LogCorrupt
from tests.consumers.signed import Row, Signed


def given_away(rows: list[Row]) -> list[Row]:
    """The session's last event is said to be another session's."""
    return [*rows[:3], rows[3]._replace(originator_id=os.urandom(16), version=1), *rows[4:]]


def cut_off(rows: list[Row]) -> list[Row]:
    """The log ends with the session's last event but one."""
    return rows[:3]


def moved(rows: list[Row]) -> list[Row]:
    """Another session's record stands where this one's last did."""
    return [*rows[:3], rows[4], rows[3], *rows[5:]]


@pytest.mark.parametrize("change", [given_away, cut_off, moved])
def test_a_session_is_proved_only_from_the_log_that_was_signed(
    directory: Path, change: Callable[[list[Row]], list[Row]]
) -> None:
    """No statement "this is its last version" is signed where a later one was taken out of the session."""
    ledger = Signed(directory)
    ledger.grow(3)
    ledger.grow(1)
    ledger.sign()
    with ledger.prover() as prover:
        assert 4 == len(prover.session(ledger.sessions[0])["events"])  # type: ignore[arg-type]
    ledger.rewrite(change)
    with ledger.prover() as prover, pytest.raises(LogCorrupt, match="is not the log that was signed"):
        prover.session(ledger.sessions[0])
