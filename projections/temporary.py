"""Directories of temporary views: named after their process, so that what a killed one left can be told and deleted."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

PREFIX = "views-building-"  # followed by the process id


def temporary_directory(directory: str | None = None) -> tempfile.TemporaryDirectory[str]:
    """One for temporary views (in `directory`, or where temporary files go); what killed processes left there goes."""
    if directory is not None:
        _sweep(Path(directory))
    return tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-", dir=directory)


def _sweep(directory: Path) -> None:
    for place in directory.glob(f"{PREFIX}*"):
        pid = place.name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdigit() and not _is_alive(int(pid)):
            shutil.rmtree(place, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
