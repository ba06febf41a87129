"""Limits, filters and cursors of paged reads. Each raises InvalidInput for what is none."""

from __future__ import annotations

import base64
import binascii

from session_ledger.domain.errors import InvalidInput
from session_ledger.projections.reading import Key
from session_ledger.projections.session_tables import STATUSES

PAGE_MAX = 1000  # items: bounds the memory and the time of a read


def write_cursor(*parts: int | str | bytes) -> str:
    """An opaque text for a place in a list."""
    texts = [part.hex() if isinstance(part, bytes) else str(part) for part in parts]
    return base64.urlsafe_b64encode("\x00".join(texts).encode()).decode().rstrip("=")


def read_cursor(cursor: str, parts: int) -> list[str]:
    """What `write_cursor` was given, as texts. Raises InvalidInput."""
    try:
        texts = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().split("\x00")
    except (binascii.Error, ValueError):
        texts = []
    if len(texts) != parts:
        raise InvalidInput("after", f"{len(cursor)} characters that are no cursor", "must be the `next` of a page")
    return texts


def limited(value: int, field: str) -> int:
    """The number, if a page can have so many items."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= PAGE_MAX:
        raise InvalidInput(field, repr(value), f"must be a number from 1 to {PAGE_MAX}")
    return value


def statuses_of(status: str | None) -> tuple[str, ...]:
    """The statuses that a filter stands for; None: all."""
    if status is None:
        return STATUSES
    if status not in STATUSES:
        raise InvalidInput("status", f"{len(status)} characters", f"must be one of {', '.join(STATUSES)}, or None")
    return (status,)


def session_key(after: str) -> Key:
    """Where a page of sessions ended."""
    active_at, session_id = read_cursor(after, 2)
    try:
        return int(active_at), bytes.fromhex(session_id)
    except ValueError as error:
        raise InvalidInput("after", f"{len(after)} characters", "must be the `next` of a page of sessions") from error


def agent_key(after: str) -> tuple[str, bytes]:
    """Where a page of agents ended."""
    agent_type, agent_id = read_cursor(after, 2)
    try:
        return agent_type, bytes.fromhex(agent_id)
    except ValueError as error:
        raise InvalidInput("after", f"{len(after)} characters", "must be the `next` of a page of agents") from error
