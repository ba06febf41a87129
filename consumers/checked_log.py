"""Wiring of `verify --log`: the ledger's checkpoints, a mirror's and single files, by a key that is given or found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from session_ledger.consumers.checkpointer import TREES_FILE
from session_ledger.consumers.leaves import Leaves
from session_ledger.consumers.mirror import Mirror
from session_ledger.consumers.proofs import signer_of
from session_ledger.consumers.verify_log import LogFindings, Shown, verify_log
from session_ledger.consumers.wiring import stepped_over
from session_ledger.domain.errors import InvalidInput, KeyUnavailable, Misconfigured, ProjectionForeign
from session_ledger.ledger.checkpoints import open_checkpoints
from session_ledger.ledger.log.port import Log
from session_ledger.ledger.settings import Settings
from session_ledger.ledger.url import LedgerUrl
from session_ledger.projections.merkle import Trees
from session_ledger.schemas.codec import Codec
from session_ledger.security.checkpoint import origin_of
from session_ledger.security.signing import FILE as KEY_FILE
from session_ledger.security.signing import Verifier


def check_log(
    log: Log,
    codec: Codec,
    place: LedgerUrl,
    settings: Settings,
    *,
    mirror: Path | None = None,
    files: Sequence[Path] = (),
    key: str | None = None,
    on_progress: Callable[[int], None] = lambda records: None,
) -> LogFindings:
    """`verify_log` with everything that is to be had.

    `key`: the public key of any of the ledger's partitions; None: of the ledger's directory, which is no check against
    one who could replace that. Raises KeyUnavailable, InvalidInput, Misconfigured, LogUnavailable.
    """
    given = None if key is None else Verifier.parse(key)
    with ExitStack() as closing:
        kept = open_checkpoints(place, settings, write=False)
        closing.callback(kept.close)
        shown = [Shown(one.note, "the ledger's own", False, one.partition) for one in kept.read()]
        if mirror is not None:
            of_mirror = Mirror(mirror)
            seen = len(shown)
            for partition in (log.control, *log.partitions):
                notes = of_mirror.read(origin_of(log.name, partition.partition))
                shown += [Shown(note, str(path), True, partition.partition) for path, note in notes]
            if len(shown) == seen:  # a check that runs every night would agree for ever
                raise Misconfigured(
                    f"the mirror {mirror} holds no checkpoint of the ledger {log.name}, so nothing is compared: "
                    "name the directory that `checkpoint --mirror` of this ledger wrote, or a copy of it"
                )
        shown += [Shown(_note(path), str(path), True) for path in files]
        trees, unusable = None, None
        if place.directory is not None and (place.directory / TREES_FILE).exists():
            try:
                trees = Trees(place.directory / TREES_FILE, log_id=log.log_id, readonly=True)
                closing.callback(trees.close)
            except (ProjectionForeign, Misconfigured) as error:
                unusable = str(error)
        verifier = given or _own_key(place.directory, log.name, shown, trees is not None or unusable is not None)
        views: list[str] = []
        leaves = Leaves(log, codec, stepped_over(log, place.directory, views.append))
        found = verify_log(log, leaves, verifier, shown, trees=trees, on_progress=on_progress)
        found.trees_unusable = unusable
        found.views_unusable = views[0] if views else None
        return found


def _own_key(directory: Path | None, ledger: str, shown: Sequence[Shown], trees: bool) -> Verifier | None:
    """The ledger's own key; None where all that it signed is gone, and trees tell that there was something."""
    if directory is None or (directory / KEY_FILE).exists():
        return signer_of(directory, ledger).verifier
    if shown:
        raise KeyUnavailable(
            f"checkpoints are there and their key {directory / KEY_FILE} is not: give the public key with --key"
        )
    if not trees:
        raise KeyUnavailable(
            "nothing of this ledger was ever signed here: `session-ledger checkpoint` makes a key and begins; what was "
            "signed elsewhere is compared with --mirror or --checkpoint, and --key"
        )
    return None


def _note(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput("--checkpoint", f"{path}, which is no text", "must be a signed checkpoint") from error
