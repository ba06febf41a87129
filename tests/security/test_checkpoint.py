"""Checkpoints and statements: their text, their key, and that neither can be taken for the other."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from session_ledger.domain.errors import InvalidInput, KeyUnavailable
from session_ledger.security.checkpoint import Checkpoint, SessionStatement, origin_of
from session_ledger.security.signing import Signer

ROOT = bytes(range(32))
ORIGIN = origin_of("support", 3)
CHECKPOINT = Checkpoint(ORIGIN, 1234, ROOT)
STATEMENT = SessionStatement(CHECKPOINT, bytes(range(16)), 7)


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    """A ledger's key, under the origin of a partition."""
    return Signer(tmp_path / "signing.key", "support").named(ORIGIN)


def test_a_checkpoint_is_three_lines() -> None:
    """The text is that of C2SP's tlog-checkpoint, and is read as it was written."""
    text = f"session-ledger/support/3\n1234\n{base64.b64encode(ROOT).decode()}\n"
    assert text == CHECKPOINT.text
    assert Checkpoint.parse(text) == CHECKPOINT
    assert 3 == CHECKPOINT.partition
    assert CHECKPOINT == Checkpoint.parse(text + "an extension\n")


def test_an_origin_is_a_name_that_a_key_can_have() -> None:
    """A ledger's name may hold spaces and plus signs, a key's may not; the control log has the number -1."""
    assert origin_of("my ledger+1", -1) == "session-ledger/my%20ledger%2B1/-1"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "o\n1\n",
        f"o\n01\n{base64.b64encode(ROOT).decode()}\n",
        f"o\n-1\n{base64.b64encode(ROOT).decode()}\n",
        f"o\n1\n{base64.b64encode(ROOT[:31]).decode()}\n",
        f"o\n1\n{base64.b64encode(ROOT).decode()}",
        f"\n1\n{base64.b64encode(ROOT).decode()}\n",
        f"o\n1\n{base64.b64encode(ROOT).decode()}\n\nx\n",
        f"o\n1\n{base64.b64encode(ROOT).decode()[:-2]}9=\n",
    ],
)
def test_another_text_is_no_checkpoint(text: str) -> None:
    """A missing line, a number written another way, a root of another length or with stray bits is refused."""
    with pytest.raises(InvalidInput):
        Checkpoint.parse(text)


def test_a_note_holds_for_its_key_and_origin(signer: Signer) -> None:
    """Only what the key signed under the checkpoint's own origin is taken."""
    note = signer.sign(CHECKPOINT.text)
    assert Checkpoint.of_note(note, signer.verifier) == CHECKPOINT
    with pytest.raises(InvalidInput, match="be one of session-ledger/support/3"):
        Checkpoint.of_note(signer.sign(Checkpoint("another", 1, ROOT).text), signer.verifier)
    with pytest.raises(InvalidInput, match="signed by"):
        Checkpoint.of_note(note.replace("1234", "1235"), signer.verifier)
    with pytest.raises(InvalidInput, match="signed by"):
        Checkpoint.of_note(note, signer.named(origin_of("support", 2)).verifier)


def test_a_statement_is_read_as_it_was_written(signer: Signer) -> None:
    """It names the checkpoint that it rests on, the session and its last version."""
    assert STATEMENT == SessionStatement.of_note(signer.sign(STATEMENT.text), signer.verifier)
    for changed in (STATEMENT.text.replace(" 7\n", " 07\n"), STATEMENT.text + "more\n", STATEMENT.text.upper()):
        with pytest.raises(InvalidInput):
            SessionStatement.of_note(signer.sign(changed), signer.verifier)


def test_neither_is_taken_for_the_other(signer: Signer) -> None:
    """One key signs both, so a signed checkpoint is no statement, and a signed statement no checkpoint."""
    with pytest.raises(InvalidInput):
        SessionStatement.of_note(signer.sign(CHECKPOINT.text), signer.verifier)
    with pytest.raises(InvalidInput):
        Checkpoint.of_note(signer.sign(STATEMENT.text), signer.verifier)


def test_a_key_under_another_name_is_the_same_key(signer: Signer, tmp_path: Path) -> None:
    """The name tells the partitions apart, in the key's id too; the key file is one."""
    other = Signer(tmp_path / "signing.key", "support")
    assert other.verifier.key == signer.verifier.key
    assert other.verifier.key_id != signer.verifier.key_id
    assert other.verifier.named(ORIGIN) == signer.verifier
    with pytest.raises(InvalidInput):
        other.named("a name")


def test_no_key_is_made_where_one_must_be(tmp_path: Path) -> None:
    """Whoever looks for the public key is told that there is none, and none is made."""
    with pytest.raises(KeyUnavailable):
        Signer(tmp_path / "signing.key", "support", create=False)
    assert [] == list(tmp_path.iterdir())
