"""Refresh families: one line of descent, the grace for a lost answer, and theft that always ends the line."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from antiphon.decide.families import (
    GRACE_MS,
    IDLE_MS,
    Issue,
    Life,
    Presented,
    Refuse,
    begin,
    is_alive,
    judge,
    revoke,
    used,
)
from antiphon.decide.identities import FamilyRecord, Reason

OWNER, THIEF = "U" + "A" * 55, "U" + "B" * 55


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def successor(token: str) -> str:
    """A function of the token, as the masters' is."""
    return "after " + digest(token)


def presented(token: str) -> Presented:
    return Presented(digest(token), digest(successor(token)))


def family(now_ms: int = 0) -> FamilyRecord:
    return begin("a" * 16, digest("first"), identity="docs", instance="docs-1", nkey=OWNER, now_ms=now_ms)


def test_the_newest_token_makes_its_successor() -> None:
    verdict = judge(family(), presented("first"), OWNER, 5_000)
    assert isinstance(verdict, Issue)
    assert not verdict.is_again
    rotated = verdict.family
    assert (rotated.current, rotated.previous) == (digest(successor("first")), digest("first"))
    assert (rotated.rotated_ms, rotated.expires_ms) == (5_000, 5_000 + IDLE_MS)


@pytest.mark.parametrize(("later_ms", "is_good"), [(0, True), (GRACE_MS, True), (GRACE_MS + 1, False)])
def test_the_grace_of_a_lost_answer(later_ms: int, is_good: bool) -> None:
    once = judge(family(), presented("first"), OWNER, 5_000)
    assert isinstance(once, Issue)
    again = judge(once.family, presented("first"), OWNER, 5_000 + later_ms)
    if is_good:
        assert again == Issue(once.family, is_again=True), "the same successor, and the grace is not prolonged"
    else:
        assert isinstance(again, Refuse)
        assert again.reason is Reason.REUSED
        assert again.family is not None
        assert again.family.revoked == "reused"


def test_in_the_grace_only_the_very_same_successor() -> None:
    once = judge(family(), presented("first"), OWNER, 0)
    assert isinstance(once, Issue)
    other = judge(once.family, Presented(digest("first"), digest("another")), OWNER, 0)
    assert isinstance(other, Refuse), "the masters' secret has changed: what was handed out cannot be said again"
    assert other.reason is Reason.REUSED


def test_what_has_arrived_is_not_said_again() -> None:
    once = judge(family(), presented("first"), OWNER, 5_000)
    assert isinstance(once, Issue)
    assert used(once.family, 4_999) is None, "a token of the grant before says nothing of this one"
    record = used(once.family, 5_000)
    assert record is not None
    assert record.is_used
    assert used(record, 6_000) is None
    again = judge(record, presented("first"), OWNER, 5_001)
    assert isinstance(again, Refuse)
    assert again.reason is Reason.REUSED
    next_one = judge(record, presented(successor("first")), OWNER, 5_002)
    assert isinstance(next_one, Issue)
    assert not next_one.family.is_used
    assert used(revoke(record, "by ops"), 6_000) is None


def test_without_the_key_nothing_happens_to_the_family() -> None:
    for token in ("first", "forged", "older"):
        assert judge(family(), presented(token), THIEF, 0) == Refuse(Reason.WRONG_KEY)
    assert judge(None, presented("first"), OWNER, 0) == Refuse(Reason.UNKNOWN_CREDENTIAL)


def test_idle_for_too_long() -> None:
    assert isinstance(judge(family(), presented("first"), OWNER, IDLE_MS - 1), Issue)
    assert judge(family(), presented("first"), OWNER, IDLE_MS) == Refuse(Reason.EXPIRED)
    assert is_alive(family(), IDLE_MS - 1)
    assert not is_alive(family(), IDLE_MS)
    short = Life(idle_ms=10, grace_ms=1)
    assert (
        begin("a" * 16, digest("x"), identity="web", instance=None, nkey=OWNER, now_ms=5, life=short).expires_ms == 15
    )


def test_the_first_reason_of_a_revocation_stays() -> None:
    gone = revoke(family(), "by ops")
    assert revoke(gone, "reused").revoked == "by ops"
    assert judge(gone, presented("first"), OWNER, 0) == Refuse(Reason.REVOKED_FAMILY)
    assert not is_alive(gone, 0)


@given(st.binary(min_size=1))
def test_a_record_is_read_as_it_was_written(token: bytes) -> None:
    one = judge(family(7), presented(token.hex()), OWNER, 8)
    kept = one.family if isinstance(one, Refuse) else family(7)
    assert kept is not None
    assert FamilyRecord.model_validate_json(kept.model_dump_json()) == kept
    assert kept.key == "family." + "a" * 16


class Line(RuleBasedStateMachine):
    """An owner that renews, loses answers and retries, a thief who has the key too, and an operator."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 1_000
        self.record = family(self.now_ms)
        self.line = ["first"]
        """Every token that was ever handed out, oldest first."""
        self.was_revoked = False

    def present(self, token: str, nkey: str = OWNER) -> Issue | Refuse:
        verdict = judge(self.record, presented(token), nkey, self.now_ms)
        if verdict.family is not None:
            self.record = verdict.family
        if isinstance(verdict, Issue):
            assert not self.was_revoked, "nothing is issued after a revocation"
            given_out = successor(token)
            assert digest(given_out) == self.record.current, "what is handed out is what the record knows"
            if not verdict.is_again:
                self.line.append(given_out)
            assert given_out == self.line[-1], "one line of descent"
        if verdict.family is not None and verdict.family.revoked is not None:
            self.was_revoked = True
        return verdict

    @rule(ms=st.sampled_from([1, 100, GRACE_MS - 1, GRACE_MS, GRACE_MS + 1, 3_600_000, IDLE_MS - 1, IDLE_MS]))
    def wait(self, ms: int) -> None:
        self.now_ms += ms

    @rule()
    def renew(self) -> None:
        was_alive = is_alive(self.record, self.now_ms)
        verdict = self.present(self.line[-1])
        assert isinstance(verdict, Issue) == was_alive
        assert not (isinstance(verdict, Issue) and verdict.is_again)

    @rule()
    def use_the_newest_token(self) -> None:
        self.record = used(self.record, self.now_ms) or self.record

    @precondition(lambda self: len(self.line) > 1)
    @rule()
    def retry(self) -> None:
        was_alive = is_alive(self.record, self.now_ms)
        is_lost = self.now_ms - self.record.rotated_ms <= GRACE_MS and not self.record.is_used
        before = self.record
        verdict = self.present(self.line[-2])
        if was_alive and is_lost:
            assert verdict == Issue(before, is_again=True)
        elif was_alive:
            assert isinstance(verdict, Refuse)
            assert self.record.revoked == Reason.REUSED

    @precondition(lambda self: len(self.line) > 2)
    @rule(dice=st.data())
    def replay_an_old_one(self, dice: st.DataObject) -> None:
        was_alive = is_alive(self.record, self.now_ms)
        verdict = self.present(self.line[dice.draw(st.integers(0, len(self.line) - 3))])
        assert isinstance(verdict, Refuse)
        if was_alive:
            assert self.record.revoked == Reason.REUSED

    @rule(token=st.text(min_size=1, max_size=5))
    def steal_without_the_key(self, token: str) -> None:
        before = self.record
        for one in (token, *self.line):
            assert isinstance(self.present(one, THIEF), Refuse)
        assert self.record == before

    @precondition(lambda self: len(self.line) > 3)
    @rule()
    def revoke_by_hand(self) -> None:
        if self.record.revoked is None:
            self.record = revoke(self.record, "by ops")
        self.was_revoked = True

    @invariant()
    def stays_revoked(self) -> None:
        assert (self.record.revoked is not None) == self.was_revoked


TestLine = Line.TestCase
