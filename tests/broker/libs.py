"""The jars of the broker, fetched once from Maven Central into `libs/`, and Java and Maven themselves."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIBS = HERE / "libs"
POM = HERE / "pom.xml"
TOOLS = {"java": "default-jre-headless", "mvn": "maven"}  # program: its Debian package
FETCH_TIMEOUT_S = 600


def ensure_libs() -> Path:
    """The directory of the jars that `pom.xml` names; fetches them if they are not there. Safe among processes."""
    marker = LIBS / ".complete"
    wanted = hashlib.sha256(POM.read_bytes()).hexdigest()
    _ensure_tools(["java"])
    with POM.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if marker.exists() and marker.read_text() == wanted:
            return LIBS
        _ensure_tools(["java", "mvn"])
        shutil.rmtree(LIBS, ignore_errors=True)
        command = ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies"]
        command += [f"-DoutputDirectory={LIBS}", "-DincludeScope=runtime"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"Maven could not fetch the broker's jars:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        marker.write_text(wanted)
    return LIBS


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
