"""Whom to ask of each node now, how long to wait, and what was learned of it: one master's book of the fleet.

Everything that is decided for a node before it is asked meets here: the operators' wish and the heartbeats (registry),
its breakers, its rate, its compartment (bulkhead), the balancer, the learned bound, and when to hedge. Everything that
a request teaches goes back the same way, once: each request is a `Leg`, and a leg ends exactly once.

It runs for each node of each search, so it is one object that is changed in place; nothing here waits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from antiphon.decide import balance, breakers, hedge
from antiphon.decide.balancing import Strategy
from antiphon.decide.bound import Bound, BoundLimits
from antiphon.decide.breakers import BreakerView, Probe
from antiphon.decide.bulkhead import Bulkhead, BulkheadBounds, Turn
from antiphon.decide.ending import Ending, ending_of
from antiphon.decide.failures import Key
from antiphon.decide.gather import NEVER, Expected
from antiphon.decide.hedge import HedgeBounds
from antiphon.decide.limit import MINUTE_MS, Limiter, Rate
from antiphon.decide.load import Flight, Loads
from antiphon.decide.registry import NodeView, RegistryView

US = 1_000
SEARCH = "search"
"""The verb whose breakers searches ask."""
RUN = "run"
"""The verb whose breakers actions ask."""


class Judges(Protocol):
    """Who holds the breakers; see `actors/breaker.py`."""

    @property
    def view(self) -> BreakerView:
        """What is not closed."""
        ...

    def ended(self, key: Key, ending: Ending, began_ms: int, now_ms: int) -> None:
        """Take how a call ended that was no probe."""

    def probed(self, key: Key, ending: Ending) -> None:
        """Take what came of a probe."""


class Waiter(Protocol):
    """A search that may have to wait for its turn at a node."""

    def admitted(self, at: int) -> None:
        """Ask the node of this line now."""


@dataclass(frozen=True, slots=True)
class DispatchBounds:
    """The limits that searches are dispatched within."""

    balancer: str = balance.DEFAULT
    bound: BoundLimits = field(default_factory=BoundLimits)
    bulkhead: BulkheadBounds = field(default_factory=BulkheadBounds)
    hedge: HedgeBounds = field(default_factory=HedgeBounds)


@dataclass(frozen=True, slots=True)
class Pick:
    """Whom to ask of one node, or why nobody.

    Attributes:
        instance: whom; None where nobody can be asked.
        is_probe: whether asking it is a breaker's probe.
        code: why nobody.
        text: the same for people.
        after_ms: when it may be asked, where it only has to wait.
    """

    instance: str | None
    is_probe: bool = False
    code: str = ""
    text: str = ""
    after_ms: int = 0


class Leg:
    """One request to one instance; whoever ends it first says what it taught."""

    __slots__ = ("began_us", "flight", "instance", "is_over", "is_probe", "of")

    def __init__(self, of: NodeBook, instance: str, flight: Flight, began_us: int, *, is_probe: bool) -> None:
        self.of = of
        self.instance = instance
        self.flight = flight
        self.began_us = began_us
        self.is_probe = is_probe
        self.is_over = False


class NodeBook:
    """What one master knows of one node."""

    __slots__ = ("balancer", "bound", "bulkhead", "loads", "node", "rate", "seen", "strategy")

    def __init__(self, node: str, bounds: DispatchBounds) -> None:
        self.node = node
        self.bound = Bound(bounds.bound)
        self.loads = Loads()
        self.bulkhead: Bulkhead[tuple[Waiter, int]] = Bulkhead(bounds.bulkhead)
        self.balancer = ""
        self.strategy: Strategy = balance.strategy(balance.DEFAULT).make()
        self.rate: Rate | None = None
        self.seen: NodeView | None = None

    def read(self, node: NodeView, bounds: DispatchBounds, balancer: str) -> None:
        """Take what the registry says now; called where it is another view than the last."""
        if balancer != self.balancer:
            self.balancer = balancer
            # a card may name one that this master does not have; no search may fail for that
            known = balance.strategies()
            self.strategy = (known.get(balancer) or known[bounds.balancer]).make()
        most = node.max_parallel_requests or bounds.bulkhead.in_flight_max
        if most != self.bulkhead.bounds.in_flight_max:
            given = bounds.bulkhead
            self.bulkhead.bounds = BulkheadBounds(most, given.queue_max, given.retry_after_ms, given.retry_after_ms_max)
        rate = node.rate_per_minute
        self.rate = None if rate is None else Rate(rate, MINUTE_MS, rate)
        self.loads.weigh(node.weights)
        self.seen = node


class Dispatch:
    """One master's book of the fleet, for one verb."""

    def __init__(self, bounds: DispatchBounds, judges: Judges, dice: Random, *, verb: str = SEARCH) -> None:
        self.bounds = bounds
        self.verb = verb
        self.judges = judges
        self.dice = dice
        self.hedges = bounds.hedge.budget()
        self._books: dict[str, NodeBook] = {}
        self._rates: Limiter[str] = Limiter()
        self._registry: RegistryView | None = None
        balance.strategy(bounds.balancer)

    def expect(
        self,
        registry: RegistryView,
        nodes: Iterable[NodeView],
        waiter: Waiter,
        *,
        left_ms: int,
        now_ms: int,
        balancer: str | None = None,
    ) -> list[Expected]:
        """Return the expected set, each node with whom to ask or why not.

        Args:
            registry: the view that the nodes are from.
            nodes: who is expected.
            waiter: is told `admitted(at)` when a node that is full has room for it.
            left_ms: the search's budget for gathering.
            now_ms: the time.
            balancer: the question's own choice, if any.

        Raises `UnknownMethod` for a question's choice that is none, before any compartment is entered.
        """
        if balancer is not None:
            balance.strategy(balancer)
        if registry is not self._registry:
            self._turn(registry)
        shut = self.judges.view
        return [
            self._one(node, shut, waiter, at, left_ms, now_ms, balancer or node.balancer or self.bounds.balancer)
            for at, node in enumerate(nodes)
        ]

    def pick(self, registry: RegistryView, node: NodeView, instances: tuple[str, ...], now_ms: int) -> Pick:
        """Return whom to ask of a node among some of its instances: one request that is awaited by somebody else.

        It passes through no compartment and has no learned bound: what is asked takes as long as it takes.
        """
        if registry is not self._registry:
            self._turn(registry)
        active = tuple(one for one in node.active if one in instances)
        if not active:
            unasked = _unasked(node)
            return Pick(None, code=unasked.code, text=unasked.text)
        name, balancer, shut = node.node, node.balancer or self.bounds.balancer, self.judges.view
        book = self._books.get(name)
        if book is None:
            book = self._books[name] = NodeBook(name, self.bounds)
        if book.seen is not node or book.balancer != balancer:
            book.read(node, self.bounds, balancer)
        if book.rate is not None:
            after_ms = self._rates.judge(name, book.rate, now_ms).retry_after_ms
            if after_ms:
                return Pick(None, code="overloaded", text=f"its rate is used up for {after_ms} ms", after_ms=after_ms)
        probe = breakers.probe(shut, name, self.verb, active, now_ms)
        if probe is not None:
            return Pick(probe.instance, is_probe=True)
        candidates = breakers.eligible(shut, name, self.verb, active)
        if not candidates:
            return Pick(None, code="open", text="its breaker is open")
        return Pick(book.strategy.order(candidates, book.loads, now_ms, self.dice)[0])

    def _turn(self, registry: RegistryView) -> None:
        """Forget nodes that have left; one in use is kept: who is in its compartment has to leave this one."""
        self._registry = registry
        self._books = {
            name: book
            for name, book in self._books.items()
            if name in registry.nodes or book.bulkhead.in_flight or book.bulkhead.waiting
        }

    def _one(  # noqa: PLR0917 - the hot path: ten calls a search
        self, node: NodeView, shut: BreakerView, waiter: Waiter, at: int, left_ms: int, now_ms: int, balancer: str
    ) -> Expected:
        name, active = node.node, node.active
        if not active:
            return _unasked(node)
        book = self._books.get(name)
        if book is None:
            book = self._books[name] = NodeBook(name, self.bounds)
        if book.seen is not node or book.balancer != balancer:
            book.read(node, self.bounds, balancer)
        candidates = breakers.eligible(shut, name, self.verb, active)
        if not candidates and (name, self.verb) not in shut.shut:
            return _unasked(node)
        if candidates and book.rate is not None:
            after_ms = self._rates.judge(name, book.rate, now_ms).retry_after_ms
            if after_ms:
                return Expected(name, (), code="overloaded", text=f"its rate is used up for {after_ms} ms")
        turn = book.bulkhead.enter((waiter, at), now_ms + left_ms, now_ms).turn
        if turn is Turn.REFUSE:
            return Expected(name, (), code="overloaded", text="its compartment and the queue before it are full")
        probe = breakers.probe(shut, name, self.verb, active, now_ms) if turn is Turn.RUN else None
        if not candidates and probe is None:
            if turn is Turn.RUN:
                self.left(name, now_ms)
            else:
                book.bulkhead.withdraw((waiter, at))
            return Expected(name, (), code="open", text="its breaker is open")
        order = book.strategy.order(candidates, book.loads, now_ms, self.dice) if candidates else ()
        return self._asked(book, order, probe, left_ms, now_ms, is_waiting=turn is Turn.WAIT)

    def _asked(
        self,
        book: NodeBook,
        order: tuple[str, ...],
        probe: Probe | None,
        left_ms: int,
        now_ms: int,
        *,
        is_waiting: bool,
    ) -> Expected:
        bound_ms = min(left_ms, book.bound.bound_ms(now_ms))
        if probe is not None:
            order = (probe.instance, *(one for one in order if one != probe.instance))
        hedge_us = NEVER
        if len(order) > 1:
            after_ms = hedge.delay_ms(
                book.bound.quantiles, len(order), bound_ms, is_idempotent=True, bounds=self.bounds.hedge
            )
            if after_ms is not None:
                hedge_us = after_ms * US
        return Expected(book.node, order, bound_ms * US, hedge_us, is_probe=probe is not None, is_waiting=is_waiting)

    def started(self, node: str, instance: str, now_us: int, now_ms: int, *, is_probe: bool) -> Leg:
        """Note a request; its leg has to be ended."""
        book = self._books.get(node)
        if book is None:  # it left the registry while it waited
            book = NodeBook(node, self.bounds)
        return Leg(book, instance, book.loads.started(instance, now_ms), now_us, is_probe=is_probe)

    def ended(self, leg: Leg, code: str | None, now_us: int, now_ms: int) -> None:
        """Learn from how a request ended: `code` is None for an answer, else the error's wire code."""
        if leg.is_over:
            return
        leg.is_over = True
        took_us = now_us - leg.began_us
        bound = leg.of.bound
        ending = Ending.SUCCEEDED if code is None else ending_of(code, took_us // US, bound.limits.floor_ms)
        leg.flight.ended(ending, took_us, now_ms)
        if code == "out_of_budget":
            bound.timed_out(took_us, now_ms)
        elif ending is Ending.SUCCEEDED or ending is Ending.FAILED:
            bound.answered(took_us, now_ms)
        key = (leg.of.node, leg.instance, self.verb)
        if leg.is_probe:
            self.judges.probed(key, ending)
        else:
            self.judges.ended(key, ending, now_ms - took_us // US, now_ms)

    def abandoned(self, leg: Leg, now_us: int, now_ms: int) -> None:
        """End a request that nobody waits for any more: its hedge won, or its asker left."""
        if leg.is_over:
            return
        leg.is_over = True
        waited_us = now_us - leg.began_us
        leg.flight.abandoned(waited_us, now_ms)
        leg.of.bound.timed_out(waited_us, now_ms)
        if leg.is_probe:
            self.judges.probed((leg.of.node, leg.instance, self.verb), Ending.ABANDONED)

    def left(self, node: str, now_ms: int) -> None:
        """Note that a search is done with a node that it ran at, and give the room to whoever waits."""
        book = self._books.get(node)
        if book is not None and book.bulkhead.in_flight:
            token, _ = book.bulkhead.left(now_ms)
            if token is not None:
                waiter, at = token
                waiter.admitted(at)

    def withdraw(self, node: str, waiter: Waiter, at: int) -> None:
        """Note that a search no longer waits for its turn at a node."""
        book = self._books.get(node)
        if book is not None:
            book.bulkhead.withdraw((waiter, at))

    def told(self, node: str, instance: str, in_flight: int, latency_us: int, now_ms: int) -> None:
        """Take what an instance told of itself."""
        book = self._books.get(node)
        if book is not None:
            book.loads.told(instance, in_flight, latency_us, now_ms)

    def book(self, node: str) -> NodeBook | None:
        """Return what is known of a node, for listings."""
        return self._books.get(node)


def _unasked(node: NodeView) -> Expected:
    """Return why nobody of a node is asked: what operators wish, else that nobody is heard."""
    status = node.status.value
    if status in ("suspended", "draining"):
        return Expected(node.node, (), code=status, text=f"an operator has it {status}")
    return Expected(node.node, ())
