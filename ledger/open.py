"""The one place where the write path is wired: URL and settings in, logs, keys, folds, shards and facade out."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from session_ledger.domain.commands import PublishSchema
from session_ledger.domain.errors import (
    Forbidden,
    KeyServiceUnavailable,
    KeyUnavailable,
    LogUnavailable,
    Misconfigured,
    NotOwner,
    Overloaded,
)
from session_ledger.domain.results import Result
from session_ledger.ledger.backend import Backend, Remote, Shards
from session_ledger.ledger.commandsocket import Answering, CommandClient, CommandServer
from session_ledger.ledger.control import ControlFolds
from session_ledger.ledger.folds import PartitionFolds
from session_ledger.ledger.guard import Guarded, Refused
from session_ledger.ledger.keys import open_envelope as open_envelope
from session_ledger.ledger.log.port import Log
from session_ledger.ledger.principals import assert_peers_are_told, own_principal, peer_of, principals_of, system_user
from session_ledger.ledger.pseudonyms import open_edge
from session_ledger.ledger.published import codec_of
from session_ledger.ledger.settings import Settings
from session_ledger.ledger.shard import Shard
from session_ledger.ledger.socketplace import socket_place
from session_ledger.ledger.statefile import StateFile
from session_ledger.ledger.url import LedgerUrl, parse_url
from session_ledger.schemas.codec import Codec
from session_ledger.schemas.library import Library
from session_ledger.schemas.registry import Registry, register
from session_ledger.security.access import Principal
from session_ledger.security.port import Envelope

if TYPE_CHECKING:
    from session_ledger.ledger.ledger import Ledger

LEFT_OF_A_LOG = ("vault.db", "state-*.db", "checkpoints.db", "merkle.db", "erasures.db")
LOOKED_AT_RECORDS = 1000  # the first of a partition: its first session tells
OPEN_S = 3.0  # for an owner that begins, or for the place of one that is gone
REMOTE_DURABILITY = "as the owner's, whose process answers"


def open_settings(settings: Settings | None, options: Mapping[str, object]) -> Settings:
    """The settings (None: of the environment and the file), with `options` on top. Raises Misconfigured."""
    given = {} if settings is None else settings.model_dump()
    try:
        return Settings(**{**given, **options})
    except (ValueError, OSError) as error:  # of pydantic and of TOML; each names the setting, or the file
        raise Misconfigured(f"the settings are not usable: {error}") from error


def open_log(place: LedgerUrl, settings: Settings, *, write: bool, take_over: bool = False) -> Log:
    """Open the log alone, for reading or as its owner."""
    if place.scheme == "kafka":
        from session_ledger.ledger.log.kafka import KafkaLog  # the client is imported only where it is used

        return KafkaLog.open(
            place.bootstrap,
            place.name,
            partitions=place.partitions,
            replication_factor=place.replication_factor,
            write=write,
            take_over=take_over,
            left=() if place.directory is None else left_of_a_log(place.directory),  # looked for before the topics
            **settings.kafka_client,  # type: ignore[arg-type]  # checked by its settings, and by name in there
        )
    if place.directory is None:
        from session_ledger.ledger.log.memory import MemoryLog

        return MemoryLog(settings.name or "memory", write=write)
    from session_ledger.ledger.log.sqlite import LOG_FILE, SQLiteLog

    if write and not (place.directory / LOG_FILE).exists():
        _assert_new(place.directory, LOG_FILE)
    return SQLiteLog.open(place.directory, name=settings.name, write=write, take_over=take_over, create=write)


def left_of_a_log(directory: Path) -> list[Path]:
    """The files in a ledger's directory that only come with a log: where it is not there, they tell that it is lost."""
    return sorted(path for pattern in LEFT_OF_A_LOG for path in directory.glob(pattern))


def _assert_new(directory: Path, log_file: str) -> None:
    """Raise LogUnavailable where there is what only comes with a log: a new one would hide that it is lost."""
    left = [path.name for path in left_of_a_log(directory)]
    if left and not (directory / log_file).exists():  # else another process has just made it
        raise LogUnavailable(
            f"the log {directory / log_file} is gone, and what came with it is there ({', '.join(left)}): mount or "
            "restore it; to begin a new ledger, take another directory"
        )


def open_registry(settings: Settings) -> tuple[Registry | None, Callable[[], None]]:
    """(the schema registry that is configured, what closes it); (None, nothing to do) without one. Asks it nothing.

    Raises Misconfigured.
    """
    if settings.schema_registry is None:
        return None, _nothing
    try:
        from session_ledger.schemas.registry_client import RegistryClient  # likewise
    except ModuleNotFoundError as error:
        raise Misconfigured(
            f"`schema_registry` is set, and the package {error.name} is not there: install session-ledger[registry]"
        ) from error
    client = RegistryClient(settings.schema_registry, **settings.schema_registry_client)  # type: ignore[arg-type]
    return client, client.close


def _nothing() -> None:
    """Nothing is open."""


def open_codec(log: Log, settings: Settings) -> tuple[Codec, Callable[[], None]]:
    """(what decodes the records of that log, in either form, what closes it). Raises Misconfigured."""
    registry, close = open_registry(settings)
    return codec_of(log, registry), close


def open_ledger(
    cls: type[Ledger],
    url: str | None,
    settings: Settings | None,
    take_over: bool,
    clock_us: Callable[[], int],
    options: Mapping[str, object],
    principal: Principal | None = None,
) -> Ledger:
    """Open as the owner; where another process is the owner, as its client."""
    chosen = open_settings(settings, options)
    url = chosen.url if url is None else url
    place = parse_url(url)
    directory = place.directory
    if principal is None and chosen.principals:
        principal = own_principal(chosen)

    def facade(backend: Backend, name: str, durability: str) -> Ledger:
        guarded = backend if principal is None else Guarded(backend, principal)
        return cls(guarded, url, name, durability, chosen.close_timeout_s, clock_us)

    if take_over:
        assert_may_own(directory, chosen)
    if only_by_socket(directory, chosen):
        assert directory is not None
        out_of_reach = NotOwner(f"{directory} is not this user's to enter, and nobody listens at its command socket")
        return facade(Remote(_client(directory, chosen, out_of_reach)), chosen.name or "", REMOTE_DURABILITY)
    if directory is not None:
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Misconfigured(f"the directory {directory} can not be used: {error.strerror}") from error
    registry, close_registry = open_registry(chosen)
    try:
        ids = None
        if registry is not None and take_over:  # first: nobody is put out for a process that can not serve
            ids = register(Library(), registry)
        if take_over:
            _assert_serves(place, chosen, registry, clock_us)
        opened = _log_or_client(place, chosen, take_over)
        if isinstance(opened, CommandClient):
            close_registry()
            return facade(Remote(opened), chosen.name or "", REMOTE_DURABILITY)
        log = opened
        try:
            if registry is not None and ids is None:
                ids = register(Library(), registry)
            backend = _own(log, codec_of(log, registry, ids), directory, chosen, clock_us, [close_registry])
        except BaseException:
            log.close()
            raise
    except BaseException:
        close_registry()
        raise
    return facade(backend, log.name, log.durability)


def _assert_serves(
    place: LedgerUrl, settings: Settings, registry: Registry | None, clock_us: Callable[[], int]
) -> None:
    """Raise where keys or settings do not serve the ledger, before its owner is put out: Misconfigured, KeyUnavailable.

    It costs a look at the control log. Where there is no ledger, or none that can be reached, opening it tells that.
    """
    try:
        log = open_log(place, settings, write=False)
    except LogUnavailable:
        return
    try:
        if not log.control.read(0, 1):
            return
        if settings.encryption == "none":
            _assert_unsealed(log, codec_of(log, registry))
        envelope, close = open_envelope(place.directory, log.name, settings, readonly=True)
        try:
            _assert_opens(envelope, must_exist=True)
            asks = settings.pseudonyms and not envelope.pseudonyms.in_use()
            recorded = asks and any(partition.end() for partition in log.partitions)
            if recorded or not asks:  # else an owner may turn them on
                open_edge(envelope, settings, log.name, clock_us, recorded=recorded)
        finally:
            close()
    finally:
        log.close()


def only_by_socket(directory: Path | None, settings: Settings) -> bool:
    """Whether this process can not use the ledger's directory, and the owner's socket is set to stand elsewhere."""
    if directory is None or settings.command_socket is None:
        return False
    try:
        directory.lstat()
    except FileNotFoundError:
        return False  # this process may be the one that makes it
    except OSError:
        return True
    return not os.access(directory, os.R_OK | os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def _assert_opens(envelope: Envelope, *, must_exist: bool = False) -> None:
    """Raise KeyUnavailable where keyring or key service are another ledger's: by a key that each ledger has.

    `must_exist`: also where the vault has not that key.
    """
    with suppress(KeyServiceUnavailable):  # it may come back
        if envelope.account_key("", "") is None and must_exist:
            raise KeyUnavailable(
                "the vault holds no key of the ledger itself, which each has from its first record: it is another "
                "ledger's, or was lost and made anew; restore it"
            )


def owners_positions(place: LedgerUrl, settings: Settings) -> list[int] | None:
    """`Ledger.positions` of the owner, asked through its command socket; None where nobody listens.

    Never makes this process the owner. Raises what the owner answers, OutcomeUnknown where it ends meanwhile.
    """
    if place.directory is None or not socket_place(place.directory, settings.command_socket).path.exists():
        return None
    try:
        client = _client(place.directory, settings, NotOwner(f"nobody serves {place.directory}"))
    except NotOwner:
        return None
    try:
        return client.positions()
    finally:
        client.close()


def assert_may_own(directory: Path | None, settings: Settings) -> None:
    """Raise Forbidden for a user whom only the owner's command socket serves: the files are not theirs to use."""
    if only_by_socket(directory, settings):
        raise Forbidden(
            f"{system_user()} may not enter the ledger's directory {directory}, and so can not own the ledger: own "
            "it, or take it over, as the user whose directory it is. Other commands go to the owner's socket"
        )


def _client(directory: Path, settings: Settings, not_owner: NotOwner) -> CommandClient:
    return CommandClient(socket_place(directory, settings.command_socket), not_owner)


def _log_or_client(place: LedgerUrl, settings: Settings, take_over: bool) -> Log | CommandClient:
    """The log as its owner, or a connection to the owner; whichever is to be had first, for OPEN_S.

    An owner that has just begun listens when its states are folded; one that was killed keeps its place for a while.
    """
    deadline_s = time.monotonic() + OPEN_S
    while True:
        try:
            return open_log(place, settings, write=True, take_over=take_over)
        except NotOwner as not_owner:
            if place.directory is None:
                raise
            try:
                return _client(place.directory, settings, not_owner)
            except NotOwner:
                if time.monotonic() > deadline_s:
                    raise


def _own(
    log: Log,
    codec: Codec,
    directory: Path | None,
    settings: Settings,
    clock_us: Callable[[], int],
    closing: list[Callable[[], None]],
) -> Shards:
    """The shards, started; `closing`: what the backend closes beside what is opened here."""
    recorded = any(partition.end() for partition in log.partitions)
    if settings.encryption == "none":
        _assert_unsealed(log, codec)
    envelope, close_envelope = open_envelope(directory, log.name, settings, recorded=recorded, clock_us=clock_us)
    closing.insert(0, close_envelope)
    started: list[Shard] = []
    try:
        if recorded:
            _assert_opens(envelope)
        edge = open_edge(envelope, settings, log.name, clock_us, recorded=recorded)
        control_folds = ControlFolds(log.control, codec)
        control = Shard(log.control, control_folds, codec, envelope, settings, clock_us)
        started.append(control)
        control.start()
        for partition in log.partitions:
            path = None if directory is None else directory / f"state-{partition.partition}.db"
            folds = PartitionFolds(
                partition,
                codec,
                StateFile(path),
                log.log_id,
                control_folds.settings_of,
                settings.accounts_in_memory,
                settings.checkpoint_events,
            )
            shard = Shard(partition, folds, codec, envelope, settings, clock_us)
            started.append(shard)
            shard.start()
        backend = Shards(log, envelope, edge, started[1:], control, clock_us, closing)
        _publish_schemas(backend, codec.library, control_folds)
        if directory is not None:
            server = _listening(backend, directory, settings)
            closing.insert(0, server.close)
    except BaseException:
        for shard in started:
            shard.close(time.monotonic() + settings.close_timeout_s)
        for close in closing:
            close()
        raise
    return backend


def _listening(backend: Shards, directory: Path, settings: Settings) -> CommandServer:
    """The command socket; where there are principals, each connection is answered as its peer may ask."""
    known = principals_of(settings)
    place = socket_place(directory, settings.command_socket, shared=bool(known.by_user))
    if not known.by_user:
        return CommandServer(place, lambda connection: backend)
    assert_peers_are_told()

    def answering(connection: socket.socket) -> Answering:
        try:
            return Guarded(backend, known.of(peer_of(connection)))
        except Forbidden as error:
            return Refused(str(error))
        except OSError as error:  # it has gone already, or the system does not tell
            return Refused(f"who connects can not be told: {error}")

    return CommandServer(place, answering)


def _assert_unsealed(log: Log, codec: Codec) -> None:
    """Raise Misconfigured for a ledger that seals: plaintext in its log could not be erased, nor told from the rest."""
    for partition in log.partitions:
        for record in partition.read(0, LOOKED_AT_RECORDS):
            event = codec.decode(record.value, record.topic, partition=partition.partition, position=record.position)
            if getattr(event, "key_id", None) is not None:
                raise Misconfigured(
                    f'the ledger {log.name} seals what people say, and encryption = "none" would write it beside that '
                    "as plaintext, which no erasure reaches: take that setting away"
                )


def _publish_schemas(backend: Shards, library: Library, control: ControlFolds) -> None:
    """Make the text of every schema that this version writes a fact, once, so that any reader can resolve it."""
    under_way: list[Future[Result]] = []
    for schema in library:
        if control.knows_schema(schema.fingerprint):
            continue
        text = schema.text
        command = PublishSchema(tenant="", name=schema.topic, fingerprint=schema.fingerprint, schema_json=text)
        try:
            under_way.append(backend.submit(command))
        except Overloaded:  # a short queue: what is in it first
            _await(under_way)
            under_way = [backend.submit(command)]
    _await(under_way)


def _await(under_way: Sequence[Future[Result]]) -> None:
    for future in under_way:
        future.result()
