"""Opening what commands work on; the heavy imports happen here, when a command runs and not for `--help`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from session_ledger.consumers.views import Views
    from session_ledger.ledger.ledger import Ledger
    from session_ledger.ledger.log.port import Log
    from session_ledger.ledger.settings import Settings
    from session_ledger.schemas.codec import Codec


def settings() -> Settings:
    """The settings of environment and file. Raises Misconfigured, naming each that is not as it must be."""
    from tomllib import TOMLDecodeError

    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from session_ledger.domain.errors import Misconfigured
    from session_ledger.ledger.settings import Settings

    try:
        return Settings()
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise Misconfigured(f"settings (SESSION_LEDGER_... or session-ledger.toml) are not usable: {wrong}") from error
    except (SettingsError, TOMLDecodeError) as error:
        raise Misconfigured(f"settings (SESSION_LEDGER_... or session-ledger.toml) can not be read: {error}") from error


def url_of(url: str | None) -> str:
    """The URL that a command works on: the one given, else that of the settings. Raises UnusableUrl."""
    from session_ledger.cli.failing import UnusableUrl
    from session_ledger.domain.errors import Misconfigured
    from session_ledger.ledger.url import parse_url

    text = settings().url if url is None else url
    try:
        place = parse_url(text)
    except Misconfigured as error:
        raise UnusableUrl(str(error)) from error
    directory = place.directory
    if directory is not None and os.path.exists(directory) and not os.path.isdir(directory):
        instead = f"name the directory that it lies in, sqlite:{directory.parent}, or another one"
        raise UnusableUrl(f"{directory} is a file, and a ledger is a directory: {instead}")
    return text


def open_ledger(url: str | None, take_over: bool = False, *, create: bool = False) -> Ledger:
    """For commands: this process becomes the owner, or sends them to the one that is.

    `create`: where there is no ledger, make one; otherwise LogUnavailable, and nothing is made.
    """
    from session_ledger.ledger.ledger import Ledger

    place, chosen = url_of(url), settings()
    if not create:
        _must_exist(place, chosen)
    return Ledger.open(place, settings=chosen, take_over=take_over)


def _must_exist(url: str, chosen: Settings) -> None:
    """Raises LogUnavailable where there is no ledger, before opening one as its owner would make it.

    A user who can not look leaves that to the owner, whose command socket answers.
    """
    from session_ledger.ledger.open import only_by_socket, open_log
    from session_ledger.ledger.url import parse_url

    place = parse_url(url)
    if place.scheme != "memory" and not only_by_socket(place.directory, chosen):
        open_log(place, chosen, write=False).close()


def open_views(url: str | None) -> Views:
    """For reads, caught up with everything acknowledged so far."""
    from session_ledger.consumers.views import Views

    place = url_of(url)
    to = acknowledged(place)
    views = Views.open(place, settings=settings())
    try:
        views.refresh(to)
    except BaseException:
        views.close()
        raise
    return views


@contextmanager
def open_reader(url: str) -> Iterator[tuple[Log, Codec]]:
    """The log itself, for reading beside whoever owns it, and what decodes its records."""
    from session_ledger.ledger.open import open_codec, open_log
    from session_ledger.ledger.url import parse_url

    chosen = settings()
    log = open_log(parse_url(url), chosen, write=False)
    try:
        codec, close_codec = open_codec(log, chosen)
        try:
            yield log, codec
        finally:
            close_codec()
    finally:
        log.close()


def recorded_as(url: str, log: Log, tenant: str, user: str) -> str:
    """The user of an option as the log names it: by a pseudonym where the ledger has them.

    Raises KeyUnavailable where only the pseudonym is taken, because this process can not make it.
    """
    from session_ledger.ledger import keys
    from session_ledger.ledger.url import parse_url

    return keys.recorded_as(parse_url(url).directory, log.name, settings(), tenant, user)


def acknowledged(url: str) -> dict[int, int] | None:
    """Partition to the position up to which the owner has acknowledged, so that a log (Kafka) that lost some is told.

    None: a reader goes by the log's own end, because nobody serves the ledger on this machine, or its owner can not
    answer, which is told on stderr. Whatever was acknowledged stands before that end (docs/adr/0007).
    """
    from session_ledger.cli.output import clean, warn
    from session_ledger.consumers.projector import targets
    from session_ledger.domain.errors import LogUnavailable, NotOwner, OutcomeUnknown
    from session_ledger.ledger.open import owners_positions
    from session_ledger.ledger.url import parse_url

    place = parse_url(url)
    if place.scheme != "kafka":
        return None
    try:
        positions = owners_positions(place, settings())
    except (NotOwner, OutcomeUnknown, LogUnavailable) as error:
        warn(f"as of what the log shows: its owner could not be asked ({clean(error)})")
        return None
    return None if positions is None else targets(positions)
