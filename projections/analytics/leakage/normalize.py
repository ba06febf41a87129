"""Texts as leakage checks compare them, so that case, spacing and punctuation hide nothing."""

from __future__ import annotations

import re
import unicodedata

_APART = re.compile(r"[\W_]+")


def normalized(text: str) -> str:
    """Compatibility-composed (Unicode NFKC), case-folded; whatever is no letter and no digit is one blank; stripped."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return _APART.sub(" ", text.casefold()).strip()
