"""Ledger URLs: `sqlite:DIR`, `kafka://HOST:PORT[,HOST:PORT]/NAME?partitions=8&replica=DIR`, `memory:`."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

from session_ledger.domain.errors import Misconfigured
from session_ledger.domain.ids import SLOTS

FORMS = "use sqlite:DIR, kafka://HOST:PORT/NAME?partitions=8&replica=DIR or memory:"
DEFAULT_KAFKA_PARTITIONS = 8
_NAME = re.compile(r"[A-Za-z0-9._-]{1,200}")  # what Kafka takes as a topic, less room for ".control"


@dataclass(frozen=True, slots=True)
class LedgerUrl:
    """A parsed URL."""

    scheme: str
    """sqlite, kafka or memory."""
    directory: Path | None
    """Where the local files are: the log itself, or a Kafka ledger's replica; None for memory."""
    bootstrap: str = ""
    """Kafka: HOST:PORT[,HOST:PORT]."""
    name: str = ""
    """Kafka: the ledger's name, which its topics begin with."""
    partitions: int = 1
    replication_factor: int | None = None


def parse_url(url: str) -> LedgerUrl:
    """Parse a ledger's URL. Raises Misconfigured, saying what is wrong and which forms there are."""
    scheme, colon, rest = url.partition(":")
    if colon and scheme == "memory" and not rest:
        return LedgerUrl("memory", None)
    if colon and scheme == "sqlite" and rest.removeprefix("//") and "\0" not in rest:
        return LedgerUrl("sqlite", _directory(url, rest))
    if colon and scheme == "kafka" and rest.startswith("//"):
        return _kafka(url, rest[2:])
    raise Misconfigured(f"{url!r} is no ledger URL: {FORMS}")


def _directory(url: str, rest: str) -> Path:
    place, query, _ = rest.partition("?")
    if query:
        raise Misconfigured(
            f"{url!r} has options, and sqlite knows none: use sqlite:{place.removeprefix('//') or 'DIR'}"
        )
    path = rest.removeprefix("//")
    if path != rest and not path.startswith("/"):
        raise Misconfigured(
            f"{url!r} could name {path} or /{path}: use sqlite:{path} for the one in the working directory, "
            f"sqlite:/{path} for the one from the root"
        )
    return Path(path)


def _kafka(url: str, rest: str) -> LedgerUrl:
    place, _, query = rest.partition("?")
    bootstrap, _, name = place.partition("/")
    if not bootstrap or not all(re.fullmatch(r".+:\d{1,5}", server) for server in bootstrap.split(",")):
        raise Misconfigured(f"{url!r} names no HOST:PORT: {FORMS}")
    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise Misconfigured(f"{url!r} names no ledger: letters, digits, '.', '_' and '-' after the '/'; {FORMS}")
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = set(options) - {"partitions", "replica", "replication"}
    if unknown:
        raise Misconfigured(
            f"{url!r} has unknown options {sorted(unknown)}: partitions, replica and replication are known"
        )
    partitions = _number(url, options.get("partitions", str(DEFAULT_KAFKA_PARTITIONS)), "partitions")
    if partitions > SLOTS or partitions & (partitions - 1):
        raise Misconfigured(f"{url!r}: partitions must be a power of two from 1 to {SLOTS}")
    replication = options.get("replication")
    return LedgerUrl(
        "kafka",
        Path(options["replica"]) if options.get("replica") else default_replica(name),
        bootstrap,
        name,
        partitions,
        None if replication is None else _number(url, replication, "replication"),
    )


def default_replica(name: str) -> Path:
    """Where a Kafka ledger's local files are unless `replica` says otherwise: the same for every working directory."""
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(data).expanduser() / "session-ledger" / name


def _number(url: str, text: str, option: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise Misconfigured(f"{url!r}: {option} must be a whole number from 1, it is {text!r}")
    return int(text)
