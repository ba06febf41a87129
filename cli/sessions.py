"""`session-ledger sessions`: one command for each thing that can be done with a session, and for looking at them."""

from __future__ import annotations

from typing import Annotated

import typer

from session_ledger.cli.options import (
    DEFAULT_TENANT,
    After,
    AnyUser,
    AsJson,
    CommandId,
    Limit,
    Metadata,
    OccurredAt,
    TakeOver,
    Tenant,
    Url,
    User,
)

app = typer.Typer(no_args_is_help=True, help="Create, message, list, show, change and end sessions.")

SessionId = Annotated[str, typer.Argument(metavar="SESSION", help="The session's id.")]
Title = Annotated[str | None, typer.Option(metavar="TEXT", show_default=False, help="For people.")]
Context = Annotated[
    str | None, typer.Option(metavar="JSON", show_default=False, help="What the session begins from, any JSON.")
]


@app.command()
def create(
    user: User,
    tenant: Tenant = DEFAULT_TENANT,
    title: Title = None,
    context: Context = None,
    metadata: Metadata = None,
    kind: Annotated[str, typer.Option(metavar="KIND", help="standard, website or sensitive.")] = "standard",
    channel: Annotated[str, typer.Option(metavar="NAME", help="text, voice, phone or api.")] = "text",
    domain: Annotated[str | None, typer.Option(metavar="NAME", show_default=False, help="The website's.")] = None,
    ip_address: Annotated[
        str | None, typer.Option(metavar="ADDRESS", show_default=False, help="The client's; sealed.")
    ] = None,
    idle_timeout: Annotated[
        str | None, typer.Option(metavar="TIME", show_default=False, help="Such as 30m. Default: the tenant's.")
    ] = None,
    ttl: Annotated[
        str | None,
        typer.Option(metavar="TIME", show_default=False, help="The longest it may live. Default: the tenant's."),
    ] = None,
    reuse: Annotated[
        bool, typer.Option("--reuse", help="Answer with the user's live session, if there is one.")
    ] = False,
    occurred_at: OccurredAt = None,
    command_id: CommandId = None,
    url: Url = None,
    take_over: TakeOver = False,
    as_json: AsJson = False,
) -> None:
    """Begin a session. At the user's limit the least recently active one is evicted, or this one refused."""
    from session_ledger.cli.answering import answer
    from session_ledger.cli.opening import open_ledger
    from session_ledger.cli.values import json_of, metadata_of, seconds_of, time_of

    with open_ledger(url, take_over, create=True) as ledger:
        result = ledger.create_session(
            tenant,
            user,
            title=title,
            context=json_of(context, "--context"),
            metadata=metadata_of(metadata),
            kind=kind,
            channel=channel,
            domain=domain,
            ip_address=ip_address,
            idle_timeout_s=seconds_of(idle_timeout, "--idle-timeout"),
            ttl_s=seconds_of(ttl, "--ttl"),
            reuse=reuse,
            occurred_at=time_of(occurred_at),
            command_id=command_id,
        )
    sentence = f"session {result.session_id} {'created' if result.created else 'was live already'}"
    if result.evicted:
        sentence += f", in place of {', '.join(result.evicted)}"
    answer(result, sentence, as_json)


@app.command()
def message(
    session: SessionId,
    content: Annotated[str, typer.Argument(metavar="TEXT", help="What was said; - reads it from standard input.")],
    user: User,
    tenant: Tenant = DEFAULT_TENANT,
    role: Annotated[str, typer.Option(metavar="ROLE", help="user, assistant, system, tool, developer, ...")] = "user",
    parts: Annotated[
        str | None, typer.Option(metavar="JSON", show_default=False, help="A list: tool calls and other parts.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", show_default=False, help="The model that said it.")
    ] = None,
    tokens_in: Annotated[
        int | None, typer.Option(metavar="N", show_default=False, help="Tokens that the model read.")
    ] = None,
    tokens_out: Annotated[
        int | None, typer.Option(metavar="N", show_default=False, help="Tokens that the model wrote.")
    ] = None,
    latency_ms: Annotated[
        int | None, typer.Option(metavar="MS", show_default=False, help="How long the answer took.")
    ] = None,
    audio_url: Annotated[
        str | None, typer.Option(metavar="URL", show_default=False, help="Where the recording lies; sealed.")
    ] = None,
    audio_duration_ms: Annotated[
        int | None, typer.Option(metavar="MS", show_default=False, help="How long it is.")
    ] = None,
    metadata: Metadata = None,
    occurred_at: OccurredAt = None,
    command_id: CommandId = None,
    url: Url = None,
    take_over: TakeOver = False,
    as_json: AsJson = False,
) -> None:
    """Add a message to a live session."""
    from session_ledger.cli.answering import answer
    from session_ledger.cli.opening import open_ledger
    from session_ledger.cli.values import json_of, metadata_of, text_or_stdin, time_of

    said = text_or_stdin(content)
    with open_ledger(url, take_over) as ledger:
        result = ledger.add_message(
            tenant,
            user,
            session,
            role=role,
            content=said,
            parts=json_of(parts, "--parts"),
            model=model,
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            latency_ms=latency_ms,
            audio_url=audio_url,
            audio_duration_ms=audio_duration_ms,
            metadata=metadata_of(metadata),
            occurred_at=time_of(occurred_at),
            command_id=command_id,
        )
    answer(result, f"message {result.message_number} of session {result.session_id} recorded", as_json)


@app.command()
def update(
    session: SessionId,
    user: User,
    tenant: Tenant = DEFAULT_TENANT,
    title: Title = None,
    context: Context = None,
    metadata: Metadata = None,
    occurred_at: OccurredAt = None,
    command_id: CommandId = None,
    url: Url = None,
    take_over: TakeOver = False,
    as_json: AsJson = False,
) -> None:
    """Change title, context or metadata of a live session; metadata is replaced as a whole."""
    from session_ledger.cli.answering import answer
    from session_ledger.cli.opening import open_ledger
    from session_ledger.cli.values import json_of, metadata_of, time_of

    with open_ledger(url, take_over) as ledger:
        result = ledger.update_session(
            tenant,
            user,
            session,
            title=title,
            context=json_of(context, "--context"),
            metadata=metadata_of(metadata),
            occurred_at=time_of(occurred_at),
            command_id=command_id,
        )
    answer(result, f"session {result.session_id} updated", as_json)


@app.command()
def end(
    session: SessionId,
    user: User,
    tenant: Tenant = DEFAULT_TENANT,
    reason: Annotated[str, typer.Option(metavar="WORD", help="user, admin, completed, or a word of yours.")] = "user",
    ended_by: Annotated[str, typer.Option("--by", metavar="WHO", help="user, admin or system.")] = "user",
    note: Annotated[str | None, typer.Option(metavar="TEXT", show_default=False, help="Why, in words; sealed.")] = None,
    occurred_at: OccurredAt = None,
    command_id: CommandId = None,
    url: Url = None,
    take_over: TakeOver = False,
    as_json: AsJson = False,
) -> None:
    """End a live session; the agents that it holds are released."""
    from session_ledger.cli.answering import answer
    from session_ledger.cli.opening import open_ledger
    from session_ledger.cli.values import time_of

    with open_ledger(url, take_over) as ledger:
        result = ledger.end_session(
            tenant,
            user,
            session,
            reason=reason,
            ended_by=ended_by,
            note=note,
            occurred_at=time_of(occurred_at),
            command_id=command_id,
        )
    released = f", {len(result.released_agents)} agents released" if result.released_agents else ""
    answer(result, f"session {result.session_id} ended{released}", as_json)


@app.command()
def error(
    session: SessionId,
    component: Annotated[str, typer.Option(metavar="NAME", help="What failed, such as llm or tool.")],
    error_type: Annotated[str, typer.Option("--type", metavar="NAME", help="How, such as timeout.")],
    user: User,
    tenant: Tenant = DEFAULT_TENANT,
    text: Annotated[
        str | None, typer.Option("--message", metavar="TEXT", show_default=False, help="What it said; sealed.")
    ] = None,
    severity: Annotated[str, typer.Option(metavar="LEVEL", help="warning, error or critical.")] = "error",
    agent: Annotated[str | None, typer.Option(metavar="AGENT", show_default=False, help="The instance's id.")] = None,
    occurred_at: OccurredAt = None,
    command_id: CommandId = None,
    url: Url = None,
    take_over: TakeOver = False,
    as_json: AsJson = False,
) -> None:
    """Record that something failed while a session was served."""
    from session_ledger.cli.answering import answer
    from session_ledger.cli.opening import open_ledger
    from session_ledger.cli.values import time_of

    with open_ledger(url, take_over) as ledger:
        result = ledger.report_error(
            tenant,
            user,
            session,
            component=component,
            error_type=error_type,
            message=text,
            severity=severity,
            agent_id=agent,
            occurred_at=time_of(occurred_at),
            command_id=command_id,
        )
    answer(result, f"error of session {result.session_id} recorded", as_json)


@app.command("list")
def list_sessions(
    user: AnyUser = None,
    tenant: Tenant = DEFAULT_TENANT,
    status: Annotated[
        str, typer.Option(metavar="STATUS", help="live, ended, expired, evicted, imported or any.")
    ] = "live",
    limit: Limit = 50,
    after: After = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List sessions of a tenant or user, newest activity first."""
    from session_ledger.cli.opening import open_views
    from session_ledger.cli.showing import show_sessions
    from session_ledger.domain.errors import InvalidInput
    from session_ledger.projections.session_tables import STATUSES

    if status not in (*STATUSES, "any"):
        raise InvalidInput("--status", f"{status[:40]!r}", f"must be one of {', '.join(STATUSES)} or any")
    wanted = None if status == "any" else status
    with open_views(url) as views:
        if user is None:
            page = views.tenant_sessions(tenant, status=wanted, limit=limit, after=after)
        else:
            page = views.sessions(tenant, user, status=wanted, limit=limit, after=after)
    show_sessions(page, as_json)


@app.command()
def show(
    session: SessionId, user: User, tenant: Tenant = DEFAULT_TENANT, url: Url = None, as_json: AsJson = False
) -> None:
    """Show everything about one session, and what failed in it; its messages: `history`."""
    from session_ledger.cli.opening import open_views
    from session_ledger.cli.showing import show_session

    with open_views(url) as views:
        found = views.session(tenant, user, session)
        errors = views.errors(tenant, user, session)
    show_session(found, errors, as_json)


@app.command()
def history(
    session: SessionId,
    user: User,
    tenant: Tenant = DEFAULT_TENANT,
    last: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=1000, show_default=False, help="Only the last N messages.")
    ] = None,
    limit: Limit = 1000,
    after: Annotated[int, typer.Option(metavar="NUMBER", min=0, help="Begin after this message.")] = 0,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Print the messages of a session, in order. With --json: one a line."""
    from session_ledger.cli.opening import open_views
    from session_ledger.cli.showing import show_history

    with open_views(url) as views:
        messages = views.history(tenant, user, session, last=last, limit=limit, after=after)
        total = views.session(tenant, user, session, fresh=False).messages
    show_history(messages, total, as_json)
