"""`checkpoint`, `keys verifier`, `proof` and `verify --log` as a user and an auditor run them."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from session_ledger.security.leaf import Leaf
from tests.cli.shell import Ran, Shell


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A session of three events, signed at two, and where its ledger and mirror are; made once, and never changed."""
    place = tmp_path_factory.mktemp("made")
    shell = Shell(place / "ledger")
    found = str(shell("sessions", "create", "-U", "alice", "--json").json["session_id"])
    assert 0 == shell("sessions", "message", found, "-U", "alice", "--role", "user", "my secret").code
    assert 0 == shell("checkpoint", "--once", "--mirror", place / "mirror").code
    assert 0 == shell("sessions", "message", found, "-U", "alice", "--role", "assistant", "an answer").code
    return place, found


@pytest.fixture
def session(shell: Shell, made: tuple[Path, str]) -> str:
    """The session, in a copy of the ledger for each test; it goes on."""
    shutil.copytree(made[0] / "ledger", shell.directory, ignore=shutil.ignore_patterns("*.sock", "*.lock"))
    shutil.copytree(made[0] / "mirror", shell.directory.parent / "mirror")
    return made[1]


class Auditor:
    """Somebody with the public key and a bundle, and nothing else."""

    def __init__(self, shell: Shell, tmp_path: Path) -> None:
        self.shell, self.place = shell, tmp_path / "auditor"
        self.place.mkdir()
        self.key = shell("keys", "verifier").out.strip()
        self.alone = Shell(self.place / "no ledger")

    def judge(self, bundle: dict[str, Any]) -> Ran:
        """What `proof verify` says of it, without the ledger."""
        file = self.place / "bundle.json"
        file.write_text(json.dumps(bundle))
        return self.alone("proof", "verify", file, "--key", self.key, "--json")

    def refuses(self, bundle: dict[str, Any], why: str) -> None:
        """The bundle does not hold, and that is said."""
        ran = self.judge(bundle)
        assert (1, "proof_invalid") == (ran.code, ran.json["error"]["code"]), ran.out
        assert why in ran.json["error"]["message"]


@pytest.fixture
def auditor(shell: Shell, session: str, tmp_path: Path) -> Auditor:
    """An auditor of that ledger."""
    return Auditor(shell, tmp_path)


def test_a_public_key_names_its_origin(auditor: Auditor) -> None:
    """A signed-note verifier: the origin, the key's id and the key; each partition has its own name."""
    name, key_id, key = auditor.key.split("+", 2)
    assert ("session-ledger/ledger/0", 8, 33) == (name, len(key_id), len(base64.b64decode(key)))
    control = auditor.shell("keys", "verifier", "--partition", "-1", "--json").json
    assert "session-ledger/ledger/-1" == control["origin"]
    assert 2 == auditor.shell("keys", "verifier", "--partition", 7).code


def test_an_inclusion_proof_is_checked_without_the_ledger(auditor: Auditor) -> None:
    """All that was asked for is in the bundle; the leaf is the record, its content still sealed."""
    bundle = auditor.shell("proof", "inclusion", "--position", 2, "--json").json
    assert (1, 2, 2) == (bundle["leaf_index"], bundle["tree_size"], bundle["position"])
    leaf = Leaf.decode(base64.b64decode(bundle["leaf_data"]))
    assert (2, 2, True) == (leaf.position, leaf.version, leaf.topic.endswith("MessageAdded"))
    assert b"my secret" not in leaf.value
    shutil.rmtree(auditor.shell.directory)
    ran = auditor.judge(bundle)
    assert (0, True, "inclusion", 2) == (ran.code, ran.json["ok"], ran.json["kind"], ran.json["tree_size"])
    assert 0 == auditor.alone("proof", "verify", auditor.place / "bundle.json", "--key", auditor.key).code


def test_a_partition_of_which_nothing_is_signed(auditor: Auditor) -> None:
    """It says so and what to run, with the exit code of what is not there yet."""
    with closing(sqlite3.connect(auditor.shell.directory / "checkpoints.db")) as db, db:
        db.execute("DELETE FROM checkpoints WHERE partition = 0")
    for command in ("inclusion --position 1", "consistency --from 1 --to 2"):
        ran = auditor.shell("proof", *command.split(), "--json")
        assert (3, "nothing_signed") == (ran.code, ran.json["error"]["code"]), ran.out
        assert "nothing of partition 0 is signed yet: run `session-ledger checkpoint --once`" in ran.err
    assert 0 == auditor.shell("proof", "inclusion", "--partition", "-1", "--position", 1).code


def test_a_consistency_proof_leads_from_one_checkpoint_to_the_next(auditor: Auditor) -> None:
    """And not to another history, or the other way round."""
    assert 0 == auditor.shell("checkpoint", "--once").code
    bundle = auditor.shell("proof", "consistency", "--from", 2, "--to", 3, "--json").json
    assert (2, 3) == (bundle["tree_size_from"], bundle["tree_size"])
    assert 0 == auditor.judge(bundle).code
    auditor.refuses({**bundle, "hashes": []}, "is not shown to begin with")
    auditor.refuses({**bundle, "checkpoint_from": bundle["checkpoint"]}, "signed over 3 records, the bundle says 2")
    assert 2 == auditor.shell("proof", "consistency", "--from", 3, "--to", 2).code
    ran = auditor.shell("proof", "consistency", "--from", 2, "--to", 9, "--json")
    assert (2, "--to") == (ran.code, ran.json["error"]["field"])
    assert "the nearest: 3" in ran.json["error"]["message"]


def test_an_open_session_is_proved_up_to_what_was_signed(auditor: Auditor, session: str) -> None:
    """The statement says which version was the last under the checkpoint; leaving events out does not hold."""
    bundle = auditor.shell("proof", "session", session, "--json").json
    ran = auditor.judge(bundle)
    assert (0, 2, False) == (ran.code, ran.json["last_version"], ran.json["ended"])
    auditor.refuses({**bundle, "events": bundle["events"][:1]}, "the bundle holds 1 events")
    auditor.refuses({**bundle, "events": bundle["events"][1:]}, "event 1 of session")
    auditor.refuses({**bundle, "events": bundle["events"][::-1]}, "event 1 of session")
    auditor.refuses({**bundle, "events": []}, "the bundle holds 0 events")
    auditor.refuses({**bundle, "statement": None}, "no statement says so")
    auditor.refuses({**bundle, "statement": bundle["checkpoint"]}, "statement about the session does not hold")
    auditor.refuses({**bundle, "schemas": {}}, "schema of the record at position 1 is missing")
    auditor.refuses({**bundle, "schemas": dict.fromkeys(bundle["schemas"], "{}")}, "is another text")
    auditor.refuses({**bundle, "session_id": "0" * 32}, "is not of session")


def test_a_bundle_in_a_file_is_told(auditor: Auditor, session: str) -> None:
    """What stands in it, as a line or as a document; without a file the bundle itself is what is written."""
    file = auditor.place / "session.json"
    ran = auditor.shell("proof", "session", session, "--output", file)
    assert f"{file}: 2 events of session {session}, as signed over 2 records\n" == ran.out
    ran = auditor.shell("proof", "session", session, "--output", file, "--json")
    assert {"file": str(file), "session_id": session, "partition": 0, "tree_size": 2, "events": 2} == ran.json
    assert json.loads(file.read_text()) == auditor.shell("proof", "session", session).json
    assert "no ledger is asked" in " ".join(auditor.alone("proof", "verify", "--help").out.split())


def test_a_statement_holds_for_its_own_checkpoint(auditor: Auditor, session: str) -> None:
    """An older statement does not hide what came since."""
    older = auditor.shell("proof", "session", session, "--json").json
    assert 0 == auditor.shell("checkpoint", "--once").code
    newer = auditor.shell("proof", "session", session, "--json").json
    assert 3 == auditor.judge(newer).json["last_version"]
    auditor.refuses({**newer, "statement": older["statement"]}, "rests on another checkpoint")
    auditor.refuses({**newer, "events": newer["events"][:2]}, "the bundle holds 2 events")
    at_two = auditor.shell("proof", "session", session, "--checkpoint", 2, "--json").json
    assert older == at_two


def test_an_ended_session_is_proved_to_its_end(auditor: Auditor, session: str) -> None:
    """Its end is among the events, so it needs no statement; the key is not needed to make the proof."""
    assert 0 == auditor.shell("sessions", "end", session, "-U", "alice").code
    assert 0 == auditor.shell("checkpoint", "--once").code
    (auditor.shell.directory / "signing.key").rename(auditor.place / "signing.key")
    bundle = auditor.shell("proof", "session", session, "--json").json
    assert bundle["statement"] is None
    ran = auditor.judge(bundle)
    assert (0, 4, True) == (ran.code, ran.json["last_version"], ran.json["ended"])
    auditor.refuses({**bundle, "events": bundle["events"][:-1]}, "no statement says so")


def test_a_proof_outlives_the_keys(auditor: Auditor, session: str) -> None:
    """With vault and keyring gone, nothing can be read and everything can be proved."""
    for file in auditor.shell.directory.iterdir():
        if file.name.startswith(("vault", "keyring")):
            file.unlink()
    assert 0 == auditor.judge(auditor.shell("proof", "session", session, "--json").json).code
    assert 0 == auditor.shell("verify", "--log").code


FIELDS = ("leaf_data", "leaf_hash", "hashes", "checkpoint", "leaf_index", "tree_size", "position", "partition")


def test_a_bundle_with_any_field_changed_does_not_hold(auditor: Auditor) -> None:
    """Or with the field left out, or of another type."""
    assert 0 == auditor.shell("checkpoint", "--once").code
    bundle = auditor.shell("proof", "inclusion", "--position", 2, "--json").json
    assert 0 == auditor.judge(bundle).code
    for field in FIELDS:
        auditor.refuses({**bundle, field: changed(bundle[field])}, "")
        auditor.refuses({**bundle, field: None}, field)
        auditor.refuses({**bundle, field: {}}, field)
        auditor.refuses({key: one for key, one in bundle.items() if key != field}, f"{field} is not there")


def changed(value: Any) -> Any:
    """Another value of the same type; of a checkpoint, another origin under the same signature."""
    if isinstance(value, int):
        return value + 1
    if isinstance(value, list):
        return value[::-1]
    if value.startswith("session-ledger/"):
        return value.replace("session-ledger/ledger/0", "session-ledger/ledger/1", 1)
    data = bytearray(base64.b64decode(value))
    data[5] ^= 1
    return base64.b64encode(data).decode()


def test_what_is_no_bundle_is_told(auditor: Auditor) -> None:
    """No JSON, no object, another kind, no key: each by what it is."""
    file = auditor.place / "bundle.json"
    file.write_text("no json")
    assert 2 == auditor.alone("proof", "verify", file, "--key", auditor.key).code
    assert 2 == auditor.alone("proof", "verify", file, "--key", "no key").code
    assert 3 == auditor.alone("proof", "verify", auditor.place / "nothing", "--key", auditor.key).code
    documents: list[Any] = [[], {"kind": "another"}, {"kind": None}, {}]
    for document in documents:
        assert 1 == auditor.judge(document).code


def test_a_proof_of_what_is_not_there_is_refused(auditor: Auditor) -> None:
    """A position that is not signed yet, a session that does not exist, a size that was never signed."""
    for options in ("--position 3", "--position 1 --checkpoint 1", "--position 1 --partition 1"):
        assert 2 == auditor.shell("proof", "inclusion", *options.split()).code, options
    ran = auditor.shell("proof", "session", "0198c8a0-0000-7000-8000-000000000000", "--json")
    assert (1, "session_not_found") == (ran.code, ran.json["error"]["code"])


def test_without_a_checkpointer_it_is_said_what_to_do(shell: Shell, tmp_path: Path) -> None:
    """No key, no trees: the commands name `checkpoint`; nothing is made by asking."""
    assert 0 == shell("sessions", "create", "-U", "alice").code
    for asked in (("inclusion", "--position", 1), ("consistency", "--from", 1, "--to", 1)):
        assert "nothing_signed" == shell("proof", *asked, "--json").json["error"]["code"]
    ran = shell("proof", "inclusion", "--position", 1)
    assert 3 == ran.code
    assert "nothing of the ledger is signed yet: run `session-ledger checkpoint --once`" in ran.err
    assert 3 == shell("keys", "verifier").code
    assert 3 == shell("verify", "--log").code
    made = {"signing.key", "merkle.db", "checkpoints.db"}
    assert made.isdisjoint(path.name for path in shell.directory.iterdir())


def test_verify_log_tells_what_is_protected_and_what_is_not(auditor: Auditor) -> None:
    """The last record is not signed yet; without a mirror a rollback can not be seen, and that is said."""
    ran = auditor.shell("verify", "--log")
    assert 0 == ran.code
    assert "partition 0: 3 records; signed up to 2, so the last 1 are not protected;" in ran.out
    assert "against a rollback: up to 0" in ran.out
    assert "no checkpoint from outside was given: a rollback" in ran.out
    assert ran.out.endswith("everything agrees\n")
    mirror = auditor.shell.directory.parent / "mirror"
    ran = auditor.shell("verify", "--log", "--mirror", mirror, "--key", auditor.key, "--json")
    assert (0, True, 2, 3) == (ran.code, ran.json["ok"], ran.json["protected_outside"]["0"], ran.json["ends"]["0"])
    (note,) = (mirror / "session-ledger" / "ledger" / "0").iterdir()
    assert 0 == auditor.shell("verify", "--log", "--checkpoint", note).code
    note.chmod(0o644)
    note.write_text(note.read_text().replace("\n2\n", "\n3\n"))
    ran = auditor.shell("verify", "--log", "--checkpoint", note)
    assert 1 == ran.code
    assert "signature: partition 0: a checkpoint" in ran.out


def test_verify_log_without_checkpoints_does_not_agree(auditor: Auditor) -> None:
    """Exit code 1, and what was and was not compared; the same for a partition that nobody has signed yet."""
    for path in auditor.shell.directory.glob("checkpoints.db*"):
        path.unlink()
    ran = auditor.shell("verify", "--log")
    assert (1, False) == (ran.code, "everything agrees" in ran.out)
    assert "unsigned: no checkpoint was there to compare the log with" in ran.out
    assert "the stored tree agrees up to 2" in ran.out
    assert {"0": 2}.items() <= auditor.shell("verify", "--log", "--json").json["trees"].items()
    for path in auditor.shell.directory.glob("merkle.db*"):
        path.unlink()
    assert 1 == auditor.shell("verify", "--log").code
    (note,) = (auditor.shell.directory.parent / "mirror" / "session-ledger" / "ledger" / "-1").iterdir()
    ran = auditor.shell("verify", "--log", "--checkpoint", note)
    assert 0 == ran.code
    assert ran.out.endswith("what was compared agrees; nothing signed was there to compare partition 0 with\n")


def test_verify_log_goes_with_its_own_options_alone(auditor: Auditor) -> None:
    """A mirror without --log, or --log with a sample, is a mistake of usage; so is a mirror that is not there."""
    assert 2 == auditor.shell("verify", "--mirror", auditor.place).code
    assert 2 == auditor.shell("verify", "--log", "--sample", 1).code
    assert 3 == auditor.shell("verify", "--log", "--mirror", auditor.place / "nothing").code
    assert 3 == auditor.shell("verify", "--log", "--checkpoint", auditor.place / "nothing").code


def test_the_checkpointer_follows_until_it_is_told_to_stop(shell: Shell, session: str) -> None:
    """It tells each checkpoint as it is signed, and signs what is left when it ends."""
    with shell.started("checkpoint", "--every-records", "1", "--json") as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        assert ("session-ledger/ledger/0", 3) == (first["origin"], first["tree_size"])
        ran = shell("checkpoint", "--once", "--json")
        assert (3, "projection_in_use") == (ran.code, ran.json["error"]["code"])
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(30)
    assert 0 == shell("verify", "--log").code


def test_a_log_that_was_cut_off_ends_the_checkpointer(shell: Shell, session: str) -> None:
    """Exit code 1, what happened and what to do; nothing is signed."""
    import sqlite3

    with sqlite3.connect(shell.directory / "log.db") as db:
        db.execute("DELETE FROM events WHERE position > 1")
        db.execute("DELETE FROM batches WHERE first_position > 1")
    db.close()
    ran = shell("checkpoint", "--once", "--json")
    assert (1, "log_corrupt") == (ran.code, ran.json["error"]["code"])
    assert "rolled back or cut off" in ran.json["error"]["message"]
    assert os.path.exists(shell.directory / "checkpoints.db")
