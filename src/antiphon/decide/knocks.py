"""Knocks at the door: who failed so often that he is refused unseen, and how much of it is looked into and told.

Two bounds. One credential from one place may fail so often a minute; then it is refused without a look, right or wrong,
so that nobody tries secrets. Whoever has come in with that credential and that key before is looked at all the same:
otherwise a stranger could shut an owner out by failing in his name. And all strangers of one place together are told
one by one, and looked up where the book does not know them, so often a minute; of the others only the number is told,
so that nobody fills the log or keeps the store busy by knocking with things that nobody has ever made.

One object of one reader, changed in place. Everything in it is bounded, and the oldest is forgotten first.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeVar

from antiphon.decide.limit import MINUTE_MS, Limiter, Rate

K = TypeVar("K")
V = TypeVar("V")

REMEMBERED_MAX: Final = 10_000
"""Credentials that are held, keys that came in, and places whose refusals are only counted: of each the last ones."""


class Knock(NamedTuple):
    """Somebody who has proved that a key is his, and what he brings."""

    place: str
    """Where he comes from: his host."""
    credential: str
    """The public id of what he brings."""
    nkey: str


@dataclass(frozen=True, slots=True)
class KnockBounds:
    """How often one may fail; None is no limit."""

    failures: Rate | None = field(default_factory=Rate)
    """With one credential, from one place."""
    strangers: Rate | None = field(default_factory=lambda: Rate(600, MINUTE_MS, 600))
    """From one place, with anything."""


class Knocks:
    """Who has knocked at one door."""

    def __init__(self, bounds: KnockBounds | None = None) -> None:
        self.bounds = bounds or KnockBounds()
        self._failures: Limiter[tuple[str, str]] = Limiter(REMEMBERED_MAX)
        self._strangers: Limiter[str] = Limiter(REMEMBERED_MAX)
        self._held: OrderedDict[tuple[str, str], int] = OrderedDict()
        """(place, credential) -> until when."""
        self._welcome: OrderedDict[tuple[str, str], None] = OrderedDict()
        """(credential, key) that came in."""
        self._untold: OrderedDict[str, int] = OrderedDict()

    def is_held(self, knock: Knock, now_ms: int) -> bool:
        """Whether to refuse without a look."""
        if (knock.credential, knock.nkey) in self._welcome:
            return False
        return self._held.get((knock.place, knock.credential), 0) > now_ms

    def came_in(self, knock: Knock) -> None:
        """Remember who was let in."""
        _remember(self._welcome, (knock.credential, knock.nkey), None)

    def failed(self, knock: Knock, now_ms: int) -> None:
        """Count a failure, and hold the credential where there were too many."""
        self._welcome.pop((knock.credential, knock.nkey), None)
        if self.bounds.failures is None:
            return
        which = (knock.place, knock.credential)
        after_ms = self._failures.judge(which, self.bounds.failures, now_ms).retry_after_ms
        if after_ms:
            _remember(self._held, which, now_ms + after_ms)

    def may_look(self, place: str, now_ms: int) -> bool:
        """Whether a stranger is worth a round trip to the store."""
        rate = self.bounds.strangers
        return rate is None or not self._strangers.after_ms(place, rate, now_ms)

    def told(self, place: str, now_ms: int) -> int | None:
        """Return whether a refusal is told: how many before it were not, or None where this one is not either."""
        rate = self.bounds.strangers
        if rate is None or self._strangers.judge(place, rate, now_ms).is_allowed:
            return self._untold.pop(place, 0)
        _remember(self._untold, place, self._untold.get(place, 0) + 1)
        return None


def _remember(kept: OrderedDict[K, V], key: K, value: V) -> None:
    """Remember one more, and forget the oldest where that is too many."""
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > REMEMBERED_MAX:
        kept.popitem(last=False)
