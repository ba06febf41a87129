"""Pseudonyms at the edge of the owner: whatever a caller says of a user is about the user's pseudonym from here on.

So nothing behind the edge, and nothing that is recorded, knows a user's id. A caller may give either; what has the
form of a pseudonym passes as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from session_ledger.domain import commands as c
from session_ledger.domain.errors import InvalidInput, Misconfigured
from session_ledger.domain.ids import is_pseudonym, rederived_session_id, slot_of_user
from session_ledger.domain.validate import Rules, validate
from session_ledger.ledger.edge import Edge
from session_ledger.ledger.pending import Answer, Pending
from session_ledger.ledger.settings import Settings
from session_ledger.security.envelope import VaultEnvelope
from session_ledger.security.port import Envelope
from session_ledger.security.pseudonym_keys import VaultPseudonyms

BY_THE_USER = frozenset(
    (
        *(c.CreateSession, c.ImportSession, c.UpdateSession, c.AddMessage, c.EndSession, c.ReportError),
        *(c.SetQuota, c.ConsumeQuota, c.ReleaseQuota, c.SetUserLimits, c.ReportAuthenticationSuccess),
        *(c.AcquireAgent, c.ReleaseAgent, c.IssueAccessToken, c.RotateAccessToken),
    )
)
"""What a user does, or what is done to serve one: recording it makes the way back. What is recorded about a user (an
erasure, a hold, the reading of an audit, an attempt to be that user which failed) does not: it would bring back the way
that an erasure destroyed."""
AUDITS = frozenset((c.RevealContent, c.RecordAuditRead, c.ReportLeak, c.AcknowledgeLeak))
"""About a user who is recorded: no key is made for it, so that none comes back of a tenant that was erased."""


class PseudonymEdge(Edge):
    """The edge of a ledger that has pseudonyms. The way back is stored with the keys, so only for what is recorded."""

    def __init__(
        self,
        pseudonyms: VaultPseudonyms,
        envelope: Envelope,
        rules: Rules,
        metadata_allow: tuple[str, ...],
        clock: Callable[[], int],
        bytes_max: int,
        topics: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """As `Edge`, with what makes pseudonyms."""
        super().__init__(envelope, rules, metadata_allow, clock, bytes_max, topics)
        self._pseudonyms = pseudonyms

    def prepare(self, command: c.Command, answer: Answer) -> Pending:
        """As `Edge.prepare`, of the same command about the user's pseudonym."""
        validate(command, self._rules)  # as it was given; what is made of it is looked at again
        if isinstance(command, c.ReportLeak):
            command = self._of_source(command)
        if not isinstance(command, c.UserCommand) or not command.user or is_pseudonym(command.user):
            return super().prepare(command, answer)
        user = command.user
        if type(command) in AUDITS:
            return super().prepare(replace(command, user=self._recorded("user", command.tenant, user)), answer)
        pseudonym = self._pseudonyms.made(command.tenant, user)
        if isinstance(command, c.ImportSession):
            digest = self._pseudonyms.imported(command.tenant, command.session_id)
            slot = slot_of_user(command.tenant, pseudonym)
            command = replace(command, session_id=rederived_session_id(command.session_id, slot, digest))
        command = replace(command, user=pseudonym)
        pending = super().prepare(command, answer)
        if type(command) in BY_THE_USER:
            pending.keys += (self._pseudonyms.way_back(command.tenant, pseudonym, user),)
        return pending

    def _of_source(self, command: c.ReportLeak) -> c.ReportLeak:
        """A finding names a second user, maybe of another tenant: no key is made for it. Raises InvalidInput."""
        source = command.source_user
        if not source or is_pseudonym(source):
            return command
        return replace(command, source_user=self._recorded("source_user", command.source_tenant, source))

    def _recorded(self, field: str, tenant: str, user: str) -> str:
        recorded = self._pseudonyms.recorded_as(tenant, user)
        if recorded == user:
            raise InvalidInput(field, "an id of a tenant that has recorded no user", "must be as it is recorded")
        return recorded


def open_edge(envelope: Envelope, settings: Settings, name: str, clock: Callable[[], int], *, recorded: bool) -> Edge:
    """The edge of the ledger of that name. `recorded`: its log holds facts about users.

    Raises Misconfigured where the setting is another than it was when the ledger was created, or nothing is sealed.
    """
    options = (settings.rules, settings.metadata_allow, clock, settings.batch_bytes_max, settings.topics)
    in_use = envelope.pseudonyms.in_use()
    if not settings.pseudonyms:
        if in_use:
            raise Misconfigured(
                f"the ledger {name} names users by pseudonyms since it was created: set pseudonyms = true, for their "
                "ids would stand in its log otherwise"
            )
        return Edge(envelope, *options)
    if not isinstance(envelope, VaultEnvelope):
        raise Misconfigured(
            'pseudonyms = true needs a vault, which keeps their keys, and encryption = "none" has none: take away one'
        )
    if not in_use:
        if recorded:
            raise Misconfigured(
                f"the ledger {name} was created without pseudonyms, and ids of users stand in its log, which nothing "
                "takes out: set pseudonyms = false, or begin a new ledger"
            )
        envelope.vault_pseudonyms.begin()
    return PseudonymEdge(envelope.vault_pseudonyms, envelope, *options)
