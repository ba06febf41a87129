"""The system's users by name, and who may not use a file."""

from __future__ import annotations

import os
import pwd
from pathlib import Path


def system_user() -> str:
    """The name of the user whose rights this process has: the system's word, not the environment's."""
    return user_name(os.geteuid())


def user_name(uid: int) -> str:
    """The system's name of a user; `uid 1234` where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def unusable_by_this_user(path: Path) -> str | None:
    """Who may not read and write the file, or make it in its directory, and whose it is; None where this user may."""
    use = os.R_OK | os.W_OK
    directory = path.absolute().parent
    effective = os.access in os.supports_effective_ids
    for place, wanted in ((directory, use | os.X_OK), (path, use)):
        try:
            owner = user_name(place.stat().st_uid)
        except FileNotFoundError:
            continue
        except OSError:  # it lies in what this user may not enter
            return f"{system_user()} may not enter the directory that {place} lies in"
        if not os.access(place, wanted, effective_ids=effective):
            return f"{system_user()} may not read and write {place}, which is {owner}'s"
    return None
