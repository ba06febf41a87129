"""What stands beside a Kafka ledger is one log's: another's is recognised, and records that are gone are named."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, TopicPartition

from session_ledger import Ledger, Views
from session_ledger.domain.commands import AddMessage
from session_ledger.domain.errors import (
    InvalidInput,
    KeyUnavailable,
    LogCorrupt,
    LogUnavailable,
    ProjectionForeign,
    SessionLedgerError,
    SessionNotFound,
)
from session_ledger.domain.ids import parse_id
from session_ledger.domain.results import Result
from session_ledger.ledger.log import kafka_client, kafka_topics
from session_ledger.ledger.log.kafka_client import Cluster
from session_ledger.ledger.log.kafka_topics import ensure_checkpoints_topic, ensure_topics
from session_ledger.ledger.log.kafka_types import ClientOptions
from tests.cli.shell import Shell
from tests.ledger.support import assert_folds_equal_the_log, keys_in_vault, partition_folds, shard_of, stored
from tests.log_kafka.support import delete_topics, topics_of

pytestmark = pytest.mark.kafka


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """One broker knows at once what is there, so nobody looks again for long."""
    monkeypatch.setattr(kafka_topics, "LOST_AFTER_S", 0.1)


def url_of(kafka: str, name: str, directory: Path) -> str:
    """A ledger of one partition."""
    return f"kafka://{kafka}/{name}?partitions=1&replica={directory}"


def delete(kafka: str, name: str) -> None:
    """Delete a ledger's topics, and wait until they are gone."""
    delete_topics(kafka, f"{name}.events", f"{name}.control")


def filled(url: str) -> str:
    """A session whose user may have one, and local files that know it; returns its id."""
    with Ledger.open(url, checkpoint_events=1) as ledger, Views.open(url) as views:
        ledger.set_user_limits("t", "u", max_sessions=1)
        ledger.set_quota("t", "u", "calls", 5)
        session = ledger.create_session("t", "u", title="old").session_id
        ledger.add_message("t", "u", session, role="user", content="old")
        assert 1 == len(views.sessions("t", "u"))
        return session


def test_the_files_of_a_ledger_that_was_deleted_and_made_again(
    kafka: str, ledger_name: str, directory: Path, tmp_path: Path
) -> None:
    """Refused over them; made elsewhere first: state is made anew, views say whose they are, old keys do no harm."""
    url = url_of(kafka, ledger_name, directory)
    old = filled(url)
    keys = keys_in_vault(directory)
    delete(kafka, ledger_name)
    gone = r"there are no topics .* only comes with a log is there \(.*vault\.db in .*take another replica directory"
    for opened in (Ledger.open, Views.open):
        with pytest.raises(LogUnavailable, match=gone):
            opened(url)
    assert [] == topics_of(kafka, ledger_name)
    assert keys == keys_in_vault(directory)
    Ledger.open(url_of(kafka, ledger_name, tmp_path / "fresh")).close()
    with Ledger.open(url) as ledger:
        assert 0 == partition_folds(ledger).position
        with pytest.raises(SessionNotFound):
            ledger.add_message("t", "u", old, role="user", content="hi")
        assert () == ledger.report_quota("t", "u").quotas
        session = ledger.create_session("t", "u", title="new").session_id
        ledger.add_message("t", "u", session, role="user", content="new")
        assert_folds_equal_the_log(ledger)
        assert keys <= keys_in_vault(directory)
        with pytest.raises(ProjectionForeign, match="was built from the log"):
            Views.open(url)
    shell = Shell(directory)
    shell.url = url
    assert 0 == shell("rebuild").code
    with Views.open(url) as views:
        assert ["new"] == [message.content for message in views.history("t", "u", session)]
        assert [session] == [found.session_id for found in views.sessions("t", "u").items]


@pytest.mark.parametrize("lost", ["events", "control"])
def test_a_lost_topic_is_not_replaced_by_an_empty_one(
    kafka: str, ledger_name: str, directory: Path, tmp_path: Path, lost: str
) -> None:
    """Owners, also with --take-over or another directory, and readers are told which is lost; none is made."""
    url = url_of(kafka, ledger_name, directory)
    filled(url)
    delete_topics(kafka, f"{ledger_name}.{lost}")
    shell = Shell(directory)
    for shell.url, command in (
        (url, "quota set calls 5 -U u"),
        (url, "quota set calls 5 -U u --take-over"),
        (url_of(kafka, ledger_name, tmp_path / "fresh"), "quota set calls 5 -U u"),
        (url, "stats"),
    ):
        ran = shell(*command.split(), "--json")
        assert (1, "log_corrupt") == (ran.code, ran.json["error"]["code"]), (command, ran)
        assert f"there is no topic {ledger_name}.{lost}" in ran.json["error"]["message"]
    assert [{"events": "control", "control": "events"}[lost]] == topics_of(kafka, ledger_name)


def test_signed_checkpoints_tell_of_a_log_that_is_lost(kafka: str, ledger_name: str, directory: Path) -> None:
    """Also where no local file does: nothing is made, until their topic is deleted on purpose."""
    cluster, topic = Cluster(ClientOptions(kafka, "test")), f"{ledger_name}.checkpoints"
    ensure_checkpoints_topic(cluster, ledger_name, None)
    cluster.close()
    with pytest.raises(LogUnavailable, match=f"what only comes with a log is there .the topic {topic}.: see"):
        Ledger.open(url_of(kafka, ledger_name, directory))
    assert ["checkpoints"] == topics_of(kafka, ledger_name)
    delete_topics(kafka, topic)
    Ledger.open(url_of(kafka, ledger_name, directory)).close()


def test_a_first_creation_that_was_broken_off_goes_on(kafka: str, ledger_name: str, directory: Path) -> None:
    """Events made, then a crash before control: the next owner makes the rest, and serves."""
    cluster = Cluster(ClientOptions(kafka, "test"))
    ensure_topics(cluster, ledger_name, 1, None, create=True)
    cluster.close()
    delete_topics(kafka, f"{ledger_name}.control")
    with Ledger.open(url_of(kafka, ledger_name, directory)) as ledger:
        assert 1 == ledger.create_session("t", "u").position
    assert ["control", "events"] == topics_of(kafka, ledger_name)


def test_the_files_of_another_ledger(kafka: str, ledger_name: str, directory: Path, tmp_path: Path) -> None:
    """Opened over another's replica, its vault's keys are refused, nothing else is believed, and the other goes on."""
    mine, other = (url_of(kafka, name, directory) for name in (ledger_name, f"{ledger_name}-other"))
    old = filled(mine)
    with pytest.raises(LogUnavailable, match="see the ledger's name"):  # which is not made beside another's files
        Ledger.open(other)
    Ledger.open(url_of(kafka, f"{ledger_name}-other", tmp_path / "fresh"), encryption="none").close()
    with Ledger.open(other) as ledger, pytest.raises(KeyUnavailable, match="belongs to another owner"):
        ledger.create_session("t", "u", title="new")
    with Ledger.open(other, encryption="none") as ledger:
        assert 0 == partition_folds(ledger).position
        with pytest.raises(SessionNotFound):
            ledger.add_message("t", "u", old, role="user", content="hi")
        session = ledger.create_session("t", "u", title="new").session_id
        assert_folds_equal_the_log(ledger)
        with pytest.raises(ProjectionForeign):
            Views.open(other, encryption="none")
    with Ledger.open(mine) as ledger, Views.open(mine) as views:
        ledger.add_message("t", "u", old, role="user", content="still")
        with pytest.raises(SessionNotFound):
            ledger.add_message("t", "u", session, role="user", content="hi")
        assert_folds_equal_the_log(ledger)
        assert ["old", "still"] == [message.content for message in views.history("t", "u", old)]


def test_removed_records_stop_owner_and_views_by_name(
    kafka: str, ledger_name: str, directory: Path, tmp_path: Path
) -> None:
    """A new owner, with its local state or without, and views that have not passed the place: each names the hole."""
    url = url_of(kafka, ledger_name, directory)
    filled(url)
    admin = KafkaAdminClient(bootstrap_servers=kafka)
    admin.delete_records({TopicPartition(f"{ledger_name}.events", 0): 4})
    admin.close()
    gone = r"events-0 begins at offset 4: positions 1 to \d+ are gone.*retention\.ms"
    for place in (directory, tmp_path / "fresh"):
        with pytest.raises(LogCorrupt, match=gone):
            Ledger.open(url_of(kafka, ledger_name, place), encryption="none")
    (tmp_path / "views").mkdir()
    with (
        Views.open(url_of(kafka, ledger_name, tmp_path / "views"), encryption="none") as views,
        pytest.raises(SessionLedgerError, match=gone),
    ):
        views.sessions("t", "u")


def test_a_topic_that_is_deleted_under_a_reader_is_named(
    kafka: str, ledger_name: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits as for a broker that is away, and says that the topic is not there."""
    monkeypatch.setattr(kafka_client, "COORDINATOR_TIMEOUT_S", 0.5)
    url = url_of(kafka, ledger_name, directory)
    filled(url)
    with Views.open(url) as views:
        delete(kafka, ledger_name)
        with pytest.raises(LogUnavailable, match=f"the brokers know no {ledger_name}.events-0: was the topic deleted"):
            views.sessions("t", "u")


def test_what_is_too_large_is_refused_and_what_is_large_passes(kafka: str, ledger_name: str, directory: Path) -> None:
    """Contents up to the limit, and many of them in one append, are recorded; one byte more is InvalidInput."""
    url = url_of(kafka, ledger_name, directory)
    limit = 2 * 1024 * 1024
    with Ledger.open(url, content_bytes_max=limit) as ledger, Views.open(url, content_bytes_max=limit) as views:
        session = ledger.create_session("t", "u").session_id
        with pytest.raises(InvalidInput, match="content"):
            ledger.add_message("t", "u", session, role="user", content="x" * (limit + 1))
        ledger.add_message("t", "u", session, role="user", content="x" * limit)
        message = AddMessage(tenant="t", user="u", session_id=parse_id(session), role="user", content="y" * 1_000_000)
        sent: list[Future[Result]] = []
        shard_of(ledger).call(
            lambda: sent.extend(ledger.submit(message) for _ in range(9))
        )  # so that they wait together
        assert [*range(3, 12)] == sorted(future.result(60).position for future in sent)
        batches = [one.record.batch_id for one in stored(ledger)]
        assert len(set(batches)) < len(batches)
        assert [limit] + [1_000_000] * 9 == [len(m.content or "") for m in views.history("t", "u", session)]
