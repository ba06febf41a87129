"""The key that signs receipts and the outcome of `verify`: the ledger's own, under the ledger's name."""

from __future__ import annotations

from urllib.parse import quote

from session_ledger.consumers.erasure_store import FILE as ERASURES_FILE
from session_ledger.consumers.erasure_store import ErasureStore
from session_ledger.domain.errors import Misconfigured, SigningKeyUnavailable
from session_ledger.ledger.checkpoints import open_checkpoints
from session_ledger.ledger.log.port import Log
from session_ledger.ledger.settings import Settings
from session_ledger.ledger.url import LedgerUrl
from session_ledger.security.signing import FILE, Signer


def signing_key(place: LedgerUrl, settings: Settings, log: Log) -> Signer:
    """The key; made where nothing was signed by one before.

    Raises SigningKeyUnavailable (it is lost: bring it back), LogUnavailable (Kafka: whether it is can not be asked),
    Misconfigured.
    """
    if place.directory is None:
        raise Misconfigured("a ledger in memory has no directory for a signing key: nothing of it can be signed")
    path = place.directory / FILE
    if not path.exists() and _was_used(place, settings, log):
        raise SigningKeyUnavailable(
            f"receipts or checkpoints are signed, and their key {path} is not there: bring it back"
        )
    return Signer(path, quote(log.name, safe=""))


def _was_used(place: LedgerUrl, settings: Settings, log: Log) -> bool:
    assert place.directory is not None
    erasures = place.directory / ERASURES_FILE
    if erasures.exists():
        store = ErasureStore(erasures, log.log_id)
        try:
            if store.signed():
                return True
        finally:
            store.close()
    kept = open_checkpoints(place, settings, write=False)
    try:
        return bool(kept.read())
    finally:
        kept.close()
