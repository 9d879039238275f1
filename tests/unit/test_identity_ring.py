"""The ring of signing keys: one signs, each token outlives its key's rotation, an expelled key is never believed."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from antiphon.decide.ring import LONGEST_MS, MARGIN_MS, RETIRING_MAX, Ring, SigningKey, expel, rotate, verifying
from antiphon.errors import Overloaded


def key(number: int, now_ms: int = 0) -> SigningKey:
    text = urlsafe_b64encode(hashlib.sha256(str(number).encode()).digest()).decode().rstrip("=")
    return SigningKey(kid=text, public=text, secret=text, created_ms=now_ms)


def kids(ring: Ring, now_ms: int) -> list[str]:
    return [one.kid for one in verifying(ring, now_ms)]


def test_a_rotation_step() -> None:
    ring = Ring(next=key(1), active=key(0))
    turned = rotate(ring, key(2), 1_000)
    assert (turned.active, turned.next) == (key(1), key(2))
    assert [one.kid for one in turned.retiring] == [key(0).kid]
    drop_ms = 1_000 + LONGEST_MS + MARGIN_MS
    assert key(0).kid in kids(turned, drop_ms - 1)
    assert key(0).kid not in kids(turned, drop_ms)
    assert rotate(turned, key(3), drop_ms).retiring[0].kid == key(1).kid, "what nobody needs is dropped"


def test_too_many_rotations_say_when_to_come_back() -> None:
    ring = Ring(next=key(1), active=key(0))
    for step in range(RETIRING_MAX):
        ring = rotate(ring, key(2 + step), step)
    with pytest.raises(Overloaded) as caught:
        rotate(ring, key(99), 100)
    wait_ms = caught.value.retry_after_ms
    assert wait_ms == LONGEST_MS + MARGIN_MS - 100
    assert rotate(ring, key(99), 100 + wait_ms).next == key(99)


@pytest.mark.parametrize("place", ["active", "next", "retiring"])
def test_an_expelled_key_is_believed_no_more(place: str) -> None:
    ring = rotate(Ring(next=key(1), active=key(0)), key(2), 0)
    leaked = {"active": ring.active, "next": ring.next, "retiring": ring.retiring[0]}[place]
    after = expel(ring, leaked.kid, key(3), 1)
    assert leaked.kid not in kids(after, 1)
    assert {one.kid for one in verifying(ring, 1)} - {leaked.kid} <= set(kids(after, 1)), "and no other one suffers"
    assert after.active.kid in kids(after, 1)
    assert (key(3).kid in kids(after, 1)) == (place != "retiring")
    assert expel(after, leaked.kid, key(4), 2) == after, "twice is once"


def test_no_secret_in_the_text_form() -> None:
    one = SigningKey(kid="k" * 43, public="p" * 43, secret="s" * 43, created_ms=0)
    assert "sss" not in f"{one} {one!r} {Ring(next=one, active=one)!r}"
    ring = Ring(next=one, active=key(1), retiring=(key(2),))
    assert Ring.model_validate_json(ring.model_dump_json()) == ring


class Rotations(RuleBasedStateMachine):
    """Masters sign, rotate and expel; every token that nobody expelled is believed until it expires."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 0
        self.made = 2
        self.ring = Ring(next=key(1), active=key(0))
        self.stale = self.ring
        """The ring as a master saw it that has not heard of the last rotation."""
        self.stale_since_ms = 0
        self.tokens: list[tuple[str, int]] = []
        self.expelled: set[str] = set()

    def fresh(self) -> SigningKey:
        self.made += 1
        return key(self.made, self.now_ms)

    @rule(ms=st.sampled_from([1, 1_000, MARGIN_MS, LONGEST_MS // 2, LONGEST_MS, LONGEST_MS + MARGIN_MS]))
    def wait(self, ms: int) -> None:
        self.now_ms += ms

    @rule(life_ms=st.integers(1, LONGEST_MS))
    def sign(self, life_ms: int) -> None:
        assert self.ring.active.kid not in self.expelled
        self.tokens.append((self.ring.active.kid, self.now_ms + life_ms))

    @rule()
    def sign_with_an_old_view(self) -> None:
        if self.now_ms - self.stale_since_ms <= MARGIN_MS and self.stale.active.kid not in self.expelled:
            self.tokens.append((self.stale.active.kid, self.now_ms + LONGEST_MS))

    @rule()
    def turn(self) -> None:
        before = self.ring
        try:
            self.ring = rotate(self.ring, self.fresh(), self.now_ms)
        except Overloaded:
            assert len(verifying(self.ring, self.now_ms)) == RETIRING_MAX + 2
        else:
            assert self.ring.active == before.next, "a key is known before it signs"
            self.stale, self.stale_since_ms = before, self.now_ms

    @rule(dice=st.data())
    def leak(self, dice: st.DataObject) -> None:
        gone = dice.draw(st.sampled_from(kids(self.ring, self.now_ms)))
        self.ring = expel(self.ring, gone, self.fresh(), self.now_ms)
        self.expelled.add(gone)

    @invariant()
    def believes_what_it_should(self) -> None:
        believed = kids(self.ring, self.now_ms)
        assert len(set(believed)) == len(believed) <= RETIRING_MAX + 2
        assert not self.expelled & set(believed)
        assert believed[0] == self.ring.active.kid
        for kid, expires_ms in self.tokens:
            if expires_ms > self.now_ms and kid not in self.expelled:
                assert kid in believed


TestRotations = Rotations.TestCase
