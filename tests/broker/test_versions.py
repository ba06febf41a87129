"""The servers of the tests and those of the Compose file are the same, with what a ledger needs of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from tests.broker.libs import HERE, POM

SERVICES: dict[str, Any] = yaml.safe_load((HERE.parents[1] / "docker-compose.yml").read_text())["services"]
MEMBERS = {name: service for name, service in SERVICES.items() if "cluster" in service.get("profiles", ())}


def version_of(pom: Path, artifact: str) -> str:
    """The version of an artifact that a pom names."""
    found = re.search(rf"<artifactId>{re.escape(artifact)}</artifactId>\s*<version>([\d.]+)</version>", pom.read_text())
    assert found is not None
    return found[1]


def test_the_compose_file_runs_the_versions_that_are_tested() -> None:
    """An image's tag is the version that Maven brings for the tests, and no image goes without a version."""
    kafka = f"apache/kafka:{version_of(POM, 'kafka_2.13')}"
    registry_pom = HERE.parent / "registry" / "pom.xml"
    registry = f"apicurio/apicurio-registry:{version_of(registry_pom, 'apicurio-registry-app')}"
    images = {name: service["image"] for name, service in SERVICES.items()}
    assert {name: registry if name == "registry" else kafka for name in SERVICES} == images


def test_every_published_port_is_of_this_machine_alone_and_one_services() -> None:
    """Nothing listens on an address that others reach, and services do not take each other's ports."""
    ports = [port for service in SERVICES.values() for port in service["ports"]]
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert len(ports) == len({port.rsplit(":", 1)[0] for port in ports})


def test_every_service_says_when_it_is_ready() -> None:
    """`--wait` waits for the health of each."""
    assert [] == [name for name, service in SERVICES.items() if not service["healthcheck"].get("test")]


def test_the_cluster_survives_the_loss_of_a_broker() -> None:
    """Three brokers that vote, replication factor 3, min ISR 2, no unclean election; for Kafka's own topics too."""
    assert ["kafka-1", "kafka-2", "kafka-3"] == sorted(MEMBERS)
    wanted = {
        "KAFKA_DEFAULT_REPLICATION_FACTOR": "3",
        "KAFKA_MIN_INSYNC_REPLICAS": "2",
        "KAFKA_UNCLEAN_LEADER_ELECTION_ENABLE": "false",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "3",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "3",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "2",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@kafka-1:9093,2@kafka-2:9093,3@kafka-3:9093",
    }
    for name, member in MEMBERS.items():
        environment = member["environment"]
        assert wanted == {key: environment[key] for key in wanted}, name
        number = name.removeprefix("kafka-")
        published = member["ports"][0].rsplit(":", 1)[0]
        listeners = f"HOST://{published},INTERNAL://{name}:19092"
        assert (number, listeners) == (environment["KAFKA_NODE_ID"], environment["KAFKA_ADVERTISED_LISTENERS"])


def test_without_a_profile_one_broker_and_the_registry_run() -> None:
    """The cluster is started on purpose."""
    assert {"kafka", "registry"} == set(SERVICES) - set(MEMBERS)
