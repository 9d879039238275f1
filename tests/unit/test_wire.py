"""The hot path's structs and the pydantic models are one message: same fields, same bounds, same verdict."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from antiphon.errors import InvalidReply, Oversize
from antiphon.messages import wire
from antiphon.messages.facts import SearchFinished
from antiphon.messages.hit import HITS_MAX, Document, RankedHit, Source
from antiphon.messages.lane import Load, NodeFound, NodeHit, Statistics
from antiphon.messages.search import Coverage, NodeLine, Outcome, SearchAnswer

READ = {
    wire.WireFound: NodeFound,
    wire.WireHit: NodeHit,
    wire.WireLoad: Load,
    wire.WireStatistics: Statistics,
    wire.WireDocument: Document,
}
WRITTEN: dict[Any, type[BaseModel]] = {
    wire.WireAnswer: SearchAnswer,
    wire.WireFinished: SearchFinished,
    wire.WireCoverage: Coverage,
    wire.WireLine: NodeLine,
    wire.WireRankedHit: RankedHit,
    wire.WireSource: Source,
}
UNREAD = {"code"}
"""Fields that a written form leaves out: a finished search that was not refused has no code."""


@pytest.mark.parametrize(("struct", "model"), [*READ.items(), *WRITTEN.items()], ids=lambda kind: kind.__name__)
def test_a_struct_has_the_fields_of_its_model(struct: type[msgspec.Struct], model: type[BaseModel]) -> None:
    missing = model.model_fields.keys() - set(struct.__struct_fields__)
    assert missing <= (UNREAD if struct is wire.WireFinished else set())
    assert set(struct.__struct_fields__) <= model.model_fields.keys()


@pytest.mark.parametrize(("struct", "model"), READ.items(), ids=lambda kind: kind.__name__)
def test_a_field_that_one_side_may_leave_out_the_other_may_too(
    struct: type[msgspec.Struct], model: type[BaseModel]
) -> None:
    for field in msgspec.structs.fields(struct):
        assert field.required is model.model_fields[field.name].is_required(), field.name


# -- the same verdict on the same bytes

COUNT = st.one_of(st.integers(0, 2**53), st.integers(0, 40))
LABEL = st.text(max_size=20)
FLOAT = st.floats(allow_nan=False, allow_infinity=False)  # which JSON does not have; `example` tries them
SCALAR = st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), FLOAT, LABEL)


def some(given: dict[str, st.SearchStrategy[Any]], needed: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(needed, optional=given)


DOCUMENT = some(
    {
        "title": st.text(max_size=30),
        "url": st.one_of(st.none(), LABEL),
        "snippet": st.one_of(st.none(), LABEL),
        "kind": st.one_of(st.none(), LABEL),
        "time_ms": st.one_of(st.none(), st.integers(-(2**53), 2**53)),
        "fields": st.dictionaries(LABEL, SCALAR, max_size=3),
        "unknown": SCALAR,
    },
    {},
)
HIT = some(
    {
        "score": st.one_of(st.none(), FLOAT, st.integers(-5, 5)),
        "tf": st.one_of(st.none(), st.lists(COUNT, max_size=4)),
        "length": st.one_of(st.none(), COUNT),
        "hash": st.one_of(st.none(), st.text(max_size=64)),
        "unknown": SCALAR,
    },
    {"id": st.text(min_size=1, max_size=20), "doc": DOCUMENT},
)
FOUND = some(
    {
        "request": st.one_of(st.none(), LABEL),
        "analyser": st.one_of(st.none(), LABEL),
        "statistics": st.one_of(
            st.none(),
            some({"postings": COUNT}, {"docs": COUNT, "total_length": COUNT, "df": st.lists(COUNT, max_size=4)}),
        ),
        "hits": st.lists(HIT, max_size=4),
        "load": st.one_of(st.none(), some({"in_flight": COUNT, "latency_us": COUNT}, {})),
        "unknown": SCALAR,
    },
    {},
)
BROKEN: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([-1, 2**53 + 1, 2**64, 1.5, -0.0, 1e300, "", "x" * 65, "x" * 201, "x" * 513, "1", "NaN"]),
    st.sampled_from([[], {}, [0] * 33, [-1], ["1"], [1.0], [None], {"a": {}}, {str(n): n for n in range(33)}]),
)


@st.composite
def found(draw: st.DrawFn) -> bytes:
    """A `NodeFound` in which some values anywhere may be replaced by something else or left out."""
    value = draw(FOUND)
    for _ in range(draw(st.integers(0, 2))):
        places: list[tuple[Any, Any]] = []

        def walk(node: Any, places: list[tuple[Any, Any]] = places) -> None:
            for key, child in list(node.items() if isinstance(node, dict) else enumerate(node)):
                places.append((node, key))
                if isinstance(child, dict | list):
                    walk(child)

        walk(value)
        if places:
            node, key = draw(st.sampled_from(places))
            if isinstance(node, dict) and draw(st.booleans()):
                del node[key]
            else:
                node[key] = deepcopy(draw(BROKEN))  # the samples are shared between examples
    return json.dumps(value, ensure_ascii=draw(st.booleans())).encode()


def by_model(data: bytes) -> NodeFound | None:
    try:
        return NodeFound.model_validate_json(data, strict=True)
    except ValidationError:
        return None


def by_struct(data: bytes) -> wire.WireFound | None:
    """As a master reads it: the reply, then the documents of winners; None where any is refused."""
    try:
        read, _ = wire.decode_found(data)
    except (InvalidReply, Oversize):
        return None
    return read if all(wire.decode_document(hit.doc) is not None for hit in read.hits) else None


def as_read(read: wire.WireFound) -> dict[str, Any]:
    built = msgspec.to_builtins(read, builtin_types=(msgspec.Raw,))
    for hit in built["hits"]:
        document = wire.decode_document(hit["doc"])
        assert document is not None
        hit["doc"] = {name: getattr(document, name) for name in document.__struct_fields__}
    return dict(built)


@settings(max_examples=600)
@given(found())
@example(b"{}")
@example(b"[]")
@example(b"null")
@example(b'{"hits": [{"id": "a", "doc": {"title": 5}}]}')
@example(b'{"hits": [{"id": "a", "doc": {"fields": {"a": [1]}}}]}')
@example(b'{"hits": [{"id": "a", "doc": "text"}]}')
@example(b'{"hits": [{"id": "a", "doc": {}, "score": 1e400}]}')
@example(b'{"hits": [{"id": "a", "doc": {}, "score": NaN}]}')
@example(b'{"hits": [{"id": "a", "doc": {"fields": {"a": Infinity}}}]}')
@example(b'{"hits": [{"id": "\\ud800", "doc": {}}]}')
@example(b'{"hits": [{"id": "a", "doc": {"title": "\\ud800"}}]}')
@example(b'{"hits": [{"id": "a", "doc": {"title": "\xff"}}]}')
@example(b'{"hits": [{"id": "a", "doc": {}}], "hits": []}')
def test_struct_and_model_give_the_same_verdict_and_the_same_value(data: bytes) -> None:
    model, struct = by_model(data), by_struct(data)
    assert (model is None) == (struct is None), data
    if model is not None and struct is not None:
        assert orjson.loads(orjson.dumps(as_read(struct))) == orjson.loads(model.model_dump_json())


@given(st.binary(max_size=300))
def test_bytes_of_any_kind_end_in_a_value_or_a_typed_error(data: bytes) -> None:
    by_struct(data)


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b'{"hits":' * 20_000,
        b'{"hits":[{"id":"a","doc":' + b"[" * 100_000 + b"]" * 100_000 + b"}]}",
        b'{"unknown":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"hits":[{"id":"a","doc":{"fields":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}}]}",
    ],
    ids=["lists", "objects", "in a document", "in an unknown field", "in fields"],
)
def test_nesting_without_end_is_refused(data: bytes) -> None:
    assert by_struct(data) is None


def test_a_reply_above_its_bound_is_oversize_before_it_is_read() -> None:
    with pytest.raises(Oversize):
        wire.decode_found(b" " * (NodeFound.size_max + 1))


def test_an_answer_to_another_request_is_refused_and_one_that_names_none_is_taken() -> None:
    with pytest.raises(InvalidReply, match="another request"):
        wire.decode_found(b'{"request": "mine"}', "yours")
    for data in (b'{"request": "yours"}', b"{}", b'{"request": null}'):
        assert wire.decode_found(data, "yours")[0].hits == []


@pytest.mark.parametrize("count", [HITS_MAX, HITS_MAX + 1, 10_000])
def test_hits_beyond_the_bound_are_cut_off_and_counted(count: int) -> None:
    data = orjson.dumps({"hits": [{"id": str(at), "doc": {}} for at in range(count)]})
    read, clipped = wire.decode_found(data)
    assert (len(read.hits), clipped) == (min(count, HITS_MAX), max(0, count - HITS_MAX))
    assert [hit.id for hit in read.hits[:3]] == ["0", "1", "2"]


@pytest.mark.parametrize("size", [wire.DOCUMENT_BYTES_MAX, wire.DOCUMENT_BYTES_MAX + 1])
def test_a_document_above_its_bytes_is_not_passed_on(size: int) -> None:
    head, tail = b'{"unknown":"', b'"}'
    raw = msgspec.Raw(head + b"x" * (size - len(head) - len(tail)) + tail)
    assert (wire.decode_document(raw) is None) is (size > wire.DOCUMENT_BYTES_MAX)


# -- what is written is the model

NAME = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,10}", fullmatch=True)
LINE = st.builds(
    wire.WireLine,
    node=NAME,
    outcome=st.sampled_from([str(one) for one in Outcome]),
    instance=st.one_of(st.none(), NAME),
    hits=COUNT,
    took_us=COUNT,
    code=st.one_of(st.none(), LABEL),
    text=st.one_of(st.none(), LABEL),
    attempts=COUNT,
    flags=st.lists(LABEL, max_size=3).map(tuple),
)
COVERAGE = st.builds(
    wire.WireCoverage, COUNT, COUNT, COUNT, COUNT, COUNT, COUNT, COUNT, st.lists(LABEL, max_size=2).map(tuple)
)
RANKED = st.builds(
    wire.WireRankedHit,
    rank=st.integers(1, 1_000),
    score=st.floats(allow_nan=False, allow_infinity=False),
    node=NAME,
    id=st.text(min_size=1, max_size=20),
    doc=DOCUMENT.map(lambda document: msgspec.Raw(orjson.dumps(document))),
    hash=st.one_of(st.none(), LABEL),
    also=st.lists(st.builds(wire.WireSource, NAME, st.text(min_size=1, max_size=9), st.one_of(st.none(), LABEL))).map(
        tuple
    ),
    explain=st.one_of(st.none(), st.dictionaries(LABEL, st.one_of(LABEL, st.integers(0, 9)), max_size=2)),
)
ANSWER = st.builds(
    wire.WireAnswer,
    request=LABEL,
    query=LABEL,
    hits=st.lists(RANKED, max_size=3),
    total=COUNT,
    complete=st.booleans(),
    sufficient=st.booleans(),
    coverage=COVERAGE,
    master=NAME,
    terms=st.lists(LABEL, max_size=3).map(tuple),
    analyser=st.one_of(st.none(), LABEL),
    fusion=st.one_of(st.none(), LABEL),
    offset=COUNT,
    next=st.one_of(st.none(), LABEL),
    nodes=st.lists(LINE, max_size=3),
    took_us=COUNT,
)
FINISHED = st.builds(
    wire.WireFinished,
    request=LABEL,
    caller=NAME,
    query=LABEL,
    at_ms=COUNT,
    took_us=COUNT,
    hits=COUNT,
    total=COUNT,
    duplicates=COUNT,
    fusion=LABEL,
    complete=st.booleans(),
    sufficient=st.booleans(),
    coverage=COVERAGE,
    nodes=st.lists(LINE, max_size=3),
    contributed=st.dictionaries(NAME, COUNT, max_size=3),
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.data_too_large])
@given(ANSWER)
def test_a_written_answer_is_a_search_answer(answer: wire.WireAnswer) -> None:
    read = SearchAnswer.model_validate_json(wire.encode_wire(answer))
    assert (read.total, read.complete, read.next, read.terms) == (
        answer.total,
        answer.complete,
        answer.next,
        answer.terms,
    )
    assert [(hit.rank, hit.id, hit.node, hit.score) for hit in read.hits] == [
        (hit.rank, hit.id, hit.node, hit.score) for hit in answer.hits
    ]
    assert [(line.node, line.outcome.value, line.attempts) for line in read.nodes] == [
        (line.node, line.outcome, line.attempts) for line in answer.nodes
    ]
    assert read.coverage.model_dump() == msgspec.to_builtins(answer.coverage) | {"degraded": answer.coverage.degraded}


@settings(max_examples=60)
@given(FINISHED)
def test_a_written_fact_is_a_search_finished(fact: wire.WireFinished) -> None:
    read = SearchFinished.model_validate_json(wire.encode_wire(fact))
    assert (read.request, read.hits, read.contributed, read.code) == (fact.request, fact.hits, fact.contributed, None)
    assert len(read.nodes) == len(fact.nodes)


def hit(**more: Any) -> dict[str, Any]:
    return {"hits": [{"id": "a", "doc": {}, **more}]}


def counted(**more: Any) -> dict[str, Any]:
    return {"statistics": {"docs": 1, "total_length": 1, "df": [], **more}}


def document(**more: Any) -> dict[str, Any]:
    return hit(doc=more)


TOO_MUCH = 2**53 + 1
BOUNDS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"analyser": "x" * 200}, {"analyser": "x" * 201}),
    (counted(docs=2**53), counted(docs=TOO_MUCH)),
    (counted(docs=0), counted(docs=-1)),
    (counted(total_length=2**53), counted(total_length=TOO_MUCH)),
    (counted(postings=2**53), counted(postings=TOO_MUCH)),
    (counted(df=[1] * 32), counted(df=[1] * 33)),
    (counted(df=[2**53]), counted(df=[TOO_MUCH])),
    ({"load": {"in_flight": 2**53}}, {"load": {"in_flight": TOO_MUCH}}),
    ({"load": {"latency_us": 0}}, {"load": {"latency_us": -1}}),
    (hit(id="x" * 512), hit(id="x" * 513)),
    (hit(id="x"), hit(id="")),
    (hit(tf=[1] * 32), hit(tf=[1] * 33)),
    (hit(tf=[2**53]), hit(tf=[-1])),
    (hit(length=2**53), hit(length=TOO_MUCH)),
    (hit(hash="x" * 64), hit(hash="x" * 65)),
    (document(title="x" * 300), document(title="x" * 301)),
    (document(url="x" * 2_000), document(url="x" * 2_001)),
    (document(snippet="x" * 600), document(snippet="x" * 601)),
    (document(kind="x" * 200), document(kind="x" * 201)),
    (document(time_ms=-(2**53)), document(time_ms=-TOO_MUCH)),
    (document(time_ms=2**53), document(time_ms=TOO_MUCH)),
    (document(fields={"x" * 200: 1}), document(fields={"x" * 201: 1})),
    (document(fields={str(n): n for n in range(32)}), document(fields={str(n): n for n in range(33)})),
    (document(fields={"a": "x" * 10_000}), document(fields={"a": []})),
]


@pytest.mark.parametrize(("legal", "illegal"), BOUNDS)
def test_both_have_the_same_bounds(legal: dict[str, Any], illegal: dict[str, Any]) -> None:
    for value, verdict in ((legal, True), (illegal, False)):
        data = orjson.dumps(value)
        assert ((by_model(data) is not None), (by_struct(data) is not None)) == (verdict, verdict), data[:200]
