"""The keyring file: private, whole, and silent about its keys."""

from __future__ import annotations

import base64
import json
import os
import pickle
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from session_ledger.domain.errors import KeyUnavailable, Misconfigured
from session_ledger.security.keyring import Keyring
from session_ledger.security.wrapping import Bound
from tests.security.made import raised

DATA_KEY = b"d" * 32
BOUND = Bound("support", "acme", b"k" * 16)


def test_a_new_keyring_is_private_and_leaves_no_draft(tmp_path: Path) -> None:
    """Mode 0600, and no other file beside it."""
    path = tmp_path / "keyring.json"
    Keyring.create(path)
    assert 0o600 == path.stat().st_mode & 0o777
    assert [path] == list(tmp_path.iterdir())


def test_a_key_is_wrapped_and_unwrapped_by_the_same_file(tmp_path: Path) -> None:
    """What one opening wraps, another unwraps; the wrapped form holds nothing of the key and never repeats."""
    path = tmp_path / "keyring.json"
    wrapping_key_id, wrapped = Keyring.create(path).wrap(DATA_KEY, BOUND)
    assert DATA_KEY == Keyring.open(path).unwrap(wrapping_key_id, wrapped, BOUND)
    assert DATA_KEY not in wrapped
    assert wrapped != Keyring.open(path).wrap(DATA_KEY, BOUND)[1]


def test_a_wrapped_key_is_bound_to_what_it_was_wrapped_for(keyring: Keyring) -> None:
    """Other associated data, damage or a cut: KeyUnavailable that names the wrapping key."""
    wrapping_key_id, wrapped = keyring.wrap(DATA_KEY, BOUND)
    others = BOUND._replace(tenant="other"), BOUND._replace(ledger="other"), BOUND._replace(key_id=b"o" * 16)
    for other in others:
        with pytest.raises(KeyUnavailable, match=wrapping_key_id):
            keyring.unwrap(wrapping_key_id, wrapped, other)
    damaged = wrapped[:20] + bytes([wrapped[20] ^ 1]) + wrapped[21:]
    for bytes_, bound in ((damaged, BOUND), (wrapped[:-1], BOUND), (b"", BOUND)):
        with pytest.raises(KeyUnavailable, match=wrapping_key_id):
            keyring.unwrap(wrapping_key_id, bytes_, bound)


def test_another_keyring_says_which_wrapping_key_is_missing(keyring: Keyring, tmp_path: Path) -> None:
    """KeyUnavailable names the wrapping key and the file that does not hold it."""
    wrapping_key_id, wrapped = keyring.wrap(DATA_KEY, BOUND)
    other = Keyring.create(tmp_path / "other.json")
    with pytest.raises(KeyUnavailable, match=f"{wrapping_key_id} is not in the keyring .*other.json"):
        other.unwrap(wrapping_key_id, wrapped, BOUND)


def test_older_wrapping_keys_still_unwrap(keyring: Keyring) -> None:
    """A keyring whose primary was replaced wraps by the new one and unwraps by both."""
    old_id, wrapped = keyring.wrap(DATA_KEY, BOUND)
    content = json.loads(keyring.path.read_text(encoding="utf-8"))
    content["keys"]["wk-new"] = base64.b64encode(os.urandom(32)).decode()
    content["primary"] = "wk-new"
    keyring.path.write_text(json.dumps(content), encoding="utf-8")
    replaced = Keyring.open(keyring.path)
    assert "wk-new" == replaced.wrap(DATA_KEY, BOUND)[0]
    assert DATA_KEY == replaced.unwrap(old_id, wrapped, BOUND)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_keyring_that_others_can_read_is_refused(keyring: Keyring, mode: int) -> None:
    """Misconfigured says the mode and the command that repairs it."""
    keyring.path.chmod(mode)
    with pytest.raises(Misconfigured, match=f"mode {mode:03o}.*chmod 600"):
        Keyring.open(keyring.path)


def test_a_keyring_is_never_overwritten(keyring: Keyring) -> None:
    """Creating where one stands fails and leaves it as it is."""
    before = keyring.path.read_bytes()
    with pytest.raises(Misconfigured, match="exists already"):
        Keyring.create(keyring.path)
    assert before == keyring.path.read_bytes()
    assert [keyring.path] == list(keyring.path.parent.iterdir())


def test_of_many_makers_all_get_the_same_keyring(tmp_path: Path) -> None:
    """Sixteen threads open or create one path: one keyring, whole for everybody."""
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda _: Keyring.open_or_create(tmp_path / "keyring.json").primary, range(16)))
    assert 1 == len(set(made))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "not a keyring"),
        (b'{"format": "else"}', "not a keyring"),
        (b'{"format": "session-ledger keyring", "version": 2}', "another version"),
        (b'{"format": "session-ledger keyring", "version": 1, "primary": "a", "keys": {}}', "no primary"),
        (b'{"format": "session-ledger keyring", "version": 1, "primary": "a", "keys": {"a": "c2VjcmV0"}}', "32 bytes"),
        (b'{"format": "session-ledger keyring", "version": 1, "primary": "a", "keys": {"a": "c2Vjcm*"}}', "32 bytes"),
        (b'{"format": "session-ledger keyring", "version": 1, "primary": "a", "keys": {"a": 7}}', "32 bytes"),
    ],
)
def test_what_is_no_keyring_is_refused_without_quoting_it(tmp_path: Path, content: bytes, said: str) -> None:
    """Misconfigured names the file and the rule; the content, which may be half a secret, is not shown."""
    path = tmp_path / "keyring.json"
    path.touch(0o600)
    path.write_bytes(content)
    error = raised(lambda: Keyring.open(path))
    assert (Misconfigured, True) == (type(error), said in str(error))
    assert "c2Vjc" not in "".join(traceback.format_exception(error))


def test_a_missing_keyring_and_a_missing_directory_are_said(tmp_path: Path) -> None:
    """Misconfigured, not a FileNotFoundError."""
    with pytest.raises(Misconfigured, match="there is no keyring"):
        Keyring.open(tmp_path / "keyring.json")
    with pytest.raises(Misconfigured, match="can not be written"):
        Keyring.open_or_create(tmp_path / "nowhere" / "keyring.json")


def test_a_keyring_shows_no_key(keyring: Keyring) -> None:
    """Neither repr nor pickle gives wrapping keys away."""
    content = json.loads(keyring.path.read_text(encoding="utf-8"))
    encoded = content["keys"][content["primary"]]
    assert encoded not in repr(keyring)
    assert repr(base64.b64decode(encoded)) not in repr(vars(keyring))
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(keyring)


def test_a_new_primary_is_seen_by_who_has_the_keyring_open(keyring: Keyring) -> None:
    """It wraps from now on in both; what the old one wrapped still unwraps; the file stays private and whole."""
    before = Keyring.open(keyring.path)
    old_id, wrapped = before.wrap(DATA_KEY, BOUND)
    new_id = keyring.add_primary()
    assert new_id == before.current() == before.wrap(DATA_KEY, BOUND)[0]
    assert [old_id, new_id] == before.key_ids()
    assert DATA_KEY == before.unwrap(old_id, wrapped, BOUND)
    assert 0o600 == keyring.path.stat().st_mode & 0o777
    assert [keyring.path] == list(keyring.path.parent.iterdir())


def test_of_many_who_add_a_primary_none_loses_a_key(keyring: Keyring) -> None:
    """Sixteen at once leave seventeen keys, the primary one of the new ones."""
    with ThreadPoolExecutor(16) as pool:
        added = list(pool.map(lambda _: Keyring.open(keyring.path).add_primary(), range(16)))
    assert {keyring.primary, *added} >= set(keyring.key_ids())
    assert 17 == len(keyring.key_ids())
    assert keyring.current() in added


def test_a_keyring_that_went_away_or_broke_is_told_apart(keyring: Keyring) -> None:
    """Who has read it goes on without the file; a file that changed into something else is KeyUnavailable."""
    wrapping_key_id, wrapped = keyring.wrap(DATA_KEY, BOUND)
    hidden = keyring.path.with_name("hidden")
    keyring.path.rename(hidden)
    assert DATA_KEY == keyring.unwrap(wrapping_key_id, wrapped, BOUND)
    keyring.path.touch(0o600)
    keyring.path.write_text("{}", encoding="utf-8")
    with pytest.raises(KeyUnavailable, match="not a keyring"):
        keyring.unwrap(wrapping_key_id, wrapped, BOUND)
    hidden.rename(keyring.path)
    assert DATA_KEY == keyring.unwrap(wrapping_key_id, wrapped, BOUND)
