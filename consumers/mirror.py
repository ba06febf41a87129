"""A directory of signed checkpoints that an outsider copies: what a rollback or a fork can not take back.

    DIR/session-ledger/NAME/PARTITION/00000000000000001234.note    the checkpoint over 1,234 records

Files are added and never changed, so whoever copies (rsync, a web server, git) needs no more than "take what is new".
"""

from __future__ import annotations

from pathlib import Path

from session_ledger.domain.errors import LogCorrupt, Misconfigured
from session_ledger.security.files import create_whole

SUFFIX = ".note"
MODE = 0o644  # it is for others
DIGITS = 20  # so that names sort as sizes do


class Mirror:
    """The directory."""

    def __init__(self, directory: Path, *, make: bool = False) -> None:
        """`make`: where it is not there yet. Raises Misconfigured where it is no directory."""
        self.directory = directory
        try:
            if make:
                directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Misconfigured(f"the mirror {directory} can not be made: {error.strerror}") from error
        if not directory.is_dir():
            raise Misconfigured(f"there is no mirror at {directory}: name the directory of `checkpoint --mirror`")

    def _place(self, origin: str) -> Path:
        parts = origin.split("/")
        if not set(parts).isdisjoint(("", ".", "..")):
            raise Misconfigured(f"the origin {origin!r} can name no directory of a mirror: name the ledger otherwise")
        return self.directory.joinpath(*parts)

    def write(self, origin: str, size: int, note: str) -> None:
        """Add a checkpoint; there already: nothing is done. Raises LogCorrupt where another one stands there."""
        place = self._place(origin)
        path = place / f"{size:0{DIGITS}}{SUFFIX}"
        try:
            place.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                create_whole(path, note.encode(), MODE)
            found = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise Misconfigured(f"the mirror {path} can not be written: {error}") from error
        if found != note:
            raise LogCorrupt(
                f"the mirror holds another checkpoint over {size} records than the ledger: {path}; one of the two was "
                "replaced, or the ledger was put back and grew again: keep both, see docs/proofs.md"
            )

    def sizes(self, origin: str) -> set[int]:
        """Over how many records there is a checkpoint of that origin, by the files' names."""
        names = (path.name.removesuffix(SUFFIX) for path in self._files(origin))
        return {int(name) for name in names if name.isascii() and name.isdigit()}

    def read(self, origin: str) -> list[tuple[Path, str]]:
        """(file, note) of every checkpoint of that origin, the smallest first."""
        return [(path, self._note(path)) for path in self._files(origin)]

    def newest(self, origin: str) -> list[tuple[Path, str]]:
        """The last of them; [] where there is none."""
        return [(path, self._note(path)) for path in self._files(origin)[-1:]]

    def _files(self, origin: str) -> list[Path]:
        return sorted(self._place(origin).glob(f"*{SUFFIX}"))

    @staticmethod
    def _note(path: Path) -> str:
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise Misconfigured(f"the mirror {path} can not be read: {error}") from error
