"""Making proofs: bundles that anybody checks who has a public key, without the ledger and without its keys."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote
from uuid import UUID

from session_ledger.consumers.checkpointer import TREES_FILE
from session_ledger.consumers.closing import Closing
from session_ledger.consumers.leaves import Leaves
from session_ledger.consumers.wiring import stepped_over
from session_ledger.domain.errors import (
    InvalidInput,
    LogCorrupt,
    Misconfigured,
    NothingSigned,
    SessionNotFound,
    SigningKeyUnavailable,
)
from session_ledger.domain.ids import format_id, parse_id, slot_of_id
from session_ledger.ledger.checkpoints import open_checkpoints
from session_ledger.ledger.log.port import Log, PartitionLog, Record
from session_ledger.ledger.open import open_codec, open_log, open_settings
from session_ledger.ledger.settings import Settings
from session_ledger.ledger.url import parse_url
from session_ledger.projections.merkle import Tree, Trees
from session_ledger.security.bundles import ENDINGS
from session_ledger.security.checkpoint import Checkpoint, SessionStatement, origin_of
from session_ledger.security.merkle import Frontier, leaf_hash
from session_ledger.security.signing import FILE as KEY_FILE
from session_ledger.security.signing import Signer

NOT_YET = "nothing of {} is signed yet: run `session-ledger checkpoint --once`, then again"
READ_RECORDS = 4000
Bundle = dict[str, object]


def signer_of(directory: Path | None, ledger: str) -> Signer:
    """The key of a ledger's directory; none is made. Raises SigningKeyUnavailable, Misconfigured."""
    if directory is None:
        raise Misconfigured("a ledger in memory has no signing key")
    return Signer(directory / KEY_FILE, quote(ledger, safe=""), create=False)


class Prover(Closing):
    """Makes proofs from the log, the stored trees and the signed checkpoints; changes nothing. A context manager."""

    def __init__(
        self, url: str, *, settings: Settings | None = None, on_unusable: Callable[[str], None] = lambda text: None
    ) -> None:
        """`on_unusable`: told why the views did not tell what was quarantined, where they can not.

        Raises LogUnavailable, NothingSigned, Misconfigured (trees are lost: run the checkpointer), ProjectionForeign.
        """
        chosen, place = open_settings(settings, {}), parse_url(url)
        if place.directory is None:
            raise Misconfigured("a ledger in memory keeps no checkpoints, so nothing can be proved")
        self._closing: list[Callable[[], None]] = []
        try:
            self._log: Log = open_log(place, chosen, write=False)
            self._closing.append(self._log.close)
            codec, close_codec = open_codec(self._log, chosen)
            self._closing.append(close_codec)
            exists = (place.directory / KEY_FILE).exists()
            self._signer = signer_of(place.directory, self._log.name) if exists else None
            self._leaves = Leaves(self._log, codec, stepped_over(self._log, place.directory, on_unusable))
            self._codec = codec
            self._notes = open_checkpoints(place, chosen, write=False)
            self._closing.append(self._notes.close)
            if not (place.directory / TREES_FILE).exists() and not self._notes.read():
                raise NothingSigned(NOT_YET.format("the ledger"))
            self._trees = Trees(place.directory / TREES_FILE, log_id=self._log.log_id, readonly=True)
            self._closing.append(self._trees.close)
        except BaseException:
            self.close()
            raise

    def partition_of(self, session_id: str) -> int:
        """The partition that a session's id names."""
        return slot_of_id(parse_id(session_id, "session_id")) % len(self._log.partitions)

    # --- bundles ----------------------------------------------------------------------------------------------------

    def inclusion(self, partition: int, position: int, size: int | None = None) -> Bundle:
        """That the record stands in the log. `size`: of the checkpoint to prove it against; None: the newest.

        Raises InvalidInput, NothingSigned, LogCorrupt.
        """
        log = self._partition(partition)
        note, checkpoint = self._chosen(partition, size, "--checkpoint")
        if not 1 <= position <= checkpoint.size:
            raise InvalidInput(
                "--position",
                f"{position}",
                f"must be from 1 to {checkpoint.size}, which is what the checkpoint is over",
            )
        with self._tree(partition, checkpoint) as tree:
            proved = self._included(tree, checkpoint, _read_one(log, position))
        return {
            "kind": "inclusion",
            "partition": partition,
            "position": position,
            "tree_size": checkpoint.size,
            **proved,
            "checkpoint": note,
        }

    def consistency(self, partition: int, first: int, second: int) -> Bundle:
        """That the log of one checkpoint is the beginning of that of the other. Raises as `inclusion`."""
        self._partition(partition)
        note_from, from_ = self._chosen(partition, first, "--from")
        note, to = self._chosen(partition, second, "--to")
        if from_.size > to.size:
            raise InvalidInput("--to", f"{to.size}", f"must not be below --from, {from_.size}")
        with self._tree(partition, to) as tree:
            hashes = tree.consistency(from_.size, to.size)
        return {
            "kind": "consistency",
            "partition": partition,
            "tree_size_from": from_.size,
            "tree_size": to.size,
            "hashes": [_text(one) for one in hashes],
            "checkpoint_from": note_from,
            "checkpoint": note,
        }

    def session(self, session_id: str, size: int | None = None) -> Bundle:
        """That these are all events of the session, up to the checkpoint: each event's inclusion, and a statement.

        The whole partition is read, and must be what the checkpoint is signed over: an event that was made another
        session's would be missing without a word. Raises SessionNotFound, InvalidInput, NothingSigned,
        LogCorrupt, KeyUnavailable.
        """
        originator = parse_id(session_id, "session_id")
        partition = self.partition_of(session_id)
        log = self._partition(partition)
        note, checkpoint = self._chosen(partition, size, "--checkpoint")
        records = self._of(originator, log, checkpoint)
        if not records:
            raise SessionNotFound(
                f"no event of session {format_id(originator)} stands in partition {partition} up to position "
                f"{checkpoint.size}, the newest checkpoint: is the id right? `session-ledger checkpoint --once` signs "
                "what came since"
            )
        statement = SessionStatement(checkpoint, originator, records[-1].version)
        if self._signer is None and not any(record.topic in ENDINGS for record in records):
            raise SigningKeyUnavailable(
                f"session {format_id(originator)} has not ended, so its last version must be stated, and the "
                "signing key is not here: run this where the checkpointer runs"
            )
        with self._tree(partition, checkpoint) as tree:
            events = [self._included(tree, checkpoint, record) for record in records]
        return {
            "kind": "session",
            "session_id": str(UUID(bytes=originator)),
            "partition": partition,
            "tree_size": checkpoint.size,
            "events": events,
            "statement": self._signer and self._signer.named(checkpoint.origin).sign(statement.text),
            "checkpoint": note,
            "schemas": self._schemas(records),
        }

    def _of(self, originator: bytes, log: PartitionLog, checkpoint: Checkpoint) -> list[Record]:
        """The originator's records up to the checkpoint, out of a log that is all as it was signed."""
        found, frontier = list[Record](), Frontier()
        for records in _batches(log, checkpoint.size):
            frontier.extend(self._leaves.hashes(log.partition, records))
            found += [record for record in records if record.originator_id == originator]
        if (frontier.size, frontier.root()) != (checkpoint.size, checkpoint.root):
            raise LogCorrupt(
                f"partition {log.partition} up to position {checkpoint.size} is not the log that was signed, so "
                "nothing is stated of its sessions: `session-ledger verify --log` says more"
            )
        return found

    def _schemas(self, records: Sequence[Record]) -> Mapping[str, str]:
        """The texts by which the values are read, by their digests, which the leaves hold."""
        found: dict[str, str] = {}
        for fingerprint in {self._codec.fingerprint_of(record.value) for record in records} - {None}:
            text = self._leaves.published.text_of(fingerprint or b"")
            if text is not None:
                found[hashlib.sha256(text.encode()).hexdigest()] = text
        return found

    # --- inside -----------------------------------------------------------------------------------------------------

    def _partition(self, partition: int) -> PartitionLog:
        for log in (self._log.control, *self._log.partitions):
            if log.partition == partition:
                return log
        last = len(self._log.partitions) - 1
        raise InvalidInput("--partition", f"{partition}", f"must be from 0 to {last}, or -1 for the control log")

    def _signed(self, partition: int) -> dict[int, str]:
        """Size to note, of every checkpoint of the partition."""
        return {
            Checkpoint.of_text(kept.note).size: kept.note for kept in self._notes.read() if kept.partition == partition
        }

    def _chosen(self, partition: int, size: int | None, option: str) -> tuple[str, Checkpoint]:
        """The note over that size (None: the newest), checked where the key is here."""
        note = self._notes.newest(partition)
        if note is None:
            where = "the control log" if partition < 0 else f"partition {partition}"
            raise NothingSigned(NOT_YET.format(where))
        self._leaves.signed[partition] = newest = Checkpoint.of_text(note).size
        if size is not None and size != newest:
            note = self._older(partition, size, option)
        if self._signer is None:
            return note, Checkpoint.of_text(note)  # whoever is given the proof has the public key
        verifier = self._signer.verifier.named(origin_of(self._log.name, partition))
        try:
            return note, Checkpoint.of_note(note, verifier)
        except InvalidInput as error:
            raise LogCorrupt(
                f"a checkpoint of the ledger is not signed by {verifier}, or was changed since: `session-ledger verify "
                "--log` says more"
            ) from error

    def _older(self, partition: int, size: int, option: str) -> str:
        """The note over that size."""
        notes = self._signed(partition)
        if size not in notes:
            below = max((one for one in notes if one < size), default=None)
            above = min((one for one in notes if one > size), default=None)
            near = " and ".join(f"{one}" for one in (below, above) if one is not None)
            must = f"must be a size that a checkpoint is signed over; the nearest: {near}"
            raise InvalidInput(option, f"{size}", must)
        return notes[size]

    @contextmanager
    def _tree(self, partition: int, checkpoint: Checkpoint) -> Iterator[Tree]:
        with self._trees.reading(partition) as tree:
            if tree.size < checkpoint.size or tree.root(checkpoint.size) != checkpoint.root:
                raise LogCorrupt(
                    f"the stored tree of partition {partition} is not that of the checkpoint over {checkpoint.size} "
                    "records: run `session-ledger checkpoint --once`, and `session-ledger verify --log`"
                )
            yield tree

    def _included(self, tree: Tree, checkpoint: Checkpoint, record: Record) -> Bundle:
        index = record.position - 1
        data = self._leaves.leaf(checkpoint.partition, record).encode()
        if leaf_hash(data) != tree.leaf(index):
            raise LogCorrupt(
                f"position {record.position} of partition {checkpoint.partition} is not the record that was signed: "
                "`session-ledger verify --log` says more"
            )
        return {
            "leaf_index": index,
            "leaf_data": _text(data),
            "leaf_hash": _text(tree.leaf(index)),
            "hashes": [_text(one) for one in tree.inclusion(index, checkpoint.size)],
        }


def _batches(log: PartitionLog, to: int) -> Iterator[Sequence[Record]]:
    after = 0
    while after < to and (records := log.read(after, min(READ_RECORDS, to - after))):
        yield records
        after = records[-1].position


def _read_one(log: PartitionLog, position: int) -> Record:
    records = log.read(position - 1, 1)
    if not records:
        raise LogCorrupt(
            f"partition {log.partition} ends at {log.end()}, before position {position}, which a checkpoint "
            "is signed over"
        )
    return records[0]


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
