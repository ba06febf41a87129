"""Validation: every rule of every field, and no other error than InvalidInput whatever a field holds."""

from __future__ import annotations

from dataclasses import fields, replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_ledger.domain import commands as c
from session_ledger.domain.errors import InvalidInput
from session_ledger.domain.ids import account_id, derived_session_id, slot_of_user
from session_ledger.domain.validate import Rules, validate

RULES = Rules()
ID = b"i" * 16
SLOT = slot_of_user("acme", "ada")
AGENT_ID = derived_session_id("agent", 0, 0)
IMPORT_ID = derived_session_id("f:1", 0, SLOT)
WHO: dict[str, Any] = {"tenant": "acme", "user": "ada"}
SESSION: dict[str, Any] = {**WHO, "session_id": ID}

VALID: list[c.Command] = [
    c.CreateSession(**WHO, title="t", context={"a": [1, 2.5, None, True]}, metadata={"k": "ü"}, ttl_ms=1),
    c.AddMessage(**SESSION, role="user", content="héllo", parts=[{"tool": "x"}], tokens_in=1, metadata={"a": ""}),
    c.UpdateSession(**SESSION, title="t"),
    c.EndSession(**SESSION, note="n"),
    c.ReportError(**SESSION, component="llm", error_type="timeout", message="m", agent_id=ID),
    c.ImportSession(**WHO, session_id=IMPORT_ID, messages=(c.ImportedMessage("user", "hi"),), source="f:1"),
    c.SetQuota(**WHO, resource="tokens", limit=Decimal("1.5")),
    c.ConsumeQuota(**WHO, resource="tokens", amount=Decimal(1), session_id=ID),
    c.CheckQuota(**WHO, resource="tokens", amount=Decimal(0)),
    c.ReportQuota(**WHO, resource="tokens"),
    c.ReleaseQuota(**WHO, reservation_id=ID, amount=Decimal(1)),
    c.SetUserLimits(**WHO, max_sessions=3, limit_policy="evict", plan="pro"),
    c.ReportAuthenticationFailure(**WHO, method="password", reason="bad", ip_address="::1", session_id=ID),
    c.RegisterAgent(tenant="acme", agent_type="writer", capabilities=("a",), agent_id=AGENT_ID),
    c.AcquireAgent(**SESSION, agent_type="writer", capabilities=("a",)),
    c.ReleaseAgent(**SESSION, agent_id=ID),
    c.RetireAgent(tenant="acme", agent_id=ID),
    c.ExpireSessions(**WHO),
    c.RecordRefusals(**WHO),
    c.SetLimits(tenant="acme", plan="pro", max_sessions=1, quotas={"tokens": (Decimal(1), 1000)}),
    c.PublishSchema(tenant="", name="x", fingerprint=b"f" * 8, schema_json="{}"),
]
BY_NAME: dict[str, Any] = {type(command).__name__: command for command in VALID}

BROKEN: list[tuple[str, str, object, str]] = [
    ("CreateSession", "tenant", "", "may not be empty"),
    ("CreateSession", "tenant", "a/b", "may not contain '/'"),
    ("CreateSession", "tenant", "t" * 257, "at most 256 bytes"),
    ("CreateSession", "tenant", "ü" * 129, "258 bytes"),
    ("CreateSession", "user", "a\x00b", "may not contain NUL"),
    ("CreateSession", "user", "\ud800", "UTF-8 can encode"),
    ("CreateSession", "user", None, "must be a text"),
    ("CreateSession", "kind", "secret", "standard, website, sensitive"),
    ("CreateSession", "channel", "fax", "must be one of"),
    ("CreateSession", "metadata", {"a": 1}, "must be a text"),
    ("CreateSession", "metadata", {"": "x"}, "may not be empty"),
    ("CreateSession", "metadata", {1: "x"}, "must be a text"),
    ("CreateSession", "metadata", {"k": "x" * 65536}, "65536 bytes"),
    ("CreateSession", "metadata", [("a", "b")], "must map texts to texts"),
    ("CreateSession", "context", {"a": float("nan")}, "must be finite"),
    ("CreateSession", "context", {1: "a"}, "names must be texts"),
    ("CreateSession", "context", {"a": {1, 2}}, "what JSON can write"),
    ("CreateSession", "context", ["\ud800"], "UTF-8"),
    ("CreateSession", "context", [2**64], "64 bits"),
    ("CreateSession", "context", ["x" * 2**20], "as JSON"),
    ("CreateSession", "title", "x" * 4097, "4096 bytes"),
    ("CreateSession", "ttl_ms", 0, "between 1"),
    ("CreateSession", "ttl_ms", 1.5, "must be an int"),
    ("CreateSession", "idle_timeout_ms", True, "must be an int"),
    ("CreateSession", "idle_timeout_ms", 10**5000, "between 1"),
    ("CreateSession", "reuse", 1, "True or False"),
    ("CreateSession", "occurred_at", -1, "1970"),
    ("CreateSession", "command_id", b"short", "16 bytes"),
    ("CreateSession", "command_id", b"\x00" * 16, "UUIDv7"),
    ("AddMessage", "content", "x" * (2**20 + 1), "1048576 bytes"),
    ("AddMessage", "content", "ü" * 2**19 + "x", "1048577 bytes"),
    ("AddMessage", "content", "a\x00", "NUL at 1"),
    ("AddMessage", "content", "\udfff", "lone surrogate at 0"),
    ("AddMessage", "content", b"bytes", "must be a text"),
    ("AddMessage", "role", "", "may not be empty"),
    ("AddMessage", "metadata", None, "must map texts to texts"),
    ("AddMessage", "parts", {"a": 1}, "must be a list"),
    ("AddMessage", "tokens_in", -1, "between 0"),
    ("AddMessage", "tokens_out", 2**63, "between 0"),
    ("AddMessage", "session_id", "018bcfe5-6800-7007-8d01-ad71a9ddc9fc", "16 bytes"),
    ("UpdateSession", "title", None, "at least one"),
    ("EndSession", "ended_by", "nobody", "user, admin, system"),
    ("EndSession", "reason", "imported", "choose another word"),
    ("ReportError", "severity", "fatal", "warning, error, critical"),
    ("ImportSession", "messages", ("x",), "must be an ImportedMessage"),
    ("ImportSession", "messages", (c.ImportedMessage("user", "ok"), c.ImportedMessage("", "x")), "may not be empty"),
    ("ImportSession", "messages", (c.ImportedMessage("user", "x"),) * 10_001, "at most 10000"),
    ("ImportSession", "first_message", 0, "between 1"),
    ("ImportSession", "session_id", derived_session_id("f:1", 0, SLOT ^ 1), "must carry its user's slot"),
    ("ImportSession", "session_id", IMPORT_ID[:6] + bytes([IMPORT_ID[6] & 15 | 0x40]) + IMPORT_ID[7:], "a UUIDv7"),
    ("ImportSession", "session_id", IMPORT_ID[:8] + b"\xff" + IMPORT_ID[9:], "a UUIDv7"),
    ("ImportSession", "session_id", b"short", "16 bytes"),
    ("SetQuota", "limit", 1.5, "must be a Decimal"),
    ("SetQuota", "limit", Decimal("NaN"), "must be finite"),
    ("SetQuota", "limit", Decimal(-1), "0 or more"),
    ("SetQuota", "period_ms", 999, "between 1000"),
    ("SetQuota", "period_ms", 366 * 86_400_000 + 1, "between 1000"),
    ("ConsumeQuota", "amount", Decimal("0.0000001"), "at most 6 decimals"),
    ("SetUserLimits", "max_sessions", 0, "between 1"),
    ("SetUserLimits", "limit_policy", "ignore", "evict, refuse"),
    ("RegisterAgent", "capabilities", "abc", "must be a tuple"),
    ("RegisterAgent", "capabilities", ("",), "may not be empty"),
    ("RegisterAgent", "agent_id", account_id("acme", "ada"), "a UUIDv7"),
    ("ReleaseAgent", "reset", "maybe", "verified, failed, not_reported"),
    ("SetLimits", "sensitive_ttl_ms", 8 * 86_400_000, "between 1"),
    ("SetLimits", "alert_threshold_percent", 0, "between 1"),
    ("SetLimits", "quotas", {"tokens": Decimal(1)}, "(limit, period_ms)"),
    ("PublishSchema", "fingerprint", b"short", "8 bytes"),
    ("PublishSchema", "tenant", "acme", "belong to no tenant"),
]


@pytest.mark.parametrize("command", VALID, ids=lambda command: type(command).__name__)
def test_what_keeps_the_rules_passes(command: c.Command) -> None:
    """One of every command."""
    validate(command, RULES)


@pytest.mark.parametrize(("name", "field", "value", "rule"), BROKEN, ids=range(len(BROKEN)))
def test_what_breaks_a_rule_is_named(name: str, field: str, value: object, rule: str) -> None:
    """The error names the field and the rule."""
    with pytest.raises(InvalidInput) as caught:
        validate(replace(BY_NAME[name], **{field: value}), RULES)
    assert caught.value.field.startswith(field)
    assert rule in str(caught.value)


def test_the_value_itself_is_never_repeated() -> None:
    """What somebody said does not end up in an error or a log."""
    with pytest.raises(InvalidInput) as caught:
        validate(replace(BY_NAME["AddMessage"], content="my secret\x00"), RULES)
    assert "secret" not in str(caught.value)


def test_a_message_of_an_import_is_named_by_its_place() -> None:
    """So that a line of a file can be reported."""
    messages = (c.ImportedMessage("user", "ok"), c.ImportedMessage("user", "x", tokens_in=-1))
    with pytest.raises(InvalidInput, match=r"^messages\[1\].tokens_in: "):
        validate(replace(BY_NAME["ImportSession"], messages=messages), RULES)


def test_every_limit_can_be_configured() -> None:
    """A smaller rule refuses what the default takes."""
    with pytest.raises(InvalidInput, match="at most 3 bytes"):
        validate(replace(BY_NAME["AddMessage"], content="four", role="u"), replace(RULES, content_bytes_max=3))


def test_nested_beyond_reason_is_refused() -> None:
    """Not a RecursionError."""
    value: list[object] = []
    for _ in range(10_000):
        value = [value]
    with pytest.raises(InvalidInput, match="nested deeper"):
        validate(replace(BY_NAME["CreateSession"], context=value), RULES)


def test_something_that_is_no_command_is_refused() -> None:
    """As InvalidInput too."""
    with pytest.raises(InvalidInput, match="must be a command"):
        validate("hello", RULES)  # type: ignore[arg-type]


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.decimals(),
    st.just("\ud800"),
    st.just(object()),
    st.lists(st.integers() | st.text() | st.none(), max_size=3),
    st.dictionaries(st.text() | st.integers(), st.text() | st.integers() | st.none(), max_size=3),
    st.tuples(st.integers(), st.text()),
)


@given(st.data(), st.sampled_from(VALID), ANYTHING)
def test_whatever_a_field_holds_the_only_error_is_invalid_input(
    data: st.DataObject, command: Any, value: object
) -> None:
    """Wrong types included."""
    field = data.draw(st.sampled_from([field.name for field in fields(command)]))
    try:
        validate(replace(command, **{field: value}), RULES)
    except InvalidInput as error:
        assert error.field  # noqa: PT017 - one of two outcomes


@given(st.data(), ANYTHING)
def test_the_same_holds_for_the_messages_of_an_import(data: st.DataObject, value: object) -> None:
    """Each of their fields."""
    field = data.draw(st.sampled_from([field.name for field in fields(c.ImportedMessage)]))
    message = replace(c.ImportedMessage("user", "x"), **{field: value})  # type: ignore[arg-type]
    try:
        validate(replace(BY_NAME["ImportSession"], messages=(message,)), RULES)
    except InvalidInput as error:
        assert error.field.startswith("messages[0].")  # noqa: PT017 - one of two outcomes
