"""Records of a log as leaves of its trees, and the tail that brings them there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import repeat

from session_ledger.consumers.tail import PartitionStopped, Tail
from session_ledger.domain.errors import LogCorrupt, LogUnavailable, UndecodableRecord
from session_ledger.ledger.log.port import Log, PartitionLog, Record
from session_ledger.ledger.published import PublishedDigests
from session_ledger.projections.merkle import Trees
from session_ledger.projections.port import Entry
from session_ledger.schemas.codec import CONFLUENT, CONFLUENT_HEADER, SINGLE_OBJECT_HEADER, Codec
from session_ledger.security.leaf import NO_SCHEMA, Leaf, hash_of, tail_of


class SchemaNotPublished(LogUnavailable):
    """The schema of a record stands in no control log yet, so its leaf is not known; the owner publishes it."""

    code = "schema_not_published"

    def __init__(self, message: str, position: int = 0) -> None:
        self.position = position
        super().__init__(message)


class Leaves:
    """Makes leaves. Not thread-safe."""

    def __init__(
        self,
        log: Log,
        codec: Codec,
        stepped_over: Callable[[int], frozenset[int]] = lambda partition: frozenset(),
        signed: dict[int, int] | None = None,
    ) -> None:
        """`stepped_over`: quarantined positions, whose leaf names no schema where none is to be had; `signed`: as
        the attribute.
        """
        self._codec, self._stepped_over = codec, stepped_over
        self.signed: dict[int, int] = {} if signed is None else signed
        """Partition to how many of its records are signed. Where one of those has a schema that is to be had nowhere,
        it was signed without: the list of what was quarantined may be lost, and the signed root tells whether it is so.
        """
        self.published = PublishedDigests(log, codec)
        self._tails: dict[bytes, tuple[str, bytes]] = {}
        """Topic and `tail_of` by the bytes before the body."""

    def leaf(self, partition: int, record: Record) -> Leaf:
        """The leaf of a record. Raises SchemaNotPublished, UndecodableRecord, RegistryUnavailable."""
        schema = self._schema(partition, record)
        return Leaf(
            record.position, record.batch_id, record.originator_id, record.version, schema, record.topic, record.value
        )

    def hashes(self, partition: int, records: Sequence[Record]) -> list[bytes]:
        """The hashes of their leaves. Raises as `leaf`, and LogCorrupt for an id that is none."""
        known, found = self._tails, list[bytes]()
        try:
            for position, batch_id, originator_id, version, topic, value, _ in records:
                at = known.get(value[:SINGLE_OBJECT_HEADER]) or known.get(value[:CONFLUENT_HEADER])
                if at is None or at[0] != topic:
                    at = self._find(partition, Record(position, batch_id, originator_id, version, topic, value))
                found.append(hash_of(position, batch_id, originator_id, version, at[1], value))
        except ValueError as error:
            raise LogCorrupt(f"partition {partition}: {error}") from error
        return found

    def _find(self, partition: int, record: Record) -> tuple[str, bytes]:
        schema = self._schema(partition, record)
        found = record.topic, tail_of(record.topic, schema)
        if schema != NO_SCHEMA:
            confluent = record.value[:1] == CONFLUENT
            self._tails[record.value[: CONFLUENT_HEADER if confluent else SINGLE_OBJECT_HEADER]] = found
        return found

    def _schema(self, partition: int, record: Record) -> bytes:
        over = record.position <= self.signed.get(partition, 0) or record.position in self._stepped_over(partition)
        try:
            fingerprint = self._codec.fingerprint_of(record.value)
        except UndecodableRecord as error:
            if over:
                return NO_SCHEMA
            raise UndecodableRecord(error.reason, partition=partition, position=record.position) from error
        if fingerprint is None:
            return NO_SCHEMA
        found = self.published.digest_of(fingerprint)
        if found is None and not over:
            raise SchemaNotPublished(
                f"partition {partition}, position {record.position} is written with a schema (fingerprint "
                f"{fingerprint.hex()}) that the control log does not hold: the ledger's owner publishes its schemas "
                "when it opens; where nobody's has it, set the record aside with `session-ledger quarantine`",
                record.position,
            )
        return found or NO_SCHEMA


class LeafTail(Tail):
    """Follows partitions into their trees: an entry's material is the hash of its leaf, and nothing is decoded."""

    restored = (
        "it was rolled back, restored from a copy or changed: nothing more is signed; `session-ledger verify --log` "
        "says where, and docs/proofs.md what to do"
    )

    def __init__(self, logs: Sequence[PartitionLog], codec: Codec, trees: Trees, leaves: Leaves) -> None:
        super().__init__(logs, codec, trees)
        self._leaves = leaves
        self._continuing = 0  # the partition that is being continued

    def _continue(self, log: PartitionLog) -> None:
        self._continuing = log.partition
        super()._continue(log)

    def _mark(self, record: Record) -> bytes:
        return self._leaves.hashes(self._continuing, [record])[0]

    def _decode(
        self, partition: int, after: int, records: Sequence[Record]
    ) -> tuple[list[Entry], PartitionStopped | LogUnavailable | None]:
        positions = range(after + 1, after + 1 + len(records))
        if [record.position for record in records] != list(positions):
            for expected, record in zip(positions, records, strict=True):
                if record.position != expected:
                    reason = f"position {record.position} stands where {expected} belongs"
                    return [], PartitionStopped(partition, expected, reason)
        stop: PartitionStopped | LogUnavailable | None = None
        try:
            hashes = self._leaves.hashes(partition, records)
        except (LogCorrupt, LogUnavailable):
            hashes, stop = self._one_by_one(partition, records)
        return list(map(Entry, positions, repeat(None), hashes)), stop

    def _one_by_one(
        self, partition: int, records: Sequence[Record]
    ) -> tuple[list[bytes], PartitionStopped | LogUnavailable | None]:
        """(what can be hashed, why what follows it can not; None where by now it can)."""
        hashes: list[bytes] = []
        for record in records:
            try:
                hashes += self._leaves.hashes(partition, [record])
            except LogUnavailable as error:
                return hashes, error
            except LogCorrupt as error:
                reason = error.reason if isinstance(error, UndecodableRecord) else str(error)
                stop = PartitionStopped(partition, record.position, reason)
                stop.__cause__ = error
                return hashes, stop
        return hashes, None
