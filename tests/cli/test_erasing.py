"""`erase` and `retention` as an operator meets them: what is recorded and not carried out, names that nobody has."""

from __future__ import annotations

import pytest

from tests.cli.shell import Shell


def created(shell: Shell, user: str = "ann", *options: object) -> str:
    """A session of the user."""
    ran = shell("sessions", "create", "-U", user, "--title", "x", *options, "--json")
    assert 0 == ran.code, ran.err
    return str(ran.json["session_id"])


@pytest.mark.parametrize(
    ("option", "command"),
    [
        ("--after", ("retention", "set", "--after", "0", "--reason", "r")),
        ("--sensitive", ("retention", "set", "--sensitive", "0", "--reason", "r")),
        ("--after", ("retention", "set", "--after", "0.1ms", "--reason", "r")),
        ("--grace", ("auth", "rotate", "-U", "ann", "--grace", "2h", "SESSION")),
    ],
)
def test_a_time_that_is_out_of_range_is_told_by_its_option(shell: Shell, option: str, command: tuple[str, ...]) -> None:
    """Not by the field that it becomes, and in the units that are typed."""
    session = created(shell)
    ran = shell(*(session if part == "SESSION" else part for part in command))
    assert 2 == ran.code
    assert f"session-ledger: {option}: " in ran.err
    assert not [word for word in ("_ms", "_s:", "3600000") if word in ran.err]
