"""What a message is about: found by the configured taxonomy at the edge, before the content is sealed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

TOPIC = "topic"  # the metadata key that says it, where that key is allow-listed


class Taxonomy:
    """Topics and the words that tell of them. Thread-safe."""

    def __init__(self, topics: Mapping[str, Sequence[str]], *, from_metadata: bool) -> None:
        """`topics`: topic to words or phrases. `from_metadata`: the metadata's "topic" is readable, and goes first."""
        self._from_metadata = from_metadata
        self._patterns = [
            (topic, re.compile(rf"\b(?:{'|'.join(map(_pattern, words))})\b", re.IGNORECASE))
            for topic, words in topics.items()
            if words
        ]
        self.active = from_metadata or bool(self._patterns)
        """Whether it can find anything."""

    def topic_of(self, content: str, metadata: Mapping[str, str]) -> str | None:
        """The topic with the most different words in the content, of equals the first; None: unknown."""
        if self._from_metadata and metadata.get(TOPIC):
            return metadata[TOPIC]
        best, most = None, 0
        for topic, pattern in self._patterns:
            found = len({match.casefold() for match in pattern.findall(content)})
            if found > most:
                best, most = topic, found
        return best


def _pattern(words: str) -> str:
    return r"\s+".join(map(re.escape, words.split()))
