"""A support desk's talk with leaks planted in it: reproducible, of every kind, among boilerplate and quotes."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from session_ledger.projections.analytics.leakage.findings import Message

HOUR_US = 3_600_000_000
WEEK_US = 7 * 24 * HOUR_US
SYLLABLES = [consonant + vowel for consonant in "bdfghklmnprstvwz" for vowel in "aeiou"]
KINDS = ("verbatim", "cut", "re-cased", "reworded", "identifier", "through a tool", "across tenants", "slow")
BOILERPLATE = (
    "Thank you for contacting us. I am the assistant of the help desk, how can I help you today?",
    "Is there anything else that I can do for you? You can reach us every day from eight to six.",
    "I am sorry to hear that. Let me look into it for you, this takes a moment, please stay with me.",
    "For your security please never share your password or your card number with anybody in this chat.",
    "Your request has been received and a colleague will answer you within two working days.",
)
FAQ = (
    "You can return any item within thirty days of delivery as long as it is unused and in its original box.",
    "Delivery takes two to four working days; you get a message with a link to follow your parcel.",
    "An invoice is sent to you by mail as soon as the parcel leaves our warehouse, and it stands in your account.",
)


@dataclass
class Corpus:
    """Messages in order, and what was planted: (kind, source user, user in whose session it came to light)."""

    messages: list[Message] = field(default_factory=list)
    planted: dict[tuple[str, str], str] = field(default_factory=dict)
    """(source user, other user) to its kind; each pair is planted once."""


class _Desk:
    def __init__(self, seed: int, users: int) -> None:
        self.luck = random.Random(seed)
        self.corpus = Corpus()
        self.users = users
        self.words = ["".join(self.luck.choices(SYLLABLES, k=self.luck.randint(1, 4))) for _ in range(6_000)]
        self.now = 1_700_000_000_000_000
        self.positions = [0] * 4

    def sentence(self, count: int) -> str:
        return " ".join(self.luck.choices(self.words, k=count)).capitalize() + "."

    def say(self, user: int, role: str, text: str, tenant: str | None = None, source: str | None = None) -> None:
        partition = user % 4
        self.positions[partition] += 1
        self.now += self.luck.randint(1, 4_000_000)
        name = f"user-{user}"
        self.corpus.messages.append(
            Message(
                partition, self.positions[partition], self.now, tenant or self.tenant_of(user), name,
                f"{name}/{self.now // WEEK_US}".encode().ljust(16, b"_")[:16], role, text, source,
            )
        )  # fmt: skip

    def tenant_of(self, user: int) -> str:
        return f"tenant-{user % 5}"

    def chat(self, user: int) -> str:
        """One exchange; what the user said of their own."""
        own = self.sentence(self.luck.randint(12, 18))
        said = own
        if self.luck.random() < 0.1:
            said = f"You wrote: '{self.luck.choice(BOILERPLATE)}' but {own}"
        self.say(user, "user", said)
        luck = self.luck.random()
        if luck < 0.3:
            self.say(user, "assistant", f"{self.luck.choice(BOILERPLATE)} {self.sentence(6)}")
        elif luck < 0.45:
            self.say(user, "tool", self.luck.choice(FAQ), source="handbook")
            self.say(user, "assistant", f"{self.luck.choice(FAQ)} {self.sentence(4)}")
        elif luck < 0.6:
            self.say(user, "assistant", f"You said: {own} {self.sentence(5)}")
        elif luck < 0.65:
            number = "".join(self.luck.choices("0123456789", k=10))
            mail = f"{self.luck.choice(self.words)}{number}@mail.example"
            self.say(user, "user", f"My number is +49 {number}, write to {mail}")
            self.say(user, "assistant", f"I have noted +49 {number}. {self.sentence(4)}")
        else:
            self.say(user, "assistant", self.sentence(self.luck.randint(10, 18)))
        return own

    # --- planting -----------------------------------------------------------------------------------------------------

    def pair(self, cross: bool) -> tuple[int, int] | None:
        source, other = self.luck.randrange(self.users), self.luck.randrange(self.users)
        same = self.tenant_of(source) == self.tenant_of(other)
        taken = (f"user-{source}", f"user-{other}") in self.corpus.planted
        return None if source == other or taken or same is cross else (source, other)

    def plant(self, kind: str) -> Callable[[], None] | None:
        """Let the source say it now; what lets it come to light later."""
        pair = self.pair(kind == "across tenants")
        if pair is None:
            return None
        source, other = pair
        secret = self.sentence(self.luck.randint(13, 18))
        role, leaked = "assistant", f"{self.sentence(4)} {secret} {self.sentence(3)}"
        if kind == "cut":
            start = self.luck.randint(0, max(len(secret) - 56, 0))
            leaked = f"{self.sentence(4)} {secret[start : start + 56]} {self.sentence(3)}"
        elif kind == "re-cased":
            leaked = f"{self.sentence(4)} {secret.upper().replace(' ', '  ')} {self.sentence(3)}"
        elif kind == "reworded":
            words = secret.split(" ")
            for place in self.luck.sample(range(len(words)), max(round(len(words) * 0.1), 1)):
                words[place] = self.luck.choice(self.words)
            leaked = " ".join(words)
        elif kind == "identifier":
            number = "".join(self.luck.choices("0123456789", k=10))
            self.say(source, "user", f"{self.sentence(5)} +44 {number} {self.sentence(4)}")
            leaked = f"{self.sentence(8)} 0044 {number[:3]}-{number[3:]} {self.sentence(5)}"
        elif kind == "through a tool":
            role = "tool"
        if kind != "identifier":
            self.say(source, "user", secret)
        self.corpus.planted[f"user-{source}", f"user-{other}"] = kind
        return lambda: self.say(other, role, leaked)


def generate(seed: int, messages: int, a_kind: int) -> Corpus:
    """About so many messages, with so many leaks of each kind; the same seed gives the same."""
    desk = _Desk(seed, max(messages // 40, 50))
    due: list[tuple[int, Callable[[], None]]] = []
    wanted = [kind for kind in KINDS for _ in range(a_kind)]
    desk.luck.shuffle(wanted)
    every = max(messages // max(len(wanted) + 1, 1), 1)
    while len(desk.corpus.messages) < messages or wanted or due:
        at = len(desk.corpus.messages)
        while wanted and at >= (a_kind * len(KINDS) - len(wanted)) * every:
            reveal = desk.plant(wanted[-1])
            if reveal is None:
                continue
            kind = wanted.pop()
            due.append((at + (messages // 3 if kind == "slow" else desk.luck.randint(2, 400)), reveal))
        for item in [item for item in due if item[0] <= at or at >= messages]:
            due.remove(item)
            item[1]()
        desk.chat(desk.luck.randrange(desk.users))
    return desk.corpus
