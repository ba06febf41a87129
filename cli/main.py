"""The entry point: the tree of commands, and how each run of one ends."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from session_ledger.cli import (
    agents,
    analytics,
    audit,
    auth,
    erasing,
    holding,
    keys,
    leaks,
    ledger_state,
    limits,
    owning,
    prices,
    proofs,
    quota,
    retaining,
    sessions,
)
from session_ledger.cli.archiving import archive
from session_ledger.cli.bench import bench
from session_ledger.cli.demo import demo
from session_ledger.cli.exporting import export_chats
from session_ledger.cli.failing import (
    COULD_NOT_RUN,
    DONE,
    INTERRUPTED,
    USAGE,
    document_of,
    exit_code_of,
    message_of,
    os_error_text,
)
from session_ledger.cli.importing import import_chats
from session_ledger.cli.monitor import monitor
from session_ledger.cli.permitted import asking, named
from session_ledger.cli.revealing import reveal
from session_ledger.cli.tailing import tail
from session_ledger.cli.trends import trends
from session_ledger.domain.errors import SessionLedgerError

_UsageError = typer.BadParameter.__mro__[1]  # click's, wherever this version of Typer keeps it
_ClickException = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="session-ledger",
    help="An append-only ledger for AI-agent sessions: every action is a fact, everything else a projection.",
    epilog="Exit codes: 0 done, 1 findings, refusals or failed items, 2 usage, 3 could not run, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from session_ledger import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version and stop.")
    ] = False,
) -> None:
    pass


_TRY, _MOVE, _ACT, _LOOK, _ASK = "Try", "Move", "Act", "Look and check", "Analyse and audit"
app.command(rich_help_panel=_TRY)(demo)
app.command(rich_help_panel=_TRY)(bench)
app.command("import", rich_help_panel=_MOVE)(import_chats)
app.command("export", rich_help_panel=_MOVE)(export_chats)
app.command(rich_help_panel=_MOVE)(archive)
app.add_typer(sessions.app, name="sessions", rich_help_panel=_ACT)
app.add_typer(quota.app, name="quota", rich_help_panel=_ACT)
app.add_typer(limits.app, name="limits", rich_help_panel=_ACT)
app.add_typer(agents.app, name="agents", rich_help_panel=_ACT)
app.add_typer(erasing.app, name="erase", rich_help_panel=_ACT)
app.add_typer(holding.app, name="hold", rich_help_panel=_ACT)
app.add_typer(auth.app, name="auth", rich_help_panel=_ACT)
app.add_typer(retaining.app, name="retention", rich_help_panel=_ACT)
keys.app.command("verifier")(proofs.verifier)
app.add_typer(keys.app, name="keys", rich_help_panel=_ACT)
app.command(rich_help_panel=_ACT)(owning.serve)
app.command(rich_help_panel=_ACT)(owning.expire)
app.command(rich_help_panel=_LOOK)(tail)
app.command(rich_help_panel=_LOOK)(ledger_state.stats)
app.command(rich_help_panel=_LOOK)(ledger_state.verify)
app.command("verify-receipt", rich_help_panel=_LOOK)(erasing.verify_receipt)
app.command(rich_help_panel=_LOOK)(proofs.checkpoint)
app.add_typer(proofs.proof, name="proof", rich_help_panel=_LOOK)
app.command(rich_help_panel=_ASK)(analytics.project)
app.command(rich_help_panel=_ASK)(analytics.sql)
app.command(rich_help_panel=_ASK)(trends)
app.add_typer(prices.app, name="prices", rich_help_panel=_ASK)
app.command(rich_help_panel=_ASK)(monitor)
audit.app.command()(reveal)
audit.app.command()(leaks.leaks)
audit.app.command()(leaks.acknowledge)
app.add_typer(audit.app, name="audit", rich_help_panel=_ASK)
app.command(rich_help_panel=_LOOK)(ledger_state.rebuild)
app.command(rich_help_panel=_LOOK, context_settings={"ignore_unknown_options": True})(ledger_state.quarantine)
app.command(rich_help_panel=_LOOK)(ledger_state.lag)
app.command(rich_help_panel=_LOOK)(ledger_state.position)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that the arguments name (default: the process's) and exit with its code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(run(given))


def run(arguments: list[str]) -> int:
    """Run one command; its exit code."""
    before_dashes = arguments[: arguments.index("--")] if "--" in arguments else arguments
    as_json = "--json" in before_dashes
    try:
        code = asking(typer.main.get_command(app)).main(
            args=arguments, prog_name="session-ledger", standalone_mode=False
        )
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except SessionLedgerError as error:
        path, by_id = named(typer.main.get_command(app), arguments)
        return _failed(message_of(error, path, by_id=by_id), document_of(error), exit_code_of(error), as_json)
    except (KeyboardInterrupt, typer.Abort):
        return _failed("interrupted", _document("interrupted", "interrupted", INTERRUPTED), INTERRUPTED, as_json)
    except BrokenPipeError:
        _drop_stdout()
        return DONE  # the reader, such as `head`, had enough
    except SystemExit as error:  # what click makes of a closed pipe
        if not isinstance(error.__context__, BrokenPipeError):
            raise
        _drop_stdout()
        return DONE
    except OSError as error:
        text = os_error_text(error)
        return _failed(text, _document("os_error", text, COULD_NOT_RUN), COULD_NOT_RUN, as_json)
    except Exception as error:  # noqa: BLE001 - usage, or a defect of ours: both are told
        if not isinstance(error, _ClickException):
            return _broken(error, as_json)
        text = error.format_message()  # type: ignore[attr-defined]
        if not text and isinstance(error, _UsageError):  # no command was named: the help has been shown
            return USAGE
        if not as_json:
            error.show()  # type: ignore[attr-defined]
            return USAGE
        return _failed(text, _document("usage", text, USAGE), USAGE, as_json)


def _failed(message: str, document: dict[str, object], code: int, as_json: bool) -> int:
    from session_ledger.cli.output import clean, warn, write_json

    if as_json:
        write_json(document)
    warn("\n".join(clean(line) for line in f"session-ledger: {message}".splitlines()))
    return code


def _document(code: str, message: str, exit_code: int) -> dict[str, object]:
    """Of what is no error of the ledger's; the shape is `document_of`'s."""
    found: dict[str, object] = {"code": code, "message": message, "retriable": False, "command_id": None}
    return {"error": {**found, "retry_after_s": None, "exit_code": exit_code}}


def _broken(error: Exception, as_json: bool) -> int:
    """A defect of ours: the traceback belongs in the report that somebody will write about it."""
    import traceback

    traceback.print_exception(error)
    text = f"an error that should not happen: {type(error).__name__}; please report it with the lines above"
    return _failed(text, _document("defect", text, COULD_NOT_RUN), COULD_NOT_RUN, as_json)


def _drop_stdout() -> None:
    """So that the interpreter does not complain about the closed pipe when it flushes at exit."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
