"""`session-ledger prices`: what tokens cost, from when."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from session_ledger.cli.options import AsJson, Url

app = typer.Typer(no_args_is_help=True, help="Load and show what tokens cost: `trends cost` counts with it.")


@app.command("load")
def load_prices(
    file: Annotated[Path, typer.Argument(metavar="FILE", show_default=False, help="A .csv or .json file.")],
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Take a price list, as a whole, in place of the one before. History is repriced: no event changes.

    Fields: model, effective_from (a date or ISO 8601 with a zone), currency, input_per_million,
    cached_input_per_million, output_per_million.
    """
    from session_ledger.cli.output import say, write_json
    from session_ledger.projections.analytics import prices

    directory = _directory(url)
    found = prices.load(file)
    path = prices.save(directory, found)
    if as_json:
        write_json({"loaded": len(found), "models": len({price.model for price in found}), "path": str(path)})
    else:
        say(f"{len(found)} price{'' if len(found) == 1 else 's'} of {len({price.model for price in found})} models "
            f"are in effect: `session-ledger trends cost` counts with them")  # fmt: skip


@app.command("show")
def show_prices(url: Url = None, as_json: AsJson = False) -> None:
    """Show the price list that is in effect."""
    from session_ledger.cli.output import say, table, write_json
    from session_ledger.projections.analytics import prices

    found = prices.read(_directory(url) / prices.FILE)
    if as_json:
        write_json({"prices": found})
    elif found:
        columns = ("model", "effective from", "currency", "input>", "cached input>", "output>")
        rows = [
            (price.model, price.effective_from, price.currency, price.input_per_million,
             price.cached_input_per_million, price.output_per_million)
            for price in found
        ]  # fmt: skip
        table(columns, rows)
        say("(of a million tokens; times are UTC)")
    else:
        say("no prices are loaded: `session-ledger prices load FILE`")


def _directory(url: str | None) -> Path:
    """Where the ledger's analytics stand. Raises LogUnavailable where there is no ledger."""
    from session_ledger.cli.opening import url_of
    from session_ledger.consumers.analytics import analytics_directory
    from session_ledger.domain.errors import LogUnavailable
    from session_ledger.ledger.url import parse_url

    directory = analytics_directory(parse_url(url_of(url)))
    if not directory.parent.is_dir():
        raise LogUnavailable(f"there is no ledger in {directory.parent}: name the ledger that the prices are for")
    return directory
