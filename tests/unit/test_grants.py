"""Permissions: the whole table for each kind, and what must hold for any name and any message."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from antiphon.decide.grants import Grants, Respond, Rights, allows, grants
from antiphon.errors import InvalidName
from antiphon.messages import routed
from antiphon.messages.base import Kind
from antiphon.subjects import TOKEN

TABLE: dict[tuple[Kind, str, str | None], Grants] = {
    (Kind.PUBLISHER, "web", None): Grants(
        publish=(
            "antiphon.v1.action.cancel.web",
            "antiphon.v1.action.job.web",
            "antiphon.v1.action.list.web",
            "antiphon.v1.action.run.web",
            "antiphon.v1.identity.behalf.web",
            "antiphon.v1.identity.keys.web",
            "antiphon.v1.identity.token.web",
            "antiphon.v1.identity.whoami.web",
            "antiphon.v1.registry.get.web",
            "antiphon.v1.registry.list.web",
            "antiphon.v1.saga.get.web",
            "antiphon.v1.saga.list.web",
            "antiphon.v1.saga.order.web",
            "antiphon.v1.saga.submit.web",
            "antiphon.v1.saga.validate.web",
            "antiphon.v1.search.abandoned.web",
            "antiphon.v1.search.ask.web",
            "antiphon.v1.search.page.*.web",
        ),
        subscribe=("_I.web.>",),
    ),
    (Kind.NODE, "docs", "docs-1"): Grants(
        publish=(
            "antiphon.v1.action.list.docs",
            "antiphon.v1.beat.node.docs-1.docs",
            "antiphon.v1.identity.behalf.docs",
            "antiphon.v1.identity.keys.docs",
            "antiphon.v1.identity.token.docs",
            "antiphon.v1.identity.whoami.docs",
            "antiphon.v1.job.*.docs-1.docs",
            "antiphon.v1.registry.get.docs",
            "antiphon.v1.registry.join.docs-1.docs",
            "antiphon.v1.registry.leave.docs-1.docs",
            "antiphon.v1.registry.list.docs",
            "antiphon.v1.saga.outcome.docs",
        ),
        subscribe=(
            "$SRV.INFO",
            "$SRV.INFO.docs",
            "$SRV.INFO.docs.docs-1",
            "$SRV.PING",
            "$SRV.PING.docs",
            "$SRV.PING.docs.docs-1",
            "$SRV.STATS",
            "$SRV.STATS.docs",
            "$SRV.STATS.docs.docs-1",
            "_I.docs.>",
            "antiphon.v1.node.docs.docs-1.cancel",
            "antiphon.v1.node.docs.docs-1.ping",
            "antiphon.v1.node.docs.docs-1.run",
            "antiphon.v1.node.docs.docs-1.search",
            "antiphon.v1.node.docs.docs-1.step",
        ),
        may_respond=Respond(messages_max=1, ttl_ms=600_000),
    ),
    (Kind.NODE, "docs", None): Grants(
        publish=(
            "antiphon.v1.action.list.docs",
            "antiphon.v1.beat.node.*.docs",
            "antiphon.v1.identity.behalf.docs",
            "antiphon.v1.identity.keys.docs",
            "antiphon.v1.identity.token.docs",
            "antiphon.v1.identity.whoami.docs",
            "antiphon.v1.job.*.*.docs",
            "antiphon.v1.registry.get.docs",
            "antiphon.v1.registry.join.*.docs",
            "antiphon.v1.registry.leave.*.docs",
            "antiphon.v1.registry.list.docs",
            "antiphon.v1.saga.outcome.docs",
        ),
        subscribe=(
            "$SRV.INFO",
            "$SRV.INFO.docs",
            "$SRV.INFO.docs.*",
            "$SRV.PING",
            "$SRV.PING.docs",
            "$SRV.PING.docs.*",
            "$SRV.STATS",
            "$SRV.STATS.docs",
            "$SRV.STATS.docs.*",
            "_I.docs.>",
            "antiphon.v1.node.docs.*.cancel",
            "antiphon.v1.node.docs.*.ping",
            "antiphon.v1.node.docs.*.run",
            "antiphon.v1.node.docs.*.search",
            "antiphon.v1.node.docs.*.step",
        ),
        may_respond=Respond(),
    ),
    (Kind.OPERATOR, "ops", None): Grants(
        publish=(
            "$SRV.>",
            "antiphon.v1.action.cancel.ops",
            "antiphon.v1.action.job.ops",
            "antiphon.v1.action.list.ops",
            "antiphon.v1.action.run.ops",
            "antiphon.v1.breaker.list.ops",
            "antiphon.v1.breaker.order.ops",
            "antiphon.v1.identity.behalf.ops",
            "antiphon.v1.identity.create.ops",
            "antiphon.v1.identity.enrol.ops",
            "antiphon.v1.identity.get.ops",
            "antiphon.v1.identity.invite.ops",
            "antiphon.v1.identity.key.ops",
            "antiphon.v1.identity.keys.ops",
            "antiphon.v1.identity.list.ops",
            "antiphon.v1.identity.order.ops",
            "antiphon.v1.identity.revoke.ops",
            "antiphon.v1.identity.rotate.ops",
            "antiphon.v1.identity.token.ops",
            "antiphon.v1.identity.update.ops",
            "antiphon.v1.identity.whoami.ops",
            "antiphon.v1.monitor.ask.ops",
            "antiphon.v1.policy.get.ops",
            "antiphon.v1.policy.set.ops",
            "antiphon.v1.registry.get.ops",
            "antiphon.v1.registry.list.ops",
            "antiphon.v1.registry.ping.ops",
            "antiphon.v1.registry.register.ops",
            "antiphon.v1.registry.remove.ops",
            "antiphon.v1.registry.update.ops",
            "antiphon.v1.saga.get.ops",
            "antiphon.v1.saga.list.ops",
            "antiphon.v1.saga.order.ops",
            "antiphon.v1.saga.submit.ops",
            "antiphon.v1.saga.validate.ops",
            "antiphon.v1.search.abandoned.ops",
            "antiphon.v1.search.ask.ops",
            "antiphon.v1.search.page.*.ops",
            "antiphon.v1.stats.forget.ops",
            "antiphon.v1.stats.query.ops",
        ),
        subscribe=(
            "_I.ops.>",
            "antiphon.v1.fact.action.finished.*",
            "antiphon.v1.fact.alert.cleared.*",
            "antiphon.v1.fact.alert.raised.*",
            "antiphon.v1.fact.breaker.moved.*",
            "antiphon.v1.fact.facts.dropped.*",
            "antiphon.v1.fact.identity.audited.*",
            "antiphon.v1.fact.node.changed.*",
            "antiphon.v1.fact.policy.changed.*",
            "antiphon.v1.fact.recorder.reported.*",
            "antiphon.v1.fact.registry.changed.*",
            "antiphon.v1.fact.saga.moved.*",
            "antiphon.v1.fact.search.finished.*",
        ),
    ),
    (Kind.ANALYST, "ana", None): Grants(
        publish=(
            "antiphon.v1.action.list.ana",
            "antiphon.v1.identity.behalf.ana",
            "antiphon.v1.identity.keys.ana",
            "antiphon.v1.identity.token.ana",
            "antiphon.v1.identity.whoami.ana",
            "antiphon.v1.registry.get.ana",
            "antiphon.v1.registry.list.ana",
            "antiphon.v1.stats.query.ana",
        ),
        subscribe=("_I.ana.>",),
    ),
    (Kind.MASTER, "master-1", None): Grants(
        publish=(
            "$JS.ACK.>",
            "$JS.API.>",
            "$KV.>",
            "$SRV.>",
            "antiphon.v1.action.cancel.master-1",
            "antiphon.v1.action.cancelled.master-1",
            "antiphon.v1.action.job.master-1",
            "antiphon.v1.action.list.master-1",
            "antiphon.v1.action.probe.*.master-1",
            "antiphon.v1.action.run.master-1",
            "antiphon.v1.action.written.master-1",
            "antiphon.v1.fact.action.finished.master-1",
            "antiphon.v1.fact.alert.cleared.master-1",
            "antiphon.v1.fact.alert.raised.master-1",
            "antiphon.v1.fact.breaker.moved.master-1",
            "antiphon.v1.fact.facts.dropped.master-1",
            "antiphon.v1.fact.identity.audited.master-1",
            "antiphon.v1.fact.node.changed.master-1",
            "antiphon.v1.fact.policy.changed.master-1",
            "antiphon.v1.fact.recorder.reported.master-1",
            "antiphon.v1.fact.registry.changed.master-1",
            "antiphon.v1.fact.saga.moved.master-1",
            "antiphon.v1.fact.search.finished.master-1",
            "antiphon.v1.identity.behalf.master-1",
            "antiphon.v1.identity.keys.master-1",
            "antiphon.v1.identity.token.master-1",
            "antiphon.v1.identity.whoami.master-1",
            "antiphon.v1.job.*.master-1",
            "antiphon.v1.node.*.*.cancel",
            "antiphon.v1.node.*.*.ping",
            "antiphon.v1.node.*.*.run",
            "antiphon.v1.node.*.*.search",
            "antiphon.v1.node.*.*.step",
            "antiphon.v1.outcome.*.*.*",
            "antiphon.v1.record.facts.master-1",
            "antiphon.v1.registry.get.master-1",
            "antiphon.v1.registry.list.master-1",
            "antiphon.v1.saga.*.d.*",
            "antiphon.v1.saga.*.k.c.*.*",
            "antiphon.v1.saga.*.k.end",
            "antiphon.v1.saga.*.k.park.*",
            "antiphon.v1.saga.*.k.resume.*",
            "antiphon.v1.saga.*.k.start",
            "antiphon.v1.saga.*.t.fired",
            "antiphon.v1.saga.*.t.set",
            "antiphon.v1.saga.*.x.*",
            "antiphon.v1.saga.get.master-1",
            "antiphon.v1.saga.list.master-1",
            "antiphon.v1.saga.order.master-1",
            "antiphon.v1.saga.submit.master-1",
            "antiphon.v1.saga.validate.master-1",
            "antiphon.v1.search.abandoned.master-1",
            "antiphon.v1.search.ask.master-1",
            "antiphon.v1.search.page.*.master-1",
        ),
        subscribe=(
            "$SRV.>",
            "_I.master-1.>",
            "antiphon.v1.action.cancel.*",
            "antiphon.v1.action.cancelled.*",
            "antiphon.v1.action.job.*",
            "antiphon.v1.action.list.*",
            "antiphon.v1.action.probe.master-1.*",
            "antiphon.v1.action.run.*",
            "antiphon.v1.action.written.*",
            "antiphon.v1.beat.node.*.*",
            "antiphon.v1.breaker.list.*",
            "antiphon.v1.breaker.order.*",
            "antiphon.v1.fact.action.finished.*",
            "antiphon.v1.fact.alert.cleared.*",
            "antiphon.v1.fact.alert.raised.*",
            "antiphon.v1.fact.breaker.moved.*",
            "antiphon.v1.fact.facts.dropped.*",
            "antiphon.v1.fact.identity.audited.*",
            "antiphon.v1.fact.node.changed.*",
            "antiphon.v1.fact.policy.changed.*",
            "antiphon.v1.fact.recorder.reported.*",
            "antiphon.v1.fact.registry.changed.*",
            "antiphon.v1.fact.saga.moved.*",
            "antiphon.v1.fact.search.finished.*",
            "antiphon.v1.identity.behalf.*",
            "antiphon.v1.identity.create.*",
            "antiphon.v1.identity.enrol.*",
            "antiphon.v1.identity.get.*",
            "antiphon.v1.identity.invite.*",
            "antiphon.v1.identity.key.*",
            "antiphon.v1.identity.keys.*",
            "antiphon.v1.identity.list.*",
            "antiphon.v1.identity.order.*",
            "antiphon.v1.identity.revoke.*",
            "antiphon.v1.identity.rotate.*",
            "antiphon.v1.identity.token.*",
            "antiphon.v1.identity.update.*",
            "antiphon.v1.identity.whoami.*",
            "antiphon.v1.job.*.*.*",
            "antiphon.v1.monitor.ask.*",
            "antiphon.v1.policy.get.*",
            "antiphon.v1.policy.set.*",
            "antiphon.v1.registry.get.*",
            "antiphon.v1.registry.join.*.*",
            "antiphon.v1.registry.leave.*.*",
            "antiphon.v1.registry.list.*",
            "antiphon.v1.registry.ping.*",
            "antiphon.v1.registry.register.*",
            "antiphon.v1.registry.remove.*",
            "antiphon.v1.registry.update.*",
            "antiphon.v1.saga.get.*",
            "antiphon.v1.saga.list.*",
            "antiphon.v1.saga.order.*",
            "antiphon.v1.saga.outcome.*",
            "antiphon.v1.saga.submit.*",
            "antiphon.v1.saga.validate.*",
            "antiphon.v1.search.abandoned.*",
            "antiphon.v1.search.ask.*",
            "antiphon.v1.search.page.master-1.*",
            "antiphon.v1.stats.forget.*",
            "antiphon.v1.stats.query.*",
        ),
        may_respond=Respond(),
    ),
}


@pytest.mark.parametrize("identity", TABLE, ids=lambda identity: f"{identity[0]}-{identity[2]}")
def test_the_table(identity: tuple[Kind, str, str | None]) -> None:
    assert grants(*identity) == TABLE[identity]


def test_every_kind_stands_in_the_table() -> None:
    assert {kind for kind, _, _ in TABLE} == set(Kind)


names = st.from_regex(TOKEN, fullmatch=True)
ordinary = st.sampled_from([kind for kind in Kind if kind is not Kind.MASTER])


@st.composite
def identities(draw: st.DrawFn) -> tuple[Kind, str]:
    kind, name = draw(st.sampled_from(list(Kind))), draw(names)
    if kind is Kind.MASTER:
        return kind, "master" if len(name) > 50 else f"master-{name}"
    assume(name != "master" and not name.startswith("master-"))
    return kind, name


def test_what_a_process_may_ask_does_not_depend_on_what_it_has_imported() -> None:
    script = (
        "import sys; from antiphon.decide.grants import Rights; from antiphon.messages.base import Kind; "
        "import antiphon.messages.registry; rights = Rights(Kind.NODE, 'docs', 'docs-1'); "
        "print(rights.may_publish('antiphon.v1.registry.join.docs-1.docs'), "
        "'antiphon.messages.saga_desk' in sys.modules, "
        "*(rights.may_publish(f'antiphon.v1.{one}.docs') for one in ('saga.outcome', 'saga.submit')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True False True False"


@pytest.mark.parametrize("identity", TABLE, ids=lambda identity: f"{identity[0]}-{identity[2]}")
def test_the_rights_of_a_process_are_the_grants_of_its_identity(identity: tuple[Kind, str, str | None]) -> None:
    rights, granted = Rights(*identity), grants(*identity)
    assert rights.whole() == granted
    for message in routed().values():
        template = message.route.template
        for subject in (
            template.pattern(caller=identity[1], writer=identity[1], instance="docs-1"),
            template.pattern(),
        ):
            assert rights.may_publish(subject) == granted.may_publish(subject)


@given(identities(), names, names)
def test_nobody_but_a_master_publishes_on_a_lane(identity: tuple[Kind, str], node: str, instance: str) -> None:
    given_rights = grants(*identity)
    for message in routed().values():
        if message.route.is_lane:
            keys = dict.fromkeys(message.route.template.keys, instance) | {"node": node}
            subject = message.route.template.subject(**{key: keys[key] for key in message.route.template.keys})
            assert given_rights.may_publish(subject) == (identity[0] is Kind.MASTER)


@given(identities(), identities())
def test_nobody_speaks_as_another(one: tuple[Kind, str], other: tuple[Kind, str]) -> None:
    assume(one[1] != other[1])
    rights = grants(*one)
    for message in routed().values():
        template = message.route.template
        keys = dict.fromkeys(template.keys, "x") | {"caller": other[1], "writer": other[1]}
        if not message.route.is_lane:
            assert not rights.may_publish(template.subject(**{key: keys[key] for key in template.keys}))
    assert not rights.may_subscribe(f"_I.{other[1]}.session.>")
    assert not rights.may_publish(f"_I.{other[1]}.session.x"), "answers go by the right to respond alone"
    if one[0] is other[0] is Kind.NODE:
        assert not rights.may_subscribe(f"antiphon.v1.node.{other[1]}.*.search")


@given(identities())
def test_patterns_are_whole_and_no_wider_than_a_kind(identity: tuple[Kind, str]) -> None:
    rights = grants(*identity)
    for pattern in rights.publish + rights.subscribe:
        assert pattern not in (">", "*", "antiphon.>", "antiphon.v1.>", "_I.>", "_I.*.>", "$SYS.>")
        assert "<" not in pattern
    if identity[0] is not Kind.MASTER:
        assert not rights.may_publish("$KV.antiphon-registry.x")
        assert not rights.may_publish("$JS.API.STREAM.DELETE.x")
        assert not rights.may_subscribe("antiphon.v1.search.ask.*")
        own = {identity[1], f"node-{identity[1]}"}
        asked = [pattern.removesuffix(".>") for pattern in rights.publish if pattern != "$SRV.>"]
        assert all(pattern.split(".")[-1] in own for pattern in asked)


@pytest.mark.parametrize("name", ["*", ">", "a.b", "", "A", "a\n", "-a", "a" * 64, "a*", "<name>"])
def test_a_name_that_is_a_wildcard_is_refused(name: str) -> None:
    with pytest.raises(InvalidName):
        grants(Kind.NODE, name)
    with pytest.raises(InvalidName):
        grants(Kind.NODE, "docs", name)


@given(ordinary, names)
def test_masters_names_are_masters_alone(kind: Kind, name: str) -> None:
    for taken in ("master", f"master-{name}"[:63]):
        with pytest.raises(InvalidName):
            grants(kind, taken)
    assume(name != "master" and not name.startswith("master-"))
    with pytest.raises(InvalidName):
        grants(Kind.MASTER, name)


def test_an_empty_list_is_a_denial() -> None:
    # nats-facts.md, hole 4: NATS reads an empty allow list as "everything".
    assert Grants((), ()).permissions() == {"pub": {"deny": [">"]}, "sub": {"deny": [">"]}}
    assert grants(Kind.NODE, "docs", "docs-1").permissions()["resp"] == {"max": 1, "ttl": 600_000_000_000}
    assert "resp" not in grants(Kind.PUBLISHER, "web").permissions()


@pytest.mark.parametrize(
    ("pattern", "subject", "verdict"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.b", "a", False),
        ("a", "a.b", False),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a.*", "a", False),
        ("*.b", "a.b", True),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        (">", "a", True),
        ("a.*", "a.*", True),
        ("a.b", "a.*", False),
        ("a.*", "a.>", False),
        ("a.>", "a.>", True),
        ("a.>", "a.*.c", True),
        ("a.b", "a.b.", False),
        ("a.*", "a.", False),
        (">", "", False),
    ],
)
def test_patterns_match_as_in_nats(pattern: str, subject: str, verdict: bool) -> None:
    assert allows(pattern, subject) is verdict


@given(
    st.lists(st.sampled_from(["a", "b", "*"]), min_size=1, max_size=4),
    st.booleans(),
    st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=5),
)
def test_patterns_match_as_a_regular_expression_would(tokens: list[str], more: bool, subject: list[str]) -> None:
    pattern = ".".join([*tokens, ">"] if more else tokens)
    model = re.escape(pattern).replace(r"\*", "[^.]+").replace(">", ".+")
    assert allows(pattern, ".".join(subject)) is bool(re.fullmatch(model, ".".join(subject)))
