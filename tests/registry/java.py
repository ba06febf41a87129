"""A Java development kit of 21 or later: what Apicurio needs, and what runs a program from its source file.

`python3 tests/registry/java.py` prints the one that the tests would take, or says what is missing (exit code 1). It
uses the standard library alone, so that it runs before there is a virtual environment.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

VERSION_MIN = 21
NAMED = "REGISTRY_JAVA"
LOOK_S = 60  # a cold Java on a busy machine
PLACES = ("/usr/lib/jvm/*/bin/java", "/Library/Java/JavaVirtualMachines/*/Contents/Home/bin/java")


def find_java() -> Path:
    """The `java` that REGISTRY_JAVA names, else the first that will do of JAVA_HOME, PATH and the usual places.

    Raises RuntimeError that says what was looked at and what to do.
    """
    named = os.environ.get(NAMED)
    if named:
        why = unfit(Path(named))
        if why is not None:
            raise RuntimeError(f"{NAMED} names {named}, which will not do: {why}")
        return Path(named)
    seen: list[str] = []
    for candidate in candidates():
        why = unfit(candidate)
        if why is None:
            return candidate
        seen.append(f"{candidate} ({why})")
    raise RuntimeError(
        f"the registry's tests need a Java development kit of {VERSION_MIN} or later, and found "
        f"{'; '.join(seen) or 'no Java at all'}. Install one (on Debian 13: apt-get install openjdk-21-jdk-headless), "
        f"or name one: {NAMED}=/path/to/bin/java"
    )


def candidates() -> list[Path]:
    """Every `java` that is somewhere to be found, each once."""
    found: list[Path] = []
    home = os.environ.get("JAVA_HOME")
    if home:
        found.append(Path(home) / "bin" / "java")
    on_path = shutil.which("java")
    if on_path:
        found.append(Path(on_path))
    for place in PLACES:
        found += sorted(Path("/").glob(place.removeprefix("/")), reverse=True)
    return list(dict.fromkeys(path.resolve() for path in found if path.is_file()))


def unfit(java: Path) -> str | None:
    """Why that `java` will not do; None: it will."""
    try:
        looked = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=LOOK_S, check=False)
        modules = subprocess.run([java, "--list-modules"], capture_output=True, text=True, timeout=LOOK_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"it does not run: {error}"
    version = re.search(r'version "(?:1\.)?(\d+)', looked.stderr + looked.stdout)
    if version is None:
        return "it tells no version"
    if int(version[1]) < VERSION_MIN:
        return f"version {version[1]}"
    if "jdk.compiler@" not in modules.stdout:
        return f"version {version[1]} without a compiler: a runtime, not a development kit"
    return None


if __name__ == "__main__":
    try:
        print(find_java())
    except RuntimeError as error:
        raise SystemExit(str(error)) from None
