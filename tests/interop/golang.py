"""A Go of 1.19 or later, with which other people's Merkle and note code is built.

`python3 tests/interop/golang.py` prints the one that the tests would take, or says what is missing (exit code 1). It
uses the standard library alone, so that it runs before there is a virtual environment.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

VERSION_MIN = (1, 19)
NAMED = "INTEROP_GO"
LOOK_S = 60
BUILD_S = 240  # with the modules fetched and the standard library compiled
PLACES = ("/usr/local/go/bin/go", "/usr/lib/go/bin/go", "/opt/homebrew/bin/go")
HERE = Path(__file__).resolve().parent


def find_go() -> Path:
    """The `go` that INTEROP_GO names, else the first that will do of PATH and the usual places.

    Raises RuntimeError that says what was looked at and what to do.
    """
    named = os.environ.get(NAMED)
    on_path = shutil.which("go")
    candidates = [named] if named else [*([on_path] if on_path else []), *PLACES]
    seen: list[str] = []
    for candidate in candidates:
        if not Path(candidate).is_file():
            continue
        why = unfit(candidate)
        if why is None:
            return Path(candidate)
        seen.append(f"{candidate} ({why})")
    wanted = ".".join(map(str, VERSION_MIN))
    raise RuntimeError(
        f"the interop tests need Go {wanted} or later, and found {'; '.join(seen) or 'none'}. Install it (on Debian: "
        f"apt-get install golang-go), or name one: {NAMED}=/path/to/bin/go"
    )


def unfit(go: str) -> str | None:
    """Why that `go` will not do; None: it will."""
    try:
        looked = subprocess.run([go, "version"], capture_output=True, text=True, timeout=LOOK_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"it does not run: {error}"
    version = re.search(r"go(\d+)\.(\d+)", looked.stdout)
    if version is None:
        return "it tells no version"
    return None if (int(version[1]), int(version[2])) >= VERSION_MIN else f"version {version[0]}"


def build(directory: Path) -> Path:
    """The program of main.go, built in that directory from the module versions that go.sum pins."""
    program = directory / "interop"
    environment = {**os.environ, "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local"}
    done = subprocess.run(
        [find_go(), "build", "-o", program, "."], cwd=HERE, env=environment, capture_output=True, text=True,
        timeout=BUILD_S, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"the Go program can not be built: {done.stderr}")
    return program


if __name__ == "__main__":
    try:
        print(find_go())
    except RuntimeError as error:
        raise SystemExit(str(error)) from None
