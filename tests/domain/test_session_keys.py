"""Which key may seal a session, and what goes first where the log does not know it yet."""

from __future__ import annotations

from dataclasses import replace

import pytest

from session_ledger.domain import commands as c
from session_ledger.domain.decision import Decision
from session_ledger.domain.errors import InvalidInput, KeyUnavailable, LogCorrupt
from session_ledger.domain.events import KeyRotated, MessageAdded
from tests.domain.world import KEY_ID, TENANT, USER, World

SECOND, THIRD = b"2" * 16, b"3" * 16


@pytest.fixture
def world() -> World:
    """With a live session."""
    made = World()
    made.run(c.CreateSession(tenant=TENANT, user=USER)).ok()
    return made


def session_id(world: World) -> bytes:
    """The session's id."""
    return next(iter(world.account().sessions))


def decided(world: World, key_id: bytes | None, generation: int, *, told: bool = True, reason: str = "age") -> Decision:
    """A message that is sealed by that key; folded in, where it is taken."""
    command = c.AddMessage(tenant=TENANT, user=USER, session_id=session_id(world), role="user", content="hi")
    prepared = world.prepare(command)
    prepared = replace(
        prepared,
        sealed=(replace(prepared.sealed[0], key_id=key_id),),
        key_commitment=b"c" * 32 if told else None,
        key_generation=generation,
        key_reason=reason,
    )
    decision = world.decide(prepared)
    world.fold(decision.events)
    return decision


def test_a_later_generation_is_told_first(world: World) -> None:
    """Then it is known, and so is the one before it; the fact is no part of the command."""
    rotated, message = decided(world, SECOND, 2, reason="resumed").events
    assert isinstance(rotated, KeyRotated)
    assert isinstance(message, MessageAdded)
    assert (SECOND, b"c" * 32, 2, "resumed", None, None) == (
        rotated.key_id, rotated.key_commitment, rotated.generation, rotated.reason, rotated.command_id,
        rotated.command_digest,
    )  # fmt: skip
    assert (2, 3) == (rotated.version, message.version)
    for key_id, generation in ((SECOND, 2), (KEY_ID, 1)):
        assert [MessageAdded] == [type(event) for event in decided(world, key_id, generation).events]


def test_generations_may_be_left_out_but_never_go_back(world: World) -> None:
    """The vault may hold a generation that no fact tells; an older one that was never told does not come back."""
    assert 2 == len(decided(world, THIRD, 3).events)
    refused = decided(world, SECOND, 2)
    assert ([], KeyUnavailable) == (refused.events, type(refused.error))
    assert refused.error is not None
    assert refused.error.retriable


@pytest.mark.parametrize(("key_id", "generation", "told"), [(SECOND, 1, True), (SECOND, 2, False), (None, 2, True)])
def test_a_key_that_is_no_later_generation_seals_nothing(
    world: World, key_id: bytes | None, generation: int, told: bool
) -> None:
    """Another key of the same generation, one without a commitment, and none at all."""
    decision = decided(world, key_id, generation, told=told)
    assert ([], KeyUnavailable) == (decision.events, type(decision.error))


def test_a_log_whose_generations_go_back_is_corrupt(world: World) -> None:
    """Folding says so."""
    rotated, _ = decided(world, SECOND, 2).events
    again = replace(rotated, version=4, key_id=THIRD)  # type: ignore[call-arg]
    with pytest.raises(LogCorrupt, match="generation 2"):
        world.fold([again])


def test_a_session_whose_sealing_is_off_gets_no_key(world: World) -> None:
    """Neither by a message nor when asked for."""
    world.account().sessions[session_id(world)].key_id = None
    assert KeyUnavailable is type(decided(world, SECOND, 2).error)
    command = c.RotateSessionKey(tenant=TENANT, user=USER, session_id=session_id(world))
    prepared = world.prepare(command)
    decision = world.decide(replace(prepared, sealed=(replace(prepared.sealed[0], key_id=None),)))
    assert ([], InvalidInput) == (decision.events, type(decision.error))
