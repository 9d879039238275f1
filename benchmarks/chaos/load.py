"""Open-loop load on a fabric: questions come at their times whatever became of the last, and each answer is checked."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random

from antiphon import Client, SearchAnswer
from antiphon.errors import AntiphonError
from antiphon.messages.breakers import BreakerMoved
from antiphon.messages.facts import InstanceChanged
from antiphon.messages.search import Outcome
from benchmarks.chaos.part import WORDS, holds

REACHED = (Outcome.ANSWERED, Outcome.EMPTY)
ERRORS = {"out_of_budget", "no_responders", "not_connected", "overloaded", "stopping"}
"""What a question may be told instead of an answer, by a master or a server that is away."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What became of one question."""

    asked_s: float
    ended_s: float
    code: str | None
    answer: SearchAnswer | None

    @property
    def is_complete(self) -> bool:
        """Whether every node answered."""
        return self.answer is not None and self.answer.complete


@dataclass(slots=True)
class Load:
    """The questions, what became of them, and what was wrong with it."""

    nodes: Mapping[str, int]
    deadline_ms: int
    margin_ms: int
    rate: int
    seed: int
    samples: list[Sample] = field(default_factory=list[Sample])
    wrong: list[str] = field(default_factory=list[str])
    moved: list[tuple[float, BreakerMoved]] = field(default_factory=list[tuple[float, BreakerMoved]])
    changed: list[tuple[float, InstanceChanged]] = field(default_factory=list[tuple[float, InstanceChanged]])
    _stopped: bool = False

    async def listen(self, client: Client) -> None:
        """Hear what is told of breakers and instances from now on."""

        def breaker(fact: BreakerMoved, _keys: dict[str, str]) -> None:
            self.moved.append((time.monotonic(), fact))

        def instance(fact: InstanceChanged, _keys: dict[str, str]) -> None:
            self.changed.append((time.monotonic(), fact))

        await client.bus.hear(BreakerMoved, breaker)
        await client.bus.hear(InstanceChanged, instance)
        await client.bus.transport.flush()

    async def run(self, client: Client) -> None:
        """Ask until `stop`, and return when the last question has ended."""
        dice = Random(f"load/{self.seed}")
        began, at = time.monotonic(), 0.0
        asked: set[asyncio.Task[None]] = set()
        while not self._stopped:
            at += dice.expovariate(self.rate)
            await asyncio.sleep(max(0.0, began + at - time.monotonic()))
            task = asyncio.ensure_future(self._ask(client, dice.choice(WORDS)))
            asked.add(task)
            task.add_done_callback(asked.discard)
        await asyncio.gather(*asked)

    def stop(self) -> None:
        """Ask no more."""
        self._stopped = True

    async def until(self, true: Callable[[], bool], within_s: float) -> float:
        """Return how many seconds it took for something to come true; raises `TimeoutError`."""
        began = time.monotonic()
        async with asyncio.timeout(within_s):
            while not true():  # noqa: ASYNC110 - what is waited for are answers, which come all the time
                await asyncio.sleep(0.01)
        return time.monotonic() - began

    def since(self, at_s: float) -> list[Sample]:
        """Return the questions asked since then that have ended."""
        return [one for one in self.samples if one.asked_s >= at_s]

    def tally(self, at_s: float = 0.0) -> Counter[str]:
        """Count what became of the questions asked since then."""
        return Counter(one.code or ("complete" if one.is_complete else "partial") for one in self.since(at_s))

    async def _ask(self, client: Client, word: str) -> None:
        asked_s = time.monotonic()
        answer: SearchAnswer | None = None
        code: str | None = None
        try:
            answer = await client.search(word, deadline_ms=self.deadline_ms, limit=100)
        except AntiphonError as error:
            code = error.code
            if code not in ERRORS:
                self.wrong.append(f"{code}: {error.text}")
        else:
            self.wrong += faults_of(answer, word, self.nodes)
        ended_s = time.monotonic()
        if (ended_s - asked_s) * 1_000 > self.deadline_ms + self.margin_ms:
            self.wrong.append(f"it took {(ended_s - asked_s) * 1_000:.0f} ms: {code or 'answered'}")
        self.samples.append(Sample(asked_s, ended_s, code, answer))


def faults_of(answer: SearchAnswer, word: str, nodes: Mapping[str, int]) -> list[str]:
    """Return what is dishonest about an answer: hits that nobody holds, or coverage that does not add up."""
    wrong: list[str] = []
    coverage = answer.coverage
    outcomes = Counter(line.outcome for line in answer.nodes)
    reached = {line.node for line in answer.nodes if line.outcome in REACHED}
    if {line.node for line in answer.nodes} != set(nodes):
        wrong.append(f"expected {sorted(nodes)}, not {[line.node for line in answer.nodes]}")
    if coverage.expected != len(answer.nodes) or coverage.answered != len(reached):
        wrong.append(f"{coverage} of {answer.nodes}")
    others = (coverage.failed, coverage.timed_out, coverage.skipped_open)
    if others != (outcomes[Outcome.FAILED], outcomes[Outcome.TIMED_OUT], outcomes[Outcome.SKIPPED]):
        wrong.append(f"{coverage} of {answer.nodes}")
    if answer.complete and len(reached) != len(nodes):
        wrong.append(f"it is called complete without {sorted(set(nodes) - reached)}")
    for node in nodes:
        found = [hit.id for hit in answer.hits if hit.node == node]
        held = holds(node, word) if node in reached else frozenset()
        if frozenset(found) != held or len(found) != len(held):
            wrong.append(f"{node} holds {sorted(held)} about {word}, not {found}")
    return wrong
