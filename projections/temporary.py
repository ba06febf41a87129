"""Directories of temporary views: named after their process, so that what a killed one left can be told and deleted."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

PREFIX = "views-building-"  # followed by the process id


def sweep(directory: Path) -> None:
    """Delete temporary stores whose process was killed."""
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
