"""Signed notes: what was signed is read back by the public key alone, and nothing else is."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest

from session_ledger.cli.main import run
from session_ledger.domain.errors import InvalidInput, ProofInvalid, SigningKeyUnavailable
from session_ledger.security.signing import Signer, Verifier
from tests.cli.shell import Shell, streams

TEXT = "one\n\ntwo — three\n"


def test_the_form_is_that_of_signed_notes(tmp_path: Path) -> None:
    """Text, empty line, signature line; the key id is the hash of name, algorithm and key (C2SP signed-note)."""
    signer = Signer(tmp_path / "key", "ledger")
    note = signer.sign(TEXT)
    assert note.startswith(TEXT + "\n— ledger ")
    key = signer.verifier
    assert hashlib.sha256(b"ledger\n\x01" + key.key).digest()[:4] == key.key_id
    signed = base64.b64decode(note.splitlines()[-1].split(" ")[2])
    assert (key.key_id, 68) == (signed[:4], len(signed))
    assert str(key) == f"ledger+{key.key_id.hex()}+{base64.b64encode(bytes([1]) + key.key).decode()}"


def test_a_note_is_read_back_and_no_other(tmp_path: Path) -> None:
    """The same file gives the same key; a changed text, signature, name or key is refused."""
    signer = Signer(tmp_path / "key", "ledger")
    note = signer.sign(TEXT)
    verifier = Verifier.parse(str(Signer(tmp_path / "key", "ledger").verifier))
    assert TEXT == verifier.text_of(note)
    assert 0o600 == (tmp_path / "key").stat().st_mode & 0o777
    other = Signer(tmp_path / "other", "ledger").verifier
    cosigned = note + Signer(tmp_path / "third", "witness").sign(TEXT).splitlines()[-1] + "\n"
    assert TEXT == verifier.text_of(cosigned)
    for wrong in (note.replace("two", "2"), note[:-6] + "AAAA=\n", note.replace("— ledger", "— forger"), TEXT, ""):
        with pytest.raises(InvalidInput):
            verifier.text_of(wrong)
    with pytest.raises(InvalidInput):
        other.text_of(note)


@pytest.mark.parametrize("text", ["", "a", "a+b", "ledger+00000000+AQ==", "led ger+00000000+AAAA", "ledger+zz+%%%%"])
def test_what_is_no_key_is_refused(text: str) -> None:
    """By name and shape, never by its value."""
    with pytest.raises(InvalidInput):
        Verifier.parse(text)


def test_a_damaged_key_file_is_told(tmp_path: Path) -> None:
    """KeyUnavailable names it, without Python's words; it is not made again over what may be restored."""
    good = tmp_path / "good"
    Signer(good, "ledger")
    path = tmp_path / "key"
    for content in (b"nothing", b"\xff\xfe\x00", b"", good.read_bytes()[:-9], good.read_bytes()[:-1] + b"!\n"):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(SigningKeyUnavailable, match=r"key is no key file, or a damaged one: bring it back") as told:
            Signer(path, "ledger")
        assert "codec" not in str(told.value)
        assert content == path.read_bytes()


def test_a_key_that_others_can_read_is_kept(tmp_path: Path) -> None:
    """Its mode is to be mended; no other one is advised, which could not go on where it signed."""
    Signer(tmp_path / "key", "ledger")
    (tmp_path / "key").chmod(0o644)
    with pytest.raises(SigningKeyUnavailable, match=r"\(mode 644\): chmod 600 it") as told:
        Signer(tmp_path / "key", "ledger")
    assert "new" not in str(told.value)


def test_a_key_that_was_never_made_says_what_makes_it(directory: Path) -> None:
    """`keys verifier` before the first signature: what to run, and no error number."""
    shell = Shell(directory)
    assert 0 == shell("sessions", "create", "--user", "ada").code
    ran = shell("keys", "verifier")
    assert (3, True) == (ran.code, "`session-ledger checkpoint --once`" in ran.err)
    assert "Errno" not in ran.err
    assert 0 == shell("checkpoint", "--once").code
    assert 0 == shell("keys", "verifier").code


def test_an_outcome_is_signed_and_checked(directory: Path, tmp_path: Path) -> None:
    """`verify --sign`, then `--check` with the key that was told; a changed note is refused."""
    shell, note = Shell(directory), tmp_path / "note"
    assert 0 == shell("sessions", "create", "--user", "ada").code
    ran = shell("verify", "--sign", note, "--json")
    assert 0 == ran.code
    key = ran.json["public_key"]
    ran = shell("verify", "--check", note, "--key", key)
    assert (0, True, True) == (ran.code, "result agrees" in ran.out, "not changed since" in ran.out)
    checked = shell("verify", "--check", note, "--key", key, "--json").json
    name, key_id, _ = key.split("+", 2)
    assert (True, name, key_id) == (checked["ok"], checked["signed_by"], checked["key_id"])
    assert note.read_text().split("\n\n")[0].splitlines() == checked["lines"]
    note.write_text(note.read_text().replace("findings 0", "findings 1"))
    ran = shell("verify", "--check", note, "--key", key, "--json")
    assert (1, "proof_invalid") == (ran.code, ran.json["error"]["code"])
    assert "was changed since" in ran.err


def test_a_note_that_does_not_hold_says_what_was_compared(tmp_path: Path) -> None:
    """Another name, another key of the name, a changed text, no signature, no text: each is told apart."""
    signer, other = Signer(tmp_path / "key", "ledger"), Signer(tmp_path / "other", "ledger").verifier
    note, ours = signer.sign(TEXT).encode(), signer.verifier
    ids = {one: f"ledger\\+{one.key_id.hex()}" for one in (ours, other)}
    assert TEXT == ours.proven_text(note, "F")
    for verifier, brought, said in (
        (other.named("else"), note, "F does not hold: it is a note signed by ledger; compared with the key else"),
        (
            ours.named("else"),
            note,
            "a note signed by ledger, by this key under another name; compared with the key else",
        ),
        (other, note, f"another key of that name, {ids[ours]}; compared with the key {ids[other]}"),
        (ours, note.replace(b"two", b"2"), f"was changed since it was signed; compared with the key {ids[ours]}"),
        (ours, TEXT.encode(), "17 characters without a signature under it"),
        (ours, b"\xff", "no text"),
    ):
        with pytest.raises(ProofInvalid, match=said):
            verifier.proven_text(brought, "F")


def test_what_is_no_key_and_what_is_another_note_exit_apart(directory: Path, tmp_path: Path) -> None:
    """A key that is none is usage (2); a note of another kind that the key has signed does not hold (1)."""
    shell, note = Shell(directory), tmp_path / "note"
    signer = Signer(tmp_path / "key", "ledger")
    note.write_text(signer.sign("something else\n"))
    for command in (("verify", "--check", note), ("verify-receipt", note)):
        with streams() as (out, _):
            assert 2 == run([*map(str, command), "--key", "ledger+0", "--json"])
        assert "invalid_input" in out.getvalue().decode()
        with streams() as (out, _):
            assert 1 == run([*map(str, command), "--key", str(signer.verifier), "--json"])
        error = json.loads(out.getvalue())["error"]
        assert "proof_invalid" == error["code"]
        assert "is signed by ledger, but is not the" in error["message"]
    assert 2 == shell("verify", "--check", note).code
