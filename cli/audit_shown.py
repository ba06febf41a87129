"""How audits are shown: facts, states and differences, for people, for machines and in reports."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from session_ledger.consumers.audit.index import Fact
    from session_ledger.consumers.audit.report import Section
    from session_ledger.consumers.audit.state import SessionState


def document_of(record: object) -> dict[str, object]:
    """The fields of a record."""
    assert dataclasses.is_dataclass(record)
    names = [field.name for field in dataclasses.fields(record) if not field.name.startswith("_")]
    return {name: getattr(record, name) for name in names}


def as_documents(facts: Sequence[Fact]) -> list[dict[str, object]]:
    """Facts for machines."""
    from session_ledger.schemas.present import present

    return [{"partition": f.partition, "position": f.position, **present(f.event)} for f in facts]


def show_facts(facts: Sequence[Fact]) -> None:
    """Facts for people, one a line."""
    from session_ledger.cli.output import say
    from session_ledger.cli.tailing import fact_line
    from session_ledger.schemas.present import present

    for fact in facts:
        say(f"{f'{fact.partition}:{fact.position}':<8} {fact_line(present(fact.event))}")


def section_of_facts(facts: Sequence[Fact]) -> Section:
    """Facts in a report."""
    from session_ledger.cli.tailing import details_of
    from session_ledger.consumers.audit.report import Section
    from session_ledger.consumers.records import as_datetime
    from session_ledger.schemas.present import present

    rows = []
    for fact in facts:
        told = present(fact.event)
        whose = f"{fact.event.tenant}/{fact.event.user}" if fact.event.user else fact.event.tenant
        when = as_datetime(fact.event.recorded_at)
        rows.append((f"{fact.partition}:{fact.position}", when, str(told["type"]), whose, details_of(told)))
    return Section("Facts", ("position", "recorded", "what", "whose", "details"), rows)


def _facts_of_state(shown: SessionState) -> list[tuple[str, object]]:
    plain = ("messages", "errors", "sealed", "agents")
    pairs: list[tuple[str, object]] = [
        (name.replace("_", " "), value) for name, value in document_of(shown).items() if name not in plain
    ]
    pairs.append(("agents held", ", ".join(shown.agents) or None))
    pairs += [(name, f"sealed, {value.size} bytes, key {value.key_id}") for name, value in shown.sealed.items()]
    return pairs


def told(value: object) -> str:
    """A field's value on one line."""
    from session_ledger.cli.output import json_line
    from session_ledger.cli.output import shown as text

    if isinstance(value, dict):
        sizes = {name: getattr(one, "size", None) for name, one in value.items()}
        return json_line(
            {name: one if sizes[name] is None else f"sealed, {sizes[name]} bytes" for name, one in value.items()}
        )
    return text(value)


_MESSAGES = ("number", "recorded", "role", "model", "tokens in", "tokens out", "content", "position")
_ERRORS = ("recorded", "component", "type", "severity", "position")


def _messages(shown: SessionState) -> list[tuple[object, ...]]:
    return [
        (
            m.number,
            m.recorded_at,
            m.role,
            m.model,
            m.tokens_in,
            m.tokens_out,
            f"sealed, {m.content.size} bytes",
            m.position,
        )
        for m in shown.messages
    ]


def _errors(shown: SessionState) -> list[tuple[object, ...]]:
    return [(e.recorded_at, e.component, e.error_type, e.severity, e.position) for e in shown.errors]


def show_state(shown: SessionState) -> None:
    """A session for people."""
    from session_ledger.cli.output import fields, say, table

    fields([(name, told(value) if isinstance(value, dict) else value) for name, value in _facts_of_state(shown)])
    for columns, rows in ((_MESSAGES, _messages(shown)), (_ERRORS, _errors(shown))):
        if rows:
            say()
            table(columns, rows, whole=True)


def sections_of_state(shown: SessionState) -> list[Section]:
    """A session in a report."""
    from session_ledger.consumers.audit.report import Section

    about = [(name, told(value)) for name, value in _facts_of_state(shown)]
    return [
        Section("The session", ("field", "value"), about),
        Section("Messages", _MESSAGES, _messages(shown)),
        Section("Errors", _ERRORS, _errors(shown)),
    ]
