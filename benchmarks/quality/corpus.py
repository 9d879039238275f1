"""Collections with judgements as they lie in a folder, and the two measures of a ranking."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log2
from pathlib import Path

from antiphon.decide import analyser
from antiphon.decide.dedupe import content_hash

TOP = 10
DEEP = 100


@dataclass(frozen=True, slots=True)
class Doc:
    """One document; `number` is its place in the pool, and its identity everywhere in the benchmark."""

    number: int
    title: str
    text: str
    tf: Mapping[str, int]
    length: int
    hash: str


@dataclass(frozen=True, slots=True)
class Query:
    """One question with the grades of the documents that answer it."""

    text: str
    terms: tuple[str, ...]
    judged: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Collection:
    """One collection: all its documents, and every question or an even sample of them."""

    name: str
    docs: Sequence[Doc]
    queries: Sequence[Query]


def make_doc(number: int, title: str, text: str) -> Doc:
    """Return a document counted under the analyser."""
    tf, length = analyser.default().counts(f"{title}\n{text}")
    return Doc(number, title, text, tf, length, content_hash(title, text))


def load(folder: Path, first: int, queries_max: int) -> Collection:
    """Read `docs.jsonl.gz`, `queries.jsonl` and `qrels.tsv`; documents are numbered from `first` on."""
    with gzip.open(folder / "docs.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    docs = [make_doc(first + at, row.get("title") or "", row.get("text") or "") for at, row in enumerate(rows)]
    numbers = {str(row["id"]): first + at for at, row in enumerate(rows)}
    judged: dict[str, dict[int, int]] = {}
    for line in (folder / "qrels.tsv").read_text("utf-8").splitlines():
        query, document, grade = line.split("\t")[:3]
        if grade.isdigit() and int(grade) > 0 and document in numbers:
            judged.setdefault(query, {})[numbers[document]] = int(grade)
    texts = [json.loads(line) for line in (folder / "queries.jsonl").read_text("utf-8").splitlines() if line]
    asked = [(row["text"], judged[str(row["id"])]) for row in texts if str(row["id"]) in judged]
    step = max(1, len(asked) // queries_max)
    sample = asked[::step][:queries_max]
    return Collection(folder.name, docs, [Query(t, analyser.default().question(t), grades) for t, grades in sample])


def ndcg(ranked: Iterable[int], judged: Mapping[int, int]) -> float:
    """Return nDCG@10 with the grade as gain (Jarvelin and Kekalainen 2002, as trec_eval counts it)."""
    gained = sum(judged.get(doc, 0) / log2(at + 2) for at, doc in zip(range(TOP), ranked, strict=False))
    best = sum(grade / log2(at + 2) for at, grade in enumerate(sorted(judged.values(), reverse=True)[:TOP]))
    return gained / best if best else 0.0


def recall(ranked: Sequence[int], judged: Mapping[int, int]) -> float:
    """Return the share of all relevant documents among the first 100."""
    return len(judged.keys() & set(ranked[:DEEP])) / len(judged)
