"""The headcount: who is connected to the fabric's account on all servers, and whether there is room for one more.

The server bounds an account's connections, and masters are in it: whoever fills it shuts them out, and with them every
cure. So the callout lets in fewer than the server would, and of one identity fewer still; what is left is for masters,
and for operators who come to end it.

An admission counts at once, because many may come before the server reports the first; one that the server never
reports (the client has gone) is forgotten. What the servers list from time to time mends what was not heard.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from antiphon.messages.base import Kind

UNSURE_MS: Final = 5_000
"""How long an admission counts that the server has not reported: it waits two seconds for the answer itself."""
ROOM_FOR_MASTERS: Final = 1_000
"""Connections that the server allows beyond `HeadBounds.connections`; masters have three each."""
ROOM_FOR_OPERATORS: Final = 100
"""Of those, for operators."""


@dataclass(frozen=True, slots=True)
class HeadBounds:
    """How many connections the callout lets in."""

    connections: int = 19_000
    of_one: int = 1_000
    """Of one identity, all its instances together; while a token is renewed there are two of each."""


class Place(NamedTuple):
    """One connection: which server has it, and its number there."""

    server: str
    cid: int


@dataclass(slots=True)
class _Head:
    name: str
    since_ms: int
    is_sure: bool


class Headcount:
    """Who is connected; one object of one reader, changed in place."""

    def __init__(self, bounds: HeadBounds | None = None) -> None:
        self.bounds = bounds or HeadBounds()
        self._there: dict[Place, _Head] = {}
        self._of: Counter[str] = Counter()
        self._unsure: deque[tuple[int, Place]] = deque()

    def __len__(self) -> int:
        return len(self._there)

    def of(self, name: str) -> int:
        """Return how many connections an identity has."""
        return self._of[name]

    def admit(self, place: Place, kind: Kind, name: str, now_ms: int) -> bool:
        """Whether there is room for one more; if so, it counts from now on."""
        self._forget(now_ms)
        room = self.bounds.connections + (ROOM_FOR_OPERATORS if kind is Kind.OPERATOR else 0)
        if len(self._there) >= room or self._of[name] >= self.bounds.of_one:
            return False
        self._put(place, _Head(name, now_ms, is_sure=False))
        self._unsure.append((now_ms + UNSURE_MS, place))
        return True

    def came(self, place: Place, name: str, now_ms: int) -> None:
        """Take a server's word that somebody is there; masters have no name here."""
        self._put(place, _Head(name, now_ms, is_sure=True))

    def went(self, place: Place) -> None:
        """Take a server's word that somebody has gone."""
        gone = self._there.pop(place, None)
        if gone is not None:
            self._of[gone.name] -= 1
            if not self._of[gone.name]:
                del self._of[gone.name]

    def compare(self, listed: Mapping[Place, str], began_ms: int) -> None:
        """Take all servers' whole lists, which were asked for at `began_ms`; what came or went since then stays."""
        for place, head in tuple(self._there.items()):
            if head.is_sure and head.since_ms < began_ms and place not in listed:
                self.went(place)
        for place, name in listed.items():
            if place not in self._there:
                self.came(place, name, began_ms)

    def _put(self, place: Place, head: _Head) -> None:
        self.went(place)
        self._there[place] = head
        self._of[head.name] += 1

    def _forget(self, now_ms: int) -> None:
        while self._unsure and self._unsure[0][0] <= now_ms:
            _, place = self._unsure.popleft()
            head = self._there.get(place)
            if head is not None and not head.is_sure:
                self.went(place)
