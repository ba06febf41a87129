"""The broker of the tests and the one of the Compose file are the same Kafka."""

from __future__ import annotations

import re

from tests.broker.libs import HERE, POM


def test_the_compose_file_runs_the_version_that_is_tested() -> None:
    """The image's tag is the version of the jars, and no image goes without a version."""
    jars = re.search(r"<artifactId>kafka_2\.13</artifactId>\s*<version>([\d.]+)</version>", POM.read_text())
    assert jars is not None
    images = re.findall(r"image: (\S+)", (HERE.parents[1] / "docker-compose.yml").read_text())
    assert [f"apache/kafka:{jars[1]}"] == images
