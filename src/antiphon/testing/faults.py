"""Faults between the parties of a `TestFleet`: messages late, lost, repeated or garbled, parties cut off or frozen.

A party is named as in the fleet: a master, a client, or a node; `blog` is all instances of the node, `blog.i2` one of
them. A fault concerns what a party *sends*, to everybody or to one other party, on every subject or on those that a
pattern matches. Each is in force until it is healed; as a context it heals at the end:

    with fleet.faults.drop("blog", share=0.1):
        answer = await fleet.search("whales")

What befalls a message is drawn from the fleet's seed, for each link apart. Key-values are the server's own and come
to no harm, except that whoever is disconnected does not reach them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from types import TracebackType
from typing import Self

from antiphon.bus.memory import MemoryDelivery, MemoryTransport, matches
from antiphon.testing.links import Link, Offer, Parcel

Milliseconds = float | Callable[[Random], float]
"""A fixed time, or how to draw one."""
Strike = Callable[[Parcel, Random], Sequence[Parcel]]
"""What becomes of one message: nothing, itself, another one, or several."""
GARBAGE = (b"", b"null", b"[]", b"{}", b'"', b"7", b"\xff\xfe\x00", b"[" * 2_000, b'{"hits": 7, "load": []}')


class Fault:
    """One fault in force, until it is healed."""

    def __init__(
        self,
        faults: Faults,
        sender: str | None,
        to: str | None,
        *,
        subject: str = ">",
        share: float = 1.0,
        is_mutual: bool = False,
        strike: Strike | None = None,
    ) -> None:
        self.struck = 0
        """Messages that it has befallen so far."""
        self.holds = strike is None
        self._faults = faults
        self._sender = sender
        self._to = to
        self._subject = subject
        self._share = share
        self._is_mutual = is_mutual
        self._strike = strike

    def concerns(self, sender: str, receiver: str) -> bool:
        """Whether it befalls what the one sends to the other; what a party sends itself needs no network."""
        if sender == receiver and not self.holds:
            return False
        if is_of(sender, self._sender) and is_of(receiver, self._to):
            return True
        return self._is_mutual and is_of(receiver, self._sender) and is_of(sender, self._to)

    def strike(self, parcel: Parcel, dice: Random) -> Sequence[Parcel]:
        """Return what becomes of a message."""
        if self._strike is None or not matches(self._subject, parcel.delivery.subject):
            return (parcel,)
        if self._share < 1.0 and dice.random() >= self._share:
            return (parcel,)
        self.struck += 1
        return self._strike(parcel, dice)

    def heal(self) -> None:
        """End the fault; what it holds back arrives now, what is lost stays lost."""
        self._faults.forget(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.heal()


class Disconnection(Fault):
    """Parties that have lost their connection, and know it."""

    def __init__(self, faults: Faults, party: str | None, transports: Sequence[MemoryTransport]) -> None:
        super().__init__(faults, party, None, subject="", strike=lambda parcel, _: (parcel,))
        self._transports = transports
        for transport in transports:
            transport.sever()

    def heal(self) -> None:
        """Give them their connections back."""
        super().heal()
        for transport in self._transports:
            if not transport.is_connected:
                transport.mend()
        self._transports = ()


class Faults:
    """What lies between the parties; a `Network` of the memory server."""

    def __init__(self, seed: int, transports: Callable[[str | None], Sequence[MemoryTransport]]) -> None:
        self._seed = seed
        self._transports = transports
        self._links: dict[tuple[str, str], Link] = {}
        self._current: list[Fault] = []

    def delay(
        self,
        sender: str | None = None,
        ms: Milliseconds = 100,
        *,
        to: str | None = None,
        share: float = 1.0,
        subject: str = ">",
    ) -> Fault:
        """Make messages late, by so many milliseconds or by `ms(dice)`, e.g. `lambda dice: dice.expovariate(1 / 50)`.

        Order is kept: what comes behind a late message waits for it.
        """

        def strike(parcel: Parcel, dice: Random) -> Sequence[Parcel]:
            late_ms = ms(dice) if callable(ms) else ms
            return (replace(parcel, delay_ms=parcel.delay_ms + max(0.0, late_ms)),)

        return self._add(Fault(self, sender, to, subject=subject, share=share, strike=strike))

    def drop(
        self, sender: str | None = None, *, to: str | None = None, share: float = 1.0, subject: str = ">"
    ) -> Fault:
        """Lose messages; nobody is told."""
        return self._add(Fault(self, sender, to, subject=subject, share=share, strike=_lost))

    def duplicate(
        self, sender: str | None = None, *, to: str | None = None, share: float = 1.0, subject: str = ">"
    ) -> Fault:
        """Have messages arrive twice."""
        return self._add(Fault(self, sender, to, subject=subject, share=share, strike=lambda one, _: (one, one)))

    def garble(
        self, sender: str | None = None, *, to: str | None = None, share: float = 1.0, subject: str = ">"
    ) -> Fault:
        """Have something arrive in place of messages that is none: cut off, of another form, or no text at all."""
        return self._add(Fault(self, sender, to, subject=subject, share=share, strike=_garbled))

    def partition(self, one: str, other: str | None = None) -> Fault:
        """Lose everything between two parties, or between one and everybody; both still reach the server."""
        return self._add(Fault(self, one, other, is_mutual=True, strike=_lost))

    def freeze(self, party: str) -> Fault:
        """Hold everything that a party sends or is sent until it is healed, as SIGSTOP does."""
        return self._add(Fault(self, party, None, is_mutual=True))

    def disconnect(self, party: str | None = None) -> Fault:
        """Take the connection of a party, or of all: the server is away. They notice, and reconnect when it heals."""
        return self._add(Disconnection(self, party, self._transports(party)))

    def heal(self) -> None:
        """End all faults."""
        for fault in tuple(self._current):
            fault.heal()

    def forget(self, fault: Fault) -> None:
        """Have a fault befall nobody any more."""
        if fault in self._current:
            self._current.remove(fault)
            for link in self._links.values():
                link.pump()

    def carry(self, sender: str, receiver: str, delivery: MemoryDelivery, offer: Offer) -> None:
        """Carry a message over its link, with all that befalls it."""
        link = self._links.get((sender, receiver))
        if link is None:
            link = self._link(sender, receiver)
        parcels: Sequence[Parcel] = (Parcel(delivery),)
        for fault in self._current:
            if fault.concerns(sender, receiver):
                parcels = [after for parcel in parcels for after in fault.strike(parcel, link.dice)]
        for parcel in parcels:
            link.send(parcel, offer)

    def lose(self, party: str) -> None:
        """Lose what is on its way from a party that was killed, and to it."""
        for (sender, receiver), link in self._links.items():
            if party in (sender, receiver):
                link.clear()

    def _add(self, fault: Fault) -> Fault:
        self._current.append(fault)
        return fault

    def _link(self, sender: str, receiver: str) -> Link:
        def is_held() -> bool:
            return any(fault.holds and fault.concerns(sender, receiver) for fault in self._current)

        link = self._links[sender, receiver] = Link(f"{self._seed}/{sender}>{receiver}", is_held)
        return link


def is_of(party: str, selected: str | None) -> bool:
    """Whether a party is the selected one, or an instance of it."""
    return selected is None or party == selected or party.startswith(selected + ".")


def _lost(_parcel: Parcel, _dice: Random) -> Sequence[Parcel]:
    return ()


def _garbled(parcel: Parcel, dice: Random) -> Sequence[Parcel]:
    whole = parcel.delivery
    half = whole.data[: len(whole.data) // 2]
    data = dice.choice((*GARBAGE, half, dice.randbytes(dice.randint(1, 200))))
    return (replace(parcel, delivery=replace(whole, data=data)),)
