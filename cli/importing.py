"""`session-ledger import`: transcripts of OpenAI chat and ShareGPT into the ledger, each line a session."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from session_ledger.cli.failing import COULD_NOT_RUN, INTERRUPTED, exit_code_of
from session_ledger.cli.options import DEFAULT_TENANT, AsJson, TakeOver, Url
from session_ledger.domain.errors import InvalidInput, SessionLedgerError

if TYPE_CHECKING:
    from session_ledger.cli.import_run import Failure, Importer, Summary

TOLD_MAX = 20  # lines that failed, by name


def import_chats(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="JSONL, plain or gzip; - is standard input.")],
    tenant: Annotated[
        str | None,
        typer.Option(
            "--tenant",
            "-t",
            metavar="NAME",
            envvar="SESSION_LEDGER_TENANT",
            show_default=False,
            help="Whose sessions they become. Default: what a line names, else 'default'.",
        ),
    ] = None,
    user: Annotated[
        str, typer.Option("--user", "-U", metavar="NAME", help="Whose they are where a line names no user.")
    ] = "imported",
    source: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default=False,
            help="What lines without an id are known by, with their number. Default: the file's name.",
        ),
    ] = None,
    form: Annotated[str, typer.Option("--format", metavar="FORMAT", help="auto, openai or sharegpt.")] = "auto",
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first bad line, before anything of it is recorded.")
    ] = False,
    include_erased: Annotated[
        bool,
        typer.Option("--include-erased", help="Import what was erased since it was imported anew, as new sessions."),
    ] = False,
    url: Url = None,
    take_over: TakeOver = False,
    as_json: AsJson = False,
) -> None:
    """Import chats: each line becomes a session that has ended, with its original times.

    OpenAI chat ({"messages": [...], "id"?, "user_id"?, "created_at"?, "metadata"?}) or ShareGPT ({"conversations":
    [...]}), one JSON object a line, or one JSON array of them. Importing again adds nothing: a session's id follows
    from the tenant, the user and the line's id, or else from the source's name and the line's number. A bad line, and
    one whose session was erased since, is reported and the rest goes on (exit code 1).
    """
    from session_ledger.cli.import_formats import FORMATS

    if form not in FORMATS:
        raise InvalidInput("--format", f"{len(form)} characters", f"must be one of {', '.join(FORMATS)}")
    if source is not None and len(files) > 1:
        raise InvalidInput(
            "--source", f"one name for {len(files)} files", "must name one file's lines: import them one by one"
        )
    for file in files:
        _must_be_readable(file)
    started = time.perf_counter()
    summary, stopped_by = _run(files, tenant, user, source, form, strict, include_erased, url, take_over, as_json)
    _report(summary, time.perf_counter() - started, as_json, stopped_by)
    if stopped_by is None:
        raise typer.Exit(1 if summary.failed else 0)
    if isinstance(stopped_by, SessionLedgerError):
        raise typer.Exit(exit_code_of(stopped_by))
    raise typer.Exit(COULD_NOT_RUN if isinstance(stopped_by, OSError) else INTERRUPTED)


def _must_be_readable(file: str) -> None:
    """Before anything is recorded. Raises InvalidInput."""
    path = Path(file)
    if file == "-":
        return
    if path.is_dir():
        raise InvalidInput("FILE", f"{file!r}, which is a directory", "name its files, such as DIR/*.jsonl")
    problem = (
        "does not exist" if not path.exists() else "this user may not read" if not os.access(path, os.R_OK) else ""
    )
    if problem:  # asked, not opened: what is opened and closed may be a pipe
        raise InvalidInput("FILE", f"{file!r}, which {problem}", "must be a file that can be read, or -")


def _run(
    files: list[str],
    tenant: str | None,
    user: str,
    source: str | None,
    form: str,
    strict: bool,
    include_erased: bool,
    url: str | None,
    take_over: bool,
    as_json: bool,
) -> tuple[Summary, BaseException | None]:
    """(what was done, what stopped it before the end)."""
    from session_ledger.cli.import_run import Importer, StrictStop
    from session_ledger.cli.opening import open_ledger, settings
    from session_ledger.domain.errors import SessionLedgerError
    from session_ledger.ledger.collector import quiet_collector

    rules = settings().rules
    with open_ledger(url, take_over, create=True) as ledger:
        quiet_collector()
        importer = Importer(
            ledger,
            rules,
            tenant=tenant,
            default_tenant=DEFAULT_TENANT,
            user=user,
            form=form,
            strict=strict,
            include_erased=include_erased,
            on_failure=_Teller(),
        )
        try:
            _each(files, source, importer, as_json)
        except StrictStop:
            _drain(importer)
        except (SessionLedgerError, OSError, KeyboardInterrupt) as error:
            return importer.summary, error
    return importer.summary, None


def _each(files: list[str], name: str | None, importer: Importer, quiet: bool) -> None:
    from session_ledger.cli.import_source import open_source
    from session_ledger.cli.output import clean, progress

    with progress(quiet=quiet) as bar:
        for file in files:
            total = Path(file).stat().st_size // 1024 if file != "-" else None
            task = bar.add_task(f"{clean(Path(file).name)} (kB)", total=total)
            with open_source(file, name) as source:
                done = 0

                def on_line(source=source, task=task) -> None:  # type: ignore[no-untyped-def]
                    nonlocal done
                    done += 1
                    if done % 256 == 0:
                        bar.update(task, completed=source.consumed // 1024)

                importer.run(source, on_line)
        importer.finish()


def _drain(importer: Importer) -> None:
    """What was sent before the bad line is recorded, whatever else fails."""
    from session_ledger.cli.import_run import StrictStop

    while True:
        try:
            importer.finish()
            return
        except StrictStop:
            continue


class _Teller:
    """Names each line that failed on stderr, up to a number; the summary counts all."""

    def __init__(self) -> None:
        self._told = 0

    def __call__(self, failure: Failure) -> None:
        """One line."""
        from session_ledger.cli.output import clean, warn

        self._told += 1
        if self._told <= TOLD_MAX:
            warn(f"{clean(failure.file)}:{failure.line}: {clean(failure.reason)}")


def _text_of(stopped_by: BaseException) -> str:
    from session_ledger.cli.failing import text_of

    if isinstance(stopped_by, SessionLedgerError):
        return text_of(stopped_by)
    return str(stopped_by) if isinstance(stopped_by, OSError) else "interrupted"


def _report(summary: Summary, seconds: float, as_json: bool, stopped_by: BaseException | None) -> None:
    from dataclasses import asdict

    from session_ledger.cli.failing import document_of
    from session_ledger.cli.output import clean, say, warn, write_json

    if summary.failed > TOLD_MAX:
        warn(f"... and {summary.failed - TOLD_MAX:,} more lines that failed; --json lists up to 1,000")
    if stopped_by is not None:
        warn(f"session-ledger: {clean(_text_of(stopped_by))}")
    if as_json:
        document = asdict(summary)
        document["failures_not_listed"] = summary.failed - len(summary.failures)
        document["seconds"] = round(seconds, 3)
        if isinstance(stopped_by, SessionLedgerError):
            document |= document_of(stopped_by)
        elif isinstance(stopped_by, OSError):
            document["error"] = {"code": "os_error", "message": str(stopped_by), "retriable": False}
        elif stopped_by is not None:
            document["error"] = {"code": "interrupted", "message": "interrupted", "retriable": True}
        write_json(document)
        return
    rate = summary.messages / seconds if seconds else 0.0
    say(
        f"{summary.sessions:,} sessions with {summary.messages:,} messages added, "
        f"{summary.already_there:,} already there, {summary.failed:,} failed; "
        f"{summary.lines:,} lines in {seconds:.1f} s ({rate:,.0f} messages/s)"
    )
    if summary.stopped:
        warn(
            "stopped at the first bad line (--strict): nothing of it is recorded; what came before it is, and what was "
            "under way behind it"
        )
    elif stopped_by is not None:
        warn("stopped before the end: what is counted above is recorded; import again, that adds only what is missing")
    elif summary.failed:
        warn("correct the lines named above and import the file again: that adds only what is missing")
