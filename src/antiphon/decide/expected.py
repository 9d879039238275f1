"""Expected score: the BM25 that a hit should have by its place alone, in a collection whose term counts are known.

A node that tells its order and its document frequencies has told more than it seems. If half of its documents hold a
rare term, its first hits hold it, and the other terms as well; if none does, its first hit is worth what the common
terms are. Taily (Aly, Hiemstra and Demeester 2013) chooses nodes by the scores that their documents should have; here
each hit is given the score that stands at its place.

A document holds each term by chance, as often as the node's document frequency says, and as many times as words recur
in that collection (geometric, with the mean of the node's terms by its postings), in a document of mean length. So its
BM25 is a sum of independent parts, and the share of documents that reach `s` is at most `exp(-I(s))`,
where `I` is the rate of Cramer (1938) and Chernoff (1952). The hit at rank r, from 0, is the one that r + 1/2 documents
reach (Hazen's plotting position). The bound puts a first hit up to 1.3 times as high as chance does, and later ones
higher still; terms that go together do so in truth.

No number here was fitted to collections. Ranks only in `benchmarks.quality`: .86; with the exact distribution of the
same sum .85, with Taily's Gamma distribution .84, with node prior times rank .82.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import exp, log

from antiphon.messages.wire import WireStatistics

_TIMES_MAX = 4
"""How often a term may stand in a document, so many or more being one case; 3 to 16 measured alike."""
_TILT_GROWTH = 1.5
_TILTS_MAX = 15
"""exp(1.5 ** 14) is the largest number that is computed, and a float can hold it."""


def expected(told: WireStatistics, size: int, weights: Sequence[float], norm: tuple[float, float]) -> list[float]:
    """Return the expected BM25 of the first `size` hits of a collection, never rising.

    Args:
        told: the collection, within what is possible.
        size: hits.
        weights: what each term adds to a document that is full of it (`Totals.weights`).
        norm: (a, b) so that a + b length is what BM25 adds to a term's frequency below the line (`Totals.norm`).
    """
    terms = [(df / told.docs, weight) for df, weight in zip(told.df, weights, strict=True) if df]
    if not terms:
        return [0.0] * size
    times = told.total_length / (told.postings or 1)
    rates, scores = _tail(terms, _parts(times, norm[0] + norm[1] * told.total_length / told.docs), log(2 * told.docs))
    return [_between(rates, scores, log(told.docs / (rank + 0.5))) for rank in range(size)]


def _parts(times: float, norm: float) -> list[tuple[float, float]]:
    """Return (share of its weight that a term adds, how probable) for a document that holds it once, twice, ..."""
    again, left = 1 - 1 / max(times, 1.0), 1.0
    parts: list[tuple[float, float]] = []
    for tf in range(1, _TIMES_MAX):
        parts.append((tf / (tf + norm), left * (1 - again)))
        left *= again
    return [*parts, (_TIMES_MAX / (_TIMES_MAX + norm), left)]


def _tail(
    terms: Sequence[tuple[float, float]], parts: Sequence[tuple[float, float]], rate_max: float
) -> tuple[list[float], list[float]]:
    """Return rates and the scores that have them, both rising, from the mean score up to the first rate above the most.

    With the logarithm K of the score's moment generating function, the score K'(tilt) has the rate tilt K'(tilt) - K.
    """
    rates, scores = [0.0], [sum([p * w * sum([u * q for u, q in parts]) for p, w in terms])]
    tilt = 1 / max([weight for _, weight in terms])
    for _ in range(_TILTS_MAX):
        total = slope = 0.0
        for p, weight in terms:
            tilted = [(u, q * exp(tilt * weight * u)) for u, q in parts]
            here = 1 - p + p * sum([q for _, q in tilted])
            total += log(here)
            slope += p * weight * sum([u * q for u, q in tilted]) / here
        rate = tilt * slope - total
        if rate <= rates[-1]:
            break  # all terms as often as can be: nothing lies beyond
        rates.append(rate)
        scores.append(slope)
        if rate > rate_max:
            break
        tilt *= _TILT_GROWTH
    return rates, scores


def _between(rates: Sequence[float], scores: Sequence[float], rate: float) -> float:
    """Return the score that has a rate, by a straight line between the nearest known ones."""
    at = bisect_left(rates, rate)
    if at in {0, len(rates)}:
        return scores[max(0, at - 1)]
    share = (rate - rates[at - 1]) / (rates[at] - rates[at - 1])
    return scores[at - 1] + share * (scores[at] - scores[at - 1])
