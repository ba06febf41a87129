"""`session-ledger demo`: a support portal of 300 users and 2,000 sessions, through the real path, into a directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from session_ledger.cli.options import AsJson

if TYPE_CHECKING:
    from session_ledger.cli.demo_run import Ran
    from session_ledger.consumers.records import Stats

MARK = "demo.json"
"""A file that says that a directory is a demo's, so that running the demo again may begin anew there."""


def demo(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where the ledger is made.")] = Path("demo-data"),
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed plays the same visits.")] = 7,
    as_json: AsJson = False,
) -> None:
    """Play a support portal of 300 users and 2,000 sessions into a new ledger in DIR, and report what happened.

    Three tenants with limits, quotas and agents; sessions end, expire, are evicted and refused. A directory that holds
    anything but an earlier demo is left alone (exit code 2).
    """
    import time

    from session_ledger.cli.output import progress, write_json
    from session_ledger.cli.stats_report import document_of
    from session_ledger.consumers.views import Views
    from session_ledger.ledger.ledger import Ledger

    _make_room(directory, seed)
    url = f"sqlite:{directory}"
    with progress(quiet=as_json) as bar:
        from session_ledger.cli.demo_portal import SESSIONS
        from session_ledger.cli.demo_run import PortalClock, run

        task = bar.add_task("visits", total=SESSIONS)
        clock = PortalClock(closes_at=time.time_ns() // 1000)
        with Ledger.open(url, clock_us=clock, principals={}) as ledger:
            durability = ledger.durability
            ran = run(ledger, clock, seed, lambda over: bar.update(task, completed=over))
    with Views.open(url, principals={}) as views:
        stats = views.stats(busiest=8)
    disk = {
        name: sum(p.stat().st_size for p in directory.glob(f"{name}*")) for name in ("log.db", "views.db", "vault.db")
    }
    if as_json:
        write_json(
            {
                "url": url,
                "seed": seed,
                "commands": ran.commands,
                "events": ran.events,
                "seconds": round(ran.seconds, 3),
                "events_a_second": round(ran.events / ran.seconds),
                "refused_commands": dict(ran.refused),
                "expired_by_sweep": ran.expired,
                "disk_bytes": disk,
                "durability": durability,
                "stats": document_of(stats),
            }
        )
    else:
        _report(url, ran, stats, disk, durability)


def _make_room(directory: Path, seed: int) -> None:
    """An empty directory with the demo's mark. Raises InvalidInput, NotOwner where somebody serves an earlier demo."""
    import json

    from session_ledger.domain.errors import InvalidInput
    from session_ledger.ledger.log.sqlite import SQLiteLog

    if directory.exists() and not directory.is_dir():
        raise InvalidInput("DIR", f"{str(directory)!r}, which is a file", "must be a directory, new or empty")
    mark = directory / MARK
    if directory.is_dir() and any(directory.iterdir()):
        if not mark.is_file():
            seen = f"{str(directory)!r}, which holds files that are not a demo's"
            raise InvalidInput("DIR", seen, "must be new, empty or an earlier demo: name another one")
        if (directory / "log.db").exists():
            SQLiteLog.open(directory, write=True).close()  # raises where somebody else owns it
        for path in directory.iterdir():
            if path.is_file() or path.is_socket():
                path.unlink()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    mark.write_text(json.dumps({"demo": "session-ledger", "seed": seed}) + "\n", encoding="utf-8")


def _report(url: str, ran: Ran, stats: Stats, disk: dict[str, int], durability: str) -> None:
    import shlex
    import textwrap

    from session_ledger.cli.demo_portal import PORTALS
    from session_ledger.cli.output import clean, say, size
    from session_ledger.cli.stats_report import show_stats

    tenants = ", ".join(f"{portal.tenant} ({portal.users})" for portal in PORTALS)
    say(f"A support portal in {clean(url)}")
    say(f"Tenants and their users: {tenants}")
    say()
    show_stats(stats)
    say()
    rate = ran.events / ran.seconds
    log, views, vault = disk["log.db"], disk["views.db"], disk["vault.db"]
    refused = ", ".join(f"{count:,} {code}" for code, count in sorted(ran.refused.items()))
    made = f"{ran.commands:,} commands became {ran.events:,} facts in {ran.seconds:.1f} s: {rate:,.0f} facts/s"
    stored = f"{size(log)} log ({log / max(ran.events, 1):.0f} bytes a fact), {size(views)} views, {size(vault)} keys"
    for name, text in (
        ("Write path", made),
        ("Refused", refused or "nothing"),
        ("Expired", f"{ran.expired:,} sessions, by one sweep at closing time"),
        ("Disk", stored),
        ("Durability", durability),
    ):
        for number, line in enumerate(textwrap.wrap(text, 87)):
            say(f"{'' if number else name:<12} {line}")
    say()
    say("Try next:")
    place = shlex.quote(url)
    tenant, user, session = ran.example or ("shop", "visitor-001", "SESSION")
    whose = f"-t {tenant} -U {user}"
    for line in (
        f"sessions list -u {place} -t shop",
        f"sessions history {session} {whose} -u {place}",
        f"quota report {whose} -u {place}",
        f"agents list -t {tenant} -u {place}",
        f"tail --last 20 -u {place}",
        f"export -t library -o library.jsonl -u {place}",
        f"verify -u {place}",
        f"serve -u {place}      # then run commands from another terminal",
    ):
        say(f"  session-ledger {line}")
