"""The content check: what one user's session said first, and another user's assistant or tool says later.

Of every message, in the order in which they were recorded: its fingerprints (`fingerprints`) and identifying values
(`identifiers`) are looked up. A fingerprint that was first seen in another user's session, and never before in one of
this user's, makes the two messages candidates; both texts are then compared, character by character. What is no leak:

- what this user's sessions held before (the user said it, or was told it already: then that was the finding);
- what a system or developer message, or a declared shared source, of the same tenant supplied before;
- what is in more than `common_over` users' sessions by then: boilerplate, not a secret. So the guarantee (every shared
  run of `run_min` characters or more is found) holds for what is not common: a run that has at least one fingerprint in
  at most that many users' sessions, and `run_min` characters without stretches all of whose fingerprints are in more.

A leak is a run of `run_min` characters or more (kind text), or shorter runs that make up `share_min` of the text and
are `run_min` characters together (kind reworded), or one identifying value, whatever surrounds it.

`scan` judges at its end what is common; `add`, for messages as they arrive, by what it has seen so far. The index holds
keyed fingerprints and numbers of messages; `forget` takes a session out of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from session_ledger.projections.analytics.leakage.findings import (
    CRITICAL,
    ERROR,
    REWORDED,
    TEXT,
    WARNING,
    Leak,
    Message,
    Place,
    direction,
)
from session_ledger.projections.analytics.leakage.fingerprints import GRAM_BYTES, GUARANTEED, Fingerprints, Winnower
from session_ledger.projections.analytics.leakage.identifiers import identifiers
from session_ledger.projections.analytics.leakage.index import Runs
from session_ledger.projections.analytics.leakage.normalize import normalized
from session_ledger.projections.analytics.leakage.runs import shared_runs

RUN_MIN = 40  # T: shared characters that are a leak by themselves
SHARE_MIN = 0.5  # of a text that is made up of shorter shared runs
COMMON_OVER = 5  # D: users in whose sessions a text may be before it is common
LEAKING = frozenset(("assistant", "tool"))
SUPPLYING = frozenset(("system", "developer"))
COMMON_MIN = GUARANTEED  # characters of a stretch that is common as a whole
BATCH = 20_000

TextOf = Callable[[Place], str | None]
"""The text of a message that was looked at before; None: it can not be had any more (its key is gone)."""


@dataclass(slots=True)
class _Value:
    """An identifying value: where it was seen first, and by whom since."""

    first: int
    users: set[int] = field(default_factory=set)
    public: set[str] = field(default_factory=set)
    """Tenants of which a system message or shared source supplied it."""


class Scanner:
    """Looks at messages and yields leaks. Not thread-safe."""

    def __init__(
        self, audit_key: bytes, text_of: TextOf | None = None, *, run_min: int = RUN_MIN, share_min: float = SHARE_MIN,
        common_over: int = COMMON_OVER,
    ) -> None:  # fmt: skip
        """`audit_key`: 32 secret bytes; the same key gives the same fingerprints.

        `text_of` None: normalized texts are kept in memory, some 200 bytes a message of 100 characters.
        """
        self._winnower = Winnower(audit_key)
        self._value_key = hashlib.blake2b(audit_key, digest_size=32, person=b"sl-identifier").digest()
        self._text_of = text_of
        self._run_min, self._share_min, self._common_over = run_min, share_min, common_over
        self._places: list[Place] = []
        self._texts: list[str] = []
        self._recent: dict[int, str] = {}
        self._users: dict[tuple[str, str], int] = {}
        self._sessions: dict[bytes, list[int]] = {}
        self._user_of: list[int] = []
        self._first = Runs.empty()
        """Fingerprint to (message that had it first, users beside the first)."""
        self._seen = Runs.empty()
        """Fingerprint and user to (message, 0)."""
        self._supplied = Runs.empty()
        """Fingerprint and tenant to (message, 0): supplied to everybody."""
        self._tenants: dict[str, int] = {}
        self._values: dict[bytes, _Value] = {}

    @property
    def messages(self) -> int:
        """How many were looked at."""
        return len(self._places)

    @property
    def fingerprints(self) -> int:
        """How many the index holds."""
        return len(self._first)

    def scan(self, messages: Iterable[Message]) -> list[Leak]:
        """Look at messages in the order in which they were recorded; what is common in all of them is no leak."""
        pairs: set[tuple[int, int]] = set()
        values: list[tuple[Leak, bytes]] = []
        batch: list[Message] = []
        for message in messages:
            batch.append(message)
            if len(batch) >= BATCH:
                self._take_in(batch, pairs, values)
                batch = []
        self._take_in(batch, pairs, values)
        return self._judged(pairs, values)

    def add(self, batch: Sequence[Message]) -> list[Leak]:
        """Look at some messages, which were recorded after all that were looked at before, and take them in."""
        pairs: set[tuple[int, int]] = set()
        values: list[tuple[Leak, bytes]] = []
        self._take_in(batch, pairs, values)
        return self._judged(pairs, values)

    def _judged(self, pairs: set[tuple[int, int]], values: Sequence[tuple[Leak, bytes]]) -> list[Leak]:
        """What remains, by what is known now: of each kind between two sessions, the longest."""
        found: dict[bytes, Leak] = {}
        leaks = [leak for leaking, source in sorted(pairs) if (leak := self._compared(leaking, source)) is not None]
        leaks += [leak for leak, digest in values if len(self._values[digest].users) <= self._common_over]
        for leak in leaks:
            known = found.get(leak.finding_id)
            if known is None or (leak.length or 0, leak.score) > (known.length or 0, known.score):
                found[leak.finding_id] = leak
        return list(found.values())

    def _take_in(self, batch: Sequence[Message], pairs: set[tuple[int, int]], values: list[tuple[Leak, bytes]]) -> None:
        """Add to the index; what may be leaks goes to `pairs` (message, earlier one) and `values`."""
        if not batch:
            return
        base = len(self._places)
        texts = [normalized(message.text) for message in batch]
        for number, message in enumerate(batch, base):
            self._places.append(
                Place(
                    message.partition, message.position, message.recorded_at, message.tenant, message.user,
                    message.session_id,
                )
            )  # fmt: skip
            user = self._users.setdefault((message.tenant, message.user), len(self._users))
            self._user_of.append(user)
            self._tenants.setdefault(message.tenant, len(self._tenants))
            self._sessions.setdefault(message.session_id, []).append(number)
        if self._text_of is None:
            self._texts += texts
        else:
            self._recent = dict(enumerate(texts, base))
        pairs.update(self._candidates(batch, self._winnower.of(texts), base))
        for number, message in enumerate(batch, base):
            values += self._identified(message, number)

    # --- texts --------------------------------------------------------------------------------------------------------

    def _candidates(self, batch: Sequence[Message], made: Fingerprints, base: int) -> set[tuple[int, int]]:
        """(message, earlier message of another user) that share a fingerprint; the index takes the batch in."""
        hashes = made.hashes
        if not len(hashes):
            return set()
        numbers = (made.texts + base).astype(np.int32)
        users = np.asarray(self._user_of, np.int32)
        order = np.lexsort((numbers, hashes))
        hashes, numbers = hashes[order], numbers[order]
        owner = users[numbers]
        starts = np.ones(len(hashes), bool)
        starts[1:] = hashes[1:] != hashes[:-1]
        group = np.cumsum(starts) - 1
        distinct = hashes[starts]
        known = self._first.find(distinct)
        new = known[:, 0] < 0
        first = np.where(new, numbers[starts], known[:, 0]).astype(np.int32)
        first_of, first_user = first[group], users[first][group]
        # once for each fingerprint and user: the earliest message of that user in this batch
        key = _with(hashes, owner)
        by_user = np.lexsort((numbers, key))
        once = np.ones(len(key), bool)
        once[1:] = key[by_user][1:] != key[by_user][:-1]
        earliest = by_user[once]
        keys = key[earliest]
        fresh = self._seen.find(keys)[:, 0] < 0
        chosen, keys = earliest[fresh], keys[fresh]
        self._supply(batch, base, hashes, numbers)
        roles = np.fromiter((_leaks(message) for message in batch), bool, len(batch))
        foreign = (first_user[chosen] != owner[chosen]) & roles[numbers[chosen] - base]
        wanted = chosen[foreign]
        count = np.where(new, 0, known[:, 1])
        beside = np.bincount(group[chosen][first_user[chosen] != owner[chosen]], minlength=len(distinct))
        common = (count + beside)[group] + 1 > self._common_over
        wanted = wanted[~common[wanted]]
        wanted = wanted[~self._is_supplied(batch, base, hashes[wanted], numbers[wanted])]
        pairs = set(zip(numbers[wanted].tolist(), first_of[wanted].tolist(), strict=True))
        self._first.add(distinct[new], np.stack([first[new], beside[new].astype(np.int32)], axis=1))
        grown = ~new & (beside > 0)
        self._first.count(distinct[grown], beside[grown].astype(np.int32))
        self._seen.add(keys, np.stack([numbers[chosen], np.zeros(len(chosen), np.int32)], axis=1))
        return pairs

    def _supply(
        self, batch: Sequence[Message], base: int, hashes: npt.NDArray[np.uint64], numbers: npt.NDArray[np.int32]
    ) -> None:
        """Note what system messages and shared sources of this batch supply to their tenants."""
        supplying = np.fromiter((_supplies(message) for message in batch), bool, len(batch))[numbers - base]
        if not supplying.any():
            return
        tenants = np.fromiter((self._tenants[message.tenant] for message in batch), np.int32, len(batch))
        keys = _with(hashes[supplying], tenants[numbers[supplying] - base])
        keys, places = np.unique(keys, return_index=True)
        fresh = self._supplied.find(keys)[:, 0] < 0
        values = numbers[supplying][places][fresh]
        self._supplied.add(keys[fresh], np.stack([values, np.zeros(len(values), np.int32)], axis=1))

    def _is_supplied(
        self, batch: Sequence[Message], base: int, hashes: npt.NDArray[np.uint64], numbers: npt.NDArray[np.int32]
    ) -> npt.NDArray[np.bool_]:
        """Whether each fingerprint was supplied to the tenant of its message before that message."""
        tenants = np.fromiter((self._tenants[message.tenant] for message in batch), np.int32, len(batch))
        keys = _with(hashes, tenants[numbers - base])
        order = np.argsort(keys, kind="stable")
        found = np.empty(len(keys), np.int32)
        found[order] = self._supplied.find(keys[order])[:, 0]
        return (found >= 0) & (found < numbers)

    def _text(self, number: int) -> str | None:
        """The normalized text of a message; None: it can not be had any more."""
        if self._text_of is None:
            return self._texts[number]
        recent = self._recent.get(number)
        if recent is not None:
            return recent
        told = self._text_of(self._places[number])
        return None if told is None else normalized(told)

    def _compared(self, leaking: int, source: int) -> Leak | None:
        """The leak, if the texts share enough that is not common."""
        place, origin = self._places[leaking], self._places[source]
        text, earlier = self._text(leaking), self._text(source)
        if text is None or earlier is None:
            return None
        runs = [length for run in shared_runs(earlier, text, GRAM_BYTES) for length in self._uncommon(run)]
        longest, total = max(runs, default=0), sum(runs)
        score = min(total / max(len(text), 1), 1.0)
        if longest >= self._run_min:
            kind, length = TEXT, longest
        elif total >= self._run_min and score >= self._share_min:
            kind, length = REWORDED, total
        else:
            return None
        severity = CRITICAL if origin.tenant != place.tenant else ERROR if kind == TEXT else WARNING
        return Leak(kind, severity, place, origin, direction(origin, place), length, round(score, 6))

    def _uncommon(self, run: str) -> list[int]:
        """The lengths of what remains of a shared run without its common stretches.

        A stretch is common whose grams, one after the other, all are, over `COMMON_MIN` characters or more: one common
        phrase does not make a text boilerplate.
        """
        hashes, places = self._winnower.selected(run)
        if not len(hashes):
            return [len(run)]
        order = np.argsort(hashes, kind="stable")
        count = np.empty(len(hashes), np.int32)
        count[order] = self._first.find(hashes[order])[:, 1]
        common = count + 1 > self._common_over
        if not common.any():
            return [len(run)]
        if not run.isascii():
            return [] if common.all() else [len(run)]  # places are bytes: such a run is judged as a whole
        left: list[int] = []
        start = first = 0
        last = -1  # of the stretch that is under way; before `first`: none is
        for at, is_common in [*zip(places.tolist(), common.tolist(), strict=True), (len(run), False)]:
            if is_common:
                if last < first:
                    first = at
                last = at + self._winnower.gram
                continue
            if last - first >= COMMON_MIN:
                left.append(first - start)
                start = last
            first, last = 0, -1
        left.append(len(run) - start)
        return [length for length in left if length >= GRAM_BYTES]

    # --- identifying values -------------------------------------------------------------------------------------------

    def _identified(self, message: Message, number: int) -> Iterator[tuple[Leak, bytes]]:
        user = self._user_of[number]
        for kind, value in identifiers(message.text):
            digest = hashlib.blake2b(f"{kind}:{value}".encode(), digest_size=16, key=self._value_key).digest()
            known = self._values.get(digest)
            if known is None:
                known = self._values[digest] = _Value(number)
            if _supplies(message):
                known.public.add(message.tenant)
            if user in known.users:
                continue
            known.users.add(user)
            source = self._user_of[known.first]
            if source == user or not _leaks(message) or message.tenant in known.public:
                continue
            if len(known.users) > self._common_over:
                continue
            place, origin = self._places[number], self._places[known.first]
            leak = Leak(kind, CRITICAL, place, origin, direction(origin, place), len(value), 1.0)
            yield leak, digest

    # --- erasure ------------------------------------------------------------------------------------------------------

    def forget(self, session_id: bytes) -> int:
        """Take an erased session out of the index; how many of its messages were in it."""
        numbers = self._sessions.pop(session_id, [])
        if numbers:
            gone = np.asarray(numbers, np.int32)
            for runs in (self._first, self._seen, self._supplied):
                runs.drop(gone)
            for number in numbers if self._texts else ():
                self._texts[number] = ""
            mine = set(numbers)
            self._values = {digest: value for digest, value in self._values.items() if value.first not in mine}
        return len(numbers)


def _with(hashes: npt.NDArray[np.uint64], numbers: npt.NDArray[np.int32]) -> npt.NDArray[np.uint64]:
    """Fingerprints bound to a user or tenant: other keys, one to one up to collisions of 64 bits."""
    mixed = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    return hashes ^ mixed


def _leaks(message: Message) -> bool:
    return message.role in LEAKING and message.shared_source is None


def _supplies(message: Message) -> bool:
    return message.role in SUPPLYING or message.shared_source is not None
