"""Rebuilding the analytics database by several processes, each with partitions of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from session_ledger.consumers.apart import run_apart, told
from session_ledger.consumers.tail import Tail
from session_ledger.consumers.wiring import stepped_over
from session_ledger.ledger.open import open_codec, open_log
from session_ledger.ledger.settings import Settings
from session_ledger.ledger.url import parse_url
from session_ledger.projections.analytics.store import AnalyticsStore


def shares_of(ends: Mapping[int, int], count: int) -> list[dict[int, int]]:
    """The partitions dealt out among so many, the longest first, each to whoever has the least so far."""
    shares: list[dict[int, int]] = [{} for _ in range(max(count, 1))]
    for partition, end in sorted(ends.items(), key=lambda item: -item[1]):
        min(shares, key=lambda share: sum(share.values()))[partition] = end
    return [share for share in shares if share]


def build_part(url: str, settings: Settings, share: Mapping[int, int], path: Path) -> None:
    """Bring some partitions, each up to a position, into a database of their own, in that directory."""
    place = parse_url(url)
    with ExitStack() as closing:
        log = open_log(place, settings, write=False)
        closing.callback(log.close)
        codec, close_codec = open_codec(log, settings)
        closing.callback(close_codec)
        store = AnalyticsStore(path, log_id=log.log_id, ledger=log.name)
        closing.callback(store.close)
        logs = [one for one in (log.control, *log.partitions) if one.partition in share]
        Tail(logs, codec, store, stepped_over=stepped_over(log, place.directory)).catch_up(share)


def build_apart(url: str, settings: Settings, shares: Sequence[Mapping[int, int]], paths: Sequence[Path]) -> None:
    """Build each share in a process of its own. Raises LogUnavailable with what a process said that failed."""
    common = {"url": url, "settings": settings.model_dump(mode="json")}
    tasks = [{**common, "share": share, "path": str(path)} for share, path in zip(shares, paths, strict=True)]
    run_apart(__name__, tasks, what="the rebuild")


def main() -> None:
    """Do what the standard input says."""
    task = told()
    share = {int(partition): end for partition, end in task["share"].items()}
    build_part(task["url"], Settings(**task["settings"]), share, Path(task["path"]))


if __name__ == "__main__":
    main()
