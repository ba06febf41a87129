"""Ledger URLs: what they name, and what is refused with the forms that there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from session_ledger.domain.errors import Misconfigured
from session_ledger.ledger.ledger import Ledger
from session_ledger.ledger.url import LedgerUrl, default_replica, parse_url

PARSED = {
    "memory:": LedgerUrl("memory", None),
    "sqlite:here": LedgerUrl("sqlite", Path("here")),
    "sqlite:./a/b c": LedgerUrl("sqlite", Path("a/b c")),
    "sqlite:/abs": LedgerUrl("sqlite", Path("/abs")),
    "sqlite:///abs": LedgerUrl("sqlite", Path("/abs")),
    "kafka://h:9092/n": LedgerUrl("kafka", default_replica("n"), "h:9092", "n", 8),
    "kafka://a:1,b:2/n.x-y_z?partitions=1": LedgerUrl("kafka", default_replica("n.x-y_z"), "a:1,b:2", "n.x-y_z", 1),
    "kafka://h:9/n?replica=/r%20s&replication=3": LedgerUrl("kafka", Path("/r s"), "h:9", "n", 8, 3),
    "kafka://[::1]:9092/n?partitions=4096": LedgerUrl("kafka", default_replica("n"), "[::1]:9092", "n", 4096),
}

REFUSED = [
    "",
    "memory",
    "memory:x",
    "sqlite",
    "sqlite:",
    "sqlite://",
    "sqlite:here?x=1",
    "sqlite:here?",
    "sqlite:///abs?partitions=2",
    "sqlite://x/y",
    "sqlite://./x",
    "sqlite:nul\0",
    "postgres://h/n",
    "SQLITE:x",
    "kafka:h:9092/n",
    "kafka://",
    "kafka:///n",
    "kafka://h/n",
    "kafka://h:9092",
    "kafka://h:9092/",
    "kafka://h:port/n",
    "kafka://h:9092,/n",
    "kafka://h:9092/..",
    "kafka://h:9092/a/b",
    "kafka://h:9092/a b",
    "kafka://h:9092/n?partitions=3",
    "kafka://h:9092/n?partitions=0",
    "kafka://h:9092/n?partitions=-2",
    "kafka://h:9092/n?partitions=",
    "kafka://h:9092/n?partitions=8192",
    "kafka://h:9092/n?partitions=²",
    "kafka://h:9092/n?replication=x",
    "kafka://h:9092/n?unknown=1",
]


@pytest.mark.parametrize("url", PARSED)
def test_a_url_names_its_ledger(url: str) -> None:
    """Scheme, directory, brokers, name, partitions, replication."""
    assert PARSED[url] == parse_url(url)


@pytest.mark.parametrize("url", REFUSED)
def test_a_url_that_names_none_is_refused(url: str) -> None:
    """Misconfigured, and nothing is opened or made."""
    with pytest.raises(Misconfigured):
        parse_url(url)
    with pytest.raises(Misconfigured):
        Ledger.open(url)


def test_a_directory_that_is_none_is_refused(tmp_path: Path) -> None:
    """A file stands there, or above it."""
    (tmp_path / "file").write_text("x")
    for place in ("file", "file/below"):
        with pytest.raises(Misconfigured):
            Ledger.open(f"sqlite:{tmp_path / place}")
    assert "x" == (tmp_path / "file").read_text()


@pytest.mark.parametrize(
    ("url", "right"),
    [
        ("sqlite:here?x=1", "sqlite:here"),
        ("sqlite:///abs?x", "sqlite:/abs"),
        ("sqlite://x/y", "sqlite:x/y for"),
        ("sqlite://x/y", "sqlite:/x/y for"),
    ],
)
def test_a_sqlite_url_that_means_something_else_names_the_right_form(url: str, right: str) -> None:
    """Options, and a directory after two slashes: the message says what to write."""
    with pytest.raises(Misconfigured, match=f"use .*{right}"):
        parse_url(url)
