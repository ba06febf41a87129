"""`session-ledger audit reveal`: what was said in a session, for who may see it only with a reason."""

from __future__ import annotations

from typing import Annotated

import typer

from session_ledger.cli.analytics import By
from session_ledger.cli.options import DEFAULT_TENANT, AsJson, Tenant, Url, User


def reveal(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="The session's id.")],
    user: User,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why content is revealed; it is recorded, and readable.")
    ],
    by: By = None,
    tenant: Tenant = DEFAULT_TENANT,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Show what was said in a session. Who, why and how much is recorded before anything is opened."""
    from contextlib import ExitStack

    from session_ledger.cli.opening import open_ledger, open_views, recorded_as, settings, url_of
    from session_ledger.cli.output import write_json
    from session_ledger.cli.showing import show_history, show_session
    from session_ledger.cli.who import who
    from session_ledger.consumers.revealing import reveal_session
    from session_ledger.ledger.open import open_envelope
    from session_ledger.ledger.url import parse_url
    from session_ledger.security.port import Envelope

    directory = parse_url(url_of(url)).directory
    with ExitStack() as closing:
        views = closing.enter_context(open_views(url))

        def opened() -> Envelope:
            envelope, close = open_envelope(directory, views.log.name, settings(), readonly=True)
            closing.callback(close)
            return envelope

        user = recorded_as(url_of(url), views.log, tenant, user)
        ledger = closing.enter_context(open_ledger(url))
        found = reveal_session(views, ledger, opened, tenant, user, session, revealed_by=who(by), reason=reason)
    if as_json:
        write_json({"session": found.session, "messages": found.messages, "errors": found.errors,
                    "revealed_fields": found.fields})  # fmt: skip
        return
    show_session(found.session, list(found.errors), as_json)
    show_history(found.messages, len(found.messages), as_json)
