"""The envelope of who reads structure alone, by right or for want of keys: it gives none, so that none is unwrapped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from session_ledger.domain.errors import ContentWithheld, KeyUnavailable
from session_ledger.security.access import Principal, Right
from session_ledger.security.port import Envelope, Kept
from session_ledger.security.pseudonyms import LockedPseudonyms, NoPseudonyms, Pseudonyms

WHY = (
    "this principal reads structure alone; `session-ledger audit reveal SESSION --reason ...`, or reveal(content) in "
    "`session-ledger sql`, shows content to who has the right to reveal, and is recorded first"
)


class Withheld(Envelope):
    """Every key that is asked for is refused, and users stay named as the log names them."""

    def __init__(self, *, pseudonyms: bool, away: str | None = None) -> None:
        """`pseudonyms`: whether the ledger has some. `away`: why the keys are not to be had; None: by right."""
        self._error = ContentWithheld(WHY) if away is None else KeyUnavailable(away)
        locked = LockedPseudonyms("it reads structure alone" if away is None else away)
        self.pseudonyms: Pseudonyms = locked if pseudonyms else NoPseudonyms()

    def _refuse(self) -> NoReturn:
        raise type(self._error)(str(self._error))

    def session_key(
        self, tenant: str, user: str, session_id: bytes, *, create: bool = False, fresh: bool = False
    ) -> NoReturn:
        self._refuse()

    def account_key(self, tenant: str, user: str, *, create: bool = False) -> NoReturn:
        self._refuse()

    def renewed_account_key(self, tenant: str, user: str) -> NoReturn:
        self._refuse()

    def forget(self, tenant: str, user: str, session_id: bytes | None) -> None:
        return None

    def next_key(self, tenant: str, user: str, session_id: bytes) -> NoReturn:
        self._refuse()

    def opening_key(self, tenant: str, user: str, session_id: bytes, key_id: bytes | None) -> NoReturn:
        self._refuse()

    def make_durable(self, keys: Iterable[Kept]) -> NoReturn:
        self._refuse()

    def close(self) -> None:
        return None


def as_read_by(principal: Principal | None, envelope: Envelope) -> Envelope:
    """The envelope, or one that withholds, as the principal may read content (None: may)."""
    if principal is None or principal.has(Right.READ_CONTENT):
        return envelope
    return Withheld(pseudonyms=envelope.pseudonyms.in_use())
