"""The monitor: pings every instance now and then, hears heartbeats, and says how everything is and what is wrong.

It decides nothing that searches go by. Whether an instance is up is the registry's to say, which is told of each ping;
breakers open by what searches see. Searches count what came of them (`decide/traffic.py`) and the monitor looks once
a second, so watching costs them one look-up a line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from random import Random

from antiphon.actors.alerting import AlertDesk, Condition
from antiphon.actors.breaker import BreakerHandle
from antiphon.actors.pings import Echo, Pings
from antiphon.bus.bus import Bus, Call
from antiphon.decide import health, overview
from antiphon.decide.alerts import AlertBounds
from antiphon.decide.breaker import Breaker, State
from antiphon.decide.dispatch import Dispatch
from antiphon.decide.health import HealthBounds, NodeHealth, Vitals
from antiphon.decide.record_health import RecordHealth, Reported
from antiphon.decide.registry import Key, NodeView, RegistryView
from antiphon.decide.traffic import Traffic
from antiphon.errors import NoResponders, NotConnected, OutOfBudget
from antiphon.messages.lane import Load
from antiphon.messages.monitor import MonitorAsk, MonitorInstance, MonitorNode, MonitorView
from antiphon.messages.records import FactsDropped, RecorderReported
from antiphon.messages.registry import HeartBeaten, Status
from antiphon.runtime.actor import Actor, ActorBounds, answers, hears
from antiphon.runtime.keeping import Keeper
from antiphon.runtime.sinks import SinkSpool
from antiphon.runtime.views import View

TICK_MS = 250
"""How often it looks who is to be pinged."""
ROLL_MS = 1_000
"""How often it looks at what searches counted, and at what is wrong."""
CALLS_MIN = 20
"""Fewer requests within the window say nothing of an error rate or of coverage."""
ALL = "search"
"""The subject of alerts that are not of one node."""

VIEW_BYTES_MAX = 900_000
"""A view ends here and says how much it leaves out; a NATS message holds 1 MB."""

Judge = Callable[[Key, int, Load | None], None]
"""Is told of each ping: of whom, misses in a row until now, and what it said of itself."""


class Monitor(Actor):
    """How everything is, as one master sees it."""

    name = "monitor"

    def __init__(
        self,
        bus: Bus,
        registry: View[RegistryView],
        breakers: BreakerHandle,
        *,
        traffic: Traffic,
        dispatch: Callable[[], Dispatch | None],
        judge: Judge,
        parked: Callable[[], Mapping[str, str]] = dict[str, str],
        sinks: Sequence[SinkSpool] = (),
        keeper: Keeper | None = None,
        health: HealthBounds | None = None,
        alerts: AlertBounds | None = None,
        blind_ms: int = 3_000,
        bounds: ActorBounds | None = None,
        dice: Random | None = None,
    ) -> None:
        """Make one.

        Args:
            bus: this master's connection.
            registry: who is there.
            breakers: which breakers are not closed.
            traffic: where this master's searches are counted.
            dispatch: gives this master's book of the fleet, for latencies.
            judge: is told of each ping.
            parked: gives the sagas that this master knows to need a person, and why.
            sinks: where alerts go besides the log and the bus.
            keeper: where alerts are kept for the record.
            health: how often is pinged.
            alerts: how often is reminded.
            blind_ms: after a lost connection nobody was heard; for so long nothing is called wrong.
            bounds: the actor's limits.
            dice: draws when each instance is pinged; tests give seeded ones.
        """
        super().__init__(bus, bounds=bounds)
        self.registry = registry
        self.breakers = breakers
        self.traffic = traffic
        self.dispatch = dispatch
        self.judge = judge
        self.parked = parked
        self.health = health or HealthBounds()
        self.desk = AlertDesk(bus, sinks, alerts or AlertBounds(), keeper)
        self.pings = Pings(bus, wait_ms=self.health.wait_ms)
        self.record = RecordHealth()
        self.vitals: dict[Key, Vitals] = {}
        self._blind_ms = blind_ms
        self._blind_until_ms = 0
        self._rolled_ms = 0
        self._seen: RegistryView | None = None
        self._dice = dice or Random()  # noqa: S311 - no secret, a phase

    async def started(self) -> None:
        """Read what is open already."""
        await self.desk.start()
        self.bus.transport.on_reconnect(self._reconnected)
        self._rolled_ms = self.bus.clock.now_ms()
        self.tell_after(TICK_MS, self._tick)

    async def stop(self, *, is_crashed: bool = False) -> None:
        """Stop as every actor does, and wait for no ping."""
        await super().stop(is_crashed=is_crashed)
        self.pings.stop()
        await self.desk.stop()

    @hears(HeartBeaten)
    async def beat(self, fact: HeartBeaten, keys: dict[str, str]) -> None:
        """Note how busy an instance is; that registry and monitor both hear it costs 8 of 26 us a beat."""
        self._hear((keys["writer"], keys["instance"]), fact.load)
        vitals = self.vitals.get((keys["writer"], keys["instance"]))
        if vitals is not None:
            vitals.beat(fact.load.in_flight, self.bus.clock.now_ms())

    @hears(FactsDropped)
    async def lost(self, fact: FactsDropped, keys: dict[str, str]) -> None:
        """Note that a master has lost facts."""
        self.record.lost(keys["writer"], fact.dropped, self.bus.clock.now_ms())

    @hears(RecorderReported)
    async def reported(self, fact: RecorderReported, keys: dict[str, str]) -> None:
        """Note how a recorder is."""
        if fact.state == "stopped":
            self.record.stopped(keys["writer"])
            return
        reason = fact.reason if fact.state == "degraded" else None
        self.record.heard(keys["writer"], Reported(self.bus.clock.now_ms(), reason, fact.lag, fact.lag_ms))

    @answers(MonitorAsk)
    async def ask(self, call: Call[MonitorAsk]) -> MonitorView:  # noqa: ARG002 - it asks nothing else
        """Say how everything is."""
        total = self.traffic.fabric()
        view = MonitorView(
            at_ms=self.bus.clock.wall_ms(),
            masters=(self.bus.name,),
            nodes=tuple(self._node(node) for _, node in sorted(self.registry.current.nodes.items())),
            alerts=self.desk.open,
            requests_per_second=round(total.asked / self.traffic.seconds, 2),
            coverage=total.coverage if total.expected else None,
            suspects_itself=(self.bus.name,) if self.breakers.suspects_itself() else (),
        )
        return overview.bounded(view, min(VIEW_BYTES_MAX, self.bus.transport.payload_max))

    # -- pings

    async def _tick(self) -> None:
        now_ms = self.bus.clock.now_ms()
        self._follow_registry(now_ms)
        if self.bus.transport.is_connected:
            for key, vitals in self.vitals.items():
                if len(self.pings) >= self.health.in_flight_max:
                    break
                if vitals.is_ping_due(now_ms):
                    vitals.asked(now_ms)
                    await self.pings.ask(*key, self._echoed)
        if now_ms - self._rolled_ms >= ROLL_MS:
            self._rolled_ms = now_ms
            await self._roll(now_ms)
        self.tell_after(TICK_MS, self._tick)

    def _follow_registry(self, now_ms: int) -> None:
        view = self.registry.current
        if view is self._seen:
            return
        self._seen = view
        known = {(node.node, instance) for node in view.nodes.values() for instance in node.instances}
        for key in sorted(known - self.vitals.keys()):  # in order, so that one seed is one run
            # a phase of its own: a master that starts must not ping a thousand at once
            self.vitals[key] = Vitals(self.health, now_ms + self._dice.randrange(self.health.ping_ms))
        for key in self.vitals.keys() - known:
            del self.vitals[key]

    def _echoed(self, echo: Echo) -> None:
        self.tell(partial(self._pinged, echo))

    async def _pinged(self, echo: Echo) -> None:
        key, now_ms = (echo.node, echo.instance), self.bus.clock.now_ms()
        vitals = self.vitals.get(key)
        if vitals is None or echo.code in (NotConnected.code, NoResponders.code):
            # nobody listens: it is dead, and its heartbeats say so, or it serves no pings (docs/protocol.md)
            return
        if echo.code == OutOfBudget.code:
            vitals.ping_missed(now_ms)
            self.judge(key, vitals.misses, None)
            return
        load = None if echo.pong is None else echo.pong.load
        vitals.answered(echo.took_us, now_ms, None if load is None else load.in_flight)
        if load is not None:
            self._hear(key, load)
        self.judge(key, 0, load)

    def _hear(self, key: Key, load: Load) -> None:
        dispatch = self.dispatch()
        if dispatch is not None:
            dispatch.told(*key, load.in_flight, load.latency_us, self.bus.clock.now_ms())

    # -- what is wrong

    def _reconnected(self) -> None:
        self._blind_until_ms = self.bus.clock.now_ms() + self._blind_ms

    async def _roll(self, now_ms: int) -> None:
        nodes = self.registry.current.nodes
        self.traffic.roll(nodes)
        for (node, instance), tally in self.traffic.last.items():
            vitals = None if instance is None else self.vitals.get((node, instance))
            if vitals is not None:
                vitals.searched(tally.answered, tally.failed)
        if not self.bus.transport.is_connected or now_ms < self._blind_until_ms:
            return
        self.desk.observe(self._conditions(nodes.values()))
        await self.desk.tell()

    def _conditions(self, nodes: Iterable[NodeView]) -> Iterable[Condition]:
        """Yield everything that may be wrong; what is not yielded is right."""
        total = self.traffic.fabric()
        if total.expected >= CALLS_MIN:
            text = f"{total.coverage:.0%} of the expected answers came"
            yield Condition("coverage_below", ALL, total.coverage, text)
        for saga, text in self.parked().items():
            yield Condition("saga_parked", saga, 1.0, text)
        broken = self._broken()
        for kind, subject, text in self.record.wrong(self.bus.clock.now_ms()):
            yield Condition(kind, subject, 1.0, text)
        for node in nodes:
            name = node.node
            if node.status is Status.DOWN:
                yield Condition("node_down", name, 1.0, f"{name}: {_nobody(len(node.instances))}")
            if name in broken:
                text = f"{name}: the breakers of {', '.join(broken[name])[:120]} are open"
                yield Condition("breaker_open", name, 1.0, text)
            tally = self.traffic.node(name)
            if tally.asked >= CALLS_MIN:
                text = f"{name}: {tally.error_rate:.0%} of its requests fail"
                yield Condition("error_rate", name, tally.error_rate, text)

    def _broken(self) -> Mapping[str, list[str]]:
        """Return the instances by node whose breakers opened by themselves."""
        broken: dict[str, list[str]] = {}
        for (node, instance, _), breaker in sorted(self.breakers.breakers.items()):
            if breaker.record is not None and breaker.record.holds_ms is not None:
                broken.setdefault(node, []).append(instance)
        return broken

    # -- how everything is

    def _node(self, node: NodeView) -> MonitorNode:
        own = {name: vitals for name in node.instances if (vitals := self.vitals.get((node.node, name))) is not None}
        capacity = node.max_parallel_requests or self.health.capacity
        well = health.report(node.node, own, node.alive, capacity)
        dispatch = self.dispatch()
        book = None if dispatch is None else dispatch.book(node.node)
        known = None if book is None else book.bound.digest.quantiles()
        tally = self.traffic.node(node.node)
        instances = self._instances(node, well)
        return MonitorNode.model_validate(
            {
                "node": node.node,
                "status": node.status,
                "instances": instances,
                "requests_per_second": round(tally.asked / self.traffic.seconds, 2),
                "p50_us": 0 if known is None else known.p50_us,
                "p95_us": 0 if known is None else known.p95_us,
                "in_flight": sum(one.in_flight for one in instances),
                "breaker": _joint([one.breaker for one in instances]),
                "coverage": tally.coverage if tally.expected else None,
                "error_rate": tally.error_rate if tally.asked else None,
                "load": round(well.load, 4),
            }
        )

    def _instances(self, node: NodeView, well: NodeHealth) -> tuple[MonitorInstance, ...]:
        return tuple(
            MonitorInstance.model_validate(
                {
                    "instance": one.instance,
                    "status": Status.ACTIVE if one.is_up else Status.DOWN,
                    "breaker": self._state((node.node, one.instance)),
                    "latency_us": one.latency_us,
                    "misses": one.misses,
                    "in_flight": one.in_flight,
                    "failure_share": round(one.failure_share, 4),
                    "load": round(one.load, 4),
                }
            )
            for one in well.instances
        )

    def _state(self, key: Key) -> str:
        return self.breakers.breakers.get((*key, ALL), CLOSED).state.value


CLOSED = Breaker()


def _nobody(instances: int) -> str:
    """Return why a node is down."""
    if instances > 1:
        return f"none of its {instances} instances beats and answers"
    return "its one instance does not beat and answer" if instances else "no instance of it is there"


def _joint(states: Sequence[str]) -> str:
    """Return how the breakers of a node's instances are together."""
    if not states or set(states) == {State.CLOSED.value}:
        return "closed"
    if State.CLOSED.value in states:
        return "partly_open"
    return "half_open" if State.HALF_OPEN.value in states else "open"
