"""How commands to the ledger answer: the result as JSON, or a sentence and where it stands in the log."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from session_ledger.domain.results import QuotaStatus, Result


def answer(result: Result, sentence: str, as_json: bool) -> None:
    """What a command did."""
    from session_ledger.cli.output import clean, say, write_json

    if as_json:
        write_json(document_of(result))
        return
    place = f"partition {result.partition}, position {result.position}" if result.partition >= 0 else "control log"
    if result.partition < 0:
        place += f", position {result.position}"
    say(f"{clean(sentence)} ({place}{', recorded before' if result.repeated else ''})")


def document_of(result: Result) -> dict[str, object]:
    """A result's fields, and what is computed from them."""
    from session_ledger.domain.results import QuotaReport, QuotaStatus

    found: dict[str, object] = {f.name: getattr(result, f.name) for f in dataclasses.fields(result)}
    if isinstance(result, QuotaStatus):
        found |= computed_of(result)
    if isinstance(result, QuotaReport):
        found["quotas"] = [document_of(quota) for quota in result.quotas]
    return found


def computed_of(quota: QuotaStatus) -> dict[str, object]:
    """What a quota's reader wants beside the recorded fields; times as ISO 8601."""
    from session_ledger.consumers.records import as_datetime_or_none

    return {
        "remaining": quota.remaining,
        "percentage": quota.percentage,
        "resets_at": as_datetime_or_none(quota.resets_at),
    }
