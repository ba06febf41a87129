"""TLS, SASL and ACLs: a broker that requires them; every refusal is a typed error, in seconds, without the password."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from session_ledger import Ledger, Views
from session_ledger.cli import owning
from session_ledger.consumers.checkpointer import Checkpointer
from session_ledger.domain.errors import AppendFailed, LogRefused, LogUnavailable, Misconfigured, SessionLedgerError
from session_ledger.ledger.open import open_settings
from session_ledger.ledger.settings import Settings
from tests.broker.secured import MECHANISMS, Authority, SecuredBroker
from tests.cli.shell import Shell
from tests.ledger.support import assert_folds_equal_the_log

pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("secured")]

PASSWORD = "correct-horse-battery"
USERS = ("owner", "reader", "stranger", "limited", "late", "late-reader", "checkpointer")
SOON_S = 8.0
Options = dict[str, str | int | float | bool]


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    """One for all tests here."""
    broker = SecuredBroker(tmp_path_factory.mktemp("secured") / "broker", dict.fromkeys(USERS, PASSWORD))
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()


@pytest.fixture
def url(secured: SecuredBroker, ledger_name: str, tmp_path: Path) -> str:
    """A ledger of one's own behind the listener that wants TLS and SASL."""
    return f"kafka://{secured.secured}/{ledger_name}?partitions=2&replica={tmp_path / 'replica'}"


def client(broker: SecuredBroker, user: str = "owner", **options: str) -> Options:
    """What a principal is configured with."""
    return {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": user,
        "sasl_plain_password": PASSWORD,
        "ssl_cafile": str(broker.authority.file),
        **options,
    }


def documented(who: str, ledger: str) -> str:
    """The ACLs that docs/operations.md lists."""
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    found = re.search(rf"<!-- acls of an? {who} -->\n```text\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1].replace("NAME", ledger)


def refused(url: str, options: Options) -> SessionLedgerError:
    """What opening it raises, within seconds; the password is nowhere in it."""
    started_s = time.monotonic()
    with pytest.raises(SessionLedgerError) as told:
        Ledger.open(url, kafka_client=options)
    assert time.monotonic() - started_s < SOON_S
    error: BaseException | None = told.value
    while error is not None:
        assert PASSWORD not in f"{error} {error!r} {error.args}"
        error = error.__cause__ or error.__context__
    return told.value


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_ledger_behind_tls_and_a_password(
    secured: SecuredBroker, url: str, ledger_name: str, mechanism: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Written, leased and read with the ACLs that the documentation lists; the password is in no log, not at DEBUG."""
    caplog.set_level(logging.DEBUG)
    secured.allow("owner", documented("owner", ledger_name))
    options = client(secured, sasl_mechanism=mechanism)
    with Ledger.open(url, kafka_client=options) as ledger:
        assert ledger.is_owner
        session = ledger.create_session("t", "u", title="hello")
        with Ledger.open(url, kafka_client=options) as beside, Views.open(url, kafka_client=options) as views:
            assert not beside.is_owner
            added = beside.add_message("t", "u", session.session_id, role="user", content="hi")
            views.wait(added.partition, added.position)
            assert ["hi"] == [message.content for message in views.history("t", "u", session.session_id)]
        assert_folds_equal_the_log(ledger)
    with Ledger.open(url, kafka_client=options) as again:
        assert_folds_equal_the_log(again)
    assert PASSWORD not in caplog.text
    assert repr(PASSWORD.encode())[2:-1] not in caplog.text


@pytest.mark.slow
def test_commands_take_the_password_from_a_file_or_the_environment(
    secured: SecuredBroker, url: str, ledger_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The TOML says the rest; the file is read for each connection, the variable goes over the TOML."""
    secured.allow("owner", documented("owner", ledger_name))
    secret = tmp_path / "secret"
    secret.write_text(PASSWORD + "\n")
    options = client(secured) | {"sasl_plain_password_file": str(secret)}
    del options["sasl_plain_password"]
    toml = "".join(f"{name} = {json.dumps(value)}\n" for name, value in options.items())
    (tmp_path / "session-ledger.toml").write_text("[kafka_client]\n" + toml)
    monkeypatch.chdir(tmp_path)
    shell = Shell(tmp_path / "replica")
    shell.url = url
    assert 0 == shell("sessions", "create", "-U", "alice").code
    monkeypatch.setenv("SESSION_LEDGER_KAFKA_CLIENT", json.dumps({"sasl_plain_password_file": "missing"}))
    ran = shell("stats", "--json")
    assert (3, "misconfigured") == (ran.code, ran.json["error"]["code"])
    secret.write_text("wrong")
    monkeypatch.delenv("SESSION_LEDGER_KAFKA_CLIENT")
    ran = shell("stats", "--json")
    assert (3, "log_refused") == (ran.code, ran.json["error"]["code"])
    (tmp_path / "session-ledger.toml").write_text("[kafka_client]\n" + toml.replace(str(secret), "missing"))
    whole = client(secured)
    monkeypatch.delenv("SESSION_LEDGER_CONFIG", raising=False)
    (tmp_path / "session-ledger.toml").unlink()
    monkeypatch.setenv("SESSION_LEDGER_KAFKA_CLIENT", json.dumps(whole))
    ran = shell("stats", "--json")
    assert (0, 1) == (ran.code, ran.json["sessions"])


def test_what_the_brokers_refuse_is_said(secured: SecuredBroker, url: str, tmp_path: Path) -> None:
    """Password, mechanism, certificate, protocol and listener: LogRefused at once, and what to look at."""
    foreign = Authority(tmp_path, "foreign")
    plain_url = url.replace(secured.secured, secured.bootstrap)
    for where, options, says in (
        (url, {"sasl_plain_password": "wrong"}, "SCRAM-SHA-512.*see sasl_mechanism, sasl_plain_username"),
        (url, {"sasl_mechanism": "PLAIN", "sasl_plain_password": "wrong"}, "Invalid username or password; see"),
        (url, {"sasl_mechanism": "OAUTHBEARER"}, r"not one of \[.*'PLAIN'.*set sasl_mechanism"),
        (url, {"ssl_cafile": str(foreign.file)}, "certificate verify failed.*ssl_cafile"),
        (url, {"security_protocol": "PLAINTEXT"}, "security_protocol.*may want SSL or SASL_SSL"),
        (url, {"security_protocol": "SASL_PLAINTEXT"}, "security_protocol.*may want SSL or SASL_SSL"),
        (url, {"security_protocol": "SSL"}, "hung up.*may want SSL, SASL_PLAINTEXT or SASL_SSL"),
        (plain_url, {}, "is it a TLS listener"),
        (plain_url, {"security_protocol": "SASL_PLAINTEXT"}, "wants no SASL|set sasl_mechanism"),
    ):
        error = refused(where, client(secured, **options))
        assert isinstance(error, LogRefused), (options, error)
        assert re.search(says, str(error)), (options, error)
        assert not error.retriable


def test_a_ledger_behind_certificates_of_both_sides(
    secured: SecuredBroker, url: str, ledger_name: str, tmp_path: Path
) -> None:
    """The ACLs are those of the certificate's name; without one, or with another authority's, nobody is let in."""
    url = url.replace(secured.secured, secured.mutual)
    secured.allow("CN=served", documented("owner", ledger_name))

    def by(authority: Authority, name: str) -> Options:
        file = str(authority.keystore(tmp_path / f"{name}.pem", name))
        trusted = {"security_protocol": "SSL", "ssl_cafile": str(secured.authority.file)}
        return {**trusted, "ssl_certfile": file, "ssl_keyfile": file}

    served = by(secured.authority, "served")
    with Ledger.open(url, kafka_client=served) as ledger, Views.open(url, kafka_client=served) as views:
        session = ledger.create_session("t", "u", title="hello")
        assert "hello" == views.session("t", "u", session.session_id).title
    without = {name: value for name, value in served.items() if name not in ("ssl_certfile", "ssl_keyfile")}
    for options, says in (
        (without, "see security_protocol, ssl_certfile and ssl_keyfile"),
        (by(Authority(tmp_path, "foreign"), "served-too"), "see security_protocol, ssl_certfile and ssl_keyfile"),
        (by(secured.authority, "another"), r"docs/operations\.md"),
    ):
        error = refused(url, options)
        assert isinstance(error, LogRefused), error
        assert re.search(says, str(error)), error


def test_options_that_can_not_be_are_misconfigured(secured: SecuredBroker, url: str) -> None:
    """A file that is not there, a protocol that is none, a user without a password."""
    for options, says in (
        ({"ssl_cafile": "missing.pem"}, "missing.pem"),
        ({"security_protocol": "TLS"}, "use PLAINTEXT, SSL"),
        ({"sasl_plain_password": ""}, "sasl_plain_password"),
        ({"sasl_plain_password_file": "missing"}, "sasl_plain_password_file"),
    ):
        error = refused(url, client(secured, **options))
        assert isinstance(error, Misconfigured), (options, error)
        assert says in str(error)


def test_no_password_in_what_settings_show() -> None:
    """Neither their repr nor the error about a wrong one has it."""
    options: Options = {"sasl_plain_password": PASSWORD}
    assert PASSWORD not in repr(Settings(kafka_client=options))
    with pytest.raises(Misconfigured) as told:
        open_settings(None, {"kafka_client": {"sasl_plain_password": [PASSWORD], "write": PASSWORD}})
    assert PASSWORD not in str(told.value)


def test_who_may_only_read(secured: SecuredBroker, url: str, ledger_name: str) -> None:
    """The documented ACLs of a reader are enough for views, and an open for writing is refused."""
    secured.allow("owner", documented("owner", ledger_name))
    secured.allow("reader", documented("reader", ledger_name))
    with Ledger.open(url, kafka_client=client(secured)) as ledger:
        session = ledger.create_session("t", "u")
        with Views.open(url, kafka_client=client(secured, "reader")) as views:
            assert session.session_id == views.session("t", "u", session.session_id).session_id
    error = refused(url, client(secured, "reader"))
    assert isinstance(error, LogRefused)
    assert "group" in str(error)
    stranger = refused(url, client(secured, "stranger"))
    assert isinstance(stranger, LogRefused)


def test_each_acl_of_the_list_is_needed(secured: SecuredBroker, tmp_path: Path) -> None:
    """Without any one operation a ledger is refused, as LogRefused, with the ACLs' place in the documentation.

    `READ` is missed by those who open what holds events.
    """
    name = f"test-{uuid.uuid4().hex[:12]}"
    rules = [
        (resource, operation.strip())
        for line in documented("owner", name).splitlines()
        for resource, _, operations in [line.partition(":")]
        for operation in operations.split(",")
    ]
    assert 10 == len(rules)
    for left_out in range(len(rules)):
        mine = f"{name}-{left_out}"
        allowed = [rule for number, rule in enumerate(rules) if number != left_out]
        secured.allow("limited", "\n".join(f"{where}: {what}" for where, what in allowed).replace(name, mine))
        options = client(secured, "limited")
        mine_url = f"kafka://{secured.secured}/{mine}?partitions=1&replica={tmp_path / mine}"
        if rules[left_out] == (f"TOPIC {name}.events", "READ"):
            with Ledger.open(mine_url, kafka_client=options) as ledger:
                ledger.create_session("t", "u")
        error = refused(mine_url, options)
        assert isinstance(error, LogRefused), (rules[left_out], error)
        assert "docs/operations.md" in str(error), rules[left_out]


def test_a_checkpointer_needs_what_is_documented(secured: SecuredBroker, url: str, ledger_name: str) -> None:
    """With a reader's ACLs it is refused; with its own it makes its topic, signs, and writes nothing else."""
    secured.allow("owner", documented("owner", ledger_name))
    with Ledger.open(url, kafka_client=client(secured)) as ledger:
        ledger.create_session("t", "u")
    settings = open_settings(None, {"kafka_client": client(secured, "checkpointer")})
    secured.allow("checkpointer", documented("reader", ledger_name))
    with pytest.raises(LogRefused, match=r"docs/operations\.md"):
        Checkpointer(url, settings=settings)
    secured.allow("checkpointer", documented("checkpointer", ledger_name))
    with Checkpointer(url, settings=settings) as checkpointer:
        checkpointer.catch_up()
        assert 2 == len(checkpointer.sign_all())


@contextmanager
def serving(ledger: Ledger) -> Iterator[threading.Thread]:
    """What `serve` does with it meanwhile."""
    stop = threading.Event()
    service = threading.Thread(target=owning._sweep_until, args=(stop, ledger, 0.0, False), kwargs={"check": True})
    service.start()
    try:
        yield service
    finally:
        stop.set()
        service.join()


def test_a_reader_whose_permission_is_taken_away_is_told_that(
    secured: SecuredBroker, url: str, ledger_name: str
) -> None:
    """Not that the topic is gone: nobody restores a topic for a permission."""
    secured.allow("owner", documented("owner", ledger_name))
    secured.allow("late-reader", documented("reader", ledger_name))
    with Ledger.open(url, kafka_client=client(secured)) as ledger:
        ledger.create_session("t", "u")
        with Views.open(url, kafka_client=client(secured, "late-reader")) as views:
            assert 1 == len(views.sessions("t", "u"))
            secured.forbid("late-reader", documented("reader", ledger_name))

            def read_on() -> None:
                while True:  # the broker learns of it in a moment
                    views.sessions("t", "u")

            with pytest.raises(LogRefused, match=r"docs/operations\.md"):
                read_on()


def test_a_permission_that_is_taken_away_and_given_back(
    secured: SecuredBroker,
    url: str,
    ledger_name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A running owner refuses with the reason, records nothing, and goes on by itself when it may again.

    A service does not end of it, and tells of both.
    """
    monkeypatch.setattr(owning, "OWNED_S", 0.2)
    rules = documented("owner", ledger_name)
    secured.allow("late", rules)
    with Ledger.open(url, kafka_client=client(secured, "late")) as ledger, serving(ledger) as service:
        ledger.create_session("t", "u")
        told = ""

        def until_told(text: str) -> None:
            nonlocal told
            while text not in told:
                assert (True, True) == (service.is_alive(), time.monotonic() < deadline_s), told
                told += capsys.readouterr().err
                time.sleep(0.05)

        secured.forbid("late", rules)
        deadline_s = time.monotonic() + 60
        says = ""
        while "docs/operations.md" not in says:  # the broker learns of it in a moment
            assert time.monotonic() < deadline_s, says
            try:
                ledger.create_session("t", "u")
            except (AppendFailed, LogUnavailable) as error:
                says = str(error)
        until_told("docs/operations.md")
        secured.allow("late", rules)
        while True:
            try:
                ledger.create_session("t", "u")
                break
            except (AppendFailed, LogUnavailable):
                assert time.monotonic() < deadline_s
                time.sleep(0.1)
        until_told("the log can be used again")
        assert_folds_equal_the_log(ledger)
