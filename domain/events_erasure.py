"""Facts about erasure and legal holds; see `events` for the shapes. Their texts are in the clear."""

from __future__ import annotations

from dataclasses import dataclass

from session_ledger.domain.frozen import quick
from session_ledger.domain.streams import AccountEvent, TenantEvent


@quick
@dataclass(frozen=True, slots=True)
class ContentErased(AccountEvent):
    """What was sealed is erased: from here on nothing of it is sealed or opened, and its data keys are destroyed.

    A session that lived was ended just before. Structure and counts stay.
    """

    session_id: bytes | None
    """The session; None: every session of the user that was created before this, and the account."""
    requested_by: str
    reason: str
    key_id: bytes | None
    """Of a user: the account's data key from here on; those before it are destroyed."""
    key_commitment: bytes | None


@quick
@dataclass(frozen=True, slots=True)
class ErasureRefused(AccountEvent):
    """An erasure was asked for and refused, because a legal hold keeps the content."""

    session_id: bytes | None
    """None: the user's."""
    requested_by: str
    reason: str
    matter: str
    """Of the hold; of several the first by name."""


@quick
@dataclass(frozen=True, slots=True)
class LegalHoldSet(AccountEvent):
    """Content of the user may not be erased until this is lifted."""

    matter: str
    session_id: bytes | None
    """None: all of the user."""
    requested_by: str
    reason: str


@quick
@dataclass(frozen=True, slots=True)
class LegalHoldLifted(AccountEvent):
    """A hold of the user is lifted; others may go on."""

    matter: str
    session_id: bytes | None
    requested_by: str
    reason: str


@quick
@dataclass(frozen=True, slots=True)
class TenantErased(TenantEvent):
    """The tenant takes no command any more; a ContentErased of each of its users follows in the partitions."""

    requested_by: str
    reason: str


@quick
@dataclass(frozen=True, slots=True)
class TenantHoldSet(TenantEvent):
    """No content of the tenant may be erased until this is lifted."""

    matter: str
    requested_by: str
    reason: str


@quick
@dataclass(frozen=True, slots=True)
class TenantHoldLifted(TenantEvent):
    """A hold of the tenant is lifted; others may go on."""

    matter: str
    requested_by: str
    reason: str


@quick
@dataclass(frozen=True, slots=True)
class RetentionSet(TenantEvent):
    """How long the content of the tenant's sessions is kept after their end, from now on; None: the built-in time."""

    retention_ms: int | None
    sensitive_retention_ms: int | None
    requested_by: str
    reason: str
