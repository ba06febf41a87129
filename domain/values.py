"""Values as callers give them, made into the values that commands carry: amounts and times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation

from session_ledger.domain.errors import InvalidInput

AMOUNT_MAX = Decimal(10) ** 12
DECIMALS = 6
TIME_US_MAX = 253_402_300_799_999_999  # the last microsecond of the year 9999
_STEP = Decimal(1).scaleb(-DECIMALS)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def amount(value: int | float | str | Decimal, field: str) -> Decimal:
    """An amount, exactly: finite, from 0 to 10^12, at most six decimals. Raises InvalidInput.

    A float counts as its shortest decimal text, so 0.1 is one tenth; 0.1 + 0.2 has too many decimals.
    """
    if isinstance(value, Decimal):
        number = value
    elif isinstance(value, bool) or not isinstance(value, int | float | str):
        raise InvalidInput(field, f"a {type(value).__name__}", "must be a number: int, Decimal, decimal text or float")
    else:
        try:
            number = Decimal(repr(value) if isinstance(value, float) else value)
        except (InvalidOperation, ValueError):
            raise InvalidInput(
                field, f"a {type(value).__name__} that is no number", "must be a decimal number"
            ) from None
    check_amount(number, field)
    exponent = number.as_tuple().exponent
    if number.is_signed() or not isinstance(exponent, int):
        return Decimal(0)  # -0
    if exponent < -DECIMALS:
        return number.quantize(_STEP)
    return number if exponent <= 0 else number.quantize(Decimal(1))


def check_amount(value: object, field: str) -> None:
    """Raises InvalidInput unless `value` is a Decimal that is an amount."""
    if not isinstance(value, Decimal):
        raise InvalidInput(field, f"a {type(value).__name__}", "must be a Decimal (domain.values.amount makes one)")
    if not value.is_finite():
        raise InvalidInput(field, "not a finite number", "must be finite")
    if value < 0:
        raise InvalidInput(field, "a negative number", "must be 0 or more")
    if value > AMOUNT_MAX:
        raise InvalidInput(field, f"a number of {value.adjusted() + 1} digits", f"must be at most {AMOUNT_MAX}")
    exponent = value.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -DECIMALS and value != value.quantize(_STEP):
        raise InvalidInput(field, f"{-exponent} decimals", f"may have at most {DECIMALS} decimals")


def time_us(value: datetime | int, field: str) -> int:
    """Microseconds since the epoch, UTC, of a datetime with a time zone (or of themselves). Raises InvalidInput."""
    if isinstance(value, datetime):
        if value.tzinfo is None or value.utcoffset() is None:
            raise InvalidInput(field, "a datetime without a time zone", "must have a time zone")
        value = (value - _EPOCH) // _MICROSECOND
    check_time(value, field)
    return value


def check_time(value: object, field: str) -> None:
    """Raises InvalidInput unless `value` is microseconds since the epoch, from 1970 to 9999."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInput(field, f"a {type(value).__name__}", "must be a datetime with a time zone, or microseconds")
    if not 0 <= value <= TIME_US_MAX:
        raise InvalidInput(field, "a time out of range", "must be between the years 1970 and 9999")
