"""Where the eraser is wired: log and views for reading, the vault for destroying, the key that signs receipts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from session_ledger.consumers.eraser import Eraser
from session_ledger.consumers.signing_key import signing_key
from session_ledger.consumers.wiring import open_store
from session_ledger.domain.errors import Misconfigured, NotErasable
from session_ledger.ledger.clocks import machine_clock_us
from session_ledger.ledger.keys import open_vault
from session_ledger.ledger.ledger import Ledger
from session_ledger.ledger.open import open_codec, open_log
from session_ledger.ledger.settings import Settings
from session_ledger.ledger.url import parse_url
from session_ledger.security.elapsed import CACHED_S


@contextmanager
def open_eraser(url: str, settings: Settings, ledger: Ledger | None = None) -> Iterator[Eraser]:
    """The eraser of a ledger, beside whoever owns it. `ledger`: where erasures of a tenant's users are appended.

    Raises LogUnavailable where there is no ledger, Misconfigured, NotErasable (sealing is off).
    """
    place = parse_url(url)
    directory = place.directory
    if directory is None:
        raise Misconfigured("a ledger in memory is erased by closing it")
    if settings.encryption == "none":
        raise NotErasable("sealing is off for this ledger: nothing in its log can be erased")
    with ExitStack() as closing:
        log = open_log(place, settings, write=False)
        closing.callback(log.close)
        codec, close_codec = open_codec(log, settings)
        closing.callback(close_codec)
        views = closing.enter_context(open_store(log, directory))
        vault = open_vault(directory)
        closing.callback(vault.close)
        yield closing.enter_context(
            Eraser(
                log,
                codec,
                views,
                vault,
                directory,
                partial(signing_key, place, settings, log),
                cached_s=CACHED_S,  # whatever is set here: another process may keep keys that long
                clock_us=machine_clock_us,
                ledger=ledger,
            )
        )
