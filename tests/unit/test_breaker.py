"""The laws of breakers: what opens, what closes, and that a fleet of masters never probes twice nor waits for ever."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from antiphon.decide.breaker import (
    Breaker,
    BreakerPolicy,
    Closed,
    Effect,
    Handled,
    Heard,
    Opened,
    ProbeGranted,
    ProbeRefused,
    Reason,
    Record,
    Reread,
    State,
    Swap,
    Swapped,
    Tripped,
    Verb,
    step,
)
from antiphon.decide.breakers import Breakers, BreakerView, Probe, Shut, eligible, probe
from antiphon.decide.ending import Ending, ending_of
from antiphon.decide.failures import Failures, Key
from antiphon.errors import CODES

KEY: Key = ("shop", "i0", "search")
POLICY = BreakerPolicy(wait_ms=3_000, probe_ms=500, margin_ms=50, refused_ms=100)
FAILED, SUCCEEDED, REFUSED, ABANDONED = Ending.FAILED, Ending.SUCCEEDED, Ending.REFUSED, Ending.ABANDONED
any_ending = st.sampled_from(Ending)


class Bucket:
    """One key of the bucket, with all that it ever held."""

    def __init__(self) -> None:
        self.log: list[tuple[Record | None, int]] = []

    @property
    def record(self) -> Record | None:
        return self.log[-1][0] if self.log else None

    def swap(self, swap: Swap, now_ms: int) -> int | None:
        last = len(self.log) if self.record is not None else 0
        if swap.revision not in (None, last):
            return None
        self.log.append((swap.record, now_ms))
        return len(self.log)


@dataclass
class Peer:
    """A master of the model: its own clock, a watch that lags, and writes on their way."""

    name: str
    offset_ms: int
    seen: int = 0
    sent: list[Swap] = field(default_factory=list[Swap])
    acks: list[tuple[Swap, int | None]] = field(default_factory=list[tuple[Swap, int | None]])
    asking: Probe | None = None
    in_a_row: int = 0
    called: int = 0
    failed: int = 0
    """Since its last transition; the window of the rate holds no more."""

    def __post_init__(self) -> None:
        self.breakers = Breakers(self.name, POLICY)


class Fleet(RuleBasedStateMachine):
    """Masters with clocks that disagree, one bucket, delays, lost acknowledgements, crashes, hands."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 1_000_000
        self.bucket = Bucket()
        self.peers = [Peer(f"m{at}", at * 777_777) for at in range(3)]
        self.live: dict[str, int] = {}
        self.births = 0
        self.bucket.swap(Swap(Record(State.OPEN, Reason.RATE, "m9", 0, POLICY.wait_ms), 0, 0, State.CLOSED), 1_000_000)

    # What masters do.

    def clock(self, peer: Peer) -> int:
        return self.now_ms + peer.offset_ms

    def carry_out(self, peer: Peer, effects: tuple[Effect, ...]) -> None:
        for effect in effects:
            if isinstance(effect, Swap):
                peer.sent.append(effect)
            elif isinstance(effect, ProbeGranted):
                assert peer.name not in self.live
                self.live[peer.name] = effect.until_ms - peer.offset_ms
            elif isinstance(effect, Reread):
                self.hear(peer, len(self.bucket.log), is_read=True)

    def hear(self, peer: Peer, revision: int, *, is_read: bool = False, share: float = 0.0) -> None:
        record, at_ms = self.bucket.log[revision - 1] if revision else (None, self.now_ms)
        age_ms = int((self.now_ms - at_ms) * share)
        before = peer.breakers.breakers.get(KEY, Breaker()).state
        self.carry_out(peer, peer.breakers.step(KEY, Heard(record, revision, age_ms, is_read), self.clock(peer)))
        if peer.breakers.breakers.get(KEY, Breaker()).state is not before:
            peer.in_a_row = peer.called = peer.failed = 0

    masters = st.integers(0, 2)

    @rule(ms=st.one_of(st.integers(1, 100), st.sampled_from([450, 499, 550, 3_000])))
    def time_passes(self, ms: int) -> None:
        self.now_ms += ms

    @rule(at=masters, ending=any_ending, times=st.sampled_from([1, 1, 2, 5]))
    def calls(self, at: int, ending: Ending, times: int) -> None:
        peer = self.peers[at]
        for _ in range(times):
            if not eligible(peer.breakers.view, *KEY[::2], (KEY[1],)):
                return
            now_ms = self.clock(peer)
            peer.called += ending in (FAILED, SUCCEEDED)
            if ending is FAILED:
                peer.in_a_row += 1
                peer.failed += 1
            elif ending is SUCCEEDED:
                peer.in_a_row = 0
            effects = peer.breakers.ended(KEY, ending, now_ms, now_ms, self.now_ms)
            reasons = {one.record.reason for one in effects if isinstance(one, Swap) and one.record is not None}
            if Reason.FAILURES in reasons:  # else it is the error rate, which interleaved failures reach
                assert peer.in_a_row >= POLICY.failures_max, "never open with fewer failures than required"
            self.carry_out(peer, effects)

    @rule(at=masters, share=st.sampled_from([0.0, 0.5, 1.0]))
    def the_watch_tells(self, at: int, share: float) -> None:
        peer = self.peers[at]
        if peer.seen < len(self.bucket.log):
            peer.seen += 1
            self.hear(peer, peer.seen, share=share)

    @rule(at=masters)
    def the_server_writes(self, at: int) -> None:
        peer = self.peers[at]
        if peer.sent:
            swap = peer.sent.pop(0)
            before = self.bucket.record
            revision = self.bucket.swap(swap, self.now_ms)
            peer.acks.append((swap, revision))
            if revision is not None and before is not None and before.holds_ms is None:
                assert swap.revision is None, "what a hand set only a hand changes"
            if revision is not None and swap.record is None and swap.revision is not None:
                assert before is not None
                assert before.successes == POLICY.successes_min - 1, "closed only after the successes required"

    @rule(at=masters, is_lost=st.booleans())
    def the_acknowledgement_comes(self, at: int, is_lost: bool) -> None:
        peer = self.peers[at]
        if peer.acks:
            swap, revision = peer.acks.pop(0)
            before = peer.breakers.breakers[KEY].state
            swapped = Swapped(swap, None if is_lost else revision)
            self.carry_out(peer, peer.breakers.step(KEY, swapped, self.clock(peer)))
            if peer.breakers.breakers[KEY].state is not before:
                peer.in_a_row = 0

    @rule(at=masters)
    def wants_to_probe(self, at: int) -> None:
        peer = self.peers[at]
        for key in peer.breakers.due(self.clock(peer)):
            self.carry_out(peer, peer.breakers.claim(key, self.clock(peer)))

    @rule(at=masters)
    def asks_the_probe(self, at: int) -> None:
        peer = self.peers[at]
        found = probe(peer.breakers.view, *KEY[::2], (KEY[1],), self.clock(peer))
        if found is not None:
            assert peer.asking is None or self.clock(peer) >= peer.asking.until_ms
            peer.asking = found

    @rule(at=masters, ending=any_ending)
    def the_probe_ends(self, at: int, ending: Ending) -> None:
        peer = self.peers[at]
        if peer.asking is not None:
            peer.asking = None
            self.live.pop(peer.name, None)
            self.carry_out(peer, peer.breakers.probed(KEY, ending, self.clock(peer)))

    @rule(at=masters)
    def crashes_and_starts_again(self, at: int) -> None:
        self.births += 1  # a new name: what the old one asked is still on its way, so its probe stays live
        peer = self.peers[at] = Peer(f"m{at}-{self.births}", (at + self.births) * 555_555)
        peer.seen = len(self.bucket.log)
        self.hear(peer, peer.seen, share=0.5)

    @rule(at=masters, verb=st.sampled_from(Verb))
    def by_hand(self, at: int, verb: Verb) -> None:
        peer = self.peers[at]
        self.carry_out(peer, peer.breakers.step(KEY, Handled(verb, "ops", self.now_ms), self.clock(peer)))

    # The laws.

    @invariant()
    def at_most_one_probe_is_live(self) -> None:
        self.live = {name: until for name, until in self.live.items() if until > self.now_ms}
        assert len(self.live) <= 1, self.live

    @invariant()
    def nothing_automatic_holds_for_ever(self) -> None:
        record = self.bucket.record
        if record is not None and record.holds_ms is None:
            assert record.reason is Reason.HAND

    def teardown(self) -> None:
        """From wherever it is, it closes in bounded time once the instance answers, though a second master is dead."""
        for at in range(len(self.peers)):
            while self.peers[at].sent:
                self.the_server_writes(at)
            while self.peers[at].acks:
                self.the_acknowledgement_comes(at, False)
        record = self.bucket.record
        if record is not None and record.holds_ms is None:
            return
        begun_ms = self.now_ms
        self.peers = self.peers[:2]
        while self.bucket.record is not None:
            self.now_ms += 10
            for at, peer in enumerate(self.peers):
                while peer.seen < len(self.bucket.log):
                    self.the_watch_tells(at, 0.0)
                self.wants_to_probe(at)
                self.the_server_writes(at)
                while peer.acks:
                    self.the_acknowledgement_comes(at, False)
                self.asks_the_probe(at)
                self.the_probe_ends(at, SUCCEEDED)
                self.at_most_one_probe_is_live()
            bound_ms = POLICY.wait_ms + POLICY.lease_ms * (POLICY.successes_min + 1) + 100
            assert self.now_ms - begun_ms <= bound_ms, (self.bucket.record, [p.breakers.breakers for p in self.peers])


def race(seed: int) -> int:
    """The machine above seldom gets as far as a race; here nearly every step is one; returns the probes granted."""
    dice = Random(seed)
    fleet = Fleet()
    granted = 0
    endings = (SUCCEEDED, REFUSED, ABANDONED, FAILED)
    for _ in range(1_500):
        at = dice.randrange(3)
        before = len(fleet.live)
        match dice.choices(range(9), (30, 20, 20, 20, 20, 10, 10, 1, 6))[0]:
            case 0:
                fleet.time_passes(dice.choice([1, 10, 49, 51, 100, 150, 250, 450, 800]))
            case 1:
                fleet.the_watch_tells(at, dice.choice([0.0, 1.0]))
            case 2:
                fleet.wants_to_probe(at)
            case 3:
                fleet.the_server_writes(at)
            case 4:
                fleet.the_acknowledgement_comes(at, dice.random() < 0.05)
            case 5:
                fleet.asks_the_probe(at)
            case 6:
                fleet.the_probe_ends(at, dice.choices(endings, (5, 2, 4, 1))[0])
            case 7:
                fleet.crashes_and_starts_again(at)
            case _:
                fleet.calls(at, FAILED, 5)
        granted += len(fleet.live) > before
        fleet.at_most_one_probe_is_live()
    fleet.teardown()
    return granted


def test_masters_that_race_for_every_probe_never_probe_at_once() -> None:
    assert sum(map(race, range(60))) > 200, "they did race"


TestFleet = Fleet.TestCase
TestFleet.settings = settings(max_examples=200, stateful_step_count=60)


@given(st.lists(st.tuples(any_ending, st.integers(0, 3_000)), max_size=80))
def test_counts_trip_exactly_on_the_run_or_on_the_rate(calls: list[tuple[Ending, int]]) -> None:
    policy = BreakerPolicy(failures_max=4, rate_calls_min=6, rate_window_ms=10_000)
    count, now_ms, run = Failures(policy), 0, 0
    told: list[tuple[int, bool]] = []
    for ending, ms in calls:
        now_ms += ms
        reason = count.ended(ending, now_ms, now_ms)
        if ending in (REFUSED, ABANDONED):
            assert reason is None
            continue
        run = run + 1 if ending is FAILED else 0
        told.append((now_ms // 1_000, ending is FAILED))
        recent = [is_failure for at, is_failure in told if at > now_ms // 1_000 - 10]
        is_rate = len(recent) >= 6 and sum(recent) * 2 >= len(recent)
        if ending is SUCCEEDED:
            assert reason is None
        else:
            assert reason is (Reason.FAILURES if run >= 4 else Reason.RATE if is_rate else None)


def test_calls_that_began_before_a_transition_do_not_count_after_it() -> None:
    count = Failures(BreakerPolicy(failures_max=1))
    count.clear(100)
    assert count.ended(FAILED, 99, 200) is None
    assert count.ended(FAILED, 100, 200) is Reason.FAILURES


@pytest.mark.parametrize("code", [None, *CODES, "of_a_newer_version"])
def test_every_error_ends_a_call_in_one_way(code: str | None) -> None:
    service = {"service_error", "internal", "handler_failed", "invalid_reply", "record_unwritable"}
    failures = service | {"no_responders", "out_of_budget"}
    if code is None:
        assert ending_of(code, 5) is SUCCEEDED
    elif code in ("overloaded", "stopping"):
        assert ending_of(code, 5) is REFUSED
    elif code in failures or code not in CODES:
        assert ending_of(code, 1_000) is FAILED
    else:
        assert ending_of(code, 1_000) is ABANDONED, "the asker or this master's connection is to blame"


def test_a_silence_that_was_not_borne_for_a_fair_time_says_nothing() -> None:
    assert ending_of("out_of_budget", 199) is ABANDONED
    assert ending_of("out_of_budget", 199, fair_ms=150) is FAILED
    assert ending_of("no_responders", 0) is FAILED


def opened(breakers: Breakers, key: Key, opened_at_ms: int = 0) -> None:
    record = Record(State.OPEN, Reason.FAILURES, "m", opened_at_ms, POLICY.wait_ms)
    breakers.step(key, Heard(record, 1), 0)


def test_a_breaker_opens_waits_probes_and_closes_and_each_move_is_told_once() -> None:
    breakers = Breakers("m0", POLICY)
    for at in range(4):
        assert breakers.ended(KEY, FAILED, at, at, 77) == ()
    (swap,) = breakers.ended(KEY, FAILED, 5, 5, 77)
    assert swap == Swap(Record(State.OPEN, Reason.FAILURES, "m0", 77, 3_000), 0, 5, State.CLOSED)
    assert breakers.ended(KEY, FAILED, 6, 6, 77) == (), "one write at a time"
    assert breakers.step(KEY, Swapped(swap, 1), 10) == (Opened(Reason.FAILURES, 3_010),)
    assert eligible(breakers.view, "shop", "search", ("i0",)) == ()
    assert breakers.due(3_009) == ()
    now_ms, revision = 3_010, 1
    for at in range(2):
        (claim,) = breakers.claim(KEY, now_ms)
        assert isinstance(claim, Swap)
        revision += 1
        told = breakers.step(KEY, Swapped(claim, revision), now_ms + 1)
        assert told[-1] == ProbeGranted(now_ms + 500)
        assert (len(told) == 2) is (at == 0), "half-open is told once"
        found = probe(breakers.view, "shop", "search", ("i0",), now_ms + 1)
        assert found is not None
        assert probe(breakers.view, "shop", "search", ("i0",), now_ms + 1) is None, "taken once"
        (judged,) = breakers.probed(KEY, SUCCEEDED, now_ms + 2)
        assert isinstance(judged, Swap)
        revision += 1
        told = breakers.step(KEY, Swapped(judged, revision), now_ms + 3)
        assert told == ((Closed(Reason.PROBE),) if at else ())
        now_ms += 10
    assert breakers.view == BreakerView(policy=POLICY)


@pytest.mark.parametrize(
    ("ending", "state", "holds_ms"),
    [(FAILED, State.OPEN, 3_000), (REFUSED, State.HALF_OPEN, 100), (ABANDONED, State.HALF_OPEN, 0)],
)
def test_a_probe_that_does_not_succeed_makes_the_next_one_wait(ending: Ending, state: State, holds_ms: int) -> None:
    breakers = Breakers("m0", POLICY)
    opened(breakers, KEY)
    (claim,) = breakers.claim(KEY, 3_000)
    assert isinstance(claim, Swap)
    breakers.step(KEY, Swapped(claim, 2), 3_000)
    (judged,) = breakers.probed(KEY, ending, 3_001)
    assert isinstance(judged, Swap)
    assert judged.record is not None
    assert (judged.record.state, judged.record.holds_ms, judged.record.probe) == (state, holds_ms, None)


def test_a_grant_that_comes_too_late_is_refused() -> None:
    claimed = Record(State.HALF_OPEN, Reason.FAILURES, "m0", 0, POLICY.lease_ms, "m0")
    swap = Swap(claimed, 1, 100, State.OPEN)
    waiting = Breaker(Record(State.OPEN, Reason.FAILURES, "m", 0, 0), 1, 0, pending=swap)
    assert step(waiting, Swapped(swap, 2), 600, "m0", POLICY)[1][-1] == ProbeRefused()
    overtaken = replace(waiting, revision=3)
    assert step(overtaken, Swapped(swap, 2), 101, "m0", POLICY)[1][-1] == ProbeRefused()


def test_a_read_tells_of_a_bucket_that_was_made_anew() -> None:
    old = Breaker(Record(State.OPEN, Reason.FAILURES, "m", 0, 0), revision=900)
    assert step(old, Heard(None, 0), 5, "m0", POLICY)[0] == old
    assert step(old, Heard(None, 0, is_read=True), 5, "m0", POLICY)[0].state is State.CLOSED


@pytest.mark.parametrize(("verb", "is_eligible"), [(Verb.OPEN, False), (Verb.CLOSE, True), (Verb.RESET, True)])
def test_a_hand_wins_over_whatever_there_is(verb: Verb, is_eligible: bool) -> None:
    breakers = Breakers("m0", POLICY)
    opened(breakers, KEY)
    breakers.claim(KEY, 3_000)
    (swap,) = breakers.step(KEY, Handled(verb, "ops", 5), 3_001)
    assert isinstance(swap, Swap)
    assert swap.revision is None
    breakers.step(KEY, Swapped(swap, 7), 3_002)
    assert bool(eligible(breakers.view, "shop", "search", ("i0",))) is is_eligible
    trips = [breakers.ended(KEY, FAILED, 4_000, 4_000, 0) for _ in range(9)]
    assert any(trips) is (verb is Verb.RESET), "held is held"
    assert breakers.due(10**9) == ()


@given(st.integers(1, 9), st.integers(0, 9), st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_the_cap_leaves_most_instances_in_and_a_node_is_open_when_all_are(total: int, out: int, cap: float) -> None:
    policy = replace(POLICY, ejected_max=cap)
    instances = tuple(f"i{at}" for at in range(total))
    breakers = Breakers("m0", policy)
    for at, name in enumerate(instances[:out]):
        opened(breakers, ("shop", name, "search"), opened_at_ms=at)
    left = eligible(breakers.view, "shop", "search", instances)
    if out >= total:
        assert left == ()
    else:
        assert left == instances[min(out, max(1, int(total * cap))) :]
    assert eligible(breakers.view, "shop", "other", instances) == instances


def test_panic_ignores_breakers_but_not_hands() -> None:
    shut = Shut(("i0", "i1", "i2"), held=frozenset({"i1"}))
    calm = BreakerView({("n", "search"): shut}, BreakerPolicy())
    panics = replace(calm, policy=BreakerPolicy(panic_below=0.5))
    names = ("i0", "i1", "i2", "i3")
    assert eligible(calm, "n", "search", names) == ("i2", "i3")
    assert eligible(panics, "n", "search", names) == ("i0", "i2", "i3")
    assert eligible(panics, "n", "search", names[:3]) == ("i0", "i2")
    assert eligible(panics, "n", "search", (*names, "i4", "i5")) == ("i3", "i4", "i5")


@given(st.integers(1, 8), st.integers(0, 8))
def test_a_master_that_sees_most_nodes_fail_suspects_itself_and_opens_nothing(total: int, failing: int) -> None:
    breakers = Breakers("m0", POLICY)
    failing = min(failing, total)
    trips: list[tuple[Effect, ...]] = []
    for round_ in range(6):
        for node in range(total):
            ending = FAILED if node < failing else SUCCEEDED
            trips.append(breakers.ended((f"n{node}", "i", "search"), ending, round_, round_, 0))
    suspects = failing >= 3 and failing * 2 > total
    assert breakers.suspects_itself(10) is suspects
    assert any(trips) is (failing > 0 and not suspects)
    assert not breakers.suspects_itself(20_000), "a suspicion does not outlast its window"


def test_a_suspicious_master_neither_claims_nor_judges() -> None:
    breakers = Breakers("m0", POLICY)
    opened(breakers, KEY)
    (claim,) = breakers.claim(KEY, 3_000)
    assert isinstance(claim, Swap)
    breakers.step(KEY, Swapped(claim, 2), 3_000)
    for node in "abc":
        breakers.ended((node, "i", "search"), FAILED, 3_000, 3_000, 0)
    (judged,) = breakers.probed(KEY, FAILED, 3_001)
    assert isinstance(judged, Swap)
    assert judged.record is not None
    assert judged.record.state is State.HALF_OPEN, "not judged: released"
    breakers.step(KEY, Swapped(judged, 3), 3_001)
    assert breakers.due(4_000) == ()
    assert breakers.due(20_000) == (KEY,)


def test_an_instance_that_left_is_forgotten_with_its_counts() -> None:
    breakers = Breakers("m0", POLICY)
    opened(breakers, KEY)
    breakers.ended(KEY, FAILED, 1, 1, 0)
    breakers.forget("shop", "i0")
    assert (breakers.breakers, breakers.counts, breakers.view.shut) == ({}, {}, {})


def test_a_trip_of_what_is_open_elsewhere_changes_nothing() -> None:
    held = Breaker(Record(State.CLOSED, Reason.HAND, "ops", 0, None), 4)
    assert step(held, Tripped(Reason.RATE, 0), 9, "m0", POLICY) == (held, ())


def test_a_write_into_a_bucket_made_anew_is_read_again() -> None:
    held = Record(State.OPEN, Reason.HAND, "ops", 0, None)
    known = Breaker(record=held, revision=40)
    reset, (swap,) = step(known, Handled(Verb.RESET, "ops", 0), 10, "m", POLICY)
    assert isinstance(swap, Swap)
    settled, effects = step(reset, Swapped(swap, 0), 20, "m", POLICY)
    assert any(isinstance(effect, Reread) for effect in effects), "only a read knows what the new bucket holds"
    closed, _ = step(settled, Heard(None, 0, is_read=True), 30, "m", POLICY)
    assert closed.state is State.CLOSED
    opened, (swap,) = step(closed, Handled(Verb.OPEN, "ops", 0), 40, "m", POLICY)
    assert isinstance(swap, Swap)
    assert step(opened, Swapped(swap, 1), 50, "m", POLICY)[0].state is State.OPEN
