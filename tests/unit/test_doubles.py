"""Doubles: a renewal is none, two processes on one credential are, and are told once."""

from __future__ import annotations

from antiphon.decide.doubles import Doubles
from antiphon.decide.headcount import Place

ONE, TWO, THREE = Place("s", 1), Place("s", 2), Place("t", 1)
SHOP, OTHER = ("shop", "a"), ("shop", "b")


def test_two_connections_that_stay() -> None:
    doubles = Doubles()
    assert doubles.look({ONE: SHOP, TWO: SHOP, THREE: OTHER}) == [], "one of them may be about to go"
    assert doubles.look({ONE: SHOP, TWO: SHOP, THREE: OTHER}) == [SHOP]
    assert doubles.look({ONE: SHOP, TWO: SHOP}) == [], "told once"
    assert doubles.look({ONE: SHOP}) == []
    assert doubles.look({ONE: SHOP, TWO: SHOP}) == []
    assert doubles.look({ONE: SHOP, TWO: SHOP}) == [SHOP], "and again when it comes again"


def test_a_renewal_is_none() -> None:
    doubles = Doubles()
    assert doubles.look({ONE: SHOP}) == []
    assert doubles.look({ONE: SHOP, TWO: SHOP}) == []
    assert doubles.look({TWO: SHOP, THREE: SHOP}) == []
    assert doubles.look({THREE: SHOP, ONE: OTHER}) == []
