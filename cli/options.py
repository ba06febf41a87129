"""The options that commands share, so that one word means one thing everywhere."""

from __future__ import annotations

from typing import Annotated

import typer

DEFAULT_TENANT = "default"

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        "-u",
        metavar="URL",
        show_default=False,
        help="sqlite:DIR or kafka://HOST:PORT/NAME. Default: SESSION_LEDGER_URL, or sqlite:./session-ledger.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON on stdout, and nothing else there.")]
TakeOver = Annotated[
    bool,
    typer.Option("--take-over", help="Become the owner although another process is: it is fenced off, and fails."),
]
Tenant = Annotated[
    str, typer.Option("--tenant", "-t", metavar="NAME", envvar="SESSION_LEDGER_TENANT", help="Whose ledger entries.")
]
User = Annotated[
    str,
    typer.Option(
        "--user", "-U", metavar="NAME", envvar="SESSION_LEDGER_USER", show_default=False, help="The tenant's user."
    ),
]
AnyUser = Annotated[
    str | None,
    typer.Option(
        "--user", "-U", metavar="NAME", show_default=False, help="Only this user. Default: all of the tenant."
    ),
]
CommandId = Annotated[
    str | None,
    typer.Option(
        "--command-id",
        metavar="UUID",
        show_default=False,
        help="A UUIDv7 of yours: the command runs once, however often it is sent within ten minutes.",
    ),
]
OccurredAt = Annotated[
    str | None,
    typer.Option(
        "--occurred-at",
        metavar="TIME",
        show_default=False,
        help="When it happened, ISO 8601 with a time zone, for display. Default: when it is recorded.",
    ),
]
Metadata = Annotated[
    list[str] | None,
    typer.Option("--metadata", "-m", metavar="KEY=VALUE", show_default=False, help="May be given several times."),
]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many at most.")]
After = Annotated[
    str | None,
    typer.Option("--after", metavar="CURSOR", show_default=False, help="The `next` of the page before."),
]
