"""The documents are run: Python and console examples, links, make targets.

In a document, ```python and ```console blocks run from top to bottom in one fresh directory, each in a process of its
own. A ```text block after `<!-- prints -->` is what the block before it prints; `...` stands for anything. A block
after `<!-- not run -->` is left out.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/**/*.md"))]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([.a-z][\w.-]*):.*?## ", MAKEFILE, flags=re.MULTILINE))
BLOCK = re.compile(r"(?:<!-- (?P<mark>[\w ]+) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)```\n", flags=re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
SECONDS_MAX = 120


class Block(NamedTuple):
    """A fenced block of a document; `prints` is what it is said to print, None where nothing is said."""

    line: int
    language: str
    text: str
    prints: str | None


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path) -> list[Block]:
    """The blocks that run, in order."""
    text = path.read_text(encoding="utf-8")
    found: list[Block] = []
    for match in BLOCK.finditer(text):
        mark, language = match["mark"], match["language"]
        if mark == "prints":
            found[-1] = found[-1]._replace(prints=match["text"])
        elif mark != "not run" and language in ("python", "console"):
            found.append(Block(text[: match.start()].count("\n") + 1, language, match["text"], None))
    return found


def commands(block: Block) -> list[tuple[str, str]]:
    """(command, what it is said to print) of a console block."""
    return [
        (command.strip(), output)
        for command, _, output in (part.partition("\n") for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE))
        if command.strip()
    ]


def run(command: list[str], where: Path) -> str:
    """What the command prints; it must succeed."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SESSION_LEDGER_")}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "120",
        "NO_COLOR": "1",
    }
    done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, timeout=SECONDS_MAX)
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def assert_prints(said: str, printed: str) -> None:
    """`...` in what is said stands for anything; blanks at the ends of lines do not count."""
    pattern = ".*".join(re.escape(_bare(part)) for part in said.strip().split("..."))
    assert re.fullmatch(pattern, _bare(printed).strip(), flags=re.DOTALL), f"said:\n{said}\nprinted:\n{printed}"


def _bare(text: str) -> str:
    return re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if blocks(path)], ids=name)
def test_the_examples_of_a_document_run(document: Path, tmp_path: Path) -> None:
    """Every example succeeds, in the order of the document, and prints what the document says."""
    for block in blocks(document):
        if block.language == "python":
            printed = run([sys.executable, "-c", block.text], tmp_path)
            if block.prints is not None:
                assert_prints(block.prints, printed)
            continue
        for command, output in commands(block):
            if command.startswith("make"):
                continue  # looked at below
            printed = run(["sh", "-c", command], tmp_path)
            if output.strip():
                assert_prints(output, printed)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_the_make_targets_that_a_document_names_exist(document: Path) -> None:
    """`make something` in a document is a target that `make help` lists."""
    text = document.read_text(encoding="utf-8")
    named = re.findall(r"(?:`|^\$ )make ([a-z.][\w.-]*)", text, flags=re.MULTILINE)
    assert set() == set(named) - TARGETS


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_the_links_of_a_document_lead_somewhere(document: Path) -> None:
    """A link to a file of the repository names one that is there."""
    links = LINK.findall(document.read_text(encoding="utf-8"))
    assert [] == [link for link in links if not (document.parent / link).exists()]


def test_the_readme_needs_two_commands_on_a_fresh_machine() -> None:
    """`make demo` and `make test`: the first console block of the README holds these two and nothing else."""
    first = next(block for block in blocks(ROOT / "README.md") if block.language == "console")
    assert ["make demo", "make test"] == [command.split("#")[0].strip() for command, _ in commands(first)]


def test_make_help_lists_every_target() -> None:
    """`make` alone prints one line a target."""
    printed = run(["make", "--no-print-directory", "help"], ROOT)
    assert TARGETS == set(re.findall(r"^  make (\S+)", printed, flags=re.MULTILINE))


def test_the_figures_have_a_place() -> None:
    """`make bench` writes its table between the two marks of the README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(r"<!-- figures -->\n.*\| SQLite, 1 caller \|.*<!-- /figures -->\n", text, flags=re.DOTALL)
