"""The rules of style that a machine can hold: sizes, handlers, one Kafka module, no machine paths, said tests."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PRODUCT_FOLDERS = ("domain", "schemas", "security", "ledger", "projections", "consumers", "cli", "src/session_ledger")
LINES_MAX = 400  # a file that grows past this holds two ideas
# built from parts, so that this file does not hold what it looks for
MACHINE_PATHS = tuple("/" + name for name in ("work", "home", "tmp", "root", "Users"))


def product_files() -> list[Path]:
    """Every Python file of the product, each once (`src/session_ledger` reaches the others through links)."""
    found = (path for folder in PRODUCT_FOLDERS for path in (ROOT / folder).rglob("*.py"))
    return sorted({path.resolve() for path in found})


def files_of_tests() -> list[Path]:
    """Every Python file under tests/ and bench/."""
    return sorted(path for folder in ("tests", "bench") for path in (ROOT / folder).rglob("*.py"))


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=relative(path))


def imported_modules(module: ast.Module) -> Iterator[str]:
    """The absolute names of every module that is imported anywhere in the file."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


def silent_handlers(module: ast.Module) -> Iterator[int]:
    """Lines of `except:` and of broad handlers that do nothing."""
    for node in ast.walk(module):
        if not isinstance(node, ast.ExceptHandler):
            continue
        broad = isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")
        empty = all(isinstance(statement, (ast.Pass, ast.Continue)) for statement in node.body)
        if node.type is None or (broad and empty):
            yield node.lineno


def test_there_is_a_product_to_look_at() -> None:
    """The other rules would hold for an empty list, so the list is looked at first."""
    assert len(product_files()) >= 10


def test_no_product_file_is_longer_than_the_limit() -> None:
    """A product file has at most 400 lines."""
    lengths = {relative(path): len(path.read_text(encoding="utf-8").splitlines()) for path in product_files()}
    assert {} == {name: length for name, length in lengths.items() if length > LINES_MAX}


def test_no_handler_swallows_everything() -> None:
    """No bare `except`, and no broad one whose body does nothing."""
    found = [
        f"{relative(path)}:{line}"
        for path in product_files() + files_of_tests()
        for line in silent_handlers(tree(path))
    ]
    assert [] == found


def test_three_modules_know_the_kafka_client() -> None:
    """kafka-python is imported by three modules, in the Kafka log, so that another client can take its place."""
    users = [
        relative(path)
        for path in product_files()
        if any(name.split(".")[0] == "kafka" for name in imported_modules(tree(path)))
    ]
    assert {f"ledger/log/kafka_{name}.py" for name in ("access", "client", "producer")} == set(users)


def test_product_code_names_no_place_on_somebodys_machine() -> None:
    """No text in the product starts at a folder of one machine; where things stand is configured."""
    pattern = re.compile("(?:" + "|".join(MACHINE_PATHS) + r")(?:/|\b)")
    found = [
        f"{relative(path)}:{node.lineno}"
        for path in product_files()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and pattern.match(node.value)
    ]
    assert [] == found


def test_the_domain_reads_no_clock_and_no_randomness_while_deciding() -> None:
    """Outside of `ids`, the domain imports nothing that knows the time or makes random bytes."""
    forbidden = {"time", "random", "secrets", "os", "socket", "threading", "asyncio", "sqlite3", "uuid"}
    found = {
        f"{relative(path)}: {name}"
        for path in (ROOT / "domain").rglob("*.py")
        if path.name != "ids.py"
        for name in imported_modules(tree(path))
        if name.split(".")[0] in forbidden
    }
    assert set() == found


@pytest.mark.parametrize("path", files_of_tests(), ids=relative)
def test_every_test_says_its_behaviour(path: Path) -> None:
    """Each test function of ours has a docstring that states the behaviour."""
    silent = [
        f"{relative(path)}:{node.lineno} {node.name}"
        for node in ast.walk(tree(path))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert [] == silent
