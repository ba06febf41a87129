"""Opening what commands work on; the heavy imports happen here, when a command runs and not for `--help`."""

from __future__ import annotations

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
    """The URL that a command works on: the one given, else that of the settings."""
    if url is not None:
        return url
    return settings().url


def open_ledger(url: str | None, take_over: bool = False) -> Ledger:
    """For commands: this process becomes the owner, or sends them to the one that is."""
    from session_ledger.ledger.ledger import Ledger

    return Ledger.open(url_of(url), settings=settings(), take_over=take_over)


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
    from session_ledger.ledger.open import open_log
    from session_ledger.ledger.published import codec_of
    from session_ledger.ledger.url import parse_url

    log = open_log(parse_url(url), settings(), write=False)
    try:
        yield log, codec_of(log)
    finally:
        log.close()


def acknowledged(url: str) -> dict[int, int] | None:
    """Partition to the position up to which everything is acknowledged, where only the owner knows (Kafka).

    None: a reader of the log sees the end itself.
    """
    from session_ledger.ledger.url import parse_url

    if parse_url(url).scheme != "kafka":
        return None
    with open_ledger(url) as ledger:
        *partitions, control = ledger.positions()
    return dict(enumerate(partitions)) | {-1: control}
