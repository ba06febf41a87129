"""Tables that fit, texts that do not steer a terminal, JSON of every value that commands write."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
import typer

from session_ledger.cli.failing import message_of
from session_ledger.cli.main import app
from session_ledger.cli.output import clean, duration, fields, json_line, shown, size, table, write_json
from session_ledger.cli.permitted import named
from session_ledger.domain.errors import OutcomeUnknown
from tests.cli.shell import Shell, streams

ID = "0192b3c4-1111-7222-8333-444455556666"


def printed(columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> list[str]:
    with streams() as (out, _):
        table(columns, rows)
    return out.getvalue().decode().splitlines()


def test_a_table_fits_a_hundred_columns_and_keeps_ids_whole() -> None:
    """Long texts give way to ids, times and numbers; nothing is coloured or boxed where stdout is no terminal."""
    rows: list[tuple[object, ...]] = [(ID, "user " * 30, datetime(2026, 1, 2, tzinfo=UTC), 12_345, "title " * 30)]
    heading, row = printed(("session", "user", "at", "messages>", "title"), rows)
    assert 100 >= max(len(heading), len(row))
    assert row.startswith(ID)
    assert "2026-01-02 00:00:00" in row
    assert "12,345" in row
    assert "…" in row
    assert "\x1b" not in heading + row


def test_wide_characters_are_counted_as_wide() -> None:
    """A text of full-width characters takes two columns each, and the next column still lines up."""
    heading, first, second = printed(("name", "n>"), [("全角文字", 1), ("abc", 22)])
    assert "name       n" == heading
    assert "abc       22" == second
    assert "全角文字   1" == first


def test_control_characters_are_shown_and_not_sent() -> None:
    """What somebody wrote can not clear the screen, colour the table or turn its direction."""
    assert r"\x1b[2Ja\x07\u202eb\x9b" == clean("\x1b[2Ja\x07\u202eb\x9b")
    (_, row) = printed(("title",), [("\x1b[31mred\nnext",)])
    assert r"\x1b[31mred\x0anext" == row


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("-", None),
        ("yes", True),
        ("1,234", 1234),
        ("0.5", Decimal("0.500000")),
        ("12,000", Decimal("12000.000000")),
        ("a, b", ("a", "b")),
        ("-", ()),
        ("30 min", timedelta(minutes=30)),
    ],
)
def test_values_are_shown_for_people(text: str, value: object) -> None:
    """Missing is a dash, amounts have no trailing zeros, numbers are grouped."""
    assert text == shown(value)


def test_sizes_and_durations_have_units() -> None:
    """In the largest unit that reads well."""
    assert ["999 bytes", "1.4 MB", "3.0 GB"] == [size(999), size(1_400_000), size(3e9)]
    assert ["45 s", "15 min", "8 h", "7 d", "90 s", "0.5 s"] == [
        duration(s) for s in (45, 900, 28_800, 604_800, 90, 0.5)
    ]


def test_json_writes_amounts_times_ids_and_records() -> None:
    """Amounts as text (no float ever), times in UTC to the microsecond, bytes as hexadecimal."""
    document = {"a": Decimal("1.500000"), "t": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), "d": timedelta(seconds=2)}
    expected = {"a": "1.5", "t": "2026-01-02T03:04:05.000006Z", "d": 2.0, "b": "0aff", "s": [1, 2]}
    assert expected == json.loads(json_line(document | {"b": b"\x0a\xff", "s": {2, 1}}))
    with pytest.raises(TypeError, match="object"):
        json_line(object())


def test_json_is_utf_8_on_stdout_whatever_it_holds() -> None:
    """One line a document, for readers too that take U+2028 or U+0085 for the end of a line."""
    with streams() as (out, _):
        write_json({"text": "héllo😀\u2028\x85"})
    assert '{"text":"héllo😀\\u2028\\u0085"}\n'.encode() == out.getvalue()


def test_fields_line_up() -> None:
    """Name and value, a line each."""
    with streams() as (out, _):
        fields([("a", 1), ("longer", None)])
    assert "a       1\nlonger  -\n" == out.getvalue().decode()


def test_every_command_takes_json() -> None:
    """The whole tree of commands; what a script needs of any of them it can ask for the same way."""

    def without(command: object, path: str) -> list[str]:
        if (below := getattr(command, "commands", None)) is not None:
            return [found for name, one in below.items() for found in without(one, f"{path} {name}")]
        options = {option for parameter in command.params for option in parameter.opts}  # type: ignore[attr-defined]
        return [] if "--json" in options else [path.strip()]

    assert [] == without(typer.main.get_command(app), "")


def test_documents_of_errors_have_one_shape(shell: Shell) -> None:
    """What the parser refuses, what a command refuses, what can not run: the same members, the exit code among them."""
    commands = (("sessions", "list", "--odd"), ("stats",), ("sessions", "create", "-U", "a", "--kind", "odd"))
    ran = [shell(*command, "--json") for command in commands]
    found = [one.json["error"] for one in ran]
    members = {"code", "message", "retriable", "command_id", "retry_after_s", "exit_code"}
    assert [members] * 3 == [set(error) - {"field", "seen", "rule"} for error in found]
    assert [(2, "usage"), (3, "log_unavailable"), (2, "invalid_input")] == [
        (error["exit_code"], error["code"]) for error in found
    ]
    assert [one.code for one in ran] == [error["exit_code"] for error in found]


def test_an_unknown_outcome_is_found_out_by_what_the_command_takes() -> None:
    """By --command-id where there is that option, else by running it again; the path of a command tells which."""
    error = OutcomeUnknown("no answer within 3 s: it may be recorded; repeat it with the same command id to find out")
    error.command_id = ID
    tree = typer.main.get_command(app)
    calls = (
        ("quota consume", ["quota", "consume", "tokens", "9", "-U", "u"]),
        ("retention sweep", ["retention", "--json", "sweep"]),
        ("import", ["import", "retention", "-u", "sqlite:x"]),
        ("auth rotate", ["auth", "rotate", ID]),
    )
    assert [path for path, _ in calls] == [named(tree, arguments)[0] for _, arguments in calls]
    said = [message_of(error, path, by_id=by_id) for path, by_id in (named(tree, one) for _, one in calls)]
    assert said[0].endswith(f"same command id to find out.\nRepeat it with --command-id {ID}.")
    again = "no answer within 3 s: it may be recorded.\nRun the command again"
    missing = f"{again}: it adds only what is missing."
    assert [missing, missing, f"{again}."] == said[1:]
