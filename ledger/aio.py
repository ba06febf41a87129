"""The async form of the facade: the same methods, each returns an awaitable."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

from session_ledger.domain.commands import Command
from session_ledger.domain.results import Result
from session_ledger.ledger.methods import Commands
from session_ledger.ledger.methods_access import AccessMethods
from session_ledger.ledger.methods_agents import AgentMethods
from session_ledger.ledger.methods_audit import AuditMethods
from session_ledger.ledger.methods_erasure import ErasureMethods
from session_ledger.ledger.methods_quotas import QuotaMethods
from session_ledger.ledger.methods_sessions import SessionMethods

if TYPE_CHECKING:
    from session_ledger.ledger.ledger import Ledger

P = ParamSpec("P")
R = TypeVar("R", bound=Result)


class _InLoop:
    """Stands in for the facade where its methods run a command: gives the loop's future instead of waiting."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def _new_id(self) -> bytes:
        return self._ledger._new_id()

    def _run(self, command: Command, result: type[Result]) -> Awaitable[Result]:
        return self._ledger.asubmit(command)


def _awaitable(method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[AsyncLedger, P], Awaitable[R]]:
    def in_loop(self: AsyncLedger, /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[R]:
        return cast("Awaitable[R]", method(cast(Commands, self._in_loop), *args, **kwargs))

    in_loop.__name__ = method.__name__
    in_loop.__doc__ = method.__doc__
    return in_loop


class AsyncLedger:
    """Every command method of `Ledger`, awaitable; no thread a caller. Use it inside a running event loop."""

    def __init__(self, ledger: Ledger) -> None:
        self._in_loop = _InLoop(ledger)

    create_session = _awaitable(SessionMethods.create_session)
    update_session = _awaitable(SessionMethods.update_session)
    add_message = _awaitable(SessionMethods.add_message)
    end_session = _awaitable(SessionMethods.end_session)
    report_error = _awaitable(SessionMethods.report_error)
    rotate_session_key = _awaitable(SessionMethods.rotate_session_key)
    import_session = _awaitable(SessionMethods.import_session)
    issue_access_token = _awaitable(AccessMethods.issue_access_token)
    rotate_access_token = _awaitable(AccessMethods.rotate_access_token)
    authenticate = _awaitable(AccessMethods.authenticate)
    report_authentication_failure = _awaitable(AccessMethods.report_authentication_failure)
    report_authentication_success = _awaitable(AccessMethods.report_authentication_success)
    set_quota = _awaitable(QuotaMethods.set_quota)
    consume_quota = _awaitable(QuotaMethods.consume_quota)
    check_quota = _awaitable(QuotaMethods.check_quota)
    release_quota = _awaitable(QuotaMethods.release_quota)
    report_quota = _awaitable(QuotaMethods.report_quota)
    set_user_limits = _awaitable(QuotaMethods.set_user_limits)
    register_agent = _awaitable(AgentMethods.register_agent)
    acquire_agent = _awaitable(AgentMethods.acquire_agent)
    release_agent = _awaitable(AgentMethods.release_agent)
    retire_agent = _awaitable(AgentMethods.retire_agent)
    set_limits = _awaitable(QuotaMethods.set_limits)
    reveal_content = _awaitable(AuditMethods.reveal_content)
    record_audit_read = _awaitable(AuditMethods.record_audit_read)
    report_leak = _awaitable(AuditMethods.report_leak)
    acknowledge_leak = _awaitable(AuditMethods.acknowledge_leak)
    raise_alert = _awaitable(AuditMethods.raise_alert)
    erase_session = _awaitable(ErasureMethods.erase_session)
    erase_user = _awaitable(ErasureMethods.erase_user)
    erase_tenant = _awaitable(ErasureMethods.erase_tenant)
    set_legal_hold = _awaitable(ErasureMethods.set_legal_hold)
    lift_legal_hold = _awaitable(ErasureMethods.lift_legal_hold)
    set_retention = _awaitable(ErasureMethods.set_retention)
