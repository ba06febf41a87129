"""Session access tokens: 256 random bits as text. The ledger keeps the SHA-256 of one, and the token stands nowhere."""

from __future__ import annotations

import hashlib
import re
import secrets

from session_ledger.domain.errors import InvalidInput
from session_ledger.domain.shapes import shape

PREFIX = "slt_"  # so that scanners for leaked secrets find one
TOKEN_BYTES = 32
_FORM = re.compile(PREFIX + r"[A-Za-z0-9_-]{43}")


def new_access_token() -> str:
    """A fresh token of 47 characters, safe in headers and URLs. Give it to its user, and keep it nowhere."""
    return PREFIX + secrets.token_urlsafe(TOKEN_BYTES)


def token_digest(token: str) -> bytes:
    """The SHA-256 of a token that is to be kept. Raises InvalidInput for what `new_access_token` did not make."""
    if not isinstance(token, str) or not _FORM.fullmatch(token):
        rule = "must be a token of new_access_token(): no password has its 256 bits"
        raise InvalidInput("token", shape(token), rule)
    return presented_digest(token)


def presented_digest(token: str) -> bytes:
    """The same of whatever somebody presents, well formed or not. Raises InvalidInput for what is no text."""
    if not isinstance(token, str):
        raise InvalidInput("token", shape(token), "must be a text")
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
