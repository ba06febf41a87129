"""What was said in one session, shown to who may reveal it: counted, recorded, and only then opened."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from session_ledger.consumers.paging import PAGE_MAX
from session_ledger.consumers.records import ErrorView, MessageView, SessionView
from session_ledger.consumers.views import Views
from session_ledger.domain.errors import ContentWithheld
from session_ledger.domain.ids import parse_id
from session_ledger.ledger.ledger import Ledger
from session_ledger.security.port import Envelope
from session_ledger.security.withheld import Withheld


@dataclass(frozen=True, slots=True)
class Revealed:
    """A session with all that was said in it."""

    session: SessionView
    messages: tuple[MessageView, ...]
    errors: tuple[ErrorView, ...]
    fields: int
    """How many sealed fields the recorded fact is about; 0: there is none, and nothing was recorded."""


class _Counting(Withheld):
    """Gives no key, and counts how often one was asked for."""

    def __init__(self, pseudonyms: bool) -> None:
        super().__init__(pseudonyms=pseudonyms)
        self.fields = 0

    def opening_key(self, tenant: str, user: str, session_id: bytes, key_id: bytes | None) -> NoReturn:
        self.fields += 1
        raise ContentWithheld("it is counted")


def reveal_session(
    views: Views,
    ledger: Ledger,
    opened: Callable[[], Envelope],
    tenant: str,
    user: str,
    session_id: str,
    *,
    revealed_by: str,
    reason: str,
) -> Revealed:
    """Record one ContentRevealed of all sealed fields of the session, then open them.

    `opened`: gives what opens; it is asked only after that. Raises SessionNotFound, Forbidden, and what the ledger
    raises where it can not record (NotOwner, LogUnavailable, ...): then nothing was opened.
    """
    user = views.recorded_as(tenant, user)
    counting = _Counting(views._envelope.pseudonyms.in_use())
    seen = _read(views._opening_with(counting), tenant, user, session_id)
    if counting.fields == 0:
        return seen
    about = f"audit reveal {tenant}/{user}/{session_id}"
    ledger.reveal_content(
        tenant,
        user,
        session_id=parse_id(session_id, "session_id"),
        revealed_by=revealed_by,
        reason=reason,
        query_digest=hashlib.blake2b(about.encode(), digest_size=16).digest(),
        fields=counting.fields,
    )
    shown = _read(views._opening_with(opened()), tenant, user, session_id, fresh=False)
    messages, errors = shown.messages[: len(seen.messages)], shown.errors[: len(seen.errors)]  # as were counted
    return Revealed(shown.session, messages, errors, counting.fields)


def _read(views: Views, tenant: str, user: str, session_id: str, *, fresh: bool | None = None) -> Revealed:
    session = views.session(tenant, user, session_id, fresh=fresh)
    messages: list[MessageView] = []
    while page := views.history(tenant, user, session_id, after=messages[-1].number if messages else 0, fresh=False):
        messages += page
    errors: list[ErrorView] = []
    while found := views.errors(tenant, user, session_id, after=errors[-1].position if errors else 0, fresh=False):
        errors += found
        if len(found) < PAGE_MAX:
            break
    return Revealed(session, tuple(messages), tuple(errors), 0)
