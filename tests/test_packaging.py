"""What is shipped: the folders of the repository as packages under `session_ledger`, and nothing beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("packaging")  # one wheel for all of them

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("domain", "schemas", "security", "ledger", "projections", "consumers", "cli")
LINKS = sorted(path for path in (ROOT / "src" / "session_ledger").iterdir() if path.is_symlink())


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names inside the wheel, built from a copy so that no `build/` of an earlier time is swept in."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    source.mkdir()
    for name in (*FOLDERS, "src"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        [*command, "--wheel-dir", str(place), str(source)], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_wheel_holds_every_module_under_the_one_package(wheel_names: list[str], folder: str) -> None:
    """Each Python file of a product folder is in the wheel, under `session_ledger/`."""
    expected = {f"session_ledger/{path.relative_to(ROOT)}" for path in (ROOT / folder).rglob("*.py")}
    assert set() == expected - set(wheel_names)


def test_the_wheel_has_one_top_level_package(wheel_names: list[str]) -> None:
    """A package called `domain` or `schemas` at the top would overwrite, or be overwritten by, somebody else's."""
    tops = {name.split("/")[0] for name in wheel_names}
    assert {"session_ledger"} == {top for top in tops if not top.endswith(".dist-info")}


def test_the_wheel_holds_every_schema(wheel_names: list[str]) -> None:
    """Every `.avsc` file, and there are some: an installed ledger reads every version that was ever released."""
    expected = {f"session_ledger/{path.relative_to(ROOT)}" for path in (ROOT / "schemas").rglob("*.avsc")}
    assert expected, "no schema under schemas/"
    assert set() == expected - set(wheel_names)


def test_the_wheel_says_that_it_is_typed(wheel_names: list[str]) -> None:
    """`py.typed` lets a user's type checker read our annotations (PEP 561)."""
    assert "session_ledger/py.typed" in wheel_names


def test_the_wheel_holds_the_licence(wheel_names: list[str]) -> None:
    """The licence text travels with the code."""
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel_names)


def test_no_test_or_bench_is_shipped(wheel_names: list[str]) -> None:
    """Tests and measurements stay in the repository."""
    assert [] == [name for name in wheel_names if "/tests/" in name or "/bench/" in name]


def test_the_links_are_relative_and_complete() -> None:
    """Editable installs and type checkers find each folder through one committed link, on any machine."""
    assert {folder: f"../../{folder}" for folder in sorted(FOLDERS)} == {link.name: os.readlink(link) for link in LINKS}
    assert all(link.is_dir() for link in LINKS)


def test_every_package_is_listed() -> None:
    """A folder that holds Python is named in pyproject.toml, both as a package and with its place."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    expected = {
        "session_ledger." + str(path.parent.relative_to(ROOT)).replace(os.sep, ".")
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
    }
    assert set() == expected - set(tool["packages"])
    assert set(tool["packages"]) == set(tool["package-dir"])
