"""The port to a schema registry, and one that lives in memory.

With a registry, records are in the Confluent wire format: 0x00, the schema's id as 4 bytes big-endian, the Avro body.
"""

from __future__ import annotations

from typing import Protocol

from session_ledger.domain.errors import InvalidInput


class Registry(Protocol):
    """Maps schema texts to ids. Both calls may ask a server; the codec asks once a schema and remembers the answer."""

    def id_of(self, subject: str, schema_json: str) -> int:
        """The id (0 to 2^31 - 1) of that text under that subject, registered now if it was not.

        Raises a SessionLedgerError where the registry refuses or can not be reached.
        """

    def text_of(self, schema_id: int) -> str | None:
        """The text with that id; None: the registry does not have it. Raises where it can not be reached."""


class MemoryRegistry:
    """A registry of one process: ids 1, 2, 3, ... in the order of registration."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def id_of(self, subject: str, schema_json: str) -> int:
        if not subject:
            raise InvalidInput("subject", "an empty text", "must name a record")
        if schema_json not in self._texts:
            self._texts.append(schema_json)
        return self._texts.index(schema_json) + 1

    def text_of(self, schema_id: int) -> str | None:
        return self._texts[schema_id - 1] if 1 <= schema_id <= len(self._texts) else None
