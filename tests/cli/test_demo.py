"""The demo plays the same portal for the same seed, reports it, and leaves other people's directories alone."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from session_ledger.cli import demo_portal, demo_run
from session_ledger.cli.main import run
from tests.cli.shell import Ran, streams


def demo(*arguments: object) -> Ran:
    with streams() as (out, err):
        code = run(["demo", *map(str, arguments)])
    return Ran(code, out.getvalue().decode(), err.getvalue().decode())


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ran]:
    """One whole demo."""
    directory = tmp_path_factory.mktemp("demo") / "portal"
    return directory, demo(directory)


def test_the_report_covers_what_happened(played: tuple[Path, Ran]) -> None:
    """2,000 sessions, endings of every kind, refusals, agents, rate, disk, durability; within 100 columns."""
    _, ran = played
    assert 0 == ran.code, ran.err
    for word in ("2,000 (", "evicted", "expired", "completed", "quota refusals", "busiest users", "support", "facts/s"):
        assert word in ran.out
    assert re.search(r"Disk +[\d.]+ MB log", ran.out)
    assert "WAL, synchronous=FULL" in ran.out
    _, _, report = ran.out.partition("Try next:")[0].partition("\n")
    assert 100 >= max(map(len, report.splitlines()))


def test_every_command_that_the_report_proposes_runs(played: tuple[Path, Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    """On the ledger that was made; `serve` aside, which goes on."""
    directory, ran = played
    monkeypatch.chdir(directory.parent)
    proposed = [shlex.split(line, comments=True)[1:] for line in ran.out.partition("Try next:")[2].splitlines() if line]
    assert 8 == len(proposed)
    for arguments in proposed:
        if arguments[0] == "serve":
            continue
        with streams() as (out, err):
            assert 0 == run(arguments), (arguments, err.getvalue())
        assert out.getvalue(), arguments


def test_limits_hold_and_everything_is_there(played: tuple[Path, Ran]) -> None:
    """The demo is the real path: its ledger passes `verify`."""
    directory, _ = played
    with streams() as (out, _):
        assert 0 == run(["verify", "-u", f"sqlite:{directory}", "--json"])
    assert json.loads(out.getvalue())["rows"]["sessions"] == 2_000


def test_a_seed_plays_the_same_visits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions, endings, messages, tokens and refused commands are those of the seed; another seed's differ."""
    for module in (demo_run, demo_portal):
        monkeypatch.setattr(module, "SESSIONS", 300)
    one, two, other = (demo(tmp_path / str(n), "--seed", seed, "--json") for n, seed in enumerate((1, 1, 2)))
    keep = ("sessions", "messages", "tokens_in", "tokens_out", "errors", "leases")
    first, second, third = ([ran.json["stats"][name] for name in keep] for ran in (one, two, other))
    assert first == second != third
    assert 300 == first[0]
    assert one.json["refused_commands"] == two.json["refused_commands"]


def test_a_directory_that_is_no_demo_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 2; an earlier demo is begun anew."""
    monkeypatch.setattr(demo_run, "SESSIONS", 20)
    (tmp_path / "thesis.txt").write_text("years of work")
    ran = demo(tmp_path, "--json")
    assert (2, "invalid_input") == (ran.code, ran.json["error"]["code"])
    assert ["thesis.txt"] == [path.name for path in tmp_path.iterdir()]
    assert 2 == demo(tmp_path / "thesis.txt").code
    place = tmp_path / "demo"
    assert [20, 20] == [demo(place, "--json").json["stats"]["sessions"] for _ in range(2)]


def test_the_bench_prints_the_ledger_beside_its_floor(tmp_path: Path) -> None:
    """In one run, in a directory that is gone afterwards."""
    with streams() as (out, _):
        assert 0 == run(["bench", "--callers", "4", "--seconds", "0.2", "--dir", str(tmp_path), "--json"])
    found = json.loads(out.getvalue())
    assert found["ledger"]["rate"] > 0 < found["bare_sqlite3"]["rate"]
    assert found["ratio"] > 0
    assert [] == list(tmp_path.iterdir())
    with streams() as (out, _):
        assert 0 == run(["bench", "--callers", "2", "--seconds", "0.1", "--dir", str(tmp_path)])
    assert b"bare sqlite3" in out.getvalue()
