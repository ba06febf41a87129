"""Proofs and checkpoints that we made, judged by code that is not ours: Go's sumdb/note and transparency-dev/merkle."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from session_ledger.security.checkpoint import origin_of
from session_ledger.security.signing import Signer
from tests.consumers.signed import Signed
from tests.interop.golang import build

RUN_S = 60


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Go program, built once."""
    return build(tmp_path_factory.mktemp("go"))


@pytest.fixture(scope="session")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    """A ledger with sessions of many sizes, whose checkpoints fall on and beside powers of two."""
    return Signed(tmp_path_factory.mktemp("signed") / "ledger").grown_and_signed(0, 1, 4, 7, 15, 99, 127, 3, 258)


@pytest.fixture
def judge(program: Path, signed: Signed, tmp_path: Path) -> Callable[..., str]:
    """What the Go program says of a bundle: "ok", or what does not hold."""

    def judged(bundle: dict[str, Any], partition: int = 0) -> str:
        key = Signer(signed.directory / "signing.key", "ledger").verifier.named(origin_of("ledger", partition))
        file = tmp_path / "bundle.json"
        file.write_text(json.dumps(bundle))
        done = subprocess.run([program, str(key), file], capture_output=True, text=True, timeout=RUN_S, check=False)
        assert (done.returncode == 0) == (done.stdout == "ok\n")
        return "ok" if done.returncode == 0 else done.stderr

    return judged


SIZES = [1, 3, 8, 16, 32, 132, 260, 264, 523]


def test_inclusion_proofs_hold(signed: Signed, judge: Callable[..., str]) -> None:
    """Of first, last and other records, in trees of every size that was signed; of the control log, too."""
    with signed.prover() as prover:
        assert SIZES == sorted(prover._signed(0))
        for size in SIZES:
            for position in sorted({1, 2, size // 2, size - 1, size} & set(range(1, size + 1))):
                assert "ok" == judge(prover.inclusion(0, position, size)), (position, size)
        assert "ok" == judge(prover.inclusion(-1, 3), -1)


def test_consistency_proofs_hold(signed: Signed, judge: Callable[..., str]) -> None:
    """Between any two checkpoints."""
    with signed.prover() as prover:
        for at, first in enumerate(SIZES):
            for second in SIZES[at:]:
                assert "ok" == judge(prover.consistency(0, first, second)), (first, second)


def test_the_proof_of_a_session_holds(signed: Signed, judge: Callable[..., str]) -> None:
    """Every event's inclusion, and the note of the statement."""
    with signed.prover() as prover:
        for session in signed.sessions[:4]:
            assert "ok" == judge(prover.session(session))


def test_what_is_changed_does_not_hold(signed: Signed, judge: Callable[..., str]) -> None:
    """The judge is one: a byte of the leaf, a hash, the index, the root or another key, and it refuses."""
    with signed.prover() as prover:
        bundle = prover.inclusion(0, 100, 132)
        data = bytearray(base64.b64decode(str(bundle["leaf_data"])))
        data[-1] ^= 1
        assert "leaf_hash" in judge({**bundle, "leaf_data": base64.b64encode(data).decode()})
        hashes = bundle["hashes"]
        assert isinstance(hashes, list)
        assert "calculated root" in judge({**bundle, "hashes": [hashes[1], hashes[0], *hashes[2:]]})
        assert "ok" != judge({**bundle, "leaf_index": 98})
        assert "ok" != judge({**bundle, "checkpoint": prover.inclusion(0, 100, 260)["checkpoint"]})
        assert "ok" != judge(bundle, -1)
        proof = prover.consistency(0, 132, 260)
        assert "ok" != judge({**proof, "checkpoint_from": bundle["checkpoint"], "hashes": proof["hashes"][:-1]})  # type: ignore[index]
