"""`session-ledger agents`: instances, and their leases to sessions."""

from __future__ import annotations

from typing import Annotated

import typer

from session_ledger.cli.options import DEFAULT_TENANT, After, AsJson, CommandId, Limit, TakeOver, Tenant, Url, User

app = typer.Typer(no_args_is_help=True, help="Register, acquire, release, retire and list agent instances.")

AgentId = Annotated[str, typer.Argument(metavar="AGENT", help="The instance's id.")]
SessionId = Annotated[str, typer.Argument(metavar="SESSION", help="The session's id.")]
AgentType = Annotated[str, typer.Argument(metavar="TYPE", help="Such as support or billing.")]
Capabilities = Annotated[
    list[str] | None,
    typer.Option("--capability", "-c", metavar="NAME", show_default=False, help="May be given several times."),
]


@app.command()
def register(
    agent_type: AgentType,
    capabilities: Capabilities = None,
    partition: Annotated[int, typer.Option(min=0, help="Only its sessions can acquire the instance.")] = 0,
    tenant: Tenant = DEFAULT_TENANT,
    command_id: CommandId = None,
    url: Url = None,
    take_over: TakeOver = False,
    as_json: AsJson = False,
) -> None:
    """Register an instance in a partition."""
    from session_ledger.cli.answering import answer
    from session_ledger.cli.opening import open_ledger

    with open_ledger(url, take_over, create=True) as ledger:
        result = ledger.register_agent(
            tenant, agent_type, capabilities=capabilities or (), partition=partition, command_id=command_id
        )
    answer(result, f"agent {result.agent_id} of type {result.agent_type} registered", as_json)


@app.command()
def acquire(
    session: SessionId,
    agent_type: AgentType,
    user: User,
    capabilities: Capabilities = None,
    tenant: Tenant = DEFAULT_TENANT,
    command_id: CommandId = None,
    url: Url = None,
    take_over: TakeOver = False,
    as_json: AsJson = False,
) -> None:
    """Lease a free instance with all these capabilities to a live session; exit code 1 when none is free."""
    from session_ledger.cli.answering import answer
    from session_ledger.cli.opening import open_ledger

    with open_ledger(url, take_over) as ledger:
        result = ledger.acquire_agent(
            tenant, user, session, agent_type, capabilities=capabilities or (), command_id=command_id
        )
    answer(result, f"agent {result.agent_id} leased to session {result.session_id}", as_json)


@app.command()
def release(
    session: SessionId,
    agent: AgentId,
    user: User,
    reset: Annotated[str, typer.Option(metavar="WORD", help="verified, failed or not_reported.")] = "not_reported",
    tenant: Tenant = DEFAULT_TENANT,
    command_id: CommandId = None,
    url: Url = None,
    take_over: TakeOver = False,
    as_json: AsJson = False,
) -> None:
    """End a lease, and say whether the instance's reset was verified."""
    from session_ledger.cli.answering import answer
    from session_ledger.cli.opening import open_ledger

    with open_ledger(url, take_over) as ledger:
        result = ledger.release_agent(tenant, user, session, agent, reset=reset, command_id=command_id)
    answer(result, f"agent {result.agent_id} released", as_json)


@app.command()
def retire(
    agent: AgentId,
    reason: Annotated[str, typer.Option(metavar="WORD", help="Why, such as retired or broken.")] = "retired",
    force: Annotated[bool, typer.Option("--force", help="Although a session holds it: the lease ends first.")] = False,
    tenant: Tenant = DEFAULT_TENANT,
    command_id: CommandId = None,
    url: Url = None,
    take_over: TakeOver = False,
    as_json: AsJson = False,
) -> None:
    """Take an instance out."""
    from session_ledger.cli.answering import answer
    from session_ledger.cli.opening import open_ledger

    with open_ledger(url, take_over) as ledger:
        result = ledger.retire_agent(tenant, agent, reason=reason, force=force, command_id=command_id)
    answer(result, f"agent {result.agent_id} retired", as_json)


@app.command("list")
def list_agents(
    agent_type: Annotated[
        str | None, typer.Option("--type", metavar="TYPE", show_default=False, help="Only this type.")
    ] = None,
    retired: Annotated[bool, typer.Option("--retired", help="Those that were taken out, too.")] = False,
    tenant: Tenant = DEFAULT_TENANT,
    limit: Limit = 100,
    after: After = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List a tenant's instances, and which session holds which."""
    from session_ledger.cli.opening import open_views
    from session_ledger.cli.showing import show_agents

    with open_views(url) as views:
        page = views.agents(tenant, agent_type=agent_type, retired=retired, limit=limit, after=after)
    show_agents(page, as_json)
