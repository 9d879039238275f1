"""The laws of a node's card: who has the say, what a change changes, and that no change is lost or made twice."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.decide.cards import KEPT, change, changed, described, registered, says_nothing, updated
from antiphon.errors import AlreadyRegistered
from antiphon.messages.card import FIELDS, NodeCard, Wish
from antiphon.messages.operators import NodeRegister, NodeUpdate
from antiphon.messages.registry import NodeRecord

WORDS = st.sampled_from(["a", "b", "c"])
SOME = {
    "description": WORDS,
    "topics": st.lists(WORDS, max_size=2).map(tuple),
    "capabilities": st.lists(WORDS, max_size=2).map(tuple),
    "collections": st.lists(WORDS, max_size=2).map(tuple),
    "instances_min": st.integers(0, 3),
    "weight": st.integers(0, 3),
    "version": WORDS,
    "metadata": st.dictionaries(WORDS, WORDS, max_size=2),
    "balancer": WORDS,
    "max_parallel_requests": st.integers(1, 3),
    "rate_per_minute": st.integers(1, 3),
    "documents": st.integers(0, 3),
}
STATUS = st.none() | st.sampled_from(Wish)
FIELDSETS = st.fixed_dictionaries({}, optional=SOME)
UNSET = st.lists(st.sampled_from([*FIELDS, "metadata.a", "metadata.b"]), max_size=3).map(tuple)
UPDATES = st.builds(
    lambda fields, status, unset: NodeUpdate.model_validate(
        {"node": "blog", **fields, "status": status, "unset": unset}
    ),
    FIELDSETS,
    STATUS,
    UNSET,
)
REGISTRATIONS = st.builds(
    lambda fields, status: NodeRegister.model_validate({"node": "blog", **fields, "status": status, "replace": True}),
    FIELDSETS,
    STATUS,
)
CARDS = (
    st.none()
    | REGISTRATIONS.map(lambda ask: registered(None, ask, "ops", 1))
    | UPDATES.map(lambda ask: updated(None, ask, "ops", 1))
)
RECORDS = st.fixed_dictionaries({name: SOME[name] for name in (*KEPT, "metadata")}).map(
    lambda fields: NodeRecord.model_validate({"node": "blog", "instance": "one", **fields})
)


def said(card: NodeCard | None) -> dict[str, Any]:
    return {name: value for name in FIELDS if card is not None and (value := getattr(card, name)) is not None}


@given(CARDS, st.none() | RECORDS)
def test_what_operators_have_set_wins_field_by_field(card: NodeCard | None, newest: NodeRecord | None) -> None:
    it = described(card, newest)
    for name in KEPT:
        if name in said(card):
            assert getattr(it, name) == getattr(card, name)
        elif newest is not None:
            assert getattr(it, name) == getattr(newest, name)
    own = {} if newest is None else newest.metadata
    assert it.metadata == {**own, **said(card).get("metadata", {})}
    if newest is None and "capabilities" not in said(card):
        assert it.capabilities == ("search",), "what nobody has spoken for is still expected"


@given(CARDS, UPDATES)
def test_an_update_sets_what_it_says_and_leaves_the_rest(before: NodeCard | None, ask: NodeUpdate) -> None:
    after = updated(before, ask, "ops", 9)
    for name in FIELDS:
        given_value = getattr(ask, name)
        if name == "metadata":
            continue
        if given_value is not None:
            assert getattr(after, name) == given_value
        elif name in ask.unset:
            assert getattr(after, name) is None
        else:
            assert getattr(after, name) == (None if before is None else getattr(before, name))
    left = {} if "metadata" in ask.unset else dict(said(before).get("metadata", {}))
    for key in ("a", "b"):
        if f"metadata.{key}" in ask.unset:
            left.pop(key, None)
    assert (after.metadata or {}) == {**left, **(ask.metadata or {})}
    assert after.status is (ask.status or (Wish.ACTIVE if before is None else before.status))


@given(CARDS, UPDATES)
def test_the_same_again_changes_nothing_and_keeps_the_stamps(before: NodeCard | None, ask: NodeUpdate) -> None:
    once = updated(before, ask, "ops", 5)
    assert updated(once, ask, "another", 9) is once
    if before is not None and not changed(before, once):
        assert once is before
    assert once.registered_at_ms == (5 if before is None else before.registered_at_ms)


@given(CARDS, FIELDSETS, FIELDSETS, STATUS)
def test_updates_of_different_fields_lose_nothing_in_either_order(
    before: NodeCard | None, one: dict[str, Any], other: dict[str, Any], status: Wish | None
) -> None:
    other = {name: value for name, value in other.items() if name not in one}
    first = NodeUpdate.model_validate({"node": "blog", **one})
    second = NodeUpdate.model_validate({"node": "blog", **other, "status": status})
    here = updated(updated(before, first, "a", 2), second, "b", 3)
    there = updated(updated(before, second, "b", 2), first, "a", 3)
    assert changed(here, there) == ()


@given(CARDS, REGISTRATIONS)
def test_a_registration_says_everything(before: NodeCard | None, ask: NodeRegister) -> None:
    after = registered(before, ask, "ops", 9)
    assert said(after) == said(NodeCard.model_validate(ask.model_dump(exclude={"status", "replace"})))
    assert registered(after, ask.model_copy(update={"replace": False}), "another", 10) is after
    if before is not None and changed(before, after):
        with pytest.raises(AlreadyRegistered, match=changed(before, after)[0]):
            registered(before, ask.model_copy(update={"replace": False}), "ops", 9)


@given(CARDS, REGISTRATIONS)
def test_only_a_registration_registers(before: NodeCard | None, ask: NodeRegister) -> None:
    after = registered(before, ask, "ops", 9)
    assert after.is_registered
    assert not says_nothing(after)
    if before is not None and before.is_registered:
        assert change(before, after) != "registered"
    elif ask.status in (None, Wish.ACTIVE if before is None else before.status):
        assert change(before, after) == "registered"


@given(CARDS)
def test_a_card_that_was_never_registered_is_gone_when_all_is_taken_back(before: NodeCard | None) -> None:
    ask = NodeUpdate(node="blog", status=Wish.ACTIVE, unset=FIELDS)
    after = updated(before, ask, "ops", 9)
    assert says_nothing(after) is (before is None or not before.is_registered)


@given(CARDS, UPDATES)
def test_a_change_has_a_name(before: NodeCard | None, ask: NodeUpdate) -> None:
    after = updated(before, ask, "ops", 9)
    was = Wish.ACTIVE if before is None else before.status
    name = change(before, after)
    if after.status is was:
        assert name == "updated"
    else:
        assert name == {"active": "resumed", "draining": "draining", "suspended": "suspended"}[after.status]
