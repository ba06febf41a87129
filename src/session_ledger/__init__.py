"""session-ledger: every action of an AI-agent session is a fact in an append-only log; everything else a projection."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["Ledger", "Principal", "Settings", "Views", "__version__", "new_access_token"]

if TYPE_CHECKING:
    from session_ledger.consumers.views import Views
    from session_ledger.ledger.ledger import Ledger
    from session_ledger.ledger.settings import Settings
    from session_ledger.security.access import Principal
    from session_ledger.security.tokens import new_access_token


def __getattr__(name: str) -> object:
    """Import a public name when it is first used, so that `import session_ledger` costs nothing."""
    if name == "Ledger":
        from session_ledger.ledger.ledger import Ledger

        return Ledger
    if name == "Principal":
        from session_ledger.security.access import Principal

        return Principal
    if name == "Settings":
        from session_ledger.ledger.settings import Settings

        return Settings
    if name == "Views":
        from session_ledger.consumers.views import Views

        return Views
    if name == "new_access_token":
        from session_ledger.security.tokens import new_access_token

        return new_access_token
    raise AttributeError(f"module 'session_ledger' has no attribute {name!r}")
