"""Three brokers on one machine: replication factor 3, min ISR 2, each a controller too."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from kafka import KafkaAdminClient

from tests.broker.broker import Broker, new_cluster_id, replicated

SIZE = 3


class Cluster:
    """Brokers 1 to 3 in `brokers`; a context manager."""

    def __init__(self, data: Path) -> None:
        cluster_id = new_cluster_id()
        self.brokers = {n: Broker(data / f"broker-{n}", cluster_id=cluster_id) for n in range(1, SIZE + 1)}
        voters = ",".join(f"{n}@127.0.0.1:{broker.controller_port}" for n, broker in self.brokers.items())
        for number, broker in self.brokers.items():
            broker.properties |= {"node.id": str(number), "controller.quorum.voters": voters, **replicated(SIZE)}

    @property
    def bootstrap(self) -> str:
        """All three addresses, comma separated."""
        return ",".join(broker.bootstrap for broker in self.brokers.values())

    def start(self) -> None:
        """Start all of them; returns when all answer."""
        for broker in self.brokers.values():
            broker.start(wait=False)
        for broker in self.brokers.values():
            broker.await_ready()

    def leader_of(self, topic: str, partition: int) -> Broker:
        """The broker that leads the partition now."""
        living = next(broker for broker in self.brokers.values() if broker.running)
        admin = KafkaAdminClient(bootstrap_servers=living.bootstrap)
        try:
            (facts,) = admin.describe_topics([topic])
            return self.brokers[facts["partitions"][partition]["leader_id"]]
        finally:
            admin.close()

    def kill(self) -> None:
        """kill -9 all that run. Idempotent."""
        for broker in self.brokers.values():
            broker.kill()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
