"""The laws of an exact gather: every expected node ends once, in time, and nothing else ends it."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.decide.balance import round_robin
from antiphon.decide.gather import NEVER, Ask, Expected, Gathering
from antiphon.messages.search import Outcome

NAMES = st.integers(0, 5).map("i{}".format)
EXPECTED = st.lists(st.lists(NAMES, max_size=4, unique=True), max_size=6).map(
    lambda nodes: [Expected(f"n{at}", tuple(instances)) for at, instances in enumerate(nodes)]
)
EVENT = st.tuples(st.sampled_from(["answered", "empty", "failed", "undelivered"]), st.integers(0, 30))


def fates(gathering: Gathering) -> list[tuple[object, ...]]:
    return [
        (line.node, line.outcome, line.instance, line.hits, line.took_us, line.code, line.attempts)
        for line in gathering.lines
    ]


def play(gathering: Gathering, events: list[tuple[str, int]]) -> list[Ask]:
    """Run any events against a gather, checking the laws after each; return every ask that was given out."""
    now_us = 1_000
    asks = gathering.begin(now_us)
    for what, choice in events:
        if not asks:
            break
        now_us += 10
        slot = choice % len(asks)
        at = asks[slot].at
        was_settled = gathering.lines[at].outcome is not None
        before = fates(gathering)
        if what in ("answered", "empty"):
            taken = gathering.answered(slot, 3 if what == "answered" else 0, now_us)
            assert (taken == at) is not was_settled
            again = None
        else:
            again = gathering.failed(slot, "code", "text", now_us, is_undelivered=what == "undelivered")
        if was_settled:
            assert again is None, "an instance is asked for a node that has ended"
            assert fates(gathering) == before, "a duplicate or a late answer changes nothing"
        if again is not None:
            assert what == "undelivered", "only what was never delivered is asked again"
            asks.append(again)
        settled = [line.outcome is not None for line in gathering.lines]
        assert gathering.pending == settled.count(False)
        assert gathering.is_over is all(settled), "over exactly when the last one has ended"
    return asks


@given(EXPECTED, st.lists(EVENT, max_size=60))
def test_whatever_comes_in_whatever_order_each_node_ends_once(
    expected: list[Expected], events: list[tuple[str, int]]
) -> None:
    gathering = Gathering(expected)
    asks = play(gathering, events)
    tried = Counter((ask.node, ask.instance) for ask in asks)
    assert all(times == 1 for times in tried.values()), "each instance is tried at most once"
    known = {(one.node, instance) for one in expected for instance in one.instances}
    assert tried.keys() <= known
    gathering.deadline(10_000_000)
    assert gathering.is_over
    counts = gathering.counts
    assert counts == {outcome: sum(line.outcome is outcome for line in gathering.lines) for outcome in Outcome}
    assert gathering.reached == len(gathering.answering)
    assert sum(counts.values()) == len(expected)
    assert counts[Outcome.SKIPPED] == sum(not one.instances for one in expected)
    for line, one in zip(gathering.lines, expected, strict=True):
        assert line.node == one.node
        assert line.attempts <= len(one.instances)
        assert (line.outcome is Outcome.ANSWERED) is (line.hits > 0)
        assert (line.code is None) is (line.outcome in (Outcome.ANSWERED, Outcome.EMPTY))
        assert 0 <= line.took_us <= 10_000_000


@given(EXPECTED, st.lists(EVENT, max_size=20), st.lists(EVENT, max_size=20))
def test_after_the_deadline_nothing_changes(
    expected: list[Expected], before: list[tuple[str, int]], after: list[tuple[str, int]]
) -> None:
    gathering = Gathering(expected)
    asks = play(gathering, before)
    gathering.deadline(2_000)
    fixed = fates(gathering)
    for what, choice in after:
        if asks:
            slot = choice % len(asks)
            assert gathering.answered(slot, 1, 3_000) is None
            assert gathering.failed(slot, what, "", 3_000, is_undelivered=True) is None
    gathering.deadline(4_000)
    assert fates(gathering) == fixed
    assert gathering.is_over


@given(EXPECTED)
def test_begin_asks_the_first_instance_of_each_node_that_has_one(expected: list[Expected]) -> None:
    gathering = Gathering(expected)
    asks = gathering.begin(0)
    assert [(ask.node, ask.instance) for ask in asks] == [(o.node, o.instances[0]) for o in expected if o.instances]
    assert [ask.at for ask in asks] == [at for at, one in enumerate(expected) if one.instances]
    assert gathering.is_over is (not asks)


@given(st.lists(NAMES, min_size=1, max_size=6, unique=True))
def test_when_nobody_listens_every_instance_is_tried_in_order_and_then_the_node_has_failed(names: list[str]) -> None:
    gathering = Gathering([Expected("n", tuple(names))])
    asks = gathering.begin(0)
    for slot in range(len(names)):
        again = gathering.failed(slot, "no_responders", "", slot, is_undelivered=True)
        if again is not None:
            asks.append(again)
    assert [ask.instance for ask in asks] == names
    line = gathering.lines[0]
    assert (line.outcome, line.code, line.attempts) == (Outcome.FAILED, "no_responders", len(names))
    assert gathering.is_over


def test_an_answer_of_the_first_instance_that_comes_after_the_second_was_asked_counts_once() -> None:
    gathering = Gathering([Expected("n", ("a", "b"))])
    gathering.begin(0)
    assert gathering.failed(0, "stopping", "", 5, is_undelivered=True) == Ask(0, "n", "b")
    assert gathering.answered(0, 2, 9) == 0
    assert gathering.answered(1, 7, 11) is None
    assert (gathering.lines[0].hits, gathering.lines[0].took_us, gathering.is_over) == (2, 9, True)


@given(st.lists(NAMES, max_size=6, unique=True), st.integers(0, 10**9))
def test_round_robin_tries_each_once_and_each_turn_begins_with_the_next(names: list[str], turn: int) -> None:
    order = round_robin.order(turn, names)
    assert sorted(order) == sorted(names)
    turns = Counter(round_robin.order(turn + more, names)[0] for more in range(len(names))) if names else Counter()
    assert all(times == 1 for times in turns.values())
    assert len(turns) == len(names)


# -- bounds, retries and hedges

STEP = st.tuples(
    st.sampled_from(["answered", "empty", "failed", "undelivered", "time"]), st.integers(0, 30), st.integers(1, 90)
)
TIMED = st.lists(
    st.builds(
        lambda names, bound, hedge: (tuple(names), bound, hedge),
        st.lists(NAMES, max_size=3, unique=True),
        st.integers(1, 300),
        st.one_of(st.just(NEVER), st.integers(1, 200)),
    ),
    max_size=5,
).map(lambda nodes: [Expected(f"n{at}", *one) for at, one in enumerate(nodes)])


@given(TIMED, st.lists(STEP, max_size=60), st.lists(st.one_of(st.none(), st.integers(0, 50)), max_size=40))
def test_with_time_passing_each_node_ends_once_by_its_bound_and_no_ask_is_lost(  # noqa: C901 - one play
    expected: list[Expected], steps: list[tuple[str, int, int]], delays: list[int | None]
) -> None:
    gathering, now_us, budget = Gathering(expected), 0, 2
    asks = gathering.begin(now_us)
    told: set[int] = set()
    again = iter(delays)

    def may_hedge() -> bool:
        nonlocal budget
        budget -= 1
        return budget >= 0

    def lose() -> None:
        for slot, ask, _ in gathering.losers(now_us):
            assert slot not in told, "an ask is cancelled once, and not after it was heard of"
            assert gathering.lines[ask.at].outcome is not None
            told.add(slot)

    for what, choice, gap_us in steps:
        if what == "time":
            now_us += gap_us
            asks += gathering.due(now_us, may_hedge)
        elif asks:
            slot = choice % len(asks)
            if slot in told:
                continue
            told.add(slot)
            if what in ("answered", "empty"):
                gathering.answered(slot, 3 if what == "answered" else 0, now_us)
            else:
                more = gathering.failed(
                    slot, "c", "t", now_us, is_undelivered=what == "undelivered", retry=lambda _: next(again, None)
                )
                asks += [more] if more else []
        lose()
        for line, one in zip(gathering.lines, expected, strict=True):
            assert line.outcome is not None or now_us < one.bound_us or what != "time", "nothing waits past its bound"
            assert line.running >= 0
    if not gathering.is_over:
        assert gathering.wake_us() <= max(one.bound_us for one in expected), (
            "there is always a time at which it goes on"
        )
        asks += gathering.due(1_000, may_hedge)
        lose()
    assert gathering.is_over
    assert gathering.running() == [], "no ask is forgotten: each was heard of or cancelled"
    assert told == set(range(len(asks)))
    assert gathering.hedged == sum(line.hedge is not None for line in gathering.lines) <= 2
    assert sum(gathering.counts.values()) == len(expected)
    for line in gathering.lines:
        assert line.won is None or line.outcome in (Outcome.ANSWERED, Outcome.EMPTY)
        assert (line.hedge == "won") == (line.hedge_slot is not None and line.won == line.hedge_slot)
        assert line.wasted_us == 0 or line.attempts > 1 or line.won is None, (
            "who answered and was the only one wasted nothing"
        )


def test_the_hedge_that_answers_first_wins_and_the_other_is_cancelled() -> None:
    gathering = Gathering([Expected("n", ("a", "b"), bound_us=1_000, hedge_us=100)])
    gathering.begin(0)
    assert gathering.wake_us() == 100
    (hedge,) = gathering.due(100, lambda: True)
    assert hedge.instance == "b"
    assert gathering.answered(1, 2, 150) == 0
    line = gathering.lines[0]
    assert (line.instance, line.hits, line.took_us, line.outcome, gathering.hedged) == ("b", 2, 50, Outcome.ANSWERED, 1)
    assert [(slot, ask.instance) for slot, ask, _ in gathering.losers(155)] == [(0, "a")]
    assert gathering.answered(0, 5, 160) is None, "hits are counted once"
    assert line.hedge == "won"


@pytest.mark.parametrize(("first", "hedge", "wasted_us"), [(1, "won", 155), (0, "lost", 55)])
def test_what_the_slower_of_two_has_worked_for_nobody_is_counted(first: int, hedge: str, wasted_us: int) -> None:
    gathering = Gathering([Expected("n", ("a", "b"), bound_us=1_000, hedge_us=100)])
    gathering.begin(0)
    gathering.due(100, lambda: True)
    gathering.answered(first, 2, 150, 4_096)
    assert len(gathering.losers(155)) == 1
    line = gathering.lines[0]
    assert (line.hedge, line.wasted_us, line.reply_bytes) == (hedge, wasted_us, 4_096)


def test_an_answer_that_comes_before_the_loser_is_told_is_wasted_once() -> None:
    gathering = Gathering([Expected("n", ("a", "b"), bound_us=1_000, hedge_us=100)])
    gathering.begin(0)
    gathering.due(100, lambda: True)
    gathering.answered(1, 2, 150)
    gathering.answered(0, 2, 160)
    assert gathering.losers(170) == []
    assert gathering.lines[0].wasted_us == 160


def test_a_node_that_says_that_the_time_was_too_short_has_timed_out() -> None:
    gathering = Gathering([Expected("blog", ("one",))])
    gathering.begin(0)
    gathering.failed(0, "out_of_budget", "the deadline passed while it was worked on", 10)
    assert gathering.counts[Outcome.TIMED_OUT] == 1
    assert gathering.lines[0].text == "the deadline passed while it was worked on"


def test_a_failed_first_does_not_end_a_node_whose_hedge_runs() -> None:
    gathering = Gathering([Expected("n", ("a", "b"), bound_us=1_000, hedge_us=100)])
    gathering.begin(0)
    gathering.due(100, lambda: True)
    assert gathering.failed(0, "internal", "", 120) is None
    assert not gathering.is_over
    gathering.failed(1, "handler_failed", "x", 130)
    assert (gathering.lines[0].outcome, gathering.lines[0].code) == (Outcome.FAILED, "handler_failed")


def test_a_retry_waits_for_its_time_and_goes_to_the_next_instance() -> None:
    gathering = Gathering([Expected("n", ("a", "b"), bound_us=1_000)])
    gathering.begin(0)
    assert gathering.failed(0, "handler_failed", "", 10, retry=lambda attempts: 50 * attempts) is None
    assert (gathering.is_over, gathering.wake_us()) == (False, 60)
    assert gathering.due(59, lambda: True) == []
    assert [ask.instance for ask in gathering.due(60, lambda: True)] == ["b"]
    assert gathering.answered(1, 1, 80) == 0
    assert gathering.lines[0].attempts == 2


def test_a_retry_that_would_come_after_the_bound_is_not_waited_for() -> None:
    gathering = Gathering([Expected("n", ("a",), bound_us=100)])
    gathering.begin(0)
    gathering.failed(0, "handler_failed", "", 60, retry=lambda _: 40)
    assert (gathering.is_over, gathering.lines[0].code) == (True, "handler_failed")
