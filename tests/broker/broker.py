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
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.broker.libs import ensure_libs
from tests.broker.server import READY_S, Server, free_port

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{behind_proxy},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{proxy}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={data}/log
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
message.max.bytes=4194304
auto.create.topics.enable=false
"""


class Broker(Server):
    """One broker process and its data. `start` after `kill` or `stop` brings it back on the same port and data."""

    def __init__(self, data: Path, port: int | None = None) -> None:
        """`data` is made and formatted when it is empty; without `port` a free one is taken."""
        super().__init__("broker", data)
        self.port = port or free_port()
        self._controller = free_port()
        self.proxy_port = free_port()
        """Where clients of `behind_proxy_port` are sent: a test may put a proxy there."""
        self.behind_proxy_port = free_port()

    @property
    def bootstrap(self) -> str:
        """``127.0.0.1:PORT``."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Format if new, start, and return when it answers. Raises RuntimeError with the end of its log."""
        libs = ensure_libs()
        self.data.mkdir(parents=True, exist_ok=True)
        properties = self.data / "server.properties"
        ports = {"port": self.port, "behind_proxy": self.behind_proxy_port, "proxy": self.proxy_port}
        properties.write_text(PROPERTIES.format(**ports, controller=self._controller, data=self.data))
        java = ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        java += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{libs}/*"]
        if not (self.data / "log" / "meta.properties").exists():
            cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")
            form = [*java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties)]
            done = subprocess.run(form, capture_output=True, text=True, timeout=READY_S, check=False)
            if done.returncode != 0:
                raise RuntimeError(f"formatting the broker's storage failed:\n{done.stdout}{done.stderr}")
        self._launch([*java, "kafka.Kafka", str(properties)])
        self._wait_ready(lambda: _answers(self.port))


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
