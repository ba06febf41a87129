"""Topics are found before the content is sealed, and stay readable."""

from __future__ import annotations

from pathlib import Path

import pytest

from session_ledger.domain.events import MessageAdded
from session_ledger.ledger.ledger import Ledger
from session_ledger.ledger.topics import Taxonomy
from tests.ledger.support import events

TOPICS = {"returns": ("refund", "send back"), "delivery": ("parcel", "late", "courier"), "empty": ()}


@pytest.mark.parametrize(
    ("topic", "content"),
    [
        ("returns", "I want to SEND   back the shoes."),
        ("delivery", "The courier was late; I want a refund"),
        ("returns", "a refund for the parcel"),  # one word each: the first topic
        (None, "prefunded, of lateness"),  # whole words only
        (None, ""),
    ],
)
def test_the_topic_with_the_most_words_is_found(topic: str | None, content: str) -> None:
    """Whole words and phrases, in any case; unknown stays unknown."""
    assert topic == Taxonomy(TOPICS, from_metadata=False).topic_of(content, {"topic": "hidden"})


def test_what_the_caller_says_goes_before_the_taxonomy(directory: Path) -> None:
    """The argument, then the metadata where it is readable anyhow, then the words."""
    with Ledger.open(f"sqlite:{directory}", topics=TOPICS, metadata_allow=("topic",)) as ledger:
        session = ledger.create_session("t", "u").session_id

        def say(**more: object) -> None:
            ledger.add_message("t", "u", session, role="user", content="a refund", **more)  # type: ignore[arg-type]

        say()
        say(metadata={"topic": "billing"})
        say(metadata={"topic": "billing"}, topic="fraud")
        told = [event.topic for event in events(ledger) if isinstance(event, MessageAdded)]
        assert ["returns", "billing", "fraud"] == told
