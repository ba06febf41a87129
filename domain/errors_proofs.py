"""Errors about checkpoints and proofs; see `errors`."""

from __future__ import annotations

from session_ledger.domain.error import SessionLedgerError


class ProofInvalid(SessionLedgerError):
    """A proof does not show what it says: says what does not hold."""

    code = "proof_invalid"


class NothingSigned(SessionLedgerError):
    """No checkpoint of the partition is signed yet, so nothing of it can be proved."""

    code = "nothing_signed"
    retriable = True
