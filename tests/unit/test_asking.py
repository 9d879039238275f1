"""The laws of asking again: late enough, in time for an answer, and in vain only within the budget."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.decide.asking import Asking, AskingBounds

BOUNDS = AskingBounds()
MS = 1_000


def learned(took_ms: int, *, answers: int = 200) -> Asking:
    asking = Asking()
    for at in range(answers):
        asking.silence_ms(5_000)
        asking.answered(took_ms * MS, at)
    return asking


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
        asking.answered(2_000 * MS, at * 100)
    assert asking.silence_ms(5_000) > 5_000, "whatever takes as long as this is no frozen master"


def test_a_program_that_asks_one_question_may_ask_it_again_once() -> None:
    asking = Asking()
    asking.silence_ms(5_000)
    assert [asking.may_ask(asks, 3_000, 0) for asks in (1, 2)] == [True, False]
    never = Asking(AskingBounds(share_permille=0))
    never.silence_ms(5_000)
    assert not never.may_ask(1, 3_000, 0)


def test_not_without_time_for_an_answer_and_not_without_end() -> None:
    asking = learned(100)
    assert not asking.may_ask(1, 90, 0)
    assert asking.may_ask(1, 200, 0)
    assert asking.may_ask(BOUNDS.asks_max - 1, 200, 0)
    assert not asking.may_ask(BOUNDS.asks_max, 200, 0)


def test_where_nobody_answers_the_budget_ends() -> None:
    asking = learned(10, answers=1_000)
    asked = 0
    for at in range(1_000):
        asking.silence_ms(5_000)
        asks = 1
        while asking.may_ask(asks, 3_000, at):
            asks += 1
        asked += asks - 1
        asking.lost(asks - 1)
    assert asked <= BOUNDS.burst + 1_000 * BOUNDS.share_permille / 1_000


@given(st.integers(0, 3_000), st.sampled_from([1, 30, 100]), st.data())
def test_what_is_asked_in_vain_never_exceeds_its_share(questions: int, share: int, data: st.DataObject) -> None:
    asking = Asking(AskingBounds(share_permille=share))
    needed = data.draw(st.integers(0, 100))
    in_vain, dice = 0, Random(needed)
    for at in range(questions):
        asking.silence_ms(5_000)
        asks = 1
        while dice.random() < 0.8 and asking.may_ask(asks, 3_000, at):
            asks += 1
        won = dice.randrange(asks) if dice.random() * 100 < needed else 0
        asking.needed(won)
        in_vain += asks - 1 - won
        assert in_vain <= BOUNDS.first + 1 + (at + 1) * share / 1_000


def simulated(masters: int, questions: int, seed: int) -> float:
    """Return the share of questions that nobody answered, with one of the masters frozen."""
    dice, asking = Random(seed), Asking()
    lost = 0
    for at in range(questions):
        asking.silence_ms(5_000)
        asks = 1
        while dice.randrange(masters) == 0:
            if not asking.may_ask(asks, 3_000, at):
                lost += 1
                asking.lost(asks - 1)
                break
            asks += 1
        else:
            asking.answered(10 * MS, at)
            asking.needed(asks - 1)
    return lost / questions


@settings(max_examples=20, deadline=None)  # a simulation is no unit of time
@given(st.integers(0, 2**32))
def test_a_frozen_master_costs_few_questions_their_deadline(seed: int) -> None:
    assert simulated(2, 3_000, seed) < 0.06, "half of them without asking again, 3 % with five asks"
    assert simulated(3, 3_000, seed) < 0.02, "a third, and 0.4 %"


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_when_all_masters_become_slow_they_are_not_asked_much_more(seed: int) -> None:
    dice, asking, extra = Random(seed), learned(10, answers=1_000), 0
    for at in range(1_000):
        silence_ms = asking.silence_ms(10_000)
        ends_ms = [(dice.uniform(1_500, 3_000), 0)]
        while min(ends_ms)[0] > silence_ms * len(ends_ms) and asking.may_ask(len(ends_ms), 5_000, at):
            ends_ms.append((silence_ms * len(ends_ms) + dice.uniform(1_500, 3_000), len(ends_ms)))
        end_ms, winner = min(ends_ms)
        asking.answered(int(end_ms - silence_ms * winner) * MS, at * 1_000)
        asking.needed(winner)
        extra += len(ends_ms) - 1
    assert extra < 1_000 * 0.08
