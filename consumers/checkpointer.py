"""The checkpointer: brings every record into its partition's tree, and signs the trees' roots.

A step is: read, hash, add to the tree with the position in one transaction. To sign is: see that the tree contains
what was signed last, sign, append the note, copy it to the mirror. A kill between any two of them loses nothing: the
tree goes on where it ends, a note that was not appended is signed again, one that was not copied is copied at the
start.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

from session_ledger.consumers.closing import Closing
from session_ledger.consumers.leaves import LeafTail, Leaves
from session_ledger.consumers.mirror import Mirror
from session_ledger.consumers.sole import sole_writer
from session_ledger.consumers.tail import RETRY_S, SHOWN_S
from session_ledger.consumers.wiring import stepped_over
from session_ledger.domain.errors import (
    InvalidInput,
    LogCorrupt,
    LogUnavailable,
    Misconfigured,
    SessionLedgerError,
    SigningKeyUnavailable,
)
from session_ledger.ledger.checkpoints import Kept, open_checkpoints
from session_ledger.ledger.log.port import PartitionLog
from session_ledger.ledger.open import open_codec, open_log, open_settings
from session_ledger.ledger.settings import Settings
from session_ledger.ledger.url import parse_url
from session_ledger.projections.merkle import Trees
from session_ledger.security.checkpoint import Checkpoint, origin_of
from session_ledger.security.signing import FILE as KEY_FILE
from session_ledger.security.signing import Signer

TREES_FILE, LOCK_FILE = "merkle.db", "checkpointer.lock"
EVERY_RECORDS = 10_000  # of a partition: some seconds of a busy one
EVERY_S = 60.0  # how long a record of a quiet partition may stay unprotected
LOOK_S = 0.2  # how soon it is seen that a checkpoint is due
NOTHING_SIGNED = "nothing more is signed; `session-ledger verify --log` says more, and docs/proofs.md what to do"


class Checkpointer(Closing):
    """The one checkpointer of a ledger. A context manager, for use from one thread."""

    def __init__(
        self,
        url: str,
        *,
        settings: Settings | None = None,
        mirror: Path | None = None,
        on_unusable: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Open the log for reading, the trees and the checkpoints for writing; the key is made where there is none.

        `on_unusable`: told why the views did not tell what was quarantined, where they can not.

        Raises ProjectionInUse (another checkpointer works), LogCorrupt (the log does not contain what was signed),
        KeyUnavailable (another key signed before), ProjectionForeign, LogUnavailable, Misconfigured.
        """
        chosen, place = open_settings(settings, {}), parse_url(url)
        if place.directory is None:
            raise Misconfigured("a ledger in memory keeps no checkpoints: they prove what outlives the process")
        self._closing: list[Callable[[], None]] = []
        try:
            self._log = open_log(place, chosen, write=False)
            self._closing.append(self._log.close)
            self._closing.append(sole_writer(place.directory, LOCK_FILE, f"the trees of {place.directory}"))
            codec, close_codec = open_codec(self._log, chosen)
            self._closing.append(close_codec)
            self._notes = open_checkpoints(place, chosen, write=True)
            self._closing.append(self._notes.close)
            self._mirror = None if mirror is None else Mirror(mirror, make=True)
            self._logs = {log.partition: log for log in (self._log.control, *self._log.partitions)}
            kept = self._notes.read()
            key = place.directory / KEY_FILE
            if not key.exists() and (kept or self._mirrored()):
                raise SigningKeyUnavailable(f"checkpoints are signed, and their key {key} is not there: bring it back")
            signer = Signer(key, quote(self._log.name, safe=""))
            self._signers = {number: signer.named(origin_of(self._log.name, number)) for number in self._logs}
            self._last: dict[int, Checkpoint] = {}
            signed_before = self._start(kept)
            self.trees = Trees(place.directory / TREES_FILE, log_id=self._log.log_id)
            self._closing.append(self.trees.close)
            self._assert_of(signed_before)
            over = stepped_over(self._log, place.directory, on_unusable)
            signed = {partition: checkpoint.size for partition, checkpoint in self._last.items()}
            leaves = [Leaves(self._log, codec, over, signed) for _ in range(2)]  # of the tail's thread, and of this one
            self._tail = LeafTail(list(self._logs.values()), codec, self.trees, leaves[0])
            self._leaves = leaves[1]
        except BaseException:
            self.close()
            raise

    def _mirrored(self) -> bool:
        """The mirror holds checkpoints of this ledger."""
        return self._mirror is not None and any(self._mirror.sizes(origin_of(self._log.name, n)) for n in self._logs)

    def _start(self, kept: list[Kept]) -> list[Checkpoint]:
        """What was signed last, which is of this key and not behind the log's end; the mirror has all that was signed.

        The log is looked at before the trees: where it was made again, its end tells more than that they are another's.
        """
        found: list[Checkpoint] = []
        for partition, notes in self._sorted_in(kept).items():
            sizes = sorted(notes)
            self._last[partition] = self._ours(partition, notes[sizes[-1]], "the newest checkpoint")
            if self._mirror is not None:
                origin = origin_of(self._log.name, partition)
                for size in sorted({*sizes[-1:], *(set(sizes) - self._mirror.sizes(origin))}):
                    self._mirror.write(origin, size, notes[size])
        for partition, log in self._logs.items():
            signed = [self._last[partition]] if partition in self._last else []
            if self._mirror is not None:
                mirrored = self._mirror.newest(origin_of(self._log.name, partition))
                signed += [self._ours(partition, note, str(path)) for path, note in mirrored]
            for checkpoint in signed:
                self._assert_reaches(log, checkpoint)
                if partition not in self._last or checkpoint.size > self._last[partition].size:
                    self._last[partition] = checkpoint  # of the mirror alone: the ledger's own were put back
            found += signed
        return found

    def _assert_of(self, signed: list[Checkpoint]) -> None:
        """Raise LogCorrupt where the trees contradict a checkpoint."""
        for checkpoint in signed:
            with self.trees.reading(checkpoint.partition) as tree:
                if tree.size >= checkpoint.size and tree.root(checkpoint.size) != checkpoint.root:
                    raise self._contradicted(checkpoint)

    def _sorted_in(self, kept: list[Kept]) -> dict[int, dict[int, str]]:
        """Partition to size to note; the newest is checked by its caller, all of them by `verify --log`."""
        found: dict[int, dict[int, str]] = {}
        for partition, note in kept:
            try:
                size = Checkpoint.of_text(note).size
            except InvalidInput as error:
                raise LogCorrupt(f"a checkpoint of partition {partition} is none: {error}; {NOTHING_SIGNED}") from error
            other = found.setdefault(partition, {}).setdefault(size, note)
            if other != note:
                raise LogCorrupt(
                    f"two different checkpoints of partition {partition} over {size} records are kept: {NOTHING_SIGNED}"
                )
        return found

    def _ours(self, partition: int, note: str, what: str) -> Checkpoint:
        signer = self._signers.get(partition)
        if signer is None:
            raise LogCorrupt(f"{what} is of partition {partition}, which the ledger {self._log.name} does not have")
        try:
            return Checkpoint.of_note(note, signer.verifier)
        except InvalidInput as error:
            raise SigningKeyUnavailable(
                f"{what} of partition {partition} is not signed by the key {signer.verifier}, or was changed since: "
                "bring the key back that signed before (signing.key in the ledger's directory); a key never changes"
            ) from error

    def _assert_reaches(self, log: PartitionLog, checkpoint: Checkpoint) -> None:
        end = log.end()
        if (
            end < checkpoint.size
            and not log.wait(checkpoint.size - 1, SHOWN_S)
            and (end := log.end()) < checkpoint.size
        ):
            raise LogCorrupt(
                f"partition {log.partition} ends at position {end}, and a checkpoint is signed over {checkpoint.size}: "
                f"it was rolled back or cut off; {NOTHING_SIGNED}"
            )

    def _contradicted(self, checkpoint: Checkpoint) -> LogCorrupt:
        return LogCorrupt(
            f"the first {checkpoint.size} records of partition {checkpoint.partition} are not those that the "
            f"checkpoint over them is signed for: the log was changed, or rolled back and grew again; {NOTHING_SIGNED}"
        )

    # --- working ----------------------------------------------------------------------------------------------------

    def catch_up(self, to: Mapping[int, int] | None = None) -> int:
        """Bring in everything up to `to` (partition to position; None: each log's end now); how many records came in.

        Raises PartitionStopped when the others are in, LogUnavailable.
        """
        return self._tail.catch_up(to)

    def sign(self, partition: int) -> Checkpoint | None:
        """Sign the partition's tree as it is; None where no record came in since the last time.

        First the tree must contain what was signed last, and the log must still hold the last record of both.
        Raises LogCorrupt where the tree does not contain what was signed last, LogUnavailable, NotOwner.
        """
        with self.trees.reading(partition) as tree:
            last = self._last.get(partition)
            if last is not None and tree.size < last.size:
                return None  # it is being made again, and what was signed is not in it yet
            if last is not None and tree.root(last.size) != last.root:
                raise self._contradicted(last)
            if tree.size == (0 if last is None else last.size):
                return None
            checkpoint = Checkpoint(origin_of(self._log.name, partition), tree.size, tree.root())
            looked_at = {size: tree.leaf(size - 1) for size in (tree.size, 0 if last is None else last.size) if size}
        for position, leaf in looked_at.items():
            records = self._logs[partition].read(position - 1, 1)
            if not records or self._leaves.hashes(partition, records) != [leaf]:
                raise LogCorrupt(
                    f"partition {partition} has {'another' if records else 'no'} record at position {position} than "
                    f"it had when it was read: it was changed, or rolled back; {NOTHING_SIGNED}"
                )
        note = self._signers[partition].sign(checkpoint.text)
        self._notes.append(Kept(partition, note))
        self._last[partition] = checkpoint
        self._leaves.signed[partition] = checkpoint.size
        if self._mirror is not None:
            self._mirror.write(checkpoint.origin, checkpoint.size, note)
        return checkpoint

    def sign_all(self) -> list[Checkpoint]:
        """Sign every tree that grew."""
        return [made for partition in self._logs if (made := self.sign(partition)) is not None]

    def run(
        self,
        stop: threading.Event,
        *,
        every_records: int = EVERY_RECORDS,
        every_s: float = EVERY_S,
        on_signed: Callable[[Checkpoint], None] = lambda checkpoint: None,
        on_trouble: Callable[[SessionLedgerError], None] = lambda error: None,
    ) -> dict[int, Exception]:
        """Follow the log and sign each tree that has grown by so many records, or has grown and was not signed for so
        long, until `stop` is set; then sign what is not signed yet.

        Returns the partitions that can not be followed further, and why; `on_trouble` is told at once. Raises as
        `sign` but for LogUnavailable, which is told there and waited out.
        """
        ended, failures, told = threading.Event(), list[BaseException](), set[int]()

        def follow() -> None:
            try:
                self._tail.run(ended)
            except BaseException as error:  # noqa: BLE001 - raised where `run` was called
                failures.append(error)
                ended.set()

        following = threading.Thread(target=follow, name="session-ledger-checkpointer")
        following.start()
        signed_s = dict.fromkeys(self._logs, time.monotonic())
        try:
            while not ended.is_set() and not stop.wait(LOOK_S):
                for partition in self._logs:
                    now, unsigned = time.monotonic(), self._unsigned(partition)
                    if unsigned <= 0 or (now - signed_s[partition] < every_s and unsigned < every_records):
                        continue
                    try:
                        checkpoint = self.sign(partition)
                    except LogUnavailable as error:
                        on_trouble(error)
                        stop.wait(RETRY_S)
                        continue
                    signed_s[partition] = now
                    if checkpoint is not None:
                        on_signed(checkpoint)
                for stopped in self._tail.stopped.keys() - told:
                    told.add(stopped)
                    on_trouble(self._tail.stopped[stopped])
        finally:
            ended.set()
            following.join()
        if failures:
            raise failures[0]
        for checkpoint in self.sign_all():
            on_signed(checkpoint)
        return dict(self._tail.stopped)

    def _unsigned(self, partition: int) -> int:
        last = self._last.get(partition)
        return self.trees.position(partition) - (0 if last is None else last.size)
