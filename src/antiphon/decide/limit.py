"""How often somebody may ask: GCRA in one process, and the arithmetic of an exact count over several masters.

GCRA (the generic cell rate algorithm, ITU-T I.371 annex A) is a token bucket that needs one integer a key: the
*theoretical arrival time* at which the bucket would be full again. A request moves it by one step; whoever would move
it further ahead than the burst allows waits. A key whose time has come is as good as unknown, so it can be forgotten
without changing any verdict, and the memory is bounded by how many are busy at once.

Several masters each with a limiter would allow each caller several times the rate. The exact count is a JetStream
counter for each key and window (`Nats-Incr: 1`; the acknowledgement carries the new `val`; 0.2-0.6 ms,
nats-facts.md). Two fixed windows make a sliding one: the last window counts by the share of it that
still lies within a period of now (the approximation that Cloudflare uses; exact for an even flow, and no aligned
window ever exceeds the limit).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from antiphon.subjects import PREFIX, Template

K = TypeVar("K", bound=Hashable)
NS: Final = 1_000_000
"""Nanoseconds in a millisecond; in milliseconds 7 a minute would have no exact step."""
MINUTE_MS: Final = 60_000
COUNTER: Final = Template("limit.count.<scope>.<name>.<window>")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether to let it in; 0 = yes, else refuse with `Overloaded` and this many milliseconds to wait."""

    retry_after_ms: int = 0

    @property
    def is_allowed(self) -> bool:
        """Whether it may go on."""
        return self.retry_after_ms == 0


ALLOWED: Final = Verdict()


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` in each `period_ms` on the long run, of which `burst` may come at once; 60 a minute."""

    count: int = 60
    period_ms: int = 60_000
    burst: int = 60
    """In any stretch of w ms at most `burst + w * count / period_ms` are let in."""
    step_ns: int = field(init=False, repr=False)
    room_ns: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        assert self.count > 0
        assert self.period_ms > 0
        assert self.burst > 0
        step = -(-self.period_ms * NS // self.count)  # rounded up: never more than the rate
        object.__setattr__(self, "step_ns", step)
        object.__setattr__(self, "room_ns", step * (self.burst - 1))


class Limiter(Generic[K]):
    """The rates of many keys; a bounded number of them busy at once, new ones beyond that are refused."""

    __slots__ = ("_arrivals_ns", "_none_idle_until_ns", "keys_max")

    def __init__(self, keys_max: int = 10_000) -> None:
        self.keys_max = keys_max
        self._arrivals_ns: dict[K, int] = {}
        self._none_idle_until_ns = 0

    def __len__(self) -> int:
        return len(self._arrivals_ns)

    def judge(self, key: K, rate: Rate, now_ms: int) -> Verdict:
        """Let one in, or say when to come back: a key that is known is let in then, a new one when there is room."""
        now_ns = now_ms * NS
        arrival_ns = self._arrivals_ns.get(key)
        if arrival_ns is None:
            if not self._has_room(now_ns):
                return Verdict(-(-(self._none_idle_until_ns - now_ns) // NS))
            arrival_ns = now_ns
        elif arrival_ns < now_ns:
            arrival_ns = now_ns
        early_ns = arrival_ns - now_ns - rate.room_ns
        if early_ns > 0:
            return Verdict(-(-early_ns // NS))
        self._arrivals_ns[key] = arrival_ns + rate.step_ns
        return ALLOWED

    def after_ms(self, key: K, rate: Rate, now_ms: int) -> int:
        """Return when a key would be let in, 0 for now, and let nobody in."""
        early_ns = self._arrivals_ns.get(key, 0) - now_ms * NS - rate.room_ns
        return max(0, -(-early_ns // NS))

    def hold(self, key: K, rate: Rate, until_ms: int, now_ms: int) -> None:
        """Refuse a key until then: somebody with the exact count said so, and need not be asked again and again."""
        if key in self._arrivals_ns or self._has_room(now_ms * NS):
            held_ns = until_ms * NS + rate.room_ns
            self._arrivals_ns[key] = max(self._arrivals_ns.get(key, 0), held_ns)

    def _has_room(self, now_ns: int) -> bool:
        """Forget who is idle when there is no room; arrival times only grow, so one pass says when to try again."""
        if len(self._arrivals_ns) < self.keys_max:
            return True
        if now_ns < self._none_idle_until_ns:
            return False
        self._arrivals_ns = {key: at_ns for key, at_ns in self._arrivals_ns.items() if at_ns > now_ns}
        if len(self._arrivals_ns) < self.keys_max:
            return True
        self._none_idle_until_ns = min(self._arrivals_ns.values())
        return False


@dataclass(frozen=True, slots=True)
class Window:
    """A fixed window of wall-clock time, the same for all masters up to the difference of their clocks."""

    number: int
    elapsed_ms: int

    @classmethod
    def at(cls, wall_ms: int, period_ms: int) -> Window:
        """Return the window that a moment lies in."""
        return cls(*divmod(wall_ms, period_ms))

    def counter(self, scope: str, name: str, prefix: str = PREFIX) -> str:
        """Return the subject of this window's counter, e.g. of scope `caller` or `node`."""
        return COUNTER.subject(prefix=prefix, scope=scope, name=name, window=str(self.number))


def judge_counted(previous: int, counted: int, rate: Rate, elapsed_ms: int) -> Verdict:
    """Return whether the request that made the counter `counted` is within the rate; the burst is the whole count.

    Args:
        previous: the last value of the window before.
        counted: this window's value, this request included. A refused request is taken back (`Nats-Incr: -1`), so
            that counters hold what was let in and somebody who keeps asking is not shut out for ever.
        rate: how many in which period.
        elapsed_ms: how much of this window is over.
    """
    period_ms, limit = rate.period_ms, rate.count
    if previous * (period_ms - elapsed_ms) + counted * period_ms <= limit * period_ms:
        return ALLOWED
    rest_ms = period_ms - elapsed_ms
    if counted <= limit:  # it is the last window that weighs too much, and it weighs less every millisecond
        return Verdict(rest_ms - (limit - counted) * period_ms // previous)
    before = counted - 1  # this window will be the last one
    return Verdict(rest_ms + period_ms - (limit - 1) * period_ms // before)
