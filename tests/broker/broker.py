"""A real Kafka broker (KRaft, one node, loopback) for tests and development, run from Maven jars.

python tests/broker/broker.py ensure                       fetch the jars, and Java and Maven where that is possible
python tests/broker/broker.py run [--port 9092] [--data DIR]   in the foreground until Ctrl-C
"""

from __future__ import annotations

import argparse
import base64
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import types
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.broker.libs import ensure_libs
from tests.broker.server import READY_S, Server, free_port

JAVA = [
    "java",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
]


class Broker(Server):
    """One broker process and its data. `start` after `kill` or `stop` brings it back on the same port and data."""

    def __init__(
        self,
        data: Path,
        port: int | None = None,
        *,
        properties: Mapping[str, str] = MappingProxyType({}),
        form: Sequence[str] = (),
        cluster_id: str | None = None,
    ) -> None:
        """`data` is made and formatted when it is empty; without `port` a free one is taken.

        `properties` of Kafka replace those of a broker alone; `form` are further arguments of the storage tool.
        """
        super().__init__("broker", data)
        self.port = port or free_port()
        self.controller_port = free_port()
        self.proxy_port = free_port()
        """Where clients of `behind_proxy_port` are sent: a test may put a proxy there."""
        self.behind_proxy_port = free_port()
        self.properties = dict(properties)
        """Of Kafka; what is changed here applies from the next start."""
        self._form = form
        self._cluster_id = cluster_id or new_cluster_id()

    @property
    def bootstrap(self) -> str:
        """``127.0.0.1:PORT``."""
        return f"127.0.0.1:{self.port}"

    def start(self, wait: bool = True) -> None:
        """Format if new and start; with `wait` return when it answers. Raises RuntimeError with the end of its log."""
        java = [*JAVA, "-cp", f"{ensure_libs()}/*"]
        self.data.mkdir(parents=True, exist_ok=True)
        file = self.data / "server.properties"
        file.write_text("".join(f"{name}={value}\n" for name, value in self._all_properties().items()))
        if not (self.data / "log" / "meta.properties").exists():
            form = [*java, "kafka.tools.StorageTool", "format", "-t", self._cluster_id, "-c", str(file), *self._form]
            done = subprocess.run(form, capture_output=True, text=True, timeout=READY_S, check=False)
            if done.returncode != 0:
                raise RuntimeError(f"formatting the broker's storage failed:\n{done.stdout}{done.stderr}")
        self._launch([*java, "kafka.Kafka", str(file)])
        if wait:
            self.await_ready()

    def _all_properties(self) -> dict[str, str]:
        here, controller = "127.0.0.1", f"127.0.0.1:{self.controller_port}"
        proxied = f"PROXIED://{here}:{self.behind_proxy_port}", f"PROXIED://{here}:{self.proxy_port}"
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"PLAINTEXT://{self.bootstrap},{proxied[0]},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap},{proxied[1]}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": str(self.data / "log"),
            **replicated(1),
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.num.partitions": "4",
            "group.initial.rebalance.delay.ms": "0",
            "broker.session.timeout.ms": "2000",
            "broker.heartbeat.interval.ms": "500",
            "message.max.bytes": "4194304",
            "auto.create.topics.enable": "false",
            **self.properties,
        }

    def await_ready(self) -> None:
        """Return when it answers; RuntimeError with the end of its log if it does not."""
        self._wait_ready(lambda: _answers(self.port))


def replicated(factor: int) -> dict[str, str]:
    """Properties: topics of that replication factor, in sync on one broker less, Kafka's own too."""
    copies, in_sync = str(factor), str(max(factor - 1, 1))
    return {
        "default.replication.factor": copies,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": in_sync,
    }


def new_cluster_id() -> str:
    """As Kafka's storage tool draws one."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")


API_VERSIONS_REQUEST = b"\x00\x00\x00\x0e\x00\x12\x00\x00\x00\x00\x00\x01\x00\x04test"  # key 18, version 0


def _answers(port: int) -> bool:
    """Whether a broker answers an ApiVersions request there: it does once it has registered and is unfenced."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(API_VERSIONS_REQUEST)
            return len(connection.recv(4)) == 4
    except OSError:
        return False


def run(port: int, data: Path | None, watch: int | None, state: Path | None) -> None:
    """Run a broker until SIGINT or SIGTERM, or until the process `watch` is gone; `state` gets its address."""

    def end(signum: int, frame: types.FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    own = Path(tempfile.mkdtemp(prefix="session-ledger-broker-")) if data is None else None
    broker = Broker(own or (data or Path()).resolve(), port)
    try:
        broker.start()
        if state is not None:
            partial = state.with_suffix(".partial")
            partial.write_text(broker.bootstrap)
            partial.replace(state)
        print(f"Kafka listens on {broker.bootstrap}; data in {broker.data}; Ctrl-C stops it", flush=True)
        while watch is None or _alive(watch):
            time.sleep(0.5)
            if not broker.running:
                raise RuntimeError(f"the broker ended by itself; see {broker.output}")
    except KeyboardInterrupt:
        pass
    finally:
        broker.stop()
        if own is not None:
            shutil.rmtree(own, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def main() -> None:
    """The command line of this module's docstring."""
    parser = argparse.ArgumentParser(description="a real Kafka broker on loopback")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("ensure", help="fetch what the broker needs")
    runs = commands.add_parser("run", help="run a broker in the foreground")
    runs.add_argument("--port", type=int, default=9092, help="0 takes a free one")
    runs.add_argument("--data", type=Path, help="kept afterwards; without it a temporary directory, removed at the end")
    runs.add_argument("--watch", type=int, help="stop when this process is gone")
    runs.add_argument("--state", type=Path, help="write the address into this file when ready")
    given = parser.parse_args()
    try:
        if given.command == "ensure":
            ensure_libs()
        else:
            run(given.port, given.data, given.watch, given.state)
    except RuntimeError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
