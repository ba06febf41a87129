"""Whether the ledger knows a name that is typed, before something is recorded of it that can not be undone.

Who may only reach the ledger's command socket can not look, and is not refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from session_ledger.domain.errors import InvalidInput, SessionLedgerError

if TYPE_CHECKING:
    from session_ledger.ledger.url import LedgerUrl


def assert_tenant_known(url: str | None, tenant: str) -> None:
    """Raise InvalidInput for a tenant of which nothing is recorded: a mistyped one would be closed for ever."""
    from session_ledger.cli.opening import open_views
    from session_ledger.domain.control import DEFAULTS

    if _place(url) is None:
        return
    with open_views(url) as views:
        known = (
            views.tenant_sessions(tenant, status=None, limit=1).items
            or views.user_quotas(tenant, limit=1, fresh=False).items
            or views.agents(tenant, retired=True, limit=1, fresh=False).items
            or views.authentication_failures(tenant, None, limit=1, fresh=False)
            or views.limits(tenant, fresh=False)[0] != DEFAULTS
        )
    if not known:
        raise InvalidInput("TENANT", f"{tenant[:60]!r}", "must be one that the ledger has recorded something of")


def assert_user_known(url: str | None, tenant: str, user: str) -> None:
    """Raise InvalidInput for a user of whom nothing is recorded, by id or pseudonym, and who has no key.

    An erasure of a mistyped one would be confirmed, and the user who was meant stay. Where it can not be told, nobody
    is kept from erasing: that is said on stderr.
    """
    from session_ledger.cli.erasing_shown import why_not
    from session_ledger.cli.output import warn

    place = _place(url)
    if place is None:
        return
    try:
        known = _user_known(url, place, tenant, user)
    except (SessionLedgerError, OSError) as error:
        warn(f"session-ledger: whether anything is recorded of this user can not be told: {why_not(error)}")
        return
    if not known:
        raise InvalidInput(
            "--user",
            f"a user of whom nothing is recorded in tenant {tenant[:60]!r}",
            "must be one that the ledger has recorded something of (`--tenant` says of which tenant)",
        )


def _user_known(url: str | None, place: LedgerUrl, tenant: str, user: str) -> bool:
    from session_ledger.cli.opening import open_views, recorded_as, url_of
    from session_ledger.ledger.keys import VAULT_FILE, open_vault
    from session_ledger.projections import reading

    assert place.directory is not None
    with open_views(url) as views:
        recorded = recorded_as(url_of(url), views.log, tenant, user)
        with views.store.reading() as db:
            if reading.user_known(db, tenant, recorded):
                return True
    if not (place.directory / VAULT_FILE).exists():
        return False
    vault = open_vault(place.directory, readonly=True)
    try:
        return bool(vault.keys_of(tenant, recorded))
    finally:
        vault.close()


def _place(url: str | None) -> LedgerUrl | None:
    """Where the ledger is, for who may look; None: only its command socket can be reached, or it is in memory."""
    from session_ledger.cli.opening import settings, url_of
    from session_ledger.ledger.open import only_by_socket
    from session_ledger.ledger.url import parse_url

    place = parse_url(url_of(url))
    return None if place.directory is None or only_by_socket(place.directory, settings()) else place
