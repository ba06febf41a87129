"""Values that no command may hold: InvalidInput naming the field, whoever asks and however; nothing is recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from session_ledger.domain.commands import CreateSession
from session_ledger.domain.errors import InvalidInput
from session_ledger.ledger.ledger import Ledger
from tests.ledger.support import assert_folds_equal_the_log, events, fresh_id

NAN, INFINITE = float("nan"), float("inf")
TEXTS: list[object] = ["nul \x00", "lone \ud800", 5, b"bytes", ["list"], {"a": 1}, True]
WORDS = [*TEXTS, "", "x" * 257, None]
AMOUNTS: list[object] = [NAN, INFINITE, -1, "-1", "x", "1e13", Decimal("NaN"), Decimal("sNaN"), "0.0000001", True, []]
TIMES: list[object] = [datetime(2026, 1, 1), -1, 1.5, "now", 2**70, True]
IDS: list[object] = ["x", b"short", 5, None, [], "\ud800"]
SECONDS: list[object] = [NAN, INFINITE, -INFINITE, -1, 0, "60", 1e300, True, []]
METADATA: list[object] = [
    {"k": 5},
    {5: "v"},
    {"": "v"},
    {"k": "\x00"},
    {"\ud800": "v"},
    ["k"],
    "k",
    {"k": "v" * 70_000},
]
JSON: list[object] = [NAN, {"a": INFINITE}, {5: 1}, {"a": object()}, "\ud800", {"a": "\x00"}, 2**70]
NAMES: list[object] = ["text", 5, [5], [["a"]], [""], ["\x00"], [f"c{n}" for n in range(101)]]

Hostile = dict[str, list[object]]
Ask = Callable[[Any, dict[str, Any]], object]


def _nested() -> object:
    deep: object = 1
    for _ in range(100):
        deep = [deep]
    return deep


CASES: dict[str, tuple[dict[str, Any], Hostile]] = {
    "create_session": (
        {"tenant": "t", "user": "u"},
        {
            "tenant": [*WORDS, "a/b"],
            "user": WORDS,
            "title": [*TEXTS, "x" * 5000],
            "context": [*JSON, _nested()],
            "metadata": METADATA,
            "kind": [*WORDS, "other"],
            "channel": [*WORDS, "other"],
            "domain": [*TEXTS, ""],
            "ip_address": [*TEXTS, ""],
            "idle_timeout_s": SECONDS,
            "ttl_s": SECONDS,
            "reuse": ["yes", 1, None],
            "occurred_at": TIMES,
            "command_id": [*[one for one in IDS if one is not None], "00000000-0000-4000-8000-000000000000"],
        },
    ),
    "update_session": (
        {"tenant": "t", "user": "u", "session_id": "SESSION", "title": "t"},
        {"session_id": IDS, "title": [*TEXTS, None], "context": JSON, "metadata": METADATA, "occurred_at": TIMES},
    ),
    "add_message": (
        {"tenant": "t", "user": "u", "session_id": "SESSION", "role": "user", "content": "hi"},
        {
            "tenant": WORDS,
            "user": WORDS,
            "session_id": IDS,
            "role": WORDS,
            "content": [*TEXTS, None, "x" * (1024 * 1024 + 1), "é" * (512 * 1024 + 1)],
            "parts": ["text", {"a": 1}, [NAN], [object()], [_nested()], ["x" * (1024 * 1024)]],
            "model": [*TEXTS, ""],
            "tokens_in": [-1, 1.5, "1", True, 2**63],
            "latency_ms": [-1, NAN],
            "audio_url": [*TEXTS, "x" * 9000],
            "metadata": METADATA,
            "occurred_at": TIMES,
        },
    ),
    "end_session": (
        {"tenant": "t", "user": "u", "session_id": "SESSION"},
        {"reason": WORDS, "ended_by": WORDS, "note": [*TEXTS, "x" * 70_000], "occurred_at": TIMES},
    ),
    "report_error": (
        {"tenant": "t", "user": "u", "session_id": "SESSION", "component": "c", "error_type": "e"},
        {"component": WORDS, "error_type": WORDS, "message": TEXTS, "severity": WORDS, "agent_id": ["x", 5]},
    ),
    "set_quota": (
        {"tenant": "t", "user": "u", "resource": "calls", "limit": 5},
        {"resource": WORDS, "limit": AMOUNTS, "period_s": [*SECONDS, None, 0.5, 400 * 86_400]},
    ),
    "consume_quota": (
        {"tenant": "t", "user": "u", "resource": "calls"},
        {"resource": WORDS, "amount": [*AMOUNTS, None], "reserve": ["yes", 1], "session_id": ["x", 5]},
    ),
    "check_quota": ({"tenant": "t", "user": "u", "resource": "calls"}, {"amount": [*AMOUNTS, None]}),
    "release_quota": (
        {"tenant": "t", "user": "u", "reservation_id": "SESSION"},
        {"reservation_id": IDS, "amount": AMOUNTS},
    ),
    "report_quota": ({"tenant": "t", "user": "u"}, {"resource": [*TEXTS, ""]}),
    "set_user_limits": (
        {"tenant": "t", "user": "u"},
        {"max_sessions": [0, -1, 1.5, "5", True, 10_001], "limit_policy": [*TEXTS, ""], "plan": [*TEXTS, ""]},
    ),
    "report_authentication_failure": (
        {"tenant": "t", "user": "u", "method": "m", "reason": "r"},
        {"method": WORDS, "reason": WORDS, "ip_address": TEXTS, "session_id": ["x"], "occurred_at": TIMES},
    ),
    "register_agent": (
        {"tenant": "t", "agent_type": "a"},
        {
            "tenant": [*WORDS, "a/b"],
            "agent_type": WORDS,
            "capabilities": [*NAMES, None],
            "partition": [-1, 4096, 1.5, "0", None, True],
        },
    ),
    "acquire_agent": (
        {"tenant": "t", "user": "u", "session_id": "SESSION", "agent_type": "a"},
        {"agent_type": WORDS, "capabilities": [*NAMES, None]},
    ),
    "release_agent": (
        {"tenant": "t", "user": "u", "session_id": "SESSION", "agent_id": "SESSION"},
        {"agent_id": IDS, "reset": WORDS},
    ),
    "retire_agent": (
        {"tenant": "t", "agent_id": "SESSION"},
        {"agent_id": IDS, "reason": WORDS, "force": ["yes", None]},
    ),
    "set_limits": (
        {"tenant": "t"},
        {
            "tenant": [*WORDS, "a/b"],
            "plan": [*TEXTS, ""],
            "max_sessions": [0, "5"],
            "limit_policy": TEXTS,
            "idle_timeout_s": SECONDS,
            "website_idle_timeout_s": SECONDS,
            "ttl_s": SECONDS,
            "sensitive_ttl_s": [*SECONDS, 8 * 86_400],
            "alert_threshold_percent": [0, 101, 1.5],
            "quotas": [["a"], 5, {"a": 5}, {"a": (1,)}, {"a": (NAN, 60)}, {"a": (1, NAN)}, {"": (1, 60)}, {5: (1, 60)}],
        },
    ),
}


@pytest.fixture(params=["owner", "client"])
def ledger(request: pytest.FixtureRequest, sqlite_url: str) -> Iterator[Ledger]:
    """The owner itself, or another ledger that goes through it."""
    with Ledger.open(sqlite_url) as owner:
        if request.param == "owner":
            yield owner
        else:
            with Ledger.open(sqlite_url) as client:
                assert not client.is_owner
                yield client
        assert_folds_equal_the_log(owner)


@pytest.mark.parametrize("method", CASES)
def test_hostile_values_are_told_and_record_nothing(ledger: Ledger, sqlite_url: str, method: str) -> None:
    """Every value of every field, through the facade: InvalidInput; the ledger goes on."""
    good, hostile = CASES[method]
    session = ledger.create_session("t", "u").session_id
    good = {name: session if value == "SESSION" else value for name, value in good.items()}
    before = ledger.positions()
    for field, values in hostile.items():
        for value in values:
            try:
                getattr(ledger, method)(**(good | {field: value}))
            except InvalidInput:
                continue
            pytest.fail(f"{method} took {field}={value!r:.80}")
    assert before == ledger.positions()
    assert 1 == ledger.add_message("t", "u", session, role="user", content="hi").message_number
    assert 2 == len(events(sqlite_url))


def test_the_async_form_is_as_careful(ledger: Ledger) -> None:
    """The same errors from the awaitable methods."""

    async def ask() -> None:
        for fields in ({"tenant": "a/b"}, {"title": "\ud800"}, {"ttl_s": NAN}, {"occurred_at": datetime(2026, 1, 1)}):
            with pytest.raises(InvalidInput):
                await ledger.aio.create_session(**({"tenant": "t", "user": "u"} | fields))

    asyncio.run(ask())


def test_commands_that_are_none_are_told(ledger: Ledger) -> None:
    """`submit` of something else, and of a command whose fields are not what they must be."""
    for wrong in (None, "create", object(), CreateSession, CreateSession(tenant="t", user=5)):  # type: ignore[arg-type]
        with pytest.raises(InvalidInput):
            ledger.submit(wrong).result(10)  # type: ignore[arg-type]


def test_what_is_odd_but_right_is_taken(ledger: Ledger) -> None:
    """Every plane of Unicode, empty texts, the largest sizes and numbers come through."""
    session = ledger.create_session("té/nant".replace("/", ""), "ü/ser\n😀", title="", metadata={"k": ""}).session_id
    tenant, user = "ténant", "ü/ser\n😀"
    ledger.add_message(tenant, user, session, role="x" * 256, content="😀" * (256 * 1024), tokens_in=2**63 - 1)
    ledger.add_message(tenant, user, session, role="user", content="", parts=[], metadata={"k": "\u202e"})
    ledger.set_quota(tenant, user, "r", "999999999999.999999", 1)
    assert Decimal("999999999999.999999") == ledger.consume_quota(tenant, user, "r", "999999999999.999999").used
    command_id = fresh_id()
    assert ledger.end_session(tenant, user, session, note="", command_id=command_id.upper()).command_id == command_id
