"""How the brokers are reached and who they let in: every client's options, its errors in our words, why it failed.

A refusal (wrong password, certificate, listener, missing permission) is told at once, as LogRefused, with what to do.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kafka import errors as kafka_errors
from kafka.net.sasl import get_sasl_mechanism
from kafka.net.transport import KafkaSSLTransport
from kafka.protocol.metadata import ApiVersionsRequest, MetadataRequest
from kafka.protocol.parser import KafkaProtocol
from kafka.protocol.sasl import SaslAuthenticateRequest, SaslHandshakeRequest

from session_ledger.domain.errors import LogRefused, Misconfigured
from session_ledger.ledger.log.kafka_types import BrokerAway, ClientOptions, OffsetGone

RECONNECT_BACKOFF_MAX_MS = 500  # the default of 30 s would outlast a broker's restart
REQUEST_TIMEOUT_MS = 5_000  # one answer of a broker that lives
BOOTSTRAP_TIMEOUT_MS = 5_000  # the first answer of any broker
KNOCK_TIMEOUT_S = 3.0  # each step of a first connection, TLS and SASL included
KNOCK_AGAIN_S = 0.3  # a broker that shuts down hangs up once; one that wants another protocol does it again
PASSWORD, PASSWORD_FILE = "sasl_plain_password", "sasl_plain_password_file"
_SYSTEM_ERROR = re.compile(r"\[Errno (?P<of_python>\d+)\] .*|\b(?P<of_client>\d+) E[A-Z]+\b")
LOGGERS = ("kafka.net.connection", "kafka.protocol.parser")  # at DEBUG they write what is sent


def common(options: ClientOptions) -> dict[str, Any]:
    """What every client of kafka-python is given. Raises Misconfigured."""
    security = dict(options.security)
    file = security.pop(PASSWORD_FILE, None)
    if file is not None:  # read for each client that is made, so that a password may be changed
        try:
            security[PASSWORD] = Path(str(file)).read_text(encoding="utf-8").removesuffix("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise Misconfigured(f"{PASSWORD_FILE} can not be read: {said(error)}") from error
    if PASSWORD in security:
        security[PASSWORD] = _Secret(security[PASSWORD])
        for name in LOGGERS:
            logging.getLogger(name).addFilter(_without_passwords)
    return {
        "bootstrap_servers": options.bootstrap.split(","),
        "client_id": options.client_id,
        "reconnect_backoff_max_ms": RECONNECT_BACKOFF_MAX_MS,
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
        "bootstrap_timeout_ms": BOOTSTRAP_TIMEOUT_MS,
        **security,
    }


class _Secret(str):
    """A password that does not show where the client writes its configuration to its log."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'...'"


def _without_passwords(record: logging.LogRecord) -> bool:
    """The client writes requests, SASL's too, to its log at DEBUG; with a password in use it writes none."""
    return record.levelno > logging.DEBUG


def said(error: BaseException) -> str:
    """An error of the client in words, each thing once: Kafka's name of it, and what is known beyond that."""
    name = type(error).__name__
    if isinstance(error, UnicodeDecodeError):
        return f"it is no text in {error.encoding.upper()}"
    if isinstance(error, OSError) and error.strerror is not None:
        return error.strerror if error.filename is None else f"{error.strerror}: {error.filename}"
    text = str(error).removeprefix(f"[Error {getattr(error, 'errno', None)}] ")
    text = text.removeprefix(name).removeprefix(": ")
    if isinstance(error, kafka_errors.KafkaConnectionError):
        name, text = "no connection", _SYSTEM_ERROR.sub(_in_words, text)
    elif isinstance(error, kafka_errors.KafkaTimeoutError):
        return text or "no answer in time"
    elif isinstance(error, (kafka_errors.KafkaConfigurationError, ValueError, TypeError)):
        return text or name
    return f"{name}: {text}" if text else name


def _in_words(found: re.Match[str]) -> str:
    """A number of the operating system's as it says it, instead of what Python wrote."""
    return os.strerror(int(found["of_python"] or found["of_client"]))


class HungUp(Exception):
    """The broker closed the connection instead of answering."""


_REMEDIES: tuple[tuple[type[Exception], str], ...] = (
    (
        kafka_errors.SaslAuthenticationFailedError,
        "see sasl_mechanism, sasl_plain_username and its password in kafka_client",
    ),
    (
        kafka_errors.UnsupportedSaslMechanismError,
        "set sasl_mechanism in kafka_client to one that the broker has enabled",
    ),
    (
        kafka_errors.IllegalSaslStateError,
        "see security_protocol in kafka_client: the listener at that address wants no SASL",
    ),
    (
        kafka_errors.AuthorizationError,
        "the brokers forbid it to this principal: docs/operations.md lists the ACLs that a ledger needs",
    ),
    (
        ssl.SSLCertVerificationError,
        "ssl_cafile in kafka_client must hold the authority that signed the broker's certificate, and the certificate "
        "the host's name",
    ),
    (ssl.SSLError, "see security_protocol, ssl_certfile and ssl_keyfile in kafka_client: is it a TLS listener?"),
    (
        kafka_errors.KafkaProtocolError,
        "see security_protocol in kafka_client: the listener at that address may want SSL or SASL_SSL",
    ),
    (
        HungUp,
        "see security_protocol in kafka_client: the listener at that address may want SSL, SASL_PLAINTEXT or SASL_SSL",
    ),
)


def remedy_of(error: BaseException) -> str | None:
    """What to do about an error that no other try mends; None for one that may pass."""
    return next((remedy for kind, remedy in _REMEDIES if isinstance(error, kind)), None)


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn the client's errors into ours; `what` was being done."""
    try:
        yield
    except (kafka_errors.OffsetOutOfRangeError, kafka_errors.LogTruncationError) as error:
        raise OffsetGone(f"{what}: {error}") from error
    except (kafka_errors.KafkaConfigurationError, ValueError, TypeError) as error:
        raise Misconfigured(f"{what}: {said(error)}; see the ledger's Kafka options") from error
    except kafka_errors.KafkaError as error:
        remedy = remedy_of(error)
        if remedy is not None:
            raise LogRefused(f"{what}: {said(error)}; {remedy}") from error
        raise BrokerAway(f"{what}: {said(error)}") from error


@contextmanager
def connecting(options: ClientOptions, what: str) -> Iterator[None]:
    """`translated`, for what makes first connections: where a bootstrap runs out of time, a refusal is told as one."""
    with translated(what):
        try:
            yield
        except kafka_errors.KafkaTimeoutError:
            assert_let_in(options, what)
            raise


def assert_let_in(options: ClientOptions, what: str) -> None:
    """Knock at the brokers in turn; raise LogRefused or Misconfigured where none opens and one refused.

    The client's own bootstrap tries again until its time is over, whatever the reason, and does not tell it.
    """
    config = common(options)
    refusal: Exception | None = None
    for server in options.bootstrap.split(","):
        host, _, port = server.rpartition(":")
        try:
            _knock_twice(host.strip("[]"), int(port), config)
            return
        except (kafka_errors.KafkaError, ssl.SSLError, HungUp) as error:
            refusal = refusal or error
        except OSError as error:
            if error.filename is not None:  # of a certificate's or key's file
                raise Misconfigured(f"{what}: {error.strerror}: {error.filename!r}; see kafka_client") from error
    if refusal is not None:
        raise LogRefused(f"{what}: {said(refusal)}; {remedy_of(refusal) or 'see kafka_client'}") from refusal


def _knock_twice(host: str, port: int, config: dict[str, Any]) -> None:
    try:
        _knock(host, port, config)
    except (HungUp, ssl.SSLEOFError):
        time.sleep(KNOCK_AGAIN_S)
        _knock(host, port, config)


def _knock(host: str, port: int, config: dict[str, Any]) -> None:
    """One connection, as secured as the options say, and one question. Raises the client's errors, ssl's, HungUp."""
    protocol = config.get("security_protocol", "PLAINTEXT")
    if protocol not in ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"):
        raise Misconfigured(f"security_protocol {protocol!r} is none: use PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL")
    connection = socket.create_connection((host, port), KNOCK_TIMEOUT_S)
    try:
        if protocol.endswith("SSL"):
            given = {name: config.get(name, default) for name, default in KafkaSSLTransport.DEFAULT_CONFIG.items()}
            _assert_files(given)
            context: ssl.SSLContext = KafkaSSLTransport._build_ssl_context(given)
            connection = context.wrap_socket(connection, server_hostname=host)
        caller = _Caller(connection, config["client_id"])
        caller.ask(ApiVersionsRequest(version=0, client_software_name="", client_software_version=""))
        if protocol.startswith("SASL"):
            _authenticate(caller, host, config)
        caller.ask(MetadataRequest(version=5, topics=[], allow_auto_topic_creation=False))
    finally:
        connection.close()


def _assert_files(given: dict[str, Any]) -> None:
    """ssl's own error does not name the file."""
    for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_crlfile"):
        if given[name] is not None:
            with Path(given[name]).open("rb"):
                pass


def _authenticate(caller: _Caller, host: str, config: dict[str, Any]) -> None:
    name = config.get("sasl_mechanism")
    missing = [each for each in ("sasl_mechanism", "sasl_plain_username", PASSWORD) if not config.get(each)]
    if name in (None, "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512") and missing:
        raise Misconfigured(f"{missing} must be set in kafka_client for {config['security_protocol']}")
    answer = caller.ask(SaslHandshakeRequest(version=1, mechanism=name))
    if answer.error_code:
        error = kafka_errors.for_code(answer.error_code)
        raise error(f"{name} is not one of {list(answer.mechanisms)}" if answer.mechanisms else f"{name}")
    mechanism = get_sasl_mechanism(name)(host=host, **config)
    while not mechanism.is_done():
        answer = caller.ask(SaslAuthenticateRequest(version=1, auth_bytes=mechanism.auth_bytes()))
        if answer.error_code:
            raise kafka_errors.SaslAuthenticationFailedError(answer.error_message)
        mechanism.receive(answer.auth_bytes)
    if not mechanism.is_authenticated():
        raise kafka_errors.SaslAuthenticationFailedError(f"{name} did not succeed")


class _Caller:
    """Questions and answers on one connection, one at a time."""

    def __init__(self, connection: socket.socket, client_id: str) -> None:
        self._connection = connection
        self._protocol = KafkaProtocol(client_id=client_id, receive_message_max_bytes=1_000_000)

    def ask(self, request: Any) -> Any:
        self._protocol.send_request(request)
        self._connection.sendall(self._protocol.send_bytes())
        while True:
            try:
                data = self._connection.recv(65536)
            except ConnectionError:
                data = b""
            if not data:
                raise HungUp(f"the broker hung up at a {type(request).__name__}")
            answers = self._protocol.receive_bytes(data)
            if answers:
                return answers[0][1]
