"""One collection over several nodes: at random, or by topic."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from math import log, sqrt

from benchmarks.quality.corpus import Doc

SEED = 7
_WORDS_MAX, _SAMPLE, _ROUNDS, _CENTRE_MAX = 25, 1_500, 6, 400


def at_random(docs: Sequence[Doc], parts: int) -> list[list[Doc]]:
    """Return the documents dealt out evenly."""
    dealt = list(docs)
    random.Random(SEED).shuffle(dealt)
    return [dealt[part::parts] for part in range(parts)]


def by_topic(docs: Sequence[Doc], parts: int) -> list[list[Doc]]:
    """Return clusters by spherical k-means on tf-idf (Dhillon and Modha 2001), found on an even sample of documents."""
    df = Counter(term for doc in docs for term in doc.tf)
    vectors = [_vector(doc, df, len(docs)) for doc in docs]
    sample = vectors[:: max(1, len(vectors) // _SAMPLE)]
    centres = [dict(one) for one in random.Random(SEED).sample(sample, parts)]
    for _ in range(_ROUNDS):
        weights = _by_term(centres)
        sums: list[Counter[str]] = [Counter() for _ in centres]
        for vector in sample:
            near = sums[_nearest(vector, weights, parts)]
            for term, value in vector.items():
                near[term] += value  # type: ignore[assignment]  # a Counter of weights, not of integers
        centres = [
            _unit(dict(one.most_common(_CENTRE_MAX))) if one else old for one, old in zip(sums, centres, strict=True)
        ]
    weights = _by_term(centres)
    clusters: list[list[Doc]] = [[] for _ in range(parts)]
    for doc, vector in zip(docs, vectors, strict=True):
        clusters[_nearest(vector, weights, parts)].append(doc)
    return [cluster for cluster in clusters if cluster]


def overlapping(docs: Sequence[Doc], parts: int, share: float) -> list[list[Doc]]:
    """Return a random split in which this share of the documents also lies in a second part."""
    dice, dealt = random.Random(SEED), at_random(docs, parts)
    home = {doc.number: at for at, part in enumerate(dealt) for doc in part}
    for doc in docs:
        if dice.random() < share:
            dealt[(home[doc.number] + dice.randrange(1, parts)) % parts].append(doc)
    return dealt


def _vector(doc: Doc, df: Counter[str], size: int) -> dict[str, float]:
    """Return a document's heaviest words as a unit vector; words of a third of all documents tell no topic."""
    weighed = {t: (1 + log(tf)) * log(size / df[t]) for t, tf in doc.tf.items() if 1 < df[t] < size / 3}
    return _unit(dict(sorted(weighed.items(), key=lambda pair: (-pair[1], pair[0]))[:_WORDS_MAX]))


def _unit(vector: dict[str, float]) -> dict[str, float]:
    norm = sqrt(sum(value * value for value in vector.values())) or 1.0
    return {term: value / norm for term, value in vector.items()}


def _by_term(centres: Sequence[dict[str, float]]) -> dict[str, list[tuple[int, float]]]:
    weights: dict[str, list[tuple[int, float]]] = {}
    for at, centre in enumerate(centres):
        for term, value in centre.items():
            weights.setdefault(term, []).append((at, value))
    return weights


def _nearest(vector: dict[str, float], weights: dict[str, list[tuple[int, float]]], parts: int) -> int:
    near = [0.0] * parts
    for term, value in vector.items():
        for at, weight in weights.get(term, ()):
            near[at] += value * weight
    return max(range(parts), key=near.__getitem__)
