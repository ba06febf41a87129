"""What tokens cost: a price list with effective dates, its file, and the table `prices` that queries read.

Amounts are exact decimals from the file to the sum. The list is loaded as a whole and replaces the one before, so a
corrected list reprices all of history, by query; nothing in the ledger changes.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path

import duckdb

from session_ledger.domain.errors import InvalidInput, Misconfigured
from session_ledger.security.files import naming

FILE = "prices.json"  # in the directory of the analytics
FORMAT = 1
AMOUNTS = ("input_per_million", "cached_input_per_million", "output_per_million")
FIELDS = ("model", "effective_from", "currency", *AMOUNTS)
PLACES_MAX, DIGITS_MAX = 9, 9  # DECIMAL(18, 9)
_CURRENCY = re.compile(r"[A-Z]{3}")


@dataclass(frozen=True, slots=True, order=True)
class Price:
    """What a million tokens of a model cost from a moment on, until the model's next price."""

    model: str
    effective_from: datetime
    currency: str
    input_per_million: Decimal
    """Of the tokens that were read, but for the cached ones."""
    cached_input_per_million: Decimal
    output_per_million: Decimal
    """Of the tokens that were written, those of reasoning included."""


def load(path: Path) -> tuple[Price, ...]:
    """A price list, CSV with a heading or JSON, by the name's end. Raises InvalidInput naming the line and field."""
    form = path.suffix.lower().removeprefix(".")
    if form not in ("csv", "json"):
        raise InvalidInput("FILE", f"{path.name!r}", "must be a .csv or .json file")
    try:
        return parse(path.read_text(encoding="utf-8-sig"), form)
    except UnicodeDecodeError as error:
        raise InvalidInput("FILE", f"a byte that is no UTF-8 (byte {error.start})", "must be UTF-8") from None


def parse(text: str, form: str) -> tuple[Price, ...]:
    """The prices of a list in that form (csv or json), sorted. Raises InvalidInput."""
    found: dict[tuple[str, datetime], Price] = {}
    for where, row in _csv_rows(text) if form == "csv" else _json_rows(text):
        price = _price(where, row)
        if (price.model, price.effective_from) in found:
            seen = f"{price.model!r} from {price.effective_from:%Y-%m-%d %H:%M} twice"
            raise InvalidInput(f"{where}, effective_from", seen, "a model has one price from a moment on")
        first = next(iter(found.values()), price)
        if price.currency != first.currency:
            seen = f"{price.currency} beside {first.currency}"
            raise InvalidInput(f"{where}, currency", seen, "a list has one currency: costs are added up")
        found[price.model, price.effective_from] = price
    return tuple(sorted(found.values()))


def _csv_rows(text: str) -> Iterable[tuple[str, Mapping[str, object]]]:
    reader = csv.reader(io.StringIO(text), strict=True)
    try:
        heading = [name.strip() for name in next(reader, [])]
        _check_names("line 1", heading)
        for cells in reader:
            where = f"line {reader.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(heading):
                rule = f"must have as many as the heading: {len(heading)}"
                raise InvalidInput(where, f"{len(cells)} fields", rule)
            yield where, {name: cell.strip() for name, cell in zip(heading, cells, strict=True)}
    except csv.Error as error:
        raise InvalidInput(f"line {reader.line_num}", f"no CSV ({error})", "must be CSV") from None


def _json_rows(text: str) -> Iterable[tuple[str, Mapping[str, object]]]:
    try:
        document = json.loads(text, parse_float=Decimal, parse_int=Decimal)
    except json.JSONDecodeError as error:
        raise InvalidInput(f"line {error.lineno}", f"no JSON ({error.msg})", "must be JSON") from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput("FILE", f"no JSON ({error})", "must be JSON") from None
    rows = document.get("prices") if isinstance(document, dict) else document
    if not isinstance(rows, list):
        raise InvalidInput("FILE", "no list of prices", 'must be a list of objects, or {"prices": [...]}')
    for number, row in enumerate(rows, 1):
        where = f"price {number}"
        if not isinstance(row, dict):
            raise InvalidInput(where, f"a {type(row).__name__}", "must be an object")
        _check_names(where, list(row))
        yield where, row


def _check_names(where: str, names: Sequence[str]) -> None:
    for name in FIELDS:
        if names.count(name) != 1:
            raise InvalidInput(f"{where}, {name}", f"{names.count(name)} times", f"must be there once: {_all()}")
    unknown = [name for name in names if name not in FIELDS]
    if unknown:
        raise InvalidInput(f"{where}, {unknown[0][:40]!r}", "a field that prices do not have", f"they have {_all()}")


def _all() -> str:
    return ", ".join(FIELDS)


def _price(where: str, row: Mapping[str, object]) -> Price:
    model, currency = row["model"], row["currency"]
    if not isinstance(model, str) or not model or len(model) > 200:
        raise InvalidInput(f"{where}, model", _seen(model), "must be a text of 1 to 200 characters")
    if not isinstance(currency, str) or not _CURRENCY.fullmatch(currency):
        raise InvalidInput(f"{where}, currency", _seen(currency), "must be three capital letters, such as USD")
    amounts = [_amount(f"{where}, {name}", row[name]) for name in AMOUNTS]
    return Price(model, _moment(f"{where}, effective_from", row["effective_from"]), currency, *amounts)


def _amount(where: str, value: object) -> Decimal:
    rule = f"must be a number of 0 or more with at most {PLACES_MAX} decimals, such as 2.50"
    if isinstance(value, bool) or not isinstance(value, (str, Decimal)):
        raise InvalidInput(where, _seen(value), rule)
    try:
        amount = Decimal(value)
    except InvalidOperation:
        raise InvalidInput(where, _seen(value), rule) from None
    if not amount.is_finite() or amount < 0 or amount >= 10**DIGITS_MAX or amount != round(amount, PLACES_MAX):
        raise InvalidInput(where, _seen(value), rule)
    return round(amount, PLACES_MAX).normalize()


def _moment(where: str, value: object) -> datetime:
    rule = "must be a date (from 00:00 UTC) or ISO 8601 with a time zone"
    if not isinstance(value, str):
        raise InvalidInput(where, _seen(value), rule)
    try:
        if len(value) == len("2026-01-31"):
            day = date.fromisoformat(value)
            return datetime(day.year, day.month, day.day, tzinfo=UTC)
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise InvalidInput(where, f"{_seen(value)}, without a time zone", rule)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidInput(where, _seen(value), rule) from None


def _seen(value: object) -> str:
    return f"{str(value)[:40]!r}" if isinstance(value, (str, Decimal)) else f"a {type(value).__name__}"


# --- the file and the table ---------------------------------------------------------------------------------------


def save(directory: Path, prices: Sequence[Price]) -> Path:
    """Write the list into the directory: the old one or the new one is there, whatever happens. Its path."""
    rows = [
        {
            "model": price.model,
            "effective_from": price.effective_from.isoformat().replace("+00:00", "Z"),
            "currency": price.currency,
            **{name: format(getattr(price, name), "f") for name in AMOUNTS},
        }
        for price in sorted(prices)
    ]
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / FILE
    text = json.dumps({"format": FORMAT, "prices": rows}, ensure_ascii=False, indent=1) + "\n"
    descriptor, beside = tempfile.mkstemp(prefix=f"{FILE}.", dir=directory)  # readable by its owner alone
    try:
        with naming(path), os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
    return path


def read(path: Path) -> tuple[Price, ...]:
    """The list that `save` wrote; none where there is no file. Raises Misconfigured where it is not readable."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ()
    except UnicodeDecodeError as error:
        raise Misconfigured(f"{path} is no UTF-8: load the prices again ({error})") from error
    try:
        return parse(text, "json")
    except InvalidInput as error:
        raise Misconfigured(f"{path} is no price list: load the prices again ({error})") from error


def install(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Fill the connection's table `prices` (trends.sql) from the file; empty where there is none."""
    install_rows(connection, read(path))


def install_rows(connection: duckdb.DuckDBPyConnection, prices: Sequence[Price]) -> None:
    """Fill the connection's table `prices` (trends.sql) with these and no others."""
    connection.execute("DELETE FROM prices")
    if prices:
        connection.executemany("INSERT INTO prices VALUES (?, ?, ?, ?, ?, ?)", [astuple(price) for price in prices])
