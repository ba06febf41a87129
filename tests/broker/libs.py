"""The jars of the broker, fetched once by Maven into `libs/`, and Java and Maven themselves."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIBS = HERE / "libs"
POM = HERE / "pom.xml"
TOOLS = {"java": "default-jre-headless", "mvn": "maven"}  # program: its Debian package
FETCH_TIMEOUT_S = 600


def ensure_libs() -> Path:
    """The directory of the jars that `pom.xml` names; fetches them if they are not there. Safe among processes."""
    return fetch(POM, LIBS)


def fetch(pom: Path, libs: Path, unpack: Callable[[Path], None] = lambda libs: None) -> Path:
    """The directory `libs`, holding what that pom names; fetched if it is not there. Safe among processes.

    `unpack` is called on the directory after it was filled.
    """
    marker = libs / ".complete"
    wanted = hashlib.sha256(pom.read_bytes()).hexdigest()
    _ensure_tools(["java"])
    with pom.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if marker.exists() and marker.read_text() == wanted:
            return libs
        _ensure_tools(["java", "mvn"])
        shutil.rmtree(libs, ignore_errors=True)
        command = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies"]
        command += [f"-DoutputDirectory={libs}", "-DincludeScope=runtime"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"Maven could not fetch what {pom} names:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        unpack(libs)
        marker.write_text(wanted)
    return libs


def _ensure_tools(programs: list[str]) -> None:
    """Install what is missing when that is possible (root on Debian), else say what to install."""
    packages = [TOOLS[program] for program in programs if shutil.which(program) is None]
    if not packages:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise RuntimeError(
            "the Kafka tests need Java 17 or later and Maven. Install them (on Debian: apt-get install "
            f"{' '.join(packages)}), or name a running broker: SESSION_LEDGER_TEST_KAFKA=host:port"
        )
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment, timeout=FETCH_TIMEOUT_S)
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    subprocess.run(install, check=True, env=environment, timeout=FETCH_TIMEOUT_S)
