"""A session as one line of JSON: OpenAI chat form and our own fields, which `import` reads back to the same history."""

from __future__ import annotations

from datetime import UTC, datetime

from session_ledger.cli.import_formats import EXTRA, OURS, OURS_VERSION, RESERVED
from session_ledger.cli.import_run import ID_KEY
from session_ledger.cli.output import json_line
from session_ledger.consumers.records import MessageView, SessionView
from session_ledger.domain.commands import Json

_END = f"{RESERVED}end_"


def line_of(session: SessionView, messages: list[MessageView]) -> str:
    """The line, without its end. Fields that say nothing are left out."""
    imported = session.status == "imported"
    metadata = dict(session.metadata)
    if imported:
        metadata.pop(ID_KEY, None)
    end = {name: metadata.pop(_END + name, None) for name in ("status", "reason", "by")} if imported else _end(session)
    line: dict[str, Json] = {
        "id": source_id_of(session),
        "tenant": session.tenant,
        "user_id": session.user,
        "created_at": _time(began_at(session)),
        "ended_at": _time(session.end_occurred_at if imported else session.end_occurred_at or session.ended_at),
        "title": session.title,
        "kind": session.kind,
        "channel": session.channel,
        "domain": session.domain,
        "context": session.context,
        "metadata": metadata or None,
        "end": _without_nothing(end) or None,
    }
    line = _without_nothing(line)
    line["messages"] = [_message(message, imported) for message in messages]
    line[OURS] = OURS_VERSION
    return json_line(line)


def source_id_of(session: SessionView) -> str:
    """The id of the line: that of the source which a session was imported from, else its own."""
    imported_as = session.metadata.get(ID_KEY) if session.status == "imported" else None
    return imported_as or session.session_id


def began_at(session: SessionView) -> datetime | None:
    """When the session began; of an imported one only if its source said so."""
    return session.occurred_at or (None if session.status == "imported" else session.created_at)


def _end(session: SessionView) -> dict[str, Json]:
    if session.status == "live":
        return {}
    return {"status": session.status, "reason": session.end_reason, "by": session.ended_by}


def _message(message: MessageView, imported: bool) -> dict[str, Json]:
    """`tool_calls`, `tool_call_id` and the like repeat what stands in `parts`, for other readers of the form."""
    line = _without_nothing(
        {
            "role": message.role,
            "content": message.content,
            **_from_parts(message.parts),
            "created_at": _time(message.occurred_at if imported else message.occurred_at or message.recorded_at),
            "model": message.model,
            "tokens_in": message.tokens_in,
            "tokens_out": message.tokens_out,
            "latency_ms": message.latency_ms,
            "audio_url": message.audio_url,
            "audio_duration_ms": message.audio_duration_ms,
            "metadata": message.metadata or None,
            "parts": message.parts,
        }
    )
    return line


def _from_parts(parts: Json) -> dict[str, Json]:
    found: dict[str, Json] = {}
    calls: list[Json] = []
    for part in parts or ():
        if not isinstance(part, dict):
            continue
        if part.get("type") == "function" and "function" in part:
            calls.append(part)
        if part.get("type") == EXTRA and isinstance(part.get("fields"), dict):
            found |= {name: part["fields"].get(name) for name in ("tool_call_id", "name")}
    return found | ({"tool_calls": calls} if calls else {})


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _without_nothing(line: dict[str, Json]) -> dict[str, Json]:
    return {name: value for name, value in line.items() if value is not None}
