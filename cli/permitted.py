"""The one hook that every command of the command line passes before it runs: may this user run it, of that tenant?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Protocol

    class Command(Protocol):
        """Click's, wherever Typer keeps it; a group has `commands`."""

        callback: Callable[..., Any] | None
        params: list[Any]


C = TypeVar("C", bound="Command")


def asking(tree: C) -> C:
    """The tree of commands, each of which asks first."""
    for path, command in leaves(tree):
        assert command.callback is not None, "a command without a group does something"
        command.callback = partial(_asked, path, command.callback)
    return tree


def leaves(tree: Command, *path: str) -> Iterator[tuple[str, Command]]:
    """Every command that does something, with its path, such as "audit timeline"."""
    commands: Mapping[str, Command] | None = getattr(tree, "commands", None)
    if commands is None:
        yield " ".join(path), tree
        return
    for name, command in commands.items():
        yield from leaves(command, *path, name)


def named(tree: Command, arguments: Sequence[str]) -> tuple[str, bool]:
    """(the path of the command that is called by the arguments, whether it takes --command-id)."""
    command, path = tree, list[str]()
    for argument in arguments:
        below: Mapping[str, Command] = getattr(command, "commands", {})
        if argument in below:
            command = below[argument]
            path.append(argument)
        elif not argument.startswith("-"):
            break
    return " ".join(path), any("--command-id" in parameter.opts for parameter in command.params)


def _asked(path: str, run: Callable[..., object], /, **parameters: object) -> object:
    from session_ledger.security.access import CLI

    if CLI[path]:  # else it is about no ledger; one that is in no table is a defect, and does not run
        _check(path, parameters)
    return run(**parameters)


def _check(path: str, parameters: Mapping[str, object]) -> None:
    from session_ledger.cli.opening import settings
    from session_ledger.ledger.principals import own_principal
    from session_ledger.security.access import check_cli

    chosen = settings()
    if chosen.principals:
        check_cli(own_principal(chosen), path, parameters)
