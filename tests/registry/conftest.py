"""Fixtures: one registry for the run, and one that a test alone may kill."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.registry.apicurio import Apicurio


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs Java 21 or later, and is marked so."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.registry)


@pytest.fixture(scope="session")
def registry(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apicurio]:
    """A running registry for all tests; it is never stopped."""
    server = Apicurio(tmp_path_factory.mktemp("registry"), kafka)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def own_registry(kafka: str, tmp_path: Path) -> Iterator[Apicurio]:
    """A running registry for one test alone."""
    server = Apicurio(tmp_path / "registry", kafka)
    try:
        server.start()
        yield server
    finally:
        server.kill()
