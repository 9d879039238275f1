"""What a master remembers of sagas is bounded in number and in size."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from antiphon.actors.saga_cache import SagaCache
from antiphon.decide.saga import fold
from antiphon.decide.saga_desk import begin
from antiphon.decide.saga_log import Entry, Ticket
from antiphon.decide.saga_state import Saga as Stored
from antiphon.messages.saga_history import StepOutcome
from antiphon.saga import Saga

SAGA = Saga("s").step("a", node="n", params={"x": "{{input.x}}"})


def begun(name: str, size: int = 1) -> Stored:
    start = begin(SAGA.submission({"x": "x" * size}, id=name), "web", lambda _: "n")
    return fold(Stored(name), Entry(name, 1, 0, start))


def told(saga: Stored, size: int) -> Stored:
    outcome = StepOutcome(outcome="succeeded", result="y" * size)
    return fold(saga, Entry(saga.id, 2, 0, outcome, Ticket(1, "f"), "n"))


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 20_000), st.booleans()), max_size=40))
def test_it_stays_within_its_bounds_and_has_the_last(kept: list[tuple[str, int, bool]]) -> None:
    cache = SagaCache(4, 30_000)
    for name, size, is_forgotten in kept:
        saga = told(cache.get(name) or begun(name, size), size)
        cache.keep(saga)
        assert cache.get(name) == saga
        assert 1 <= len(cache) <= 4
        assert len(cache) == 1 or 0 < cache.bytes <= 30_000
        if is_forgotten:
            cache.forget(name)
            assert cache.get(name) is None
    for name in "abcdefgh":
        cache.forget(name)
    assert (len(cache), cache.bytes) == (0, 0)


def test_what_comes_to_a_saga_counts() -> None:
    cache = SagaCache(10, 30_000)
    for name in "ab":
        cache.keep(begun(name))
    assert len(cache) == 2
    saga = cache.get("a")
    assert saga is not None
    cache.keep(told(saga, 29_900))
    assert (cache.get("b"), len(cache)) == (None, 1)
