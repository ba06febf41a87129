"""Values as they are typed on a command line, checked and converted. Each failure names the option and the rule."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from datetime import datetime

from session_ledger.domain.commands import Json
from session_ledger.domain.errors import InvalidInput

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def metadata_of(pairs: Sequence[str] | None) -> dict[str, str] | None:
    """``KEY=VALUE`` texts as a mapping; None where none was given."""
    if not pairs:
        return None
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InvalidInput("--metadata", f"{len(pair)} characters without a key and '='", "must be KEY=VALUE")
        if key in found:
            raise InvalidInput("--metadata", f"the key {key!r} twice", "may be given once a key")
        found[key] = value
    return found


def time_of(text: str | None, option: str = "--occurred-at") -> datetime | None:
    """An ISO 8601 text with a time zone."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(option, f"{text[:40]!r}", "must be ISO 8601, such as 2026-01-31T12:00:00+01:00") from None
    if moment.tzinfo is None:
        raise InvalidInput(option, f"{text[:40]!r}, without a time zone", "must end in a zone, such as Z or +01:00")
    return moment


def seconds_of(text: str | None, option: str) -> float | None:
    """A duration: a number of seconds, or one with a unit (ms, s, m, h, d), such as 30m."""
    if text is None:
        return None
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise InvalidInput(option, f"{text[:40]!r}", "must be a duration such as 90, 30s, 15m, 8h or 7d")
    return float(match[1]) * _SECONDS[match[2] or "s"]


def json_of(text: str | None, option: str) -> Json:
    """A JSON document."""
    if text is None:
        return None
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(option, f"{len(text)} characters that are no JSON ({error})", "must be JSON") from None


def _refuse_constant(name: str) -> Json:
    raise ValueError(f"{name} is not JSON")


def quotas_of(texts: Sequence[str] | None) -> dict[str, tuple[str, float]]:
    """``RESOURCE=LIMIT/PERIOD`` texts, such as ``tokens=100000/24h``, as resource to (limit, period in seconds)."""
    found: dict[str, tuple[str, float]] = {}
    for text in texts or ():
        resource, equals, rest = text.partition("=")
        limit, slash, period = rest.partition("/")
        seconds = seconds_of(period, "--quota") if slash else None
        if not equals or not resource or not limit or not seconds:
            raise InvalidInput("--quota", f"{text[:60]!r}", "must be RESOURCE=LIMIT/PERIOD, such as tokens=100000/24h")
        found[resource] = limit, seconds
    return found


def text_or_stdin(text: str) -> str:
    """The text, or for ``-`` what stands on standard input, without its last line end."""
    if text != "-":
        return _sound(text)
    data = sys.stdin.buffer.read()
    try:
        return data.decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise InvalidInput("TEXT", f"a byte that is no UTF-8 (byte {error.start})", "must be UTF-8") from None


def _sound(text: str) -> str:
    """An argument; bytes that are no UTF-8 arrive as surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInput("TEXT", "bytes that are no UTF-8", "must be UTF-8") from None
    return text
