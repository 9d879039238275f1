"""The text analyser: how a text becomes the terms that everybody counts.

Nodes and masters may add their counts up only if they cut words alike, so the analyser has an id that travels with
every question and every reply. A word is a run of letters and digits after NFKC and case folding, reduced to its
stem by Snowball's English stemmer (Porter 2, through PyStemmer). Scripts that write no spaces (Han, Kana, Hangul,
Thai, Lao, Khmer, Burmese) become overlapping pairs of characters, as in Lucene's CJKAnalyzer: no dictionary, and
the same pairs on every machine. The price: a question of one single character finds only texts where it stands alone.

A term has no white space and no ASCII but lower case letters and digits, so terms joined by blanks are a text that
SQLite FTS5's `ascii` tokenizer cuts back into exactly these terms.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, cast

from antiphon.messages.hit import TERMS_MAX

TERM_MAX = 64
"""Characters of a term; what is longer is no word (a key, an encoded image) and is cut."""
STEMS_MAX = 50_000
"""Words whose stem is remembered, about 8 MB when full; then the memory starts afresh."""
SCAN_MAX = 65_536
"""Characters that are searched for matches at a time: a snippet of a whole book stops at its first matches."""

_STOP_WORDS = """
    a about above after again against all am an and any are as at be because been before being below between both but
    by can cannot could did do does doing don down during each few for from further had has have having he her here
    hers herself him himself his how i if in into is isn it its itself just ll me more most my myself no nor not now of
    off on once only or other our ours ourselves out over own s same she should so some such t than that the their
    theirs them themselves then there these they this those through to too under until up ve very was we were what
    when where which while who whom why will with would you your yours yourself yourselves
    """
STOP_WORDS = frozenset(_STOP_WORDS.split())
"""Words that a question is not ranked by, unless it has no others. Documents keep them: their lengths stay true."""

_PAIRED = (
    "\u0e00-\u0e4e\u0e50-\u0e59\u0e80-\u0eff\u1000-\u1049\u1050-\u109f\u1100-\u11ff\u1780-\u17d3\u17e0-\u17e9"
    "\u3005-\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff"
)
# Python's \w leaves out vowel signs and accents that stand as characters of their own; words would break at them.
_MARKS = (
    "\u0300-\u036f\u0483-\u0487\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06dc\u0900-\u0963\u0966-\u0dff"
)
_ASCII_WORD = re.compile(r"[a-z0-9]+")
_PAIR_RUN = re.compile(f"[{_PAIRED}]+")
_WORD = re.compile(rf"[{_PAIRED}]+|(?:[^\W_{_PAIRED}]|[{_MARKS}])+")
_SOFT_HYPHEN = "\u00ad"

_PROBE = """
    skies dying generously news inning proceed exceeding happily relational conditional feudalism hopefulness
    formalize electricity adjustable effective bowdlerize controlling rolling agreed plastered conflated troubled
    sized hopping falling hissing fizzed failing filing university universe past paste evening organization
    communication arsenic sky early only gently singly internal intern generate generic apologist geologist
    """
_PROBED = "80ed492f"


class _Stems(dict[str, str]):
    """Word -> stem, filled as words are met: a lookup that hits costs no Python call."""

    def __init__(self, stem: Callable[[str], str]) -> None:
        super().__init__()
        self._stem = stem

    def __missing__(self, word: str) -> str:
        if len(word) > TERM_MAX:
            return word[:TERM_MAX]
        if len(self) >= STEMS_MAX:
            self.clear()
        stem = self._stem(word) or word
        self[word] = stem
        return stem


class Analyser:
    """The English analyser, with pairs of characters for scripts without spaces.

    Attributes:
        id: `en-1`; it changes with the rules. A PyStemmer whose stems differ from those the id was given for adds
            a fingerprint to it, so that counts of two different stemmers are never added up.
    """

    def __init__(self) -> None:
        stem = _snowball()
        stems = " ".join([stem(word) for word in _PROBE.split()])
        fingerprint = hashlib.blake2b(stems.encode(), digest_size=4).hexdigest()
        self.id = "en-1" if fingerprint == _PROBED else f"en-1-{fingerprint}"
        self._stems = _Stems(stem)

    def tokens(self, text: str) -> list[str]:
        """Return all terms of a text, in its order."""
        if text.isascii():
            return list(map(self._stems.__getitem__, _ASCII_WORD.findall(text.lower())))
        text = _normal(text)
        words = _WORD.findall(text)
        if _PAIR_RUN.search(text) is None:
            return list(map(self._stems.__getitem__, words))
        return [term for word in words for term in self._terms(word)]

    def question(self, text: str) -> tuple[str, ...]:
        """Return a question's distinct terms in its order, at most `TERMS_MAX`; stop words only if it has no others."""
        words = _WORD.findall(_normal(text))
        telling = [word for word in words if word not in STOP_WORDS] or words
        distinct = dict.fromkeys(term for word in telling for term in self._terms(word))
        return tuple(distinct)[:TERMS_MAX]

    def counts(self, text: str) -> tuple[dict[str, int], int]:
        """Return how often each term stands in a text, and the text's length in terms."""
        terms = self.tokens(text)
        return Counter(terms), len(terms)

    def frequencies(self, text: str, terms: Iterable[str]) -> tuple[list[int], int]:
        """Return how often each of `terms` stands in a text, in their order, and the text's length in terms."""
        found = self.tokens(text)
        return [found.count(term) for term in terms], len(found)

    def spans(self, text: str, terms: Iterable[str]) -> list[tuple[int, int]]:
        """Return where words of `terms` stand in a text: (start, end) in characters, ascending, not overlapping."""
        return _joined([(start, end) for start, end, _ in self._matches(text, frozenset(terms))])

    def snippet(self, text: str, terms: Iterable[str], width: int = 240) -> str:
        """Return the part of a text that says most about `terms`: at most `width` characters and two ellipses.

        The window with the most different terms wins, then the one with the most matches, then the first. It is cut
        between words, its white space is made single blanks; without a match it is the text's beginning.
        """
        wanted = frozenset(terms)
        for base in range(0, len(text), SCAN_MAX):
            matches = self._matches(text[base : base + SCAN_MAX], wanted)
            if matches:
                start, end = _best_window(matches, width)
                return _cut(text, base + start, base + end, width)
        return _cut(text, 0, 0, width)

    def _terms(self, word: str) -> Sequence[str]:
        if word >= "\u0e00" and _PAIR_RUN.match(word):
            return [word[at : at + 2] for at in range(len(word) - 1)] or [word]
        return (self._stems[word],)

    def _matches(self, text: str, wanted: frozenset[str]) -> list[tuple[int, int, str]]:
        """Return (start, end, term) of each match; words are normalised one by one, so places stay those of `text`."""
        stems, found = self._stems, list[tuple[int, int, str]]()
        for match in _WORD.finditer(text):
            word = match[0]
            if word.isascii():
                term = stems[word.lower()]
                if term in wanted:
                    found.append((match.start(), match.end(), term))
            else:
                found += self._matches_beyond_ascii(word, match.start(), wanted)
        return found

    def _matches_beyond_ascii(self, word: str, start: int, wanted: frozenset[str]) -> list[tuple[int, int, str]]:
        normal = _normal(word)
        if _PAIR_RUN.match(normal) and len(normal) == len(word):
            terms = self._terms(normal)
            return [(start + at, start + at + len(term), term) for at, term in enumerate(terms) if term in wanted]
        inside = [term for part in _WORD.findall(normal) for term in self._terms(part) if term in wanted]
        return [(start, start + len(word), term) for term in inside[:1]]


@cache
def default() -> Analyser:
    """Return the process's one analyser, whose memory of stems everybody shares."""
    return Analyser()


def _snowball() -> Callable[[str], str]:
    """Return Snowball's English stemmer without its own cache: `_Stems` is a cheaper one."""
    import Stemmer  # noqa: PLC0415 - 1 MB, which a node that counts no terms needs not

    return cast("Callable[[str], str]", cast("Any", Stemmer).Stemmer("english", 0).stemWord)


def _normal(text: str) -> str:
    """Return a text in the form that is compared; folding can undo the normal form, so that comes last again."""
    if text.isascii():
        return text.lower()
    folded = unicodedata.normalize("NFKC", text).casefold().replace(_SOFT_HYPHEN, "")
    return unicodedata.normalize("NFKC", folded)


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return spans with those that overlap or touch inside one run made one."""
    joined: list[tuple[int, int]] = []
    for start, end in spans:
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _best_window(matches: list[tuple[int, int, str]], width: int) -> tuple[int, int]:
    """Return (start, end) of the best cluster of matches that fits into `width` characters; two pointers, one pass."""
    inside: Counter[str] = Counter()
    best, chosen, first = (0, 0), (matches[0][0], matches[0][1]), 0
    for last, (_, end, term) in enumerate(matches):
        inside[term] += 1
        while end - matches[first][0] > width and first < last:
            gone = matches[first][2]
            inside[gone] -= 1
            if not inside[gone]:
                del inside[gone]
            first += 1
        merit = (len(inside), last - first + 1)
        if merit > best:
            best, chosen = merit, (matches[first][0], end)
    return chosen


def _cut(text: str, start: int, end: int, width: int) -> str:
    """Return `width` characters round a cluster, a third of the free room before it, cut between words."""
    room = max(0, width - (end - start))
    left = max(0, min(start - room // 3, len(text) - width))
    right = min(len(text), left + width)
    if left and not text[left - 1].isspace():
        left = next((at for at in range(left, start) if text[at].isspace()), left)
    if right < len(text) and not text[right].isspace():
        right = next((at for at in range(right, max(end, left), -1) if text[at - 1].isspace()), right)
    inside = " ".join(text[left:right].split())
    return ("…" if text[:left].strip() else "") + inside + ("…" if text[right:].strip() else "")
