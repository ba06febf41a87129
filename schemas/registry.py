"""The port to a schema registry, one that lives in memory, and registering everything that this version writes.

With a registry, records are in the Confluent wire format: 0x00, the schema's id as 4 bytes big-endian, the Avro body.
A schema's subject is the full name of its record (RecordNameStrategy).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Protocol

from session_ledger.domain.errors import InvalidInput, Misconfigured
from session_ledger.schemas.library import Schema, parse

FULL_TRANSITIVE = "FULL_TRANSITIVE"
_logger = logging.getLogger("session_ledger.registry")


class Registry(Protocol):
    """Maps schema texts to ids. Every call may ask a server; the codec asks once a schema and remembers the answer."""

    def id_of(self, subject: str, schema_json: str) -> int:
        """The id (0 to 2^31 - 1) of that text under that subject, registered now if it was not.

        Raises Misconfigured where the registry refuses the text, RegistryUnavailable where it can not be asked.
        """

    def text_of(self, schema_id: int) -> str | None:
        """The text with that id; None: the registry says that it has none. RegistryUnavailable: it can not be asked."""

    def compatibility_of(self, subject: str) -> str:
        """The level that the registry holds new versions of the subject to; "" where it does not say.

        Raises as `id_of`.
        """


class MemoryRegistry:
    """A registry of one process: ids 1, 2, 3, ... in the order of registration. It refuses nothing."""

    def __init__(self, compatibility: str = FULL_TRANSITIVE) -> None:
        self._texts: list[str] = []
        self._compatibility = compatibility

    def id_of(self, subject: str, schema_json: str) -> int:
        if not subject:
            raise InvalidInput("subject", "an empty text", "must name a record")
        if schema_json not in self._texts:
            self._texts.append(schema_json)
        return self._texts.index(schema_json) + 1

    def text_of(self, schema_id: int) -> str | None:
        return self._texts[schema_id - 1] if 1 <= schema_id <= len(self._texts) else None

    def compatibility_of(self, subject: str) -> str:
        return self._compatibility


def register(schemas: Iterable[Schema], registry: Registry) -> dict[str, int]:
    """Topic to id, of every schema given, all registered: whoever has the ids writes without the registry.

    What stands under each id is read back, because a record whose id leads to another schema is lost to its readers.
    A level below FULL_TRANSITIVE is warned of, not refused: our own releases are checked before they are made, but
    such a registry lets others register versions that old records can not be read with.

    Raises Misconfigured, RegistryUnavailable.
    """
    ids: dict[str, int] = {}
    weak: dict[str, str] = {}
    for schema in schemas:
        schema_id = ids[schema.topic] = registry.id_of(schema.topic, schema.text)
        text = registry.text_of(schema_id)
        if text is None or not _same(text, schema):
            found = "no schema" if text is None else "another schema"
            raise Misconfigured(
                f"the schema registry gives {schema.topic} the id {schema_id} and has {found} under it: nothing is "
                "written with such an id; see whether the registry was restored or its ids were moved"
            )
        level = registry.compatibility_of(schema.topic)
        if level != FULL_TRANSITIVE:
            weak[schema.topic] = level or "nothing that it tells"
    if weak:
        _logger.warning(
            "the schema registry holds %d of %d subjects to less than FULL_TRANSITIVE, for instance %s to %s: set the "
            "level, so that nobody registers a version that old records can not be read with",
            len(weak),
            len(ids),
            *next(iter(weak.items())),
        )
    return ids


def _same(text: str, schema: Schema) -> bool:
    try:
        return parse(text).fingerprint == schema.fingerprint
    except InvalidInput:
        return False
