"""The edge: a caller's command is validated, given an id, digested and sealed before it is queued.

The events are made from what was sealed here, never from the command's texts; so it can be decided again, after an
append that failed, with the same ciphertext.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import msgspec

from session_ledger.domain import commands as c
from session_ledger.domain.errors import InvalidInput, NotErasable
from session_ledger.domain.events import (
    TOPIC_BY_EVENT,
    AuthenticationFailed,
    ErrorReported,
    Event,
    MessageAdded,
    SessionCreated,
    SessionEnded,
    SessionUpdated,
)
from session_ledger.domain.ids import new_id, new_slotted_id, slot_of_user
from session_ledger.domain.validate import Rules, validate
from session_ledger.ledger.pending import Answer, Pending
from session_ledger.ledger.topics import TOPIC, Taxonomy
from session_ledger.schemas.library import parse
from session_ledger.security.port import DataKey, Envelope
from session_ledger.security.sealing import plain_digest

EVENT_OVERHEAD_BYTES = 2048  # an event without its texts, with ids of 256 bytes in key, value and headers, from above
_body = msgspec.msgpack.Encoder(order="deterministic").encode
_IN_THE_CLEAR = (
    *(c.SetLegalHold, c.LiftLegalHold, c.SetTenantHold, c.LiftTenantHold, c.SetRetention),
    *(c.RevealContent, c.RecordAuditRead, c.ReportLeak, c.AcknowledgeLeak),
)
"""Commands whose events say all of them: they need no key, and make none of a user or a tenant that was erased."""
_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False).encode
_NO_METADATA: Mapping[str, str] = {}

M = TypeVar("M", c.AddMessage, c.ImportedMessage)
Made = tuple[c.Prepared, tuple[DataKey, ...], int]
"""A prepared command, the data keys it needs in the vault, and the bytes that its events may take, from above."""


class Edge:
    """Prepares commands. Thread-safe; runs in the caller's thread."""

    def __init__(
        self,
        envelope: Envelope,
        rules: Rules,
        metadata_allow: tuple[str, ...],
        clock: Callable[[], int],
        bytes_max: int,
        topics: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """`clock` gives microseconds since the epoch, UTC: it only dates ids. `bytes_max`: of one append.

        `topics`: the taxonomy, topic to words.
        """
        self._taxonomy = Taxonomy(topics or {}, from_metadata=TOPIC in metadata_allow)
        self._envelope = envelope
        self._rules = rules
        self._allow = frozenset(metadata_allow)
        self._clock = clock
        self._bytes_max = bytes_max
        self._makers: dict[type[c.Command], Callable[..., Made]] = {
            c.CreateSession: self._create_session,
            c.ImportSession: self._import_session,
            c.ReportAuthenticationFailure: self._authentication_failure,
            c.Authenticate: self._authenticate,
            c.EraseSession: self._erasure,
            c.EraseUser: self._erase_user,
            c.EraseTenant: self._erasure,
            **dict.fromkeys(_IN_THE_CLEAR, self._in_the_clear),
            c.RotateSessionKey: self._rotate_key,
        }
        self._sealers: dict[type[c.Command], Callable[..., tuple[c.Sealed, int]]] = {
            c.AddMessage: self._message,
            c.UpdateSession: lambda key, command: self._sealed(key, SessionUpdated, command),
            c.EndSession: lambda key, command: self._texts(key, SessionEnded, note=command.note),
            c.ReportError: lambda key, command: self._texts(key, ErrorReported, message=command.message),
        }

    def prepare(self, command: c.Command, answer: Answer) -> Pending:
        """Validate, identify, digest and seal. Raises InvalidInput, KeyUnavailable."""
        validate(command, self._rules)
        command_id = command.command_id
        if command_id is None:
            command_id = new_id(self._clock())
            body = _body(command)
        else:
            body = _body(replace(command, command_id=None))
        if self._taxonomy.active and isinstance(command, c.AddMessage | c.ImportSession):
            command = self._with_topics(command)
        maker = self._makers.get(type(command))
        if maker is not None:
            prepared, keys, size = maker(command, command_id, body)
        elif isinstance(command, c.SessionCommand):
            prepared, keys, size = self._of_session(command, command_id, body)
        else:
            prepared, keys, size = self._of_account(command, command_id, body)
        if size > self._bytes_max:
            rule = f"must fit into one append of {self._bytes_max} bytes: split it"
            raise InvalidInput(type(command).__name__, f"a command of about {size} bytes", rule)
        return Pending(prepared, keys, size, size + len(body), answer)

    def _with_topics(self, command: c.AddMessage | c.ImportSession) -> c.Command:
        if isinstance(command, c.AddMessage):
            return self._with_topic(command)
        return replace(command, messages=tuple(map(self._with_topic, command.messages)))

    def _with_topic(self, message: M) -> M:
        if message.topic is not None:
            return message
        topic = self._taxonomy.topic_of(message.content, message.metadata)
        return message if topic is None else replace(message, topic=topic)

    def _account_key(self, command: c.Command) -> DataKey:
        """The user's key; for agents and tenants, who are no person, the tenant's own (user "")."""
        user = command.user if isinstance(command, c.UserCommand) else ""
        key = self._envelope.account_key(command.tenant, user, create=True)
        assert key is not None
        return key

    # --- what the kinds of commands need ------------------------------------------------------------------------------

    def _of_session(self, command: c.SessionCommand, command_id: bytes, body: bytes) -> Made:
        """Digested, and sealed where it carries texts, by its session's key; the decision says if there is none."""
        key = self._envelope.session_key(command.tenant, command.user, command.session_id)
        if key is None:
            return c.Prepared(command, command_id, b""), (), EVENT_OVERHEAD_BYTES
        sealer = self._sealers.get(type(command))
        if sealer is None:
            return c.Prepared(command, command_id, key.digest(body)), (), EVENT_OVERHEAD_BYTES
        sealed, size = sealer(key, command)
        if key.generation == 1:  # the log knows it since the session began
            return c.Prepared(command, command_id, key.digest(body), (sealed,)), (key,), size
        return _of_later_key(command, command_id, body, key, (sealed,)), (key,), size + EVENT_OVERHEAD_BYTES

    def _of_account(self, command: c.Command, command_id: bytes, body: bytes) -> Made:
        if isinstance(command, c.PublishSchema):
            check_published(command)
        key = self._account_key(command)
        return c.Prepared(command, command_id, key.digest(body)), (key,), EVENT_OVERHEAD_BYTES + len(body)

    def _in_the_clear(self, command: c.Command, command_id: bytes, body: bytes) -> Made:
        """Everything in it stands in its event as it is, so a digest without a key tells nothing more."""
        return c.Prepared(command, command_id, plain_digest(body)), (), EVENT_OVERHEAD_BYTES + len(body)

    def _erasure(self, command: c.Command, command_id: bytes, body: bytes) -> Made:
        user = command.user if isinstance(command, c.UserCommand) else ""
        key = self._envelope.account_key(command.tenant, user)
        if key is not None and key.key_id is None:
            raise NotErasable(
                "this ledger was opened with sealing off: what it records stands in the log as it is, and nothing can "
                "be erased from a log"
            )
        return self._in_the_clear(command, command_id, body)

    def _erase_user(self, command: c.EraseUser, command_id: bytes, body: bytes) -> Made:
        """With the account's next key: whatever is sealed from here on is sealed by that."""
        prepared, _, size = self._erasure(command, command_id, body)
        key = self._envelope.renewed_account_key(command.tenant, command.user)
        sealed = c.Sealed(new_id(self._clock()), key.key_id, _NO_METADATA, {})
        return replace(prepared, sealed=(sealed,), key_commitment=key.commitment), (key,), size

    def _message(self, key: DataKey, message: c.AddMessage | c.ImportedMessage) -> tuple[c.Sealed, int]:
        event_id = new_id(self._clock())
        seal = key.seal
        content = seal(event_id, _MESSAGE, "sealed_content", message.content.encode())
        fields = {"sealed_content": content}
        size = EVENT_OVERHEAD_BYTES + len(content)
        clear = _NO_METADATA
        if message.metadata:
            clear, hidden = self._split(message.metadata)
            size += len(hidden or "") * 4 + len(message.metadata) * 16
            if hidden is not None:
                fields["sealed_metadata"] = seal(event_id, _MESSAGE, "sealed_metadata", hidden.encode())
        if message.parts is not None:
            parts = seal(event_id, _MESSAGE, "sealed_parts", _json(message.parts).encode())
            fields["sealed_parts"] = parts
            size += len(parts)
        if message.audio_url is not None:
            url = seal(event_id, _MESSAGE, "sealed_audio_url", message.audio_url.encode())
            fields["sealed_audio_url"] = url
            size += len(url)
        return c.Sealed(event_id, key.key_id, clear, fields), size

    def _create_session(self, command: c.CreateSession, command_id: bytes, body: bytes) -> Made:
        account = self._account_key(command)
        session_id = new_slotted_id(self._clock(), slot_of_user(command.tenant, command.user))
        key = self._envelope.session_key(command.tenant, command.user, session_id, create=True, fresh=True)
        assert key is not None
        sealed, size = self._sealed(key, SessionCreated, command, ip_address=command.ip_address)
        prepared = c.Prepared(command, command_id, account.digest(body), (sealed,), session_id, key.commitment)
        return prepared, (account, key), size

    def _rotate_key(self, command: c.RotateSessionKey, command_id: bytes, body: bytes) -> Made:
        key = self._envelope.next_key(command.tenant, command.user, command.session_id)
        if key is None:
            return c.Prepared(command, command_id, b""), (), EVENT_OVERHEAD_BYTES
        sealed = (c.Sealed(new_id(self._clock()), key.key_id, _NO_METADATA, {}),)
        return _of_later_key(command, command_id, body, key, sealed), (key,), EVENT_OVERHEAD_BYTES

    def _authentication_failure(self, command: c.ReportAuthenticationFailure, command_id: bytes, body: bytes) -> Made:
        account = self._account_key(command)
        sealed, size = self._texts(account, AuthenticationFailed, ip_address=command.ip_address)
        return c.Prepared(command, command_id, account.digest(body), (sealed,)), (account,), size

    def _authenticate(self, command: c.Authenticate, command_id: bytes, body: bytes) -> Made:
        """Makes no key: whoever asks may have guessed the user."""
        account = None
        if command.ip_address is not None:
            account = self._envelope.account_key(command.tenant, command.user)
        if account is None:
            return c.Prepared(command, command_id, b""), (), EVENT_OVERHEAD_BYTES
        sealed, size = self._texts(account, AuthenticationFailed, ip_address=command.ip_address)
        return c.Prepared(command, command_id, b"", (sealed,)), (account,), size

    def _import_session(self, command: c.ImportSession, command_id: bytes, body: bytes) -> Made:
        key = self._envelope.session_key(command.tenant, command.user, command.session_id, create=True)
        assert key is not None
        created, total = self._sealed(key, SessionCreated, command)
        sealed = [created]
        for message in command.messages:
            one, size = self._message(key, message)
            sealed.append(one)
            total += size
        if command.final:
            ended, size = self._texts(key, SessionEnded)
            sealed.append(ended)
            total += size
        new = not key.durable and key.generation == 1
        prepared = _of_later_key(command, command_id, body, key, tuple(sealed))
        return replace(prepared, key_is_new=new), (key,), total + EVENT_OVERHEAD_BYTES

    # --- pieces -----------------------------------------------------------------------------------------------------

    def _sealed(
        self,
        key: DataKey,
        event_type: type[Event],
        command: c.CreateSession | c.UpdateSession | c.ImportSession,
        ip_address: str | None = None,
    ) -> tuple[c.Sealed, int]:
        """Title, context and metadata of a session."""
        clear, hidden = self._split(command.metadata or _NO_METADATA)
        if command.metadata is not None and isinstance(command, c.UpdateSession):
            hidden = hidden or "{}"  # metadata replaces the whole: what was sealed before is gone
        context = None if command.context is None else _json(command.context)
        sealed, size = self._texts(
            key, event_type, title=command.title, context=context, metadata=hidden, ip_address=ip_address
        )
        return replace(sealed, metadata=clear), size + sum(len(k) + len(v) for k, v in clear.items()) * 4

    def _texts(self, key: DataKey, event_type: type[Event], **texts: str | None) -> tuple[c.Sealed, int]:
        event_id = new_id(self._clock())
        topic = TOPIC_BY_EVENT[event_type]
        fields = {
            (field := f"sealed_{name}"): key.seal(event_id, topic, field, text.encode())
            for name, text in texts.items()
            if text is not None
        }
        size = EVENT_OVERHEAD_BYTES + sum(map(len, fields.values()))
        return c.Sealed(event_id, key.key_id, _NO_METADATA, fields), size

    def _split(self, metadata: Mapping[str, str]) -> tuple[Mapping[str, str], str | None]:
        """(what stays readable, JSON of what is sealed or None)."""
        hidden = {name: value for name, value in metadata.items() if name not in self._allow}
        clear = {name: value for name, value in metadata.items() if name in self._allow}
        return clear, _json(hidden) if hidden else None


def _of_later_key(
    command: c.SessionCommand, command_id: bytes, body: bytes, key: DataKey, sealed: tuple[c.Sealed, ...]
) -> c.Prepared:
    """With what the log is told of the key, where it does not know it yet."""
    told = (command.session_id, key.commitment, key.generation, key.made_because)
    return c.Prepared(command, command_id, key.digest(body), sealed, *told)


def check_published(command: c.PublishSchema) -> None:
    """Raise InvalidInput unless the text is a schema of that name and fingerprint: readers will resolve by it."""
    schema = parse(command.schema_json)
    if (schema.topic, schema.fingerprint) != (command.name, command.fingerprint):
        seen = f"the text of {schema.topic} with fingerprint {schema.fingerprint.hex()}"
        raise InvalidInput("schema_json", seen, f"must be that of {command.name} with {command.fingerprint.hex()}")


_MESSAGE = TOPIC_BY_EVENT[MessageAdded]
