"""Who may write what of a saga: masters the streams, nodes tell their own outcomes, and nobody else anything."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from antiphon.decide.grants import grants
from antiphon.messages import routed
from antiphon.messages.base import Kind
from antiphon.messages.jobs import JOBS
from antiphon.messages.records import FACTS
from antiphon.messages.saga_history import OUTCOMES, SAGAS, SUBJECTS, TIMERS
from antiphon.subjects import PREFIX, TOKEN, VERSION

names = st.from_regex(TOKEN, fullmatch=True)
KINDS = {"web": Kind.PUBLISHER, "ops": Kind.OPERATOR, "ana": Kind.ANALYST, "shop": Kind.NODE, "master-1": Kind.MASTER}
SUBMITTERS = {"web", "ops", "master-1"}
LOG = "antiphon.v1.saga.order-1"
ATTEMPTS = {
    "its own outcome": ("antiphon.v1.outcome.order-1.1f.shop", {"master-1"}),
    "another node's outcome": ("antiphon.v1.outcome.order-1.1f.bank", {"master-1"}),
    "an outcome of all nodes": ("antiphon.v1.outcome.order-1.1f.*", {"master-1"}),
    "a start": (f"{LOG}.k.start", {"master-1"}),
    "a command": (f"{LOG}.k.c.shop.1f", {"master-1"}),
    "a park": (f"{LOG}.k.park.1b", {"master-1"}),
    "a resume": (f"{LOG}.k.resume.1b", {"master-1"}),
    "an end": (f"{LOG}.k.end", {"master-1"}),
    "an order, without policy": (f"{LOG}.x.n1", {"master-1"}),
    "telling its own outcome": ("antiphon.v1.saga.outcome.shop", {"shop"}),
    "telling another's outcome": ("antiphon.v1.saga.outcome.bank", set[str]()),
    "an offer": (f"{LOG}.d.1f", {"master-1"}),
    "a timer": (f"{LOG}.t.set", {"master-1"}),
    "a timer that fired": (f"{LOG}.t.fired", {"master-1"}),
    "pulling commands": ("$JS.API.CONSUMER.MSG.NEXT.antiphon-sagas.node-shop", {"master-1"}),
    "pulling another's commands": ("$JS.API.CONSUMER.MSG.NEXT.antiphon-sagas.node-bank", {"master-1"}),
    "pulling as a coordinator": ("$JS.API.CONSUMER.MSG.NEXT.antiphon-sagas.coordinator", {"master-1"}),
    "acknowledging its own": ("$JS.ACK.antiphon-sagas.node-shop.1.2.3.4.5", {"master-1"}),
    "acknowledging another's": ("$JS.ACK.antiphon-sagas.node-bank.1.2.3.4.5", {"master-1"}),
    "reading its own outcome": (
        "$JS.API.DIRECT.GET.antiphon-outcomes.antiphon.v1.outcome.order-1.1f.shop",
        {"master-1"},
    ),
    "reading another's outcome": (
        "$JS.API.DIRECT.GET.antiphon-outcomes.antiphon.v1.outcome.order-1.1f.bank",
        {"master-1"},
    ),
    "reading a history": ("$JS.API.DIRECT.GET.antiphon-sagas.antiphon.v1.saga.order-1.k.start", {"master-1"}),
    "reading many at once": ("$JS.API.DIRECT.GET.antiphon-sagas", {"master-1"}),
    "making a consumer": ("$JS.API.CONSUMER.CREATE.antiphon-sagas.node-shop", {"master-1"}),
    "deleting its consumer": ("$JS.API.CONSUMER.DELETE.antiphon-sagas.node-shop", {"master-1"}),
    "pausing its consumer": ("$JS.API.CONSUMER.PAUSE.antiphon-sagas.node-shop", {"master-1"}),
    "purging": ("$JS.API.STREAM.PURGE.antiphon-sagas", {"master-1"}),
    "deleting a message": ("$JS.API.STREAM.MSG.DELETE.antiphon-outcomes", {"master-1"}),
    "deleting a stream": ("$JS.API.STREAM.DELETE.antiphon-outcomes", {"master-1"}),
    "changing a stream": ("$JS.API.STREAM.UPDATE.antiphon-outcomes", {"master-1"}),
    "submitting": ("antiphon.v1.saga.submit.{name}", SUBMITTERS),
    "ordering": ("antiphon.v1.saga.order.{name}", SUBMITTERS),
    "getting": ("antiphon.v1.saga.get.{name}", SUBMITTERS),
    "listing": ("antiphon.v1.saga.list.{name}", SUBMITTERS),
    "submitting as another": ("antiphon.v1.saga.submit.somebody", set[str]()),
}


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_the_table_of_attempts(attempt: str) -> None:
    subject, allowed = ATTEMPTS[attempt]
    may = {name for name, kind in KINDS.items() if grants(kind, name).may_publish(subject.format(name=name))}
    assert may == allowed


@pytest.mark.parametrize("name", KINDS)
def test_nobody_subscribes_to_a_history_not_even_masters_for_the_stream_may_refuse_what_a_subscriber_hears(
    name: str,
) -> None:
    heard = grants(KINDS[name], name).subscribe
    assert [pattern for pattern in heard if kept(pattern)] == []


@pytest.mark.parametrize("names_of", [("t", "k"), ("x", "start"), ("end", "c")])
def test_no_name_of_an_asker_or_a_saga_puts_a_request_into_a_history(names_of: tuple[str, str]) -> None:
    # `saga.submit.t` would be the timer of a saga named `submit` if requests were as long as what is kept
    for name in names_of:
        for kind in (Kind.PUBLISHER, Kind.OPERATOR):
            assert [one for one in grants(kind, name).publish if kept(one)] == []


@given(st.sampled_from([kind for kind in Kind if kind is not Kind.MASTER]), names)
def test_nobody_but_masters_writes_into_a_stream_of_sagas_or_asks_anything_of_jetstream(kind: Kind, name: str) -> None:
    assume(name != "master" and not name.startswith("master-"))
    published = grants(kind, name).publish
    assert [pattern for pattern in published if kept(pattern) or pattern.startswith("$JS")] == []


def test_each_stream_has_its_own_subjects() -> None:
    streams = {message.route.stream for message in routed().values()} - {None}
    assert streams == {SAGAS, OUTCOMES, TIMERS, JOBS, FACTS}
    for name, message in routed().items():
        if message.route.stream in {JOBS, FACTS}:
            continue
        pattern = message.route.template.pattern()
        assert kept(pattern) == ({message.route.stream} - {None}), name


def kept(pattern: str) -> set[str]:
    """The streams that keep something of what a pattern covers."""
    return {
        stream
        for stream, subjects in SUBJECTS.items()
        if any(meet(pattern, f"{PREFIX}.{VERSION}.{one}") for one in subjects)
    }


def meet(one: str, other: str) -> bool:
    """Whether some subject is covered by both patterns."""
    for a, b in zip(one.split("."), other.split("."), strict=False):
        if ">" in (a, b):
            return True
        if a != b and "*" not in (a, b):
            return False
    return one.count(".") == other.count(".")


@pytest.mark.parametrize(
    ("one", "other", "is_so"),
    [("a.*", "*.b", True), ("a.>", "a.b.c", True), ("a.b", "a.c", False), ("a.*", "a.b.c", False), ("a.>", "a", False)],
)
def test_patterns_meet(one: str, other: str, is_so: bool) -> None:
    assert meet(one, other) is meet(other, one) is is_so
