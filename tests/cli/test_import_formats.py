"""Lines of transcripts become chats, with nothing dropped; what is wrong is named, never repeated."""

from __future__ import annotations

import json

import pytest

from session_ledger.cli.import_formats import EXTRA, parse_chat
from session_ledger.domain.commands import ImportedMessage
from session_ledger.domain.errors import InvalidInput


def test_an_openai_chat_keeps_every_field_that_has_a_place() -> None:
    """Ids, times as epoch seconds or ISO 8601, metadata as texts."""
    chat = parse_chat(
        json.dumps(
            {
                "id": 17,
                "user_id": "alice",
                "created_at": "2026-01-02T03:04:05.5+01:00",
                "metadata": {"a": "b", "n": 1.5, "none": None, "list": [1]},
                "messages": [{"role": "user", "content": "hi", "created_at": 1_700_000_000.25, "model": "m"}],
            }
        ).encode()
    )
    assert ("17", "alice", 1_767_319_445_500_000) == (chat.source_id, chat.user, chat.created_at)
    assert {"a": "b", "n": "1.5", "list": "[1]"} == chat.metadata
    assert (ImportedMessage("user", "hi", model="m", occurred_at=1_700_000_000_250_000),) == chat.messages


def test_content_may_be_null_or_a_list_of_parts() -> None:
    """Parts are kept as they came; their texts are the content."""
    image = {"type": "image_url", "image_url": {"url": "https://shop.example/1.png"}}
    parts = [{"type": "text", "text": "one"}, image, {"type": "text", "text": "two"}]
    chat = parse_chat(
        json.dumps({"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": None}]}).encode()
    )
    assert ImportedMessage("user", "one\ntwo", parts=parts) == chat.messages[0]
    assert ImportedMessage("assistant", "") == chat.messages[1]


def test_tool_calls_names_and_unknown_fields_become_parts() -> None:
    """A field of a message that has no place of its own is kept in a part."""
    call = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
    chat = parse_chat(
        json.dumps(
            {
                "messages": [
                    {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None},
                    {"role": "tool", "content": "42", "tool_call_id": "c1", "name": "look_up"},
                ]
            }
        ).encode()
    )
    assert [call] == chat.messages[0].parts
    assert [{"type": EXTRA, "fields": {"tool_call_id": "c1", "name": "look_up"}}] == chat.messages[1].parts


def test_fields_of_the_line_that_have_no_place_become_context() -> None:
    """Such as the tools that a model was given; also words that are ours only in our own lines."""
    chat = parse_chat(b'{"messages":[{"role":"user","content":"x"}],"tools":[1],"kind":"evaluation","context":{"a":1}}')
    assert {"a": 1, "tools": [1], "kind": "evaluation"} == chat.context
    assert "standard" == chat.kind


def test_sharegpt_speakers_are_given_the_roles_of_openai() -> None:
    """human, gpt, system, tool and the like; a system prompt beside the conversation comes first."""
    turns = [("human", "a"), ("gpt", "b"), ("tool", "c"), ("observation", "d"), ("function_call", "e"), ("critic", "f")]
    line = {"id": "s1", "system": "be kind", "conversations": [{"from": who, "value": text} for who, text in turns]}
    chat = parse_chat(json.dumps(line).encode())
    expected = ["system", "user", "assistant", "tool", "tool", "assistant", "critic"]
    assert expected == [message.role for message in chat.messages]
    assert "be kind" == chat.messages[0].content
    assert chat.context is None


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        ("no JSON", b"{"),
        ("no JSON", b"{} {}"),
        ("no JSON", b'{"messages": NaN}'),
        ("no UTF-8", b'{"messages":[{"role":"user","content":"\xff"}]}'),
        ("half of a surrogate pair", b'{"messages":[{"role":"user","content":"\\ud800"}]}'),
        ("nested too deeply", b'{"messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        ("line: a list; must be an object", b"[]"),
        ("must have `messages` or `conversations`", b'{"prompt":"secret"}'),
        ("messages: an object; must be a list", b'{"messages":{}}'),
        ("must hold at least one message", b'{"messages":[]}'),
        (r"messages\[0\]: a text; must be an object", b'{"messages":["secret"]}'),
        (r"messages\[0\].role: nothing; must be a text", b'{"messages":[{"content":"secret"}]}'),
        (r"messages\[1\].content: a number", b'{"messages":[{"role":"u","content":"a"},{"role":"u","content":5}]}'),
        (r"messages\[0\].content\[0\]: a number", b'{"messages":[{"role":"user","content":[5]}]}'),
        (r"messages\[0\].tool_calls: an object", b'{"messages":[{"role":"a","content":"","tool_calls":{}}]}'),
        (r"messages\[0\].tokens_in: true or false", b'{"messages":[{"role":"a","content":"","tokens_in":true}]}'),
        (r"conversations\[0\].value: nothing", b'{"conversations":[{"from":"human"}]}'),
        (r"conversations\[0\].from: nothing", b'{"conversations":[{"value":"secret"}]}'),
        (
            "created_at: a time without a time zone",
            b'{"messages":[{"role":"u","content":""}],"created_at":"2026-01-02T03:04:05"}',
        ),
        ("epoch seconds, not milliseconds", b'{"messages":[{"role":"u","content":""}],"created_at":1700000000000}'),
        ("created_at: true or false", b'{"messages":[{"role":"u","content":""}],"created_at":true}'),
        ("user_id: a number", b'{"messages":[{"role":"u","content":""}],"user_id":5}'),
        ("id: a list", b'{"messages":[{"role":"u","content":""}],"id":[]}'),
        ("metadata: a text", b'{"messages":[{"role":"u","content":""}],"metadata":"secret"}'),
        ("the importer's own", b'{"messages":[{"role":"u","content":""}],"metadata":{"import.id":"x"}}'),
        ("a newer session-ledger", b'{"messages":[],"session_ledger":2}'),
    ],
)
def test_what_is_wrong_is_named_by_its_field_and_never_repeated(rule: str, line: bytes) -> None:
    """The message says field, shape and rule; what somebody said does not get into a log."""
    with pytest.raises(InvalidInput, match=rule) as caught:
        parse_chat(line)
    assert "secret" not in str(caught.value)


def test_a_format_that_is_asked_for_is_the_only_one_taken() -> None:
    """`--format openai` refuses ShareGPT, and the other way round."""
    openai, sharegpt = b'{"messages":[{"role":"u","content":""}]}', b'{"conversations":[{"from":"human","value":""}]}'
    assert 1 == len(parse_chat(openai, "openai").messages)
    assert 1 == len(parse_chat(sharegpt, "sharegpt").messages)
    with pytest.raises(InvalidInput, match=r"must have `messages`$"):
        parse_chat(sharegpt, "openai")
    with pytest.raises(InvalidInput, match=r"must have `conversations`$"):
        parse_chat(openai, "sharegpt")
