"""Erasures of a ledger on a real broker: its segments, the replica and all that was made of them; owners that die."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import fields
from pathlib import Path

import pytest

from session_ledger.cli.main import run
from session_ledger.consumers.eraser import STORES
from session_ledger.consumers.erasing import open_eraser
from session_ledger.domain.errors import KeyUnavailable, SessionLedgerError
from session_ledger.domain.events import ContentErased
from session_ledger.domain.ids import format_id
from session_ledger.ledger.ledger import Ledger
from session_ledger.ledger.open import open_envelope
from session_ledger.ledger.settings import Settings
from session_ledger.ledger.url import parse_url
from session_ledger.security.opening import open_field
from tests.broker.broker import Broker
from tests.cli.shell import Shell, chat, jsonl
from tests.cli.test_serving import line_of
from tests.consumers.searched import ASKED, CACHED_S, MARK, STRUCTURE, fill, found_in, secrets_of, step
from tests.ledger.support import Clock, events, fresh_id, stored

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
Owner = tuple[str, str]
OWNERS = ("t", "ada"), ("t", "bob"), ("t", "cy"), ("gone", "dan"), ("gone", "eve")
MARKED = 13  # texts that `fill` seals


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Of the ledger's local files."""
    return tmp_path / "ledger"


def shell_on(bootstrap: str, name: str, directory: Path) -> Shell:
    """Commands on a ledger of two partitions there, with its local files in that directory."""
    shell = Shell(directory)
    shell.url = f"kafka://{bootstrap}/{name}?partitions=2&replica={directory}"
    return shell


def opened(url: str, directory: Path | None = None) -> Counter[Owner]:
    """How many marked texts of each user the vault's keys open, in what the broker holds now.

    `directory`: where another keyring and vault are; None: those of the ledger.
    """
    place = parse_url(url)
    envelope, close = open_envelope(directory or place.directory, place.name, Settings(), readonly=True)
    found: Counter[Owner] = Counter()
    for event in (one.event for one in stored(url)):
        for field in (one.name for one in fields(event) if one.name.startswith("sealed_")):
            with suppress(KeyUnavailable):
                found[event.tenant, event.user] += MARK.encode() in (open_field(envelope, event, field) or b"")
    close()
    return +found


def backed_up(directory: Path, into: Path) -> Path:
    """A copy of the keys, as somebody makes who backs them up."""
    into.mkdir()
    shutil.copy(directory / "keyring.json", into)
    with closing(sqlite3.connect(directory / "vault.db")) as vault, closing(sqlite3.connect(into / "vault.db")) as copy:
        vault.backup(copy)
    (into / "vault.db").chmod(0o600)
    return into


def test_nothing_that_opens_the_content_is_left_on_any_disk(
    own_broker: Broker, ledger_name: str, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session, a user, a tenant: the broker's segments open before, and never again but with what a receipt names."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    outside = tmp_path / "outside"
    shell = shell_on(own_broker.bootstrap, ledger_name, directory)

    def ok(*arguments: object, stdin: bytes = b"") -> str:
        ran = shell(*arguments, stdin=stdin)
        assert 0 == ran.code, ran
        return ran.out

    with Ledger.open(shell.url, checkpoint_events=1) as ledger:
        sessions = {owner: fill(ledger, owner[1], owner[0]) for owner in OWNERS}
        erased = sessions["t", "ada"][0]
        ok("import", "-", "--source", "chats", "-t", "t", stdin=jsonl(chat(MARK, id="a", user_id="bob")))
        ok("project", "--once")
        ok("archive", tmp_path / "parquet")
        ok("archive", outside / "parquet", "--contents", "--reason", "a case")
        ok("audit", "leaks", "-t", "t")
        ok("audit", "timeline", erased, "--report", tmp_path / "timeline.html")
        ok("checkpoint", "--once", "--mirror", tmp_path / "mirror")
        (tmp_path / "bundle.json").write_text(ok("proof", "session", erased))
        ok("audit", "reveal", erased, "-t", "t", "-U", "ada", "--reason", "a case")
        ok("sql", "SELECT reveal(content) FROM messages", "--reason", "a case")
        backup = backed_up(directory, outside / "vault")

        gone = secrets_of(shell.url, "ada", session=erased)
        for tenant, user in OWNERS:
            if user not in ("ada", "cy"):
                gone += secrets_of(shell.url, user, tenant)
        kept = secrets_of(shell.url, "cy")
        before = opened(shell.url)
        assert {owner: MARKED + (owner == ("t", "bob")) for owner in OWNERS} == before
        assert {"ledger/vault.db"} <= {name.removesuffix("-wal") for name in found_in(tmp_path, gone, but=[outside])}

        ledger.erase_session("t", "ada", erased, **ASKED)
        ledger.erase_user("t", "bob", **ASKED)
        ledger.erase_tenant("gone", **ASKED)
        clock = Clock()
        step(shell.url, ledger, clock)
        assert set() == found_in(tmp_path, gone, but=[outside])
        ok("project", "--once")
        clock.step(CACHED_S + 1)
        assert [] == step(shell.url, ledger, clock)
        ok("verify")
    own_broker.kill()
    own_broker.start()
    ok("verify", "--log", "--mirror", tmp_path / "mirror")

    assert set() == found_in(tmp_path, [MARK.encode(), *gone], but=[outside])
    readable = found_in(tmp_path, [STRUCTURE.encode()], but=[outside])
    assert {".log", ".db", ".duckdb", ".parquet"} <= {Path(name).suffix for name in readable}
    assert {"ledger/vault.db"} == {name.removesuffix("-wal") for name in found_in(tmp_path, kept, but=[outside])}
    assert {("t", "ada"): 2, ("t", "cy"): MARKED} == opened(shell.url)
    assert before == opened(shell.url, backup)  # the log has lost nothing: its keys were all that opened it
    assert "outside/parquet" in {str(Path(name).parents[2]) for name in found_in(tmp_path, [MARK.encode()])}
    key = ok("keys", "verifier").strip()
    erasures = json.loads(ok("erase", "status", "--all", "--json"))["erasures"]
    of = sorted((one["tenant"], one["user"] or "") for one in erasures)
    assert [("gone", ""), ("gone", "dan"), ("gone", "eve"), ("t", "ada"), ("t", "bob")] == of
    for one in erasures:
        receipt = tmp_path / "receipt"
        ok("erase", "receipt", one["erasure"], "--out", receipt)
        assert 0 == run(["verify-receipt", str(receipt), "--key", key])
        assert one["user"] is None or "opened before for" in receipt.read_text()
        for said in (*(f"confirmed {store}" for store in STORES), "backups of the vault", "exports"):
            assert said in receipt.read_text()
    listed = shell("archive", outside / "parquet", "--erased", "--json").json["erased"]
    assert {"ada", "bob", "dan", "eve"} == {found["user"] for found in listed}


def test_an_owner_that_is_killed_leaves_its_erasures_to_the_next(kafka: str, ledger_name: str, directory: Path) -> None:
    """kill -9 between asking and destroying: asked for again they are the same facts, and every key goes once."""
    shell = shell_on(kafka, ledger_name, directory)
    users = [f"user-{number}" for number in range(12)]
    asked = {user: fresh_id() for user in users}
    said = b""
    with shell.started("serve", "--json") as service:
        line_of(service)
        with Ledger.open(shell.url) as client:
            assert not client.is_owner
            for user in [*users, "stays"]:
                fill(client, user)
            secrets = [secret for user in users for secret in secrets_of(shell.url, user)]
            kept = secrets_of(shell.url, "stays")
            taken = []
            for number, user in enumerate(users):
                time.sleep(0.1)  # so that the service is at some of them
                if number == len(users) - 3:
                    service.kill()
                    service.wait(30)
                with suppress(SessionLedgerError):
                    client.erase_user("t", user, command_id=asked[user], **ASKED)
                    taken.append(user)
        assert len(users) - 3 == len(taken)
        said += b"".join(service.communicate(timeout=30))
    with shell.started("serve", "--json", "--take-over") as service:
        line_of(service)
        with Ledger.open(shell.url) as client:
            again = {user: client.erase_user("t", user, command_id=asked[user], **ASKED) for user in users}
            assert all(again[user].repeated for user in taken)
        deadline = time.monotonic() + 30
        while found_in(directory, secrets) and time.monotonic() < deadline:
            time.sleep(0.1)
        service.terminate()
        said += b"".join(service.communicate(timeout=30))
    assert dict.fromkeys(users, 1) == Counter(one.user for one in events(shell.url) if isinstance(one, ContentErased))
    assert set() == found_in(directory, [MARK.encode(), *secrets])
    assert {("t", "stays"): MARKED} == opened(shell.url)
    assert set() != found_in(directory, kept)
    assert (False, False) == (MARK.encode() in said, b"Traceback" in said)
    with open_eraser(shell.url, Settings()) as eraser:
        assert len(users) == len(eraser.store.erasures())
    assert 0 == shell("verify").code


def test_a_sweep_that_is_killed_is_gone_on_with(kafka: str, ledger_name: str, directory: Path) -> None:
    """Retention in a process beside the owner's: a dry run records nothing, and each session is erased once."""
    shell = shell_on(kafka, ledger_name, directory)
    with Ledger.open(shell.url) as ledger:
        due = {f"user-{number}": fill(ledger, f"user-{number}")[0] for number in range(40)}
        held = fill(ledger, "held")[0]
        ledger.set_legal_hold("t", "held", held, matter="case", **ASKED)
        fill(ledger, "user-0", "other")
        ledger.set_retention("t", retention_s=0.001, **ASKED)
        secrets = [one for user, session in due.items() for one in secrets_of(shell.url, user, session=session)]
        before = sum(ledger.positions())
        would = shell("retention", "sweep", "--dry-run", "--json").json
        assert ({*due.values(), held}, 1) == ({one["session_id"] for one in would["sessions"]}, would["held"])
        assert before == sum(ledger.positions())
        with shell.started("retention", "sweep") as sweeping:
            deadline = time.monotonic() + 30
            while sum(ledger.positions()) < before + 5 and time.monotonic() < deadline:
                time.sleep(0.001)
            sweeping.kill()
            sweeping.wait(30)
        done = sum(ledger.positions()) - before
        assert 5 <= done < len(due)
        swept = shell("retention", "sweep", "--json").json
        assert (len(due) - done, 1) == (swept["erased"], swept["held"])
        assert 0 == shell("retention", "sweep", "--json").json["erased"]
        facts = [event for event in events(ledger) if isinstance(event, ContentErased)]
    assert dict.fromkeys(due.values(), 1) == Counter(format_id(fact.session_id or b"") for fact in facts)
    assert set() == found_in(directory, secrets)
    left = Counter({("t", user): 2 for user in due}) + Counter({("t", "held"): MARKED, ("other", "user-0"): MARKED})
    assert left == opened(shell.url)
