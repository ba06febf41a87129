"""Values that name somebody or open something, found by shape: they leak at any length.

Emails, phone numbers, IBANs (checked by their check digits, ISO 13616), card numbers (Luhn, ISO/IEC 7812), keys and
tokens of well-known shapes, and canaries: marks that were planted to be found, ``canary-`` and 16 or more letters or
digits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

EMAIL, PHONE, IBAN, CARD, SECRET, CANARY = "email", "phone", "iban", "card", "secret", "canary"
DIGITS_MIN = 9  # of a phone number: shorter ones are mostly amounts and order numbers

_HINT = re.compile(r"[@\d_-]")
_SECRETS = ("sk-", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "AKIA", "xox", "eyJ")
_DIGITS = str.maketrans("", "", "0123456789")
_EMAIL = re.compile(r"[a-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@(?:[a-z0-9-]{1,63}\.)+[a-z]{2,24}", re.IGNORECASE)
_PHONE = re.compile(
    r"(?<![\w.])(?:\+|(?<!\d )00)\d[\d ()./-]{7,18}\d(?!\w)|(?<![\w.])(?<!\d )0\d[\d ()/-]{7,15}\d(?!\w)"
)
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b", re.IGNORECASE)
_CARD = re.compile(r"(?<![\d+-])[2-6](?:[ -]?\d){12,18}(?!\d)")
_SECRET = re.compile(
    r"\b(?:sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|AKIA[A-Z0-9]{16}|xox[abprs]-[A-Za-z0-9-]{10,}"
    r"|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,})"
)
_CANARY = re.compile(r"\bcanary-[a-z0-9]{16,64}\b", re.IGNORECASE)
Shape = tuple[str, re.Pattern[str], Callable[[str], str | None]]
_NO_DIGIT = re.compile(r"\D+")
_BLANK = re.compile(r"\s+")


def identifiers(text: str) -> Iterator[tuple[str, str]]:
    """(kind, value in one form) of each value in a text as it was said; each once.

    A number is of one kind: what is an IBAN or a card is no phone number besides.
    """
    if not _HINT.search(text):
        return
    seen: set[tuple[str, str]] = set()
    taken: list[tuple[int, int]] = []
    for kind, pattern, form in _shapes_in(text):
        for match in pattern.finditer(text):
            start, end = match.span()
            value = form(match[0])
            if value is None or any(start < last and first < end for first, last in taken):
                continue
            taken.append((start, end))
            if (kind, value) not in seen:
                seen.add((kind, value))
                yield kind, value


def _shapes_in(text: str) -> Iterator[Shape]:
    """Those that the text may hold, by cheap signs."""
    if "canary-" in text.casefold():
        yield CANARY, _CANARY, str.casefold
    if any(sign in text for sign in _SECRETS):
        yield SECRET, _SECRET, str
    if "@" in text:
        yield EMAIL, _EMAIL, str.casefold
    if len(text) - len(text.translate(_DIGITS)) >= DIGITS_MIN:
        yield IBAN, _IBAN, _iban
        yield CARD, _CARD, _card
        yield PHONE, _PHONE, _phone


def _phone(text: str) -> str | None:
    digits = _NO_DIGIT.sub("", text)
    digits = digits.removeprefix("00") if text.startswith("00") else digits
    return digits.lstrip("0") if DIGITS_MIN <= len(digits) <= 15 else None


def _iban(text: str) -> str | None:
    value = _BLANK.sub("", text).upper()
    if not 15 <= len(value) <= 34:
        return None
    number = "".join(str(int(character, 36)) for character in value[4:] + value[:4])
    return value if int(number) % 97 == 1 else None


def _card(text: str) -> str | None:
    digits = _NO_DIGIT.sub("", text)
    if not 13 <= len(digits) <= 19:
        return None
    total = 0
    for place, digit in enumerate(reversed(digits)):
        number = int(digit) * (2 if place % 2 else 1)
        total += number - 9 if number > 9 else number
    return digits if total % 10 == 0 and len(set(digits)) > 1 else None
