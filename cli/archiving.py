"""`session-ledger archive`: events as Parquet files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from session_ledger.cli.analytics import By, Reason
from session_ledger.cli.options import AsJson, Url

if TYPE_CHECKING:
    from session_ledger.consumers.archive import Export
    from session_ledger.projections.analytics.snapshots import Snapshot


def archive(
    directory: Annotated[Path, typer.Argument(metavar="DIR", show_default=False, help="Where the files go.")],
    contents: Annotated[
        bool, typer.Option("--contents", help="With contents as text: needs --reason, and is recorded.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Export nothing: compare the files with the manifest.")
    ] = False,
    gone: Annotated[
        bool,
        typer.Option("--erased", help="Export nothing: list contents in older exports whose key is gone."),
    ] = False,
    reason: Reason = None,
    by: By = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Export the events of the newest snapshot that were not exported yet to Parquet, by tenant and day.

    Each range of positions is exported exactly once; DIR/_manifest.json says which files count.
    """
    from session_ledger.cli.opening import settings, url_of
    from session_ledger.cli.output import say, write_json
    from session_ledger.consumers.analytics import open_snapshot
    from session_ledger.consumers.archive import damaged
    from session_ledger.domain.errors import InvalidInput

    if check:
        found = damaged(directory)
        if as_json:
            write_json({"ok": not found, "findings": found})
        else:
            say("\n".join(found) or "every file is what the manifest says")
        raise typer.Exit(1 if found else 0)
    if gone:
        _list_erased(directory, url_of(url), as_json)
        return
    if contents and not reason:
        raise InvalidInput("--reason", "none", "must say why contents are revealed: it is recorded")
    place = url_of(url)
    with open_snapshot(place, settings=settings()) as snapshot:
        export = _archived(snapshot, directory, place, reason if contents else None, by)
    if as_json:
        write_json({"export": export})
    elif export is None:
        say("nothing came since the last export")
    else:
        say(f"export {export.number}: {export.rows:,} events in {len(export.files):,} files")


def _list_erased(directory: Path, url: str, as_json: bool) -> None:
    """Exit code 1 where there are some: whoever has the copies must remove them there."""
    from session_ledger.cli.opening import open_reader, settings
    from session_ledger.cli.output import say, table, write_json
    from session_ledger.consumers.archive import erased
    from session_ledger.ledger.open import open_envelope
    from session_ledger.ledger.url import parse_url

    with open_reader(url) as (log, _):
        envelope, close = open_envelope(parse_url(url).directory, log.name, settings(), readonly=True)
        try:
            found = erased(directory, envelope)
        finally:
            close()
    if as_json:
        write_json({"erased": found})
    else:
        if found:
            rows = [(one.export, one.tenant, one.user, one.session_id, one.messages, one.path) for one in found]
            table(("export>", "tenant", "user", "session", "messages>", "file"), rows, whole=True)
        say(f"{len(found):,} sessions whose key is gone stand in older exports")
    raise typer.Exit(1 if found else 0)


def _archived(snapshot: Snapshot, directory: Path, url: str, reason: str | None, by: str | None) -> Export | None:
    from session_ledger.cli.opening import settings
    from session_ledger.cli.who import who
    from session_ledger.consumers.archive import archive as export
    from session_ledger.consumers.sql import reveal
    from session_ledger.ledger.ledger import Ledger
    from session_ledger.ledger.open import open_envelope
    from session_ledger.ledger.url import parse_url

    if reason is None:
        return export(snapshot, directory)
    chosen, name = settings(), who(by)
    with Ledger.open(url, settings=chosen) as ledger:
        envelope, close = open_envelope(parse_url(url).directory, snapshot.ledger, chosen, readonly=True)
        try:
            return export(
                snapshot,
                directory,
                open_contents=lambda table, query: reveal(
                    table, ledger, envelope, query=query, revealed_by=name, reason=reason
                ),
            )
        finally:
            close()
