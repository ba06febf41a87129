"""Quick constructors: the same parameters, the same objects, frozen."""

from __future__ import annotations

import copy
import inspect
import pickle
from dataclasses import FrozenInstanceError, dataclass, field, fields, is_dataclass
from types import ModuleType

import pytest

from session_ledger.domain import commands, events, results
from session_ledger.domain.frozen import quick


@dataclass(frozen=True, slots=True)
class Plain:
    """What a frozen dataclass does without help."""

    one: int
    two: str = "b"
    three: dict[str, int] = field(default_factory=dict)


@quick
@dataclass(frozen=True, slots=True)
class Quick:
    """The same, quick."""

    one: int
    two: str = "b"
    three: dict[str, int] = field(default_factory=dict)


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Derived(Quick):
    """With a base and keyword-only fields."""

    four: int = 4


def test_it_constructs_what_the_plain_one_does() -> None:
    """Positional, by name, defaults, a fresh value of a factory each time."""
    for arguments, names in (((1,), {}), ((1, "x", {"y": 2}), {}), ((), {"one": 1, "three": {"z": 3}})):
        plain, made = Plain(*arguments, **names), Quick(*arguments, **names)  # type: ignore[arg-type]
        assert [getattr(plain, f.name) for f in fields(plain)] == [getattr(made, f.name) for f in fields(made)]
    assert Quick(1).three is not Quick(1).three
    assert Quick is type(Quick(1))
    assert 4 == Derived(1).four
    assert Derived(1, four=5) == Derived(one=1, four=5)


def test_it_is_frozen() -> None:
    """No field can be set, deleted or added."""
    made = Quick(1)
    with pytest.raises(FrozenInstanceError):
        made.one = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        del made.one
    with pytest.raises((FrozenInstanceError, AttributeError, TypeError)):
        made.other = 2  # type: ignore[attr-defined]


def test_wrong_arguments_are_type_errors() -> None:
    """Missing, unknown, or too many."""
    for arguments, names in (((), {}), ((1, "x", {}, 4), {}), ((1,), {"nine": 9})):
        with pytest.raises(TypeError):
            Quick(*arguments, **names)  # type: ignore[arg-type]


def test_it_is_equal_hashed_copied_and_pickled_as_before() -> None:
    """The object is of the class itself, not of a stand-in."""
    made = commands.AddMessage(tenant="t", user="u", session_id=b"s" * 16, role="user", content="x")
    for other in (copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert made == other
        assert commands.AddMessage is type(other)


def test_a_class_that_it_would_break_is_refused() -> None:
    """No slots, no dataclass, or a __post_init__ that would no longer run."""

    @dataclass(frozen=True)
    class NoSlots:
        one: int

    @dataclass(frozen=True, slots=True)
    class PostInit:
        one: int

        def __post_init__(self) -> None:
            raise AssertionError

    for bad in (NoSlots, PostInit, int):
        with pytest.raises(TypeError):
            quick(bad)


@pytest.mark.parametrize("module", [commands, events, results])
def test_every_constructor_names_its_parameters(module: ModuleType) -> None:
    """`inspect.signature` and so help texts show every field."""
    for cls in vars(module).values():
        if isinstance(cls, type) and is_dataclass(cls) and cls.__module__ == module.__name__:
            parameters = list(inspect.signature(cls).parameters)
            assert sorted(field.name for field in fields(cls)) == sorted(parameters), cls
