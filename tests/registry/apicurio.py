"""A real schema registry on loopback: the version and the settings of the Compose file, run from Maven's archive."""

from __future__ import annotations

import os
import re
import tarfile
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.broker.libs import fetch
from tests.broker.server import Server, free_port
from tests.registry.java import find_java

HERE = Path(__file__).resolve().parent
LIBS = HERE / "libs"
POM = HERE / "pom.xml"
COMPOSE = HERE.parents[1] / "docker-compose.yml"
SERVER = LIBS / "registry"
ANSWER_S = 5.0
CCOMPAT = "/apis/ccompat/v7"


def ensure_libs() -> Path:
    """The directory with Avro's jars; the registry is unpacked in `SERVER` below it. Raises RuntimeError."""
    return fetch(POM, LIBS, _unpack)


def _unpack(libs: Path) -> None:
    (archive,) = libs.glob("apicurio-registry-app-*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(SERVER, filter="data")
    archive.unlink()


def compose_service() -> dict[str, Any]:
    """The registry as the Compose file has it."""
    service: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]["registry"]
    return service


class Apicurio(Server):
    """One registry, whose schemas are kept in topics of its own. `start` after `kill` or `stop` finds them there."""

    def __init__(self, data: Path, kafka: str) -> None:
        """`kafka`: the address of the broker that keeps the schemas."""
        super().__init__("registry", data)
        self.port, self.management_port = free_port(), free_port()
        self._kafka = kafka
        self._topics = f"registry-{os.urandom(6).hex()}"

    @property
    def url(self) -> str:
        """Where Confluent's interface is served."""
        return f"http://127.0.0.1:{self.port}{CCOMPAT}"

    @property
    def environment(self) -> dict[str, str]:
        """The Compose file's, with addresses of this machine and topics that no other test uses."""
        settings: dict[str, str] = compose_service()["environment"]
        return settings | {
            "QUARKUS_HTTP_HOST": "127.0.0.1",
            "QUARKUS_HTTP_PORT": str(self.port),
            "QUARKUS_MANAGEMENT_HOST": "127.0.0.1",
            "QUARKUS_MANAGEMENT_PORT": str(self.management_port),
            "APICURIO_KAFKASQL_BOOTSTRAP_SERVERS": self._kafka,
            "APICURIO_KAFKASQL_TOPIC": f"{self._topics}-journal",
            "APICURIO_KAFKASQL_SNAPSHOTS_TOPIC": f"{self._topics}-snapshots",
            "APICURIO_EVENTS_KAFKA_TOPIC": f"{self._topics}-events",
        }

    def start(self) -> None:
        """Start, and return when it is ready. Raises RuntimeError with the end of its log."""
        java = find_java()
        ensure_libs()
        self.data.mkdir(parents=True, exist_ok=True)
        command = [str(java), "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        command += [f"-Djava.io.tmpdir={self.data}", "-jar", str(SERVER / "quarkus-run.jar")]
        inherited = {name: value for name, value in os.environ.items() if not re.match(r"APICURIO_|QUARKUS_", name)}
        self._launch(command, inherited | self.environment, SERVER)
        self._wait_ready(self._ready)

    def _ready(self) -> bool:
        try:
            health = httpx.get(f"http://127.0.0.1:{self.management_port}/health/ready", timeout=ANSWER_S)
            return health.status_code == 200 and httpx.get(f"{self.url}/config", timeout=ANSWER_S).status_code == 200
        except httpx.TransportError:
            return False
