"""`session-ledger bench`: how fast this machine writes messages, beside bare sqlite3 in the same directory."""

from __future__ import annotations

from typing import Annotated

import typer

from session_ledger.cli.options import AsJson


def bench(
    callers: Annotated[
        int, typer.Option(metavar="N", min=1, max=1024, help="Threads, each with a session of its own.")
    ] = 32,
    seconds: Annotated[float, typer.Option(metavar="S", min=0.1, max=600, help="How long each of the two runs.")] = 2.0,
    directory: Annotated[
        str | None,
        typer.Option(
            "--dir", metavar="DIR", show_default=False, help="On whose disk. Default: the working directory's."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure durable messages a second on this machine, in a temporary ledger that is deleted afterwards.

    The floor is bare sqlite3 committing each message (WAL, synchronous=FULL) from as many threads, in the same run.
    """
    import tempfile
    from pathlib import Path

    from session_ledger.cli.bench_writes import CONTENT_CHARACTERS, Measured, bare_sqlite, ledger_writes
    from session_ledger.cli.output import progress, say, table, write_json
    from session_ledger.domain.errors import InvalidInput

    if directory is not None and not Path(directory).is_dir():
        raise InvalidInput("--dir", f"{directory!r}, which is no directory", "must be one that is there")
    with (
        tempfile.TemporaryDirectory(prefix="session-ledger-bench-", dir=directory or ".") as place,
        progress(quiet=as_json) as bar,
    ):
        task = bar.add_task("bare sqlite3", total=2)
        floor = bare_sqlite(Path(place) / "floor.db", callers, seconds)
        bar.update(task, completed=1, description="the ledger")
        ledger = ledger_writes(Path(place) / "ledger", callers, seconds)
    ratio = ledger.rate / floor.rate
    if as_json:
        write_json(
            {
                "callers": callers,
                "seconds": seconds,
                "content_characters": CONTENT_CHARACTERS,
                "ledger": ledger,
                "bare_sqlite3": floor,
                "ratio": round(ratio, 3),
            }
        )
        return
    say(f"{callers} threads, messages of {CONTENT_CHARACTERS} characters, each durable when its caller goes on")
    say()

    def row(name: str, measured: Measured) -> tuple[object, ...]:
        return name, f"{measured.rate:,.0f}", f"{measured.p50_ms:.1f}", f"{measured.p99_ms:.1f}"

    table(
        ("", "messages/s>", "p50 ms>", "p99 ms>"),
        [row("bare sqlite3, a commit a message", floor), row("session-ledger, sealed", ledger)],
    )
    say()
    say(f"ratio {ratio:.1f}; the figures of the README, each beside its own floor: make bench")
