"""The laws of a bulkhead: bounded, in order, one fate for each entry, nothing run after its deadline."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from antiphon.decide.bulkhead import RUN, WAIT, Bulkhead, BulkheadBounds, Turn

BOUNDS = BulkheadBounds(in_flight_max=2, queue_max=3)


class Compartment(RuleBasedStateMachine):
    """Enter, leave, withdraw, expire and wait in any order against a plain model."""

    def __init__(self) -> None:
        super().__init__()
        self.bulkhead: Bulkhead[int] = Bulkhead(BOUNDS)
        self.now_ms = 0
        self.next = 0
        self.running = 0
        self.queue: list[tuple[int, int]] = []
        self.ran: list[int] = []

    @rule(left_ms=st.sampled_from([-1, 0, 1, 50, 1_000]))
    def enter(self, left_ms: int) -> None:
        token, self.next = self.next, self.next + 1
        verdict = self.bulkhead.enter(token, self.now_ms + left_ms, self.now_ms)
        if self.running < BOUNDS.in_flight_max:
            assert verdict == RUN
            self.running += 1
            self.ran.append(token)
        elif left_ms > 0 and len(self.queue) < BOUNDS.queue_max:
            assert verdict == WAIT
            self.queue.append((token, self.now_ms + left_ms))
        else:
            assert verdict.turn is Turn.REFUSE
            assert 1 <= verdict.retry_after_ms <= BOUNDS.retry_after_ms_max

    @precondition(lambda self: self.running)
    @rule()
    def leave(self) -> None:
        token, expired = self.bulkhead.left(self.now_ms)
        self.running -= 1
        dead: list[int] = []
        while self.queue and self.queue[0][1] <= self.now_ms:
            dead.append(self.queue.pop(0)[0])
        assert list(expired) == dead
        assert token == (self.queue[0][0] if self.queue else None)
        if token is not None:
            self.queue.pop(0)
            self.running += 1
            self.ran.append(token)

    @rule(back=st.integers(0, 5))
    def withdraw(self, back: int) -> None:
        token = self.next - back
        waits = token in [one for one, _ in self.queue]
        assert self.bulkhead.withdraw(token) is waits
        self.queue = [(one, deadline_ms) for one, deadline_ms in self.queue if one != token]

    @rule()
    def expire(self) -> None:
        gone = [one for one, deadline_ms in self.queue if deadline_ms <= self.now_ms]
        assert list(self.bulkhead.expired(self.now_ms)) == gone
        self.queue = [one for one in self.queue if one[0] not in gone]

    @rule(passed_ms=st.sampled_from([1, 40, 100, 2_000]))
    def wait(self, passed_ms: int) -> None:
        self.now_ms += passed_ms

    @invariant()
    def it_is_bounded_and_in_order(self) -> None:
        assert self.bulkhead.in_flight == self.running <= BOUNDS.in_flight_max
        assert self.bulkhead.waiting == len(self.queue) <= BOUNDS.queue_max
        assert self.ran == sorted(self.ran), "who came first runs first"
        assert not self.queue or self.running == BOUNDS.in_flight_max, "nobody waits while there is room"


TestCompartment = Compartment.TestCase


@given(st.integers(1, 500))
def test_the_named_wait_follows_the_pace(service_ms: int) -> None:
    bulkhead: Bulkhead[int] = Bulkhead(BulkheadBounds(in_flight_max=1, queue_max=2))
    now_ms = 0
    for token in range(60):
        bulkhead.enter(token, now_ms + 10**6, now_ms)
    for token in range(60, 120):
        now_ms += service_ms
        bulkhead.left(now_ms)
        bulkhead.enter(token, now_ms + 10**6, now_ms)
    verdict = bulkhead.enter(999, now_ms + 10**6, now_ms)
    assert verdict.turn is Turn.REFUSE
    assert abs(verdict.retry_after_ms - 3 * service_ms) <= 0.1 * 3 * service_ms + 1


def test_nothing_is_run_at_its_deadline() -> None:
    bulkhead: Bulkhead[str] = Bulkhead(BulkheadBounds(in_flight_max=1))
    assert bulkhead.enter("a", 100, 0) == RUN
    assert bulkhead.enter("b", 50, 0) == bulkhead.enter("c", 51, 0) == WAIT
    assert bulkhead.left(50) == ("c", ("b",))
