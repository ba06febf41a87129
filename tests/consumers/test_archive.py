"""Parquet exports: each event once, whatever crashes, readable by others, and nothing sealed in them."""

from __future__ import annotations

import json
import os
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from session_ledger.consumers.analytics import Analytics, open_snapshot
from session_ledger.consumers.archive import Export, archive, damaged, read_manifest
from session_ledger.consumers.sole import sole_writer
from session_ledger.domain.errors import LogCorrupt, Misconfigured, ProjectionForeign, ProjectionInUse
from session_ledger.domain.events import ContentRevealed
from session_ledger.ledger.ledger import Ledger
from tests.cli.shell import Shell
from tests.ledger.support import events


def grow(directory: Path, tenant: str = "acme") -> None:
    """One session more, in the log and in a snapshot."""
    with Ledger.open(f"sqlite:{directory}") as ledger:
        session = ledger.create_session(tenant, "ada", title="secret title").session_id
        ledger.add_message(tenant, "ada", session, role="user", content="a secret", metadata={"colour": "red"})
    with Analytics(f"sqlite:{directory}") as analytics:
        analytics.catch_up()
        analytics.publish()


def exported(directory: Path, to: Path) -> Export | None:
    """One export of the newest snapshot."""
    with open_snapshot(f"sqlite:{directory}") as snapshot:
        return archive(snapshot, to)


def places(to: Path) -> list[tuple[int, int]]:
    """(partition, position) of every row of every file that the manifest names."""
    manifest = read_manifest(to)
    assert manifest is not None
    files = [file.path for export in manifest.exports for file in export.files]
    found = [row for file in files for row in pq.read_table(to / file).select(["partition", "position"]).to_pylist()]
    return sorted((row["partition"], row["position"]) for row in found)


def recorded(directory: Path) -> list[tuple[int, int]]:
    """The same of the log."""
    with Analytics(f"sqlite:{directory}") as analytics:
        return sorted((p, n) for p, end in analytics.ends().items() for n in range(1, end + 1))


def test_each_event_is_exported_once(directory: Path, tmp_path: Path) -> None:
    """Range by range, by tenant and day; without news nothing is written; other readers see tenants and days."""
    to = tmp_path / "out"
    for tenant in ("acme", "acme", "glo=bex%"):
        grow(directory, tenant)
        assert exported(directory, to) is not None
        assert exported(directory, to) is None
    assert recorded(directory) == places(to)
    assert [] == damaged(to)
    today = datetime.now(UTC).date().isoformat()
    paths = {str(path.relative_to(to).parent) for path in to.rglob("*.parquet")}
    assert {f"tenant=acme/day={today}", f"tenant=glo%3Dbex%25/day={today}", f"tenant=__none__/day={today}"} == paths
    dataset = f"FROM read_parquet('{to}/*/*/*.parquet', hive_partitioning = true)"
    relation = duckdb.query(dataset)
    assert relation is not None
    whole = relation.to_arrow_table()
    assert len(recorded(directory)) == whole.num_rows == pq.read_table(to).num_rows
    assert {"acme", "glo=bex%", "__none__"} == set(whole.column("tenant").to_pylist())


def test_nothing_sealed_is_in_a_file(directory: Path, tmp_path: Path) -> None:
    """Neither ciphertext nor text: what is exported opens nothing; the rest of `details` stays."""
    grow(directory)
    exported(directory, tmp_path / "out")
    rows = [row for path in (tmp_path / "out").rglob("*.parquet") for row in pq.ParquetFile(path).read().to_pylist()]
    assert all("content" not in row for row in rows)
    details = [json.loads(row["details"]) for row in rows if row["details"]]
    assert not any(name.startswith("sealed_") for one in details for name in one)
    created = next(row for row in rows if row["event_type"] == "SessionCreated")
    assert {"expires_at", "idle_timeout_ms", "imported", "key_commitment", "limit_policy"} == set(
        json.loads(created["details"])
    )


@pytest.mark.parametrize("step", range(1, 5))
def test_a_crash_at_any_step_is_made_good(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Before any file is in place, between files, before and after the manifest: each event is there once after."""
    to = tmp_path / "out"
    grow(directory)
    exported(directory, to)
    grow(directory, "globex")
    grow(directory)
    steps, replace = 0, os.replace

    def dying(source: Path, target: Path) -> None:
        nonlocal steps
        steps += 1
        if steps == step:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr("session_ledger.consumers.archive.os.replace", dying)
    try:
        exported(directory, to)
    except KeyboardInterrupt:
        assert damaged(to) == []
    monkeypatch.undo()
    grow(directory)
    exported(directory, to)
    assert recorded(directory) == places(to)
    assert sorted(path.name for path in to.rglob("*.parquet*")) == sorted(
        Path(file.path).name
        for export in (read_manifest(to) or pytest.fail("no manifest")).exports
        for file in export.files
    )


def test_what_does_not_fit_is_refused(directory: Path, tmp_path: Path) -> None:
    """Another ledger's directory, a snapshot that is behind, a damaged manifest, another export under way."""
    to = tmp_path / "out"
    grow(directory)
    exported(directory, to)
    other = tmp_path / "other"
    grow(other)
    with pytest.raises(ProjectionForeign):
        exported(other, to)
    manifest = (to / "_manifest.json").read_text()
    told = json.loads(manifest)
    told["exports"][-1]["to_positions"]["0"] += 5
    (to / "_manifest.json").write_text(json.dumps(told))
    with pytest.raises(LogCorrupt):
        exported(directory, to)
    (to / "_manifest.json").write_text(manifest[:40])
    with pytest.raises(Misconfigured):
        exported(directory, to)
    (to / "_manifest.json").write_text(manifest)
    give_up = sole_writer(to, ".lock")
    with pytest.raises(ProjectionInUse):
        exported(directory, to)
    give_up()


def test_a_changed_and_a_missing_file_are_found(directory: Path, tmp_path: Path) -> None:
    """`archive --check` names them, with exit code 1."""
    shell, to = Shell(directory), tmp_path / "out"
    grow(directory)
    assert 0 == shell("archive", to).code
    assert 0 == shell("archive", to, "--check").code
    one, other = sorted(to.rglob("*.parquet"))
    one.write_bytes(one.read_bytes() + b"x")
    other.unlink()
    ran = shell("archive", to, "--check", "--json")
    assert (1, 2) == (ran.code, len(ran.json["findings"]))


def test_contents_are_exported_only_as_a_recorded_act(directory: Path, tmp_path: Path) -> None:
    """Without a reason nothing; with one, the text is there, and so is the fact."""
    shell, to = Shell(directory), tmp_path / "out"
    grow(directory)
    assert 2 == shell("archive", to, "--contents").code
    assert 0 == shell("archive", to, "--contents", "--reason", "case 7", "--by", "eve").code
    rows = [row for path in to.rglob("*.parquet") for row in pq.ParquetFile(path).read().to_pylist()]
    assert ["a secret"] == [row["content"] for row in rows if row["event_type"] == "MessageAdded"]
    facts = [event for event in events(f"sqlite:{directory}") if isinstance(event, ContentRevealed)]
    assert [("eve", "case 7", "ada")] == [(fact.revealed_by, fact.reason, fact.user) for fact in facts]
    manifest = read_manifest(to)
    assert manifest is not None
    assert [True] == [export.revealed for export in manifest.exports]


def test_what_was_exported_and_erased_since_is_listed(directory: Path, tmp_path: Path) -> None:
    """Absent from new exports, named for old ones: whoever has the copies can remove them there."""
    shell, to = Shell(directory), tmp_path / "out"
    grow(directory)
    because = ("--contents", "--reason", "case 7")
    assert 0 == shell("archive", to, *because).code
    assert 0 == shell("archive", to, "--erased").code
    vault = sqlite3.connect(directory / "vault.db")
    vault.execute("DELETE FROM keys WHERE session_id <> x''")
    vault.commit()
    vault.close()
    ran = shell("archive", to, "--erased", "--json")
    assert (1, [("acme", "ada", 1, 1)]) == (
        ran.code,
        [(one["tenant"], one["user"], one["export"], one["messages"]) for one in ran.json["erased"]],
    )
    assert 0 == shell("archive", tmp_path / "new", *because).code
    rows = [row for path in (tmp_path / "new").rglob("*.parquet") for row in pq.ParquetFile(path).read().to_pylist()]
    assert [None] == [row["content"] for row in rows if row["event_type"] == "MessageAdded"]
