"""What all views share: how they are opened and for whom, how fresh a read is, and where every read passes."""

from __future__ import annotations

import contextlib
import copy
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from session_ledger.consumers.projector import Projector
from session_ledger.consumers.wiring import open_store
from session_ledger.domain.errors import Forbidden, KeyUnavailable, Misconfigured
from session_ledger.domain.ids import slot_of_user
from session_ledger.ledger.clocks import machine_clock_us
from session_ledger.ledger.keys import has_pseudonyms
from session_ledger.ledger.log.port import Log
from session_ledger.ledger.open import open_codec, open_envelope, open_log, open_settings
from session_ledger.ledger.principals import own_principal
from session_ledger.ledger.published import codec_of
from session_ledger.ledger.settings import Settings
from session_ledger.ledger.url import parse_url
from session_ledger.projections.store import Store
from session_ledger.schemas.codec import Codec
from session_ledger.security.access import Principal, Right, check_read
from session_ledger.security.port import Envelope
from session_ledger.security.withheld import Withheld, as_read_by

CONTROL = -1
U = TypeVar("U", str, str | None)


def _opening(directory: Path | None, name: str, settings: Settings) -> tuple[Envelope, Callable[[], None]]:
    """(what opens content, what closes it); where the keys are not to be had, structure is read without them."""
    try:
        return open_envelope(directory, name, settings, readonly=True)
    except (Misconfigured, KeyUnavailable) as error:
        envelope = Withheld(pseudonyms=has_pseudonyms(directory, readonly=True), away=str(error))
        return envelope, envelope.close


class OpenViews:
    """Opened over a log and the rows that were folded from it; see `Views` for the reads."""

    def __init__(
        self,
        log: Log,
        store: Store,
        envelope: Envelope,
        *,
        codec: Codec | None = None,
        fresh: bool = True,
        clock: Callable[[], int] = machine_clock_us,
        principal: Principal | None = None,
    ) -> None:
        """Over an open log; `fresh` is the default of every read. Neither log nor envelope is closed by `close`.

        `principal`: who reads; None: who may read everything.
        """
        self.log = log
        self.store = store
        self.codec = codec or codec_of(log)
        """What decodes the records of the log."""
        self.projector = Projector(log, self.codec, store)
        self.principal = principal
        """Who reads; None: who may read everything."""
        self._opens = envelope
        self._envelope = as_read_by(principal, envelope)
        self._fresh = fresh
        self._clock = clock
        self._lent = False
        self._closing: list[Callable[[], None]] = [store.close]

    @classmethod
    def open(
        cls,
        url: str | Path | None = None,
        *,
        settings: Settings | None = None,
        fresh: bool = True,
        principal: Principal | None = None,
        **options: object,
    ) -> Self:
        """The views of the ledger at a URL (or of the SQLite ledger in a directory), beside whoever owns it.

        `url` None: that of the settings. `options` are fields of `Settings`. The log is opened for reading only;
        `views.db` stands in the ledger's directory and is made when it is missing. `principal`: who reads; None: the
        system's user, as the settings' `principals` say. No key is needed for structure: where they are not to be had,
        sealed fields are None, and `unreadable` says why.

        Raises LogUnavailable where there is no ledger, Misconfigured, ProjectionForeign, Forbidden for a user who is no
        principal where there are some.
        """
        chosen = open_settings(settings, options)
        if principal is None and chosen.principals:
            principal = own_principal(chosen)
        text = chosen.url if url is None else str(url)
        place = parse_url(f"sqlite:{text}" if isinstance(url, Path) or ":" not in text else text)
        log = open_log(place, chosen, write=False)
        closing: list[Callable[[], None]] = [log.close]
        try:
            if principal is None or principal.has(Right.READ_CONTENT):
                envelope, close_envelope = _opening(place.directory, log.name, chosen)
                closing.append(close_envelope)
            else:
                envelope = Withheld(pseudonyms=has_pseudonyms(place.directory, readonly=True))
            codec, close_codec = open_codec(log, chosen)
            closing.append(close_codec)
            store = open_store(log, place.directory)
            views = cls(log, store, envelope, codec=codec, fresh=fresh, principal=principal)
        except BaseException:
            for close in reversed(closing):
                close()
            raise
        views._closing.extend(reversed(closing))
        return views

    @classmethod
    def over(
        cls,
        log: Log,
        envelope: Envelope,
        *,
        directory: Path | None = None,
        codec: Codec | None = None,
        fresh: bool = True,
        clock: Callable[[], int] = machine_clock_us,
        principal: Principal | None = None,
    ) -> Self:
        """The views of a log that is open in this process, such as one in memory.

        `envelope` opens what was sealed. `directory` None: the rows stand in a file that `close` deletes.
        `principal`: who reads; None: who may read everything.
        """
        store = open_store(log, directory)
        return cls(log, store, envelope, codec=codec, fresh=fresh, clock=clock, principal=principal)

    def acting_as(self, principal: Principal) -> Self:
        """The same views for a principal who reads, such as a caller of a service. Closing them closes nothing.

        They open what these open, where that principal may read content.
        """
        if self._lent:
            raise Forbidden(f"these views act for somebody already: ask the opened ones to act as {principal.name}")
        lent = self._opening_with(as_read_by(principal, self._opens))
        lent.principal = principal
        return lent

    def _opening_with(self, envelope: Envelope) -> Self:
        lent = copy.copy(self)
        lent._envelope, lent._lent, lent._closing = envelope, True, []
        return lent

    def close(self) -> None:
        """Close what was opened here. Idempotent."""
        while self._closing:
            self._closing.pop(0)()

    def __enter__(self) -> Self:
        """The views themselves."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    # --- freshness --------------------------------------------------------------------------------------------------

    def refresh(self, to: dict[int, int] | None = None) -> int:
        """Fold everything up to `to` (partition to position; None: each log's end now); the records folded."""
        return self.projector.catch_up(to)

    def wait(self, partition: int, position: int, timeout_s: float = 10.0) -> None:
        """Return once the views hold that position (a command's answer carries it): read your own writes.

        Folds by itself; WaitTimeout where the log does not show the position in time.
        """
        deadline = time.monotonic() + timeout_s
        log = self.projector.partition(partition)
        while (reached := self.store.position(partition)) < position:
            end = log.end()
            if end > reached:
                self.projector.catch_up({partition: min(end, position)})
            elif (left := deadline - time.monotonic()) > 0:
                log.wait(reached, min(left, 0.05))
            else:
                self.projector.wait(partition, position, 0.0)

    def partition_of(self, tenant: str, user: str) -> int:
        """The partition that holds all that belongs to the user."""
        return slot_of_user(tenant, self.recorded_as(tenant, user)) & (len(self.log.partitions) - 1)

    def recorded_as(self, tenant: str, user: str) -> str:
        """The user as log and rows name it: by a pseudonym where the ledger has them. Raises KeyUnavailable."""
        return self._envelope.pseudonyms.recorded_as(tenant, user)

    def _user_of(self, tenant: str, recorded: str) -> str:
        return self._envelope.pseudonyms.user_of(tenant, recorded)

    @contextlib.contextmanager
    def _read(
        self, name: str, tenant: str | None, fresh: bool | None, *partitions: int
    ) -> Iterator[sqlite3.Connection]:
        """One snapshot of the rows, fresh in these partitions (none named: in all), for the read of that name.

        Every read passes here. Raises Forbidden where it is not the principal's to read of that tenant (None: of all).
        """
        if self.principal is not None:
            check_read(self.principal, name, tenant)
        if self._fresh if fresh is None else fresh:
            wanted = partitions or range(CONTROL, len(self.log.partitions))
            self.projector.catch_up({number: self.projector.partition(number).end() for number in wanted})
        with self.store.reading() as db:
            yield db

    @contextlib.contextmanager
    def _read_of(
        self, name: str, tenant: str, fresh: bool | None, user: U, *partitions: int
    ) -> Iterator[tuple[sqlite3.Connection, U]]:
        """Likewise, fresh in the user's partition too, and the user as the rows name it."""
        if self.principal is not None:
            check_read(self.principal, name, tenant)
        if user is not None:
            user = self.recorded_as(tenant, user)
            partitions = (*partitions, self.partition_of(tenant, user))
        with self._read(name, tenant, fresh, *partitions) as db:
            yield db, user
