"""A line of a transcript, somebody else's or our own, as an `ImportedChat`. A failure names the field and the rule.

OpenAI chat: ``{"messages": [{"role", "content", ...}], "id"?, "user_id"?, "created_at"?, "metadata"?}``, where content
is text, null or a list of parts. ShareGPT: ``{"conversations": [{"from", "value"}], "id"?}``. Nothing is dropped: what
has no field of its own in the ledger goes into the message's parts, or into the session's context.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from session_ledger.domain.commands import ImportedMessage, Json
from session_ledger.domain.errors import InvalidInput

AUTO, OPENAI, SHAREGPT = FORMATS = ("auto", "openai", "sharegpt")
OURS = "session_ledger"
"""The key by which our own export marks its lines; its value is the version of their form."""
OURS_VERSION = 1
RESERVED = "import."
"""What the importer's own metadata keys begin with."""
EXTRA = "message_fields"
"""The type of the part that holds a message's fields that have no place of their own."""
SECONDS_MAX = 253_402_300_799  # the last second of the year 9999
_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bard": "assistant", "bing": "assistant"}
_ROLES |= {"model": "assistant", "function_call": "assistant", "observation": "tool", "function_response": "tool"}
_CHAT_FIELDS = frozenset(("id", "tenant", "user_id", "user", "created_at", "created", "create_time", "title")) | {
    *("metadata", "context", "messages", "conversations")
}
_OUR_FIELDS = ("kind", "channel", "domain", "ended_at", "end", OURS)
_COUNTS = ("tokens_in", "tokens_out", "latency_ms", "audio_duration_ms")
_TEXTS = ("role", "content", "from", "value", "model", "audio_url")
_MESSAGE_FIELDS = frozenset((*_TEXTS, *_COUNTS, "parts", "tool_calls", "metadata", "created_at", "timestamp"))
_PLAIN = frozenset(("role", "content"))
_PLAIN_SHAREGPT = frozenset(("from", "value"))
_decode: Callable[[bytes], Json] = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedChat:
    """A parsed line. Times in microseconds since the epoch; None: the line says nothing about it."""

    messages: tuple[ImportedMessage, ...]
    source_id: str | None
    tenant: str | None
    user: str | None
    created_at: int | None
    ended_at: int | None
    title: str | None
    kind: str
    channel: str
    domain: str | None
    context: Json
    metadata: dict[str, str]


def parse_chat(line: bytes, form: str = AUTO) -> ImportedChat:
    """Parse one line. Raises InvalidInput."""
    chat = _object(_json(line), "line")
    ours = chat.get(OURS) is not None
    if ours and chat[OURS] != OURS_VERSION:
        raise InvalidInput(OURS, _seen(chat[OURS]), f"must be {OURS_VERSION}: a newer session-ledger wrote this line")
    messages = _messages(chat, form, ours)
    if not messages and not ours:
        raise InvalidInput("messages", "an empty list", "must hold at least one message")
    return ImportedChat(
        messages=messages,
        source_id=_source_id(chat.get("id")),
        tenant=_text(chat, "tenant"),
        user=_text(chat, "user_id") or _text(chat, "user"),
        created_at=_time(chat, "created_at", "created", "create_time"),
        ended_at=_time(chat, "ended_at") if ours else None,
        title=_text(chat, "title"),
        kind=(_text(chat, "kind") if ours else None) or "standard",
        channel=(_text(chat, "channel") if ours else None) or "text",
        domain=_text(chat, "domain") if ours else None,
        context=_context(chat, _CHAT_FIELDS.union(_OUR_FIELDS) if ours else _CHAT_FIELDS),
        metadata=_metadata(chat.get("metadata"), "metadata") | (_end(chat.get("end")) if ours else {}),
    )


def _messages(chat: Mapping[str, Json], form: str, ours: bool) -> tuple[ImportedMessage, ...]:
    if form != SHAREGPT and "messages" in chat:
        given = _list(chat["messages"], "messages")
        return tuple([_openai(message, number, ours) for number, message in enumerate(given)])
    if form != OPENAI and "conversations" in chat:
        given = _list(chat["conversations"], "conversations")
        system = _text(chat, "system")
        first = () if system is None else (ImportedMessage("system", system),)
        return (*first, *(_sharegpt(message, number) for number, message in enumerate(given)))
    wanted = {OPENAI: "`messages`", SHAREGPT: "`conversations`"}.get(form, "`messages` or `conversations`")
    raise InvalidInput("line", f"an object with {len(chat)} other fields", f"must have {wanted}")


def _openai(given: Json, number: int, ours: bool) -> ImportedMessage:
    message = given if isinstance(given, dict) else _object(given, f"messages[{number}]")
    role, content = message.get("role"), message.get("content")
    if isinstance(role, str) and isinstance(content, str) and message.keys() == _PLAIN:
        return ImportedMessage(role, content)
    where = f"messages[{number}]."
    if not isinstance(role, str):
        raise InvalidInput(where + "role", _seen(role), "must be a text")
    parts: list[Json] = []
    if isinstance(content, list):
        parts, content = _content_parts(content, where)
    elif content is None:
        content = ""
    elif not isinstance(content, str):
        raise InvalidInput(where + "content", _seen(content), "must be a text, null or a list of parts")
    if ours:
        given_parts = None if message.get("parts") is None else _list(message["parts"], where + "parts")
    else:
        given_parts = [*parts, *_tool_calls(message, where), *_extra(message, _MESSAGE_FIELDS)] or None
    return _with_details(message, role, content, given_parts, where)


def _sharegpt(given: Json, number: int) -> ImportedMessage:
    where = f"conversations[{number}]."
    message = _object(given, where[:-1])
    speaker, value = message.get("from", message.get("role")), message.get("value", message.get("content"))
    if not isinstance(speaker, str):
        raise InvalidInput(where + "from", _seen(speaker), "must be a text")
    if value is None and "value" in message:
        value = ""
    if not isinstance(value, str):
        raise InvalidInput(where + "value", _seen(value), "must be a text")
    role = _ROLES.get(speaker, speaker)
    if message.keys() == _PLAIN_SHAREGPT:
        return ImportedMessage(role, value)
    return _with_details(message, role, value, _extra(message, _MESSAGE_FIELDS) or None, where)


def _with_details(
    message: Mapping[str, Json], role: str, content: str, parts: list[Json] | None, where: str
) -> ImportedMessage:
    return ImportedMessage(
        role=role,
        content=content,
        parts=parts,
        model=_text(message, "model", where),
        tokens_in=_count(message, "tokens_in", where),
        tokens_out=_count(message, "tokens_out", where),
        latency_ms=_count(message, "latency_ms", where),
        metadata=_metadata(message.get("metadata"), where + "metadata"),
        occurred_at=_time(message, "created_at", "timestamp", where=where),
        audio_url=_text(message, "audio_url", where),
        audio_duration_ms=_count(message, "audio_duration_ms", where),
    )


def _content_parts(content: list[Json], where: str) -> tuple[list[Json], str]:
    """(the parts as they came, the text of the text parts, a line each)."""
    texts: list[str] = []
    for number, part in enumerate(content):
        if isinstance(part, str):
            texts.append(part)
        elif not isinstance(part, dict):
            raise InvalidInput(f"{where}content[{number}]", _seen(part), "must be an object or a text")
        elif isinstance(part.get("text"), str):
            texts.append(part["text"])
    return list(content), "\n".join(texts)


def _tool_calls(message: Mapping[str, Json], where: str) -> list[Json]:
    given = message.get("tool_calls")
    calls = [] if given is None else _list(given, where + "tool_calls")
    return [{"type": "function"} | _object(call, where + "tool_calls") for call in calls]


def _extra(message: Mapping[str, Json], known: frozenset[str]) -> list[Json]:
    extra = {name: value for name, value in message.items() if name not in known and value is not None}
    return [{"type": EXTRA, "fields": extra}] if extra else []


def _context(chat: Mapping[str, Json], known: frozenset[str]) -> Json:
    """The line's own context, and its fields that have no other place."""
    extra = {name: value for name, value in chat.items() if name not in known and value is not None}
    if "conversations" in chat:
        extra.pop("system", None)
    given = chat.get("context")
    if given is None or not extra:
        return extra or given
    return {**(given if isinstance(given, dict) else {"context": given}), **extra}


def _source_id(value: Json) -> str | None:
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value:
        raise InvalidInput("id", _seen(value), "must be a text or a whole number, and not empty")
    return value


def _metadata(value: Json, field: str) -> dict[str, str]:
    """Text to text; what is no text becomes its JSON, null is left out."""
    if value is None:
        return {}
    given = _object(value, field)
    if any(name.startswith(RESERVED) for name in given):
        raise InvalidInput(field, f"a key that begins with {RESERVED!r}", "such keys are the importer's own")
    return {
        name: entry if isinstance(entry, str) else json.dumps(entry, ensure_ascii=False, separators=(",", ":"))
        for name, entry in given.items()
        if entry is not None
    }


def _end(value: Json) -> dict[str, str]:
    """How a session of another ledger ended, as metadata: here it ends by being imported."""
    if value is None:
        return {}
    given = _object(value, "end")
    return {
        f"{RESERVED}end_{name}": text for name in ("status", "reason", "by") if (text := _text(given, name, "end."))
    }


def _time(given: Mapping[str, Json], *names: str, where: str = "") -> int | None:
    """Epoch seconds, or ISO 8601 with a time zone, as microseconds."""
    for name in names:
        value = given.get(name)
        if value is None:
            continue
        if isinstance(value, str):
            return _iso(value, where + name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InvalidInput(where + name, _seen(value), "must be epoch seconds or ISO 8601 with a time zone")
        if not -SECONDS_MAX <= value <= SECONDS_MAX:
            raise InvalidInput(where + name, "a number after the year 9999", "must be epoch seconds, not milliseconds")
        return value * 1_000_000 if isinstance(value, int) else round(value * 1_000_000)
    return None


def _iso(text: str, field: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(field, f"a text of {len(text)} characters", "must be ISO 8601 or epoch seconds") from None
    if moment.tzinfo is None:
        raise InvalidInput(field, "a time without a time zone", "must end in a zone, such as Z or +01:00")
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _json(line: bytes) -> Json:
    try:
        return _decode(line)
    except RecursionError:
        raise InvalidInput(
            "line", "JSON that is nested too deeply", "must be nested less than some 1,000 times"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # which of them it is that tells of UTF-8 varies
        try:
            line.decode()
        except UnicodeDecodeError as wrong:
            raise InvalidInput("line", f"a byte that is no UTF-8 (byte {wrong.start})", "must be UTF-8") from None
        raise InvalidInput("line", f"no JSON ({_reason(line, error)})", "must be one JSON object") from None


def _reason(line: bytes, error: Exception) -> str:
    """msgspec's own words, but for a lone surrogate, which it takes for an early end."""
    try:
        parsed = json.loads(line)
    except (ValueError, RecursionError):
        return str(error)
    try:
        json.dumps(parsed, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return "half of a surrogate pair"
    return str(error)


def _seen(value: Json) -> str:
    """The shape of a value, never the value."""
    if value is None:
        return "nothing"
    if isinstance(value, float) and not math.isfinite(value):
        return "a number that is not finite"
    names = {
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)


def _object(value: Json, field: str) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise InvalidInput(field, _seen(value), "must be an object")
    return value


def _list(value: Json, field: str) -> list[Json]:
    if not isinstance(value, list):
        raise InvalidInput(field, _seen(value), "must be a list")
    return value


def _text(given: Mapping[str, Json], name: str, where: str = "") -> str | None:
    value = given.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidInput(where + name, _seen(value), "must be a text")
    return value


def _count(given: Mapping[str, Json], name: str, where: str) -> int | None:
    value = given.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise InvalidInput(where + name, _seen(value), "must be a whole number")
    return value
