"""Pseudonyms for users' ids: the port that the edge and the readers use, and what stands there where no key is.

A ledger has pseudonyms since it was created, or never. Where it has, its log, and whatever is made from that, names a
user by a pseudonym only; a caller may use either.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from session_ledger.domain.errors import KeyUnavailable
from session_ledger.domain.ids import is_pseudonym


class Pseudonyms(ABC):
    """From users' ids to pseudonyms and back. Thread-safe."""

    @abstractmethod
    def in_use(self) -> bool:
        """Whether the ledger has pseudonyms. Raises KeyUnavailable."""

    @abstractmethod
    def recorded_as(self, tenant: str, user: str) -> str:
        """The user as the log names it; what has the form of a pseudonym, and "", stay as they are.

        Makes nothing: of a tenant without a pseudonym key, none of whose users was recorded, the id stays too. Raises
        KeyUnavailable where the key does not open here.
        """

    @abstractmethod
    def user_of(self, tenant: str, recorded: str) -> str:
        """The user's id; what stands in the log where there is no way back, or none that opens here."""


class NoPseudonyms(Pseudonyms):
    """The ledger has none: ids stand in the log as they are."""

    def in_use(self) -> bool:
        return False

    def recorded_as(self, tenant: str, user: str) -> str:
        return user

    def user_of(self, tenant: str, recorded: str) -> str:
        return recorded


class LockedPseudonyms(Pseudonyms):
    """The ledger has them, and who uses this has no keys."""

    def __init__(self, why: str) -> None:
        self._why = why

    def in_use(self) -> bool:
        return True

    def recorded_as(self, tenant: str, user: str) -> str:
        if not user or is_pseudonym(user):
            return user
        raise locked(tenant, self._why)

    def user_of(self, tenant: str, recorded: str) -> str:
        return recorded


def locked(tenant: str, why: object) -> KeyUnavailable:
    """The error of who names a user by an id where the tenant's keys do not open."""
    return KeyUnavailable(
        f"the ledger names users of tenant {tenant!r} by pseudonyms, and this process can not make one ({why}): "
        "name the user by the pseudonym (p-...), or bring vault and keyring"
    )
