"""The content check: every leak that the guarantee covers is found, and what is none is not."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_ledger.projections.analytics.leakage.content import COMMON_OVER, RUN_MIN, Scanner
from session_ledger.projections.analytics.leakage.findings import Leak, Message
from session_ledger.projections.analytics.leakage.fingerprints import GUARANTEED, Winnower
from session_ledger.projections.analytics.leakage.identifiers import identifiers
from session_ledger.projections.analytics.leakage.normalize import normalized
from session_ledger.projections.analytics.leakage.runs import shared_runs

KEY = b"k" * 32
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789 "
SECRET = "My daughter Ruth has been in the clinic since March and the insurance has refused to pay for it twice."


class Talk:
    """Messages in the order in which they are recorded."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def say(self, user: str, role: str, text: str, tenant: str = "t", **more: object) -> Message:
        """One more, an hour after the one before."""
        number = len(self.messages) + 1
        place = {"partition": 0, "position": number, "recorded_at": number * 3_600_000_000}
        session = f"{tenant}/{user}".encode().ljust(16, b"_")[:16]
        fields = {**place, "tenant": tenant, "user": user, "session_id": session, "role": role, "text": text}
        self.messages.append(Message(**{**fields, **more}))  # type: ignore[arg-type]
        return self.messages[-1]

    def scan(self, batch: int = 10_000, **options: object) -> list[Leak]:
        """What is found, in one go."""
        return Scanner(KEY, **options).scan(self.messages)  # type: ignore[arg-type]

    def stream(self) -> list[Leak]:
        """What is found message by message."""
        scanner = Scanner(KEY)
        return [leak for message in self.messages for leak in scanner.add([message])]


def words(luck: random.Random, count: int) -> str:
    """Text that is nobody else's."""
    return " ".join("".join(luck.choices(LETTERS[:36], k=luck.randint(2, 9))) for _ in range(count))


# --- the pieces -------------------------------------------------------------------------------------------------------


PIECE = st.text(st.sampled_from(LETTERS), max_size=60)
RUN = st.text(st.sampled_from(LETTERS), min_size=GUARANTEED, max_size=90)


@given(PIECE, RUN, PIECE, PIECE)
def test_texts_that_share_a_run_share_a_fingerprint(before: str, run: str, after: str, other: str) -> None:
    """Wherever the run stands in both: the guarantee of winnowing."""
    made = Winnower(KEY).of([before + run + after, other + run])
    mine, theirs = made.hashes[made.texts == 0], made.hashes[made.texts == 1]
    assert len(np.intersect1d(mine, theirs))


def test_fingerprints_depend_on_the_key_alone() -> None:
    """The same text has the same, under another key quite others; neighbours in a batch change nothing."""
    texts = [words(random.Random(n), 30) for n in range(20)]
    alone = [Winnower(KEY).of([text]).hashes for text in texts]
    together = Winnower(KEY).of(texts)
    for number, hashes in enumerate(alone):
        assert set(hashes.tolist()) == set(together.hashes[together.texts == number].tolist())
    assert not len(np.intersect1d(together.hashes, Winnower(b"j" * 32).of(texts).hashes))


@given(st.text(st.sampled_from("ab "), max_size=60), st.text(st.sampled_from("ab "), max_size=60))
def test_shared_runs_are_shared_and_complete(earlier: str, later: str) -> None:
    """Each stands in both, none overlaps, and the first is as long as a brute search finds."""
    runs = shared_runs(earlier, later, 4)
    assert all(run in earlier and run in later for run in runs)
    found = [len(run) for run in runs]
    assert sum(found) <= len(later)
    best = max((n for n in range(4, len(later) + 1) for i in range(len(later) - n + 1) if later[i : i + n] in earlier),
               default=0)  # fmt: skip
    assert (best > 0) is bool(found)
    assert max(found, default=0) <= best


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mail Ada.L@Example.com.", [("email", "ada.l@example.com")]),
        ("call +49 (30) 1234-5678 now", [("phone", "493012345678")]),
        ("call 0049 30 12345678 now", [("phone", "493012345678")]),
        ("IBAN de89 3704 0044 0532 0130 00!", [("iban", "DE89370400440532013000")]),
        ("IBAN DE88 3704 0044 0532 0130 00", []),
        ("card 4111-1111-1111-1111", [("card", "4111111111111111")]),
        ("card 4111-1111-1111-1112", []),
        ("order 12345678, 1234567890123", []),
        ("sk-abcDEF0123456789xyz", [("secret", "sk-abcDEF0123456789xyz")]),
        ("AKIAIOSFODNN7EXAMPLE", [("secret", "AKIAIOSFODNN7EXAMPLE")]),
        ("it says CANARY-0123456789abcdef", [("canary", "canary-0123456789abcdef")]),
        ("1111 1111 1111 1111", []),
        ("nothing to see here", []),
    ],
)
def test_identifying_values_are_found_by_shape(text: str, expected: list[tuple[str, str]]) -> None:
    """In one form, however they are written; what fails its check digits is none."""
    assert expected == list(identifiers(text))


def test_normalization_hides_nothing() -> None:
    """Case, spacing, punctuation and compatibility forms."""
    wide = "".join(chr(ord(letter) + 0xFEE0) for letter in "ADA")  # fullwidth forms
    assert "i am ada l 5 strasse" == normalized(f"  I\tam--{wide}_L.  (5) Stra\u00dfe")


# --- leaks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("text", SECRET),
        ("text", "Sure. " + SECRET.upper() + " Anything else?"),
        ("text", SECRET[20 : 20 + RUN_MIN + 2]),
        ("text", SECRET.replace(" ", "\n  ").replace(".", "!")),
        ("reworded", SECRET.replace("clinic", "hospital").replace("refused", "declined").replace("March", "April")),
    ],
)
def test_what_one_user_said_comes_to_light_with_another(kind: str, told: str, streaming: bool) -> None:
    """Verbatim, inside other text, re-cased, cut, re-spaced, reworded; the finding says whose it was."""
    talk = Talk()
    said = talk.say("ada", "user", SECRET)
    leaked = talk.say("bob", "assistant", told)
    [leak] = talk.stream() if streaming else talk.scan()
    assert (kind, "known") == (leak.kind, leak.direction)
    assert (said.position, leaked.position) == (leak.source.position, leak.place.position)
    assert leak.length is not None
    assert RUN_MIN <= leak.length <= len(SECRET)


@pytest.mark.parametrize("role", ["user", "system", "developer"])
def test_what_the_user_or_a_prompt_supplied_is_no_leak(role: str) -> None:
    """Before the assistant says it: by the user, by a system message in whoever's session, by a shared source."""
    talk = Talk()
    talk.say("ada", "user", SECRET)
    talk.say("bob" if role == "user" else "eve", role, "So: " + SECRET)
    talk.say("bob", "assistant", SECRET)
    assert [] == talk.scan() == talk.stream()


def test_a_declared_shared_source_is_no_leak_within_its_tenant() -> None:
    """Its text is everybody's there, and nobody's elsewhere."""
    talk = Talk()
    talk.say("ada", "tool", SECRET, shared_source="kb")
    talk.say("bob", "assistant", SECRET)
    assert [] == talk.scan()
    talk.say("zoe", "assistant", SECRET, tenant="other")
    [leak] = talk.scan()
    assert ("critical", "other") == (leak.severity, leak.place.tenant)


def test_what_comes_after_supplies_nothing() -> None:
    """A user who repeats what the assistant gave away has not supplied it."""
    talk = Talk()
    talk.say("ada", "user", SECRET)
    talk.say("bob", "assistant", SECRET)
    talk.say("bob", "user", SECRET)
    talk.say("bob", "system", SECRET)
    assert 1 == len(talk.scan()) == len(talk.stream())


def test_boilerplate_is_common_and_not_leaked() -> None:
    """Text in more users' sessions than the limit is none; at the limit it is, as documented."""
    for users, expected in ((COMMON_OVER, COMMON_OVER - 1), (COMMON_OVER + 1, 0)):
        talk = Talk()
        for number in range(users):
            talk.say(f"u{number}", "assistant", "Thank you for calling, your call is important to us, please hold.")
        assert expected == len(talk.scan())


def test_a_quote_beside_boilerplate_is_found() -> None:
    """The common part does not hide what is not."""
    talk = Talk()
    hello = "Thank you for calling, your call is important to us, please hold the line. "
    for number in range(20):
        talk.say(f"u{number}", "assistant", hello)
    talk.say("ada", "user", SECRET)
    talk.say("bob", "assistant", hello + SECRET)
    [leak] = talk.scan()
    assert ("ada", "bob") == (leak.source.user, leak.place.user)


def test_one_value_in_new_text_is_a_leak() -> None:
    """However short; through a tool as well; what the user gave is none."""
    talk = Talk()
    talk.say("ada", "user", "my card is 4111 1111 1111 1111 and mail ada@example.com")
    talk.say("bob", "tool", "charged 4111-1111-1111-1111")
    talk.say("eve", "user", "write to ADA@example.com please")
    talk.say("eve", "assistant", "I wrote to ada@example.com")
    assert [("card", "bob", "critical")] == [(leak.kind, leak.place.user, leak.severity) for leak in talk.scan()]


def test_direction_is_unknown_where_clocks_can_not_tell() -> None:
    """Two partitions within a minute of each other."""
    talk = Talk()
    talk.say("ada", "user", SECRET, partition=1, recorded_at=1_000_000_000)
    talk.say("bob", "assistant", SECRET, partition=2, recorded_at=1_030_000_000)
    talk.say("eve", "assistant", SECRET, partition=2, recorded_at=1_090_000_000)
    assert ["known", "unknown"] == sorted(leak.direction for leak in talk.scan())


def test_the_same_leak_has_the_same_id_and_is_told_once() -> None:
    """Between two sessions, of a kind: the longest; scanned again it has the same id."""
    talk = Talk()
    talk.say("ada", "user", SECRET)
    talk.say("ada", "user", "And another thing: the house in Elm Street is empty until the first of June.")
    talk.say("bob", "assistant", SECRET)
    talk.say("bob", "assistant", "the house in Elm Street is empty until the first of June")
    [leak] = talk.scan()
    assert [leak.finding_id] == [again.finding_id for again in talk.scan()]
    assert 16 == len(leak.finding_id)


def test_an_erased_session_leaves_the_index() -> None:
    """What it said can be said by others then; no text of it is kept."""
    talk = Talk()
    said = talk.say("ada", "user", SECRET + " ada@example.com")
    scanner = Scanner(KEY)
    scanner.add(talk.messages)
    assert scanner.fingerprints > 0
    assert 1 == scanner.forget(said.session_id)
    assert (0, 0) == (scanner.fingerprints, scanner.forget(said.session_id))
    assert [] == scanner.add([talk.say("bob", "assistant", SECRET + " ada@example.com")])
    assert SECRET.casefold() not in str(vars(scanner)["_texts"][:1])


def test_where_the_source_can_not_be_opened_any_more_nothing_is_claimed() -> None:
    """A shared fingerprint alone is no proof."""
    talk = Talk()
    talk.say("ada", "user", SECRET)
    scanner = Scanner(KEY, lambda place: None)
    scanner.add(talk.messages)
    assert [] == scanner.add([talk.say("bob", "assistant", SECRET)])


@pytest.mark.parametrize("seed", range(5))
def test_every_verbatim_run_is_found_among_noise(seed: int) -> None:
    """The guarantee, over random histories in batches of any size."""
    luck = random.Random(seed)
    talk = Talk()
    planted = set()
    for number in range(300):
        user = f"u{luck.randrange(30)}"
        text = words(luck, luck.randint(5, 25))
        said = talk.say(user, "user", text)
        if luck.random() < 0.1:
            clean = normalized(said.text)
            if len(clean) < RUN_MIN:
                continue
            start = luck.randrange(len(clean) - RUN_MIN + 1)
            victim = f"v{number}"
            talk.say(victim, "assistant", f"{words(luck, 3)} {clean[start : start + RUN_MIN]}{words(luck, 2)}")
            planted.add((user, victim))
    scanner, found = Scanner(KEY), set()
    at = 0
    while at < len(talk.messages):
        size = luck.randint(1, 60)
        found |= {(leak.source.user, leak.place.user) for leak in scanner.add(talk.messages[at : at + size])}
        at += size
    assert planted == found == {(leak.source.user, leak.place.user) for leak in talk.scan()}
