"""One ledger in which every event type is written, and what was written, as it was given to the codec."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import NamedTuple

import pytest

from session_ledger import Ledger
from session_ledger.domain.errors import NoAgentAvailable, QuotaExceeded, UnderLegalHold
from session_ledger.domain.events import EVENT_TYPES, TOPIC_BY_EVENT, Event
from session_ledger.domain.ids import format_id, slot_of_user
from session_ledger.ledger.log.port import PartitionLog, Record
from session_ledger.schemas.codec import Codec
from session_ledger.security.tokens import new_access_token
from tests.schemas.golden import example
from tests.schemas.strategies import SHAPES

PARTITIONS = 2
USER = ("acme", "ada/of/love\N{GREEK SMALL LETTER ALPHA}")


class Written(NamedTuple):
    """An event as it was given to the codec, and the bytes that came out."""

    event: Event
    value: bytes


Sent = dict[str, Written]
"""By the id that CloudEvents gives an event, `originator/version`, behind its type."""


def name_of(event: Event) -> str:
    """What an event is called in `Sent`."""
    return f"{TOPIC_BY_EVENT[type(event)]} {format_id(event.originator_id)}/{event.version}"


@contextmanager
def watching() -> Iterator[Sent]:
    """Everything that is encoded in this process meanwhile."""
    sent: Sent = {}
    encode = Codec.encode

    def watched(codec: Codec, event: Event) -> bytes:
        value = encode(codec, event)
        sent[name_of(event)] = Written(event, value)
        return value

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Codec, "encode", watched)
        yield sent


def tell(ledger: Ledger) -> None:
    """Commands after which an event of every type stands in the log."""
    partition = slot_of_user(*USER) & (PARTITIONS - 1)
    ledger.set_limits("acme", max_sessions=5, quotas={"api_calls": (100, 60)})
    ledger.set_user_limits(*USER, max_sessions=2, limit_policy="evict")
    short = ledger.create_session(*USER, idle_timeout_s=0.001)
    time.sleep(0.01)
    ledger.expire_due()
    evicted, session = (
        ledger.create_session(*USER, title="first"),
        ledger.create_session(*USER, context={"a": [1, None]}),
    )
    last = ledger.create_session(*USER, metadata={"channel": "web"}, ip_address="192.0.2.1")
    assert len({short.session_id, evicted.session_id, session.session_id, last.session_id}) == 4
    where = (*USER, session.session_id)
    ledger.update_session(*where, title="Order 42", metadata={"k": "v"})
    ledger.add_message(*where, role="user", content="Where is my parcel? \N{GREEK SMALL LETTER BETA}", tokens_in=7)
    ledger.add_message(
        *where, role="assistant", content="Here", topic="delivery", shared_source="faq", tokens_in=9, tokens_cached=4
    )
    ledger.report_error(*where, component="agent", error_type="Timeout", message="after 3 s")
    ledger.set_quota(*USER, "tokens", limit=Decimal("10.5"), period_s=60)
    ledger.consume_quota(*USER, "tokens", Decimal("9.000001"))
    reserved = ledger.consume_quota(*USER, "tokens", 1, reserve=True)
    assert reserved.reservation_id is not None
    ledger.release_quota(*USER, reserved.reservation_id)
    with pytest.raises(QuotaExceeded):
        ledger.consume_quota(*USER, "tokens", 10)
    ledger.report_authentication_failure(*USER, method="password", reason="wrong", ip_address="192.0.2.2")
    token = new_access_token()
    ledger.issue_access_token(*where, token, ttl_s=60)
    ledger.authenticate(*where, token)
    ledger.rotate_access_token(*where, new_access_token(), grace_s=5)
    agent = ledger.register_agent("acme", "support", capabilities=["de", "en"], partition=partition)
    ledger.acquire_agent(*where, "support", capabilities=["en"], waited_s=1.5)
    with pytest.raises(NoAgentAvailable):
        ledger.acquire_agent(*USER, last.session_id, "support")
    ledger.release_agent(*where, agent.agent_id, reset="verified")
    ledger.retire_agent("acme", agent.agent_id)
    ledger.rotate_session_key(*where, reason="yearly")
    ledger.end_session(*where, reason="completed", note="thanks")
    which = session.session_id
    ledger.reveal_content(*USER, session_id=which, revealed_by="eve", reason="case 7", query_digest=b"q" * 16)
    ledger.record_audit_read(*USER, session_id=which, read_by="eve", action="timeline", reason="case 7")
    ledger.report_leak(
        *USER, finding_id=b"f" * 16, kind="text", severity="error", session_id=session.session_id, leak_position=3,
        source_tenant="acme", source_user="bob", score=Decimal("0.75"),
    )  # fmt: skip
    ledger.acknowledge_leak(*USER, b"f" * 16, acknowledged_by="eve", reason="a quote")
    ledger.raise_alert(*USER, kind="errors", severity="critical", value=6, threshold=Decimal("5.5"))
    asked: dict[str, str] = {"requested_by": "dpo", "reason": "request 7"}
    ledger.set_legal_hold(*USER, which, matter="case", **asked)
    with pytest.raises(UnderLegalHold):
        ledger.erase_session(*USER, which, **asked)
    ledger.lift_legal_hold(*USER, which, matter="case", **asked)
    ledger.erase_session(*USER, which, **asked)
    ledger.set_legal_hold("other", matter="case", **asked)
    ledger.lift_legal_hold("other", matter="case", **asked)
    ledger.set_retention("other", retention_s=86_400, requested_by="dpo", reason="policy")
    ledger.erase_tenant("other", **asked)


def append_examples(partition: PartitionLog, codec: Codec) -> None:
    """One event of every type with a value in every field, straight into a partition of an open log."""
    events = [example(cls, SHAPES[cls]) for cls in EVENT_TYPES]
    first, batch_id = partition.end() + 1, bytes(range(16))

    def record(place: int, event: Event) -> Record:
        topic, value = TOPIC_BY_EVENT[type(event)], codec.encode(event)
        return Record(place, batch_id, event.originator_id, event.version, topic, value)

    partition.append([record(place, event) for place, event in enumerate(events, first)])
