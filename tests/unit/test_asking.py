"""The laws of asking again: late enough, in time for an answer, in vain within the budget, on credit if overtaken."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.decide.asking import Asking, AskingBounds

BOUNDS = AskingBounds()
MS = 1_000
S = 1_000 * MS
SEEDS = st.integers(0, 2**32)


def learned(took_ms: int, *, answers: int = 200) -> Asking:
    """A client that has asked one question after the other."""
    asking = Asking()
    for at in range(answers):
        asking.silence_ms(5_000)
        asking.answered(at * S, at * S + took_ms * MS)
    return asking


def asked(asking: Asking, asked_us: int, left_ms: int = 3_000) -> int:
    """How often a question is asked again that nobody answers."""
    asks = 0
    while asking.is_worth_it(1 + asks, left_ms) and asking.may_ask(asked_us):
        asks += 1
    return asks


def test_silence_is_borne_for_three_times_what_answers_take_and_never_less_than_the_floor() -> None:
    assert learned(10).silence_ms(5_000) == BOUNDS.silence_ms_min
    assert 1_150 <= learned(400).silence_ms(5_000) <= 1_250
    assert Asking().silence_ms(5_000) == 1_250, "little is known"
    assert Asking().silence_ms(1_000) == 1_000
    assert learned(10, answers=BOUNDS.records_min - 1).silence_ms(8_000) == 2_000


def test_who_is_slower_by_now_is_waited_for_longer() -> None:
    asking = learned(10)
    for at in range(2_000):
        asking.silence_ms(5_000)
        asking.answered(at * S, (at + 2) * S)
    assert asking.silence_ms(5_000) == 2_500, "and never longer than half of the deadline"
    assert 5_500 < asking.silence_ms(60_000) < 6_500


def test_a_program_that_asks_one_question_may_ask_it_again_once() -> None:
    asking = Asking()
    asking.silence_ms(5_000)
    assert asked(asking, 0) == 1
    never = Asking(AskingBounds(share_permille=0))
    never.silence_ms(5_000)
    assert asked(never, 0) == 0


def test_not_without_time_for_an_answer_and_not_without_end() -> None:
    asking = learned(100)
    assert not asking.is_worth_it(1, 90)
    assert asking.is_worth_it(1, 200)
    assert asking.is_worth_it(BOUNDS.asks_max - 1, 200)
    assert not asking.is_worth_it(BOUNDS.asks_max, 200)


def test_who_is_overtaken_is_asked_again_on_credit_until_something_is_owed() -> None:
    asking = learned(10)
    late_us = 1_000 * S
    for _ in range(30):
        asking.silence_ms(5_000)
    assert sum(asked(asking, late_us) for _ in range(30)) <= BOUNDS.burst, "no later one was answered"
    asking.answered(late_us + 1, late_us + 2)
    assert sum(asked(asking, late_us) for _ in range(30)) == 30 * 4, "one was: the silence is not everybody's"
    asking.ended(40, 0)
    assert asked(asking, late_us) == 0, "forty were in vain"


def test_where_nobody_answers_the_budget_ends() -> None:
    asking = learned(10, answers=1_000)
    asks = 0
    for at in range(1_000):
        asking.silence_ms(5_000)
        now = asked(asking, (2_000 + at) * S)
        asks += now
        asking.ended(now, None)
    assert asks <= BOUNDS.burst + 1


@given(st.integers(0, 3_000), st.sampled_from([1, 30, 100]), SEEDS)
def test_what_is_asked_in_vain_one_after_the_other_never_exceeds_its_share(
    questions: int, share: int, seed: int
) -> None:
    asking, dice, in_vain = Asking(AskingBounds(share_permille=share)), Random(seed), 0
    for at in range(questions):
        asking.silence_ms(5_000)
        asks = asked(asking, at * S)
        needed = dice.choice([None, 0, dice.randint(0, asks)])
        asking.ended(asks, needed)
        if needed is not None:
            asking.answered(at * S, at * S + 10 * MS)
            in_vain += asks - needed
        assert in_vain <= BOUNDS.first + 1 + (at + 1) * share / 1_000


# -- simulations: questions that come at random, each ask answered after `took_us(dice)`, None is never


def simulated(  # noqa: C901 - three kinds of events
    took_us: Callable[[Random, int], int | None],
    *,
    seed: int,
    rate: int,
    seconds: int = 30,
    deadline_ms: int = 5_000,
    asking: Asking | None = None,
) -> tuple[float, float]:
    """Return the shares of questions that were lost, and of asks after the first one."""
    dice, asking = Random(seed), asking or learned(10, answers=1_000)
    events: list[tuple[int, int, int, str]] = []
    count = lost = extra = 0
    open_: dict[int, list[int]] = {}
    silence_us: dict[int, int] = {}

    def ask(number: int, now_us: int) -> None:
        open_[number].append(now_us)
        took = took_us(dice, number)
        if took is not None:
            heappush(events, (now_us + took, number, len(open_[number]) - 1, "answer"))

    at_us = 10_000 * S
    for number in range(rate * seconds):
        at_us += int(dice.expovariate(rate) * S)
        heappush(events, (at_us, number, 0, "question"))
    while events:
        now_us, number, ask_number, what = heappop(events)
        if what == "question":
            count += 1
            silence_us[number] = asking.silence_ms(deadline_ms) * MS
            open_[number] = []
            ask(number, now_us)
            heappush(events, (now_us + silence_us[number], number, 0, "silence"))
            heappush(events, (now_us + deadline_ms * MS, number, 0, "deadline"))
        elif number not in open_:
            continue
        elif what == "answer":
            asks = open_.pop(number)
            asking.answered(asks[ask_number], now_us)
            asking.ended(len(asks) - 1, ask_number)
        elif what == "deadline":
            lost += 1
            asking.ended(len(open_.pop(number)) - 1, None)
        elif asking.is_worth_it(len(open_[number]), (open_[number][0] + deadline_ms * MS - now_us) // MS):
            if asking.may_ask(open_[number][-1]):
                extra += 1
                ask(number, now_us)
            heappush(events, (now_us + silence_us[number], number, 0, "silence"))
    return lost / count, extra / count


def frozen(masters: int) -> Callable[[Random, int], int | None]:
    return lambda dice, _: None if dice.randrange(masters) == 0 else int(dice.uniform(5, 20) * MS)


@settings(max_examples=5)
@given(SEEDS, st.sampled_from([1, 20, 300]))
def test_a_frozen_master_costs_few_questions_their_deadline(seed: int, rate: int) -> None:
    seconds = 600 // rate + 10
    lost, _ = simulated(frozen(2), seed=seed, rate=rate, seconds=seconds)
    assert lost < 0.08, "half of them without asking again, 3 % with five asks"
    lost, _ = simulated(frozen(3), seed=seed, rate=rate, seconds=seconds)
    assert lost < 0.04, "a third, and 0.4 %"


@settings(max_examples=5)
@given(SEEDS, st.sampled_from([2, 20, 200]))
def test_slow_masters_are_not_asked_much_more(seed: int, rate: int) -> None:
    _, extra = simulated(lambda dice, _: int(dice.uniform(1_500, 3_000) * MS), seed=seed, rate=rate, seconds=60)
    count = rate * 60
    assert extra * count < 30 + 0.04 * count, "they answer at last: it was in vain, and silence is borne for longer"


@settings(max_examples=5)
@given(SEEDS, st.sampled_from([20, 200]))
def test_questions_that_are_slow_by_themselves_are_not_asked_again_for_long(seed: int, rate: int) -> None:
    def took_us(dice: Random, number: int) -> int:
        return int(dice.uniform(2_000, 2_100) * MS) if number % 50 == 0 else int(dice.uniform(5, 20) * MS)

    _, extra = simulated(took_us, seed=seed, rate=rate, seconds=60)
    assert extra < 0.05, "each of them is overtaken; what is in vain is owed"


@settings(max_examples=5)
@given(SEEDS, st.sampled_from([2, 20, 200]))
def test_a_fabric_that_is_away_is_not_asked_much_more(seed: int, rate: int) -> None:
    lost, extra = simulated(lambda _dice, _number: None, seed=seed, rate=rate, seconds=20)
    assert lost == 1
    assert extra * rate * 20 <= BOUNDS.burst + 1
