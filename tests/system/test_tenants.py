"""Two tenants of one fabric: whatever the one has and does, nothing that the other is ever told changes by it.

That is said as non-interference (Goguen and Meseguer 1982): one fabric with both tenants and one without the other are
asked the same, in virtual time, and every answer, error, page, listing and duration has to be the same to the letter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon import Client, Counts, Found, Hit, Query, Statistics
from antiphon.app import MasterRole
from antiphon.decide import analyser, fuse
from antiphon.decide.grants import allows, grants
from antiphon.decide.identities import IdentityRecord
from antiphon.decide.policy import EXEMPT
from antiphon.errors import AntiphonError, CursorExpired, HandlerFailed
from antiphon.messages import routed
from antiphon.messages.base import Fact, Kind
from antiphon.messages.policy import SearchRule
from antiphon.messages.search import Outcome, SearchAnswer, SearchAsk
from antiphon.subjects import PREFIX, VERSION
from antiphon.testing import TestFleet, virtual_run
from delegates import Delegates
from fleet import Fleet

PEOPLE = {"a": "alice", "b": "bob"}
IDENTITIES = (
    IdentityRecord(name="ops", kind=Kind.OPERATOR),
    IdentityRecord(name="alice", kind=Kind.PUBLISHER, groups=("a",)),
    IdentityRecord(name="bob", kind=Kind.PUBLISHER, groups=("b",)),
    IdentityRecord(name="http", kind=Kind.PUBLISHER, is_delegate=True),
)
NAMES = ["a-one", "a-two", "a-three", "b-one", "b-two", "a2-three", "common"]
WORDS = ["whale", "song", "ship", "harbour", "price"]
QUESTIONS = ["whale", "whale song", "ship price harbour", "nothing at all"]
SEARCHES: dict[str, Any] = {
    "caller_per_minute": 0,
    "breaker_failures_max": 10**6,
    "breaker_rate_calls_min": 10**6,
    "retry_attempts_max": 1,
    "hedge_permille": 0,
}
"""Without what a master shares out among all who ask it: how often it asks again, and what it thinks of itself. Of that
one tenant may feel that the other is there; the pages of operators say so."""


@dataclass(frozen=True)
class Member:
    """One node: whose it is, how it answers, what it holds."""

    owner: str
    name: str
    kind: str
    texts: tuple[str, ...]
    status: str = "active"


def searching(member: Member) -> Any:
    """Return a member's handler."""

    async def search(query: Query) -> Any:
        match member.kind:
            case "fails":
                raise HandlerFailed(f"a bug of {member.name}")
            case "slow":
                await asyncio.sleep(3_600)
            case "later":
                # each its own, for `explain` counts replies as they come, and two at once may come in either order
                await asyncio.sleep(0.2 + 0.007 * NAMES.index(member.name))
            case _:
                pass
        hits = [Hit(id=f"{at}", title=text, text=text) for at, text in enumerate(member.texts)]
        if member.kind not in ("counts", "lies"):
            return hits
        ours = analyser.default()
        counted = [ours.frequencies(text, query.terms) for text in member.texts]
        df = tuple(sum(tf[at] > 0 for tf, _ in counted) for at in range(len(query.terms)))
        length = sum(length for _, length in counted)
        if member.kind == "lies":
            df, length = (10**6,) * len(df), 10**9
        docs = 10**6 if member.kind == "lies" else len(hits)
        whole = Statistics(docs=docs, total_length=length, df=df)
        found = [
            Hit(id=hit.id, title=hit.title, counts=Counts(tf=tuple(tf), length=size), hash=f"hash of {hit.title}")
            for hit, (tf, size) in zip(hits, counted, strict=True)
        ]
        return Found(found, whole, query.analyser)

    return search


texts = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join), unique=True, max_size=4).map(
    tuple
)


def members(owner: str, names: list[str]) -> st.SearchStrategy[list[Member]]:
    one = st.builds(
        Member,
        st.just(owner),
        st.sampled_from(names),
        st.sampled_from(["text", "counts", "counts", "lies", "later", "slow", "fails"]),
        texts,
        st.sampled_from(["active"] * 4 + ["suspended", "draining", "absent"]),
    )
    return st.lists(one, max_size=3, unique_by=lambda member: member.name)


worlds = st.tuples(
    members("a", NAMES[:3]),
    members("b", NAMES[3:6]),
    st.lists(
        st.builds(Member, st.just("both"), st.just("common"), st.sampled_from(["text", "counts"]), texts), max_size=1
    ),
).map(lambda three: [member for some in three for member in some])


def exact(owner: str) -> tuple[str, ...]:
    return tuple(NAMES[:3] if owner == "a" else NAMES[3:6])


def rules_of(owner: str) -> st.SearchStrategy[list[SearchRule]]:
    """Rules that let one tenant search its own nodes, said in one of many ways."""
    whos = st.sampled_from([(f"group:{owner}",), (PEOPLE[owner],), (f"{PEOPLE[owner][:2]}*", "nobody")])
    nodes = st.sampled_from([exact(owner), ("a-*",) if owner == "a" else ("b-*", "a2-*")])
    common = st.sampled_from([("common",), ("comm*n", "common")])
    whole = st.builds(lambda who, own, both: [SearchRule(who=who, nodes=own + both)], whos, nodes, common)
    parts = st.builds(
        lambda who, own, both: [*(SearchRule(who=who, nodes=(one,)) for one in own), SearchRule(who=who, nodes=both)],
        whos,
        nodes,
        common,
    )
    return whole | parts


others = st.sampled_from(
    [
        (),
        (SearchRule(who=("kind:analyst",), nodes=("*",)),),
        (SearchRule(who=("group:staff", "mallory"), nodes=("*",)),),
    ]
)
policies = st.builds(lambda one, two, more: (*one, *two, *more), rules_of("a"), rules_of("b"), others).flatmap(
    lambda rules: st.permutations(rules).map(tuple)
)


def know(role: MasterRole) -> None:
    role.access.replace(role.access.current.with_identities({one.name: one for one in IDENTITIES}))


async def outcome(fleet: TestFleet, asking: Awaitable[Any]) -> Any:
    """Return all that an asker learns: the answer or the error, and how long it took."""
    began_ms = fleet.now_ms()
    try:
        answer = await asking
    except AntiphonError as error:
        return type(error).__name__, error.text, error.retry_after_ms, fleet.now_ms() - began_ms
    if isinstance(answer, SearchAnswer):
        shown = answer.model_dump()
        # a cursor is 128 random bits between the master's name and the offset
        shown["next"] = None if answer.next is None else answer.next.rpartition(".")[2]
        for line in shown["nodes"]:
            if line["outcome"] is Outcome.TIMED_OUT:
                line["text"] = "late"  # a node's bound and the deadline fall on one millisecond, in either order
        return shown, fleet.now_ms() - began_ms
    entries = [one.model_dump() for one in (answer if isinstance(answer, tuple) else (answer,))]
    for instance in [instance for entry in entries for instance in entry["instances"]]:
        # as of the last ping, and masters draw when to ping
        instance.update(dict.fromkeys(("heard_ms_ago", "in_flight", "latency_us")))
    return entries, fleet.now_ms() - began_ms


async def script(fleet: TestFleet, client: Client, behalf: str | None, elses: list[str]) -> list[Any]:
    """Return everything that somebody is told who tries everything, also with the names of the other's nodes."""

    def ask(query: str, request_id: str, **how: Any) -> Awaitable[SearchAnswer]:
        return client.search(query, deadline_ms=1_000, request_id=request_id, behalf=behalf, **how)

    told: list[Any] = []
    for at, question in enumerate(QUESTIONS):
        for fusion in sorted(fuse.methods()):
            how: dict[str, Any] = {"fusion": fusion, "limit": 2, "min_coverage": 0.5, "optional": elses}
            told += [await outcome(fleet, ask(question, f"r{at}", explain=True, **how))]
        cursor = (await ask(question, "p", limit=1, paged=True)).next
        while cursor is not None:
            told += [await outcome(fleet, client.page(cursor, limit=1, behalf=behalf))]
            cursor = (await client.page(cursor, limit=1, behalf=behalf)).next
    for name in [*NAMES, "no-such"]:
        for how in ({"nodes": [name]}, {"required": [name]}, {"nodes": ["common", name]}):
            told += [await outcome(fleet, ask("whale", "n", **how))]
        if behalf is None:
            told += [await outcome(fleet, client.get(name)), await outcome(fleet, client.nodes(name=name))]
    if behalf is None:
        told += [await outcome(fleet, client.nodes()), await outcome(fleet, client.nodes(capability="search"))]
    return told


async def world(
    nodes: list[Member], policy: tuple[SearchRule, ...], who: str, *, is_busy: bool, behalf: str | None
) -> list[Any]:
    """Return what somebody is told in a fabric of these nodes, while the other one is busy or not there at all."""
    delegates = Delegates()
    async with TestFleet(**SEARCHES) as fleet:
        know(await fleet.master(verify=delegates.verify))
        ops = await fleet.client("ops")
        await ops.set_policy(policy)
        for member in sorted(nodes, key=lambda member: member.name):
            if member.status != "absent":
                await fleet.node(member.name, searching(member))
            if member.status != "active":
                status = "active" if member.status == "absent" else member.status
                await ops.register(member.name, status=status, description=f"of {member.owner}")
        client = await fleet.client(who if behalf is None else "http")
        token = None if behalf is None else delegates.token(who)
        other = "bob" if who == "alice" else "alice"
        disturbing = asyncio.ensure_future(disturb(fleet, other)) if is_busy else None
        elses = list(exact("b" if who == "alice" else "a"))
        told = await script(fleet, client, token, elses)
        if disturbing is not None:
            disturbing.cancel()
            await asyncio.wait({disturbing})
        return told


async def disturb(fleet: TestFleet, who: str) -> None:
    """Search all the time."""
    client = await fleet.client(who)
    while True:
        await client.search("whale song", limit=1, paged=True, deadline_ms=700)
        await asyncio.sleep(0.05)


def told_alone_and_together(
    nodes: list[Member], policy: tuple[SearchRule, ...], who: str, *, is_delegated: bool = False
) -> tuple[list[Any], list[Any]]:
    own = "a" if who == "alice" else "b"
    alone = [member for member in nodes if member.owner in (own, "both")]
    behalf = who if is_delegated else None
    together = virtual_run(world(nodes, policy, who, is_busy=True, behalf=behalf))
    return virtual_run(world(alone, policy, who, is_busy=False, behalf=behalf)), together


@settings(max_examples=40)
@given(worlds, policies, st.sampled_from(["alice", "bob"]), st.booleans())
def test_nothing_that_one_is_told_depends_on_the_other(
    nodes: list[Member], policy: tuple[SearchRule, ...], who: str, is_delegated: bool
) -> None:
    alone, together = told_alone_and_together(nodes, policy, who, is_delegated=is_delegated)
    assert together == alone


POLICY = (
    SearchRule(who=("group:a",), nodes=("a-*", "common")),
    SearchRule(who=("group:b",), nodes=("b-*", "a2-*", "common")),
)
NODES = [
    Member("a", "a-one", "counts", ("whale song", "ship")),
    Member("a", "a-two", "text", ("whale", "price")),
    Member("both", "common", "counts", ("whale price", "harbour")),
]


@pytest.mark.parametrize(
    "other",
    [
        Member("b", "b-one", "counts", ("whale", "whale song")),
        Member("b", "b-one", "lies", ()),
        Member("b", "b-one", "text", ("whale price",)),
        Member("b", "b-one", "fails", ()),
        Member("b", "b-one", "later", ()),
        Member("b", "b-one", "text", (), "absent"),
        Member("b", "b-one", "text", (), "suspended"),
    ],
    ids=lambda member: f"{member.kind}-{member.status}",
)
def test_each_of_these_would_be_noticed_without_the_policy(other: Member) -> None:
    alone, together = told_alone_and_together([*NODES, other], POLICY, "alice")
    assert together == alone
    alone, together = told_alone_and_together([*NODES, other], (), "alice")
    assert together != alone, "the test bites"


def words_of(told: Any) -> str:
    """Return everything in an outcome as one text."""
    return repr(told).lower()


async def test_no_name_or_word_of_the_other_is_in_anything_that_one_is_told(fleet: Fleet) -> None:
    """With retries, hedges and errors, on both buses; what the other has is called `zebra`, down to its errors."""
    delegates = Delegates()
    know(await fleet.master(verify=delegates.verify))
    await (await fleet.client("ops")).set_policy(
        (SearchRule(who=("alice",), nodes=("a-*", "common")), SearchRule(who=("bob",), nodes=("zebra-*", "common")))
    )
    for member in NODES:
        await fleet.node(member.name, searching(member))
    for at, kind in enumerate(("counts", "lies", "fails")):
        other = Member("b", f"zebra-{at}", kind, ("zebra whale song", "whale song", "whale price"))
        for instance in ("zebra-i", "zebra-j"):
            await fleet.node(other.name, searching(other), instance=instance, topics=["zebra"], description="zebra")
    await (await fleet.client("ops")).register("zebra-gone", description="zebra")
    alice, http, bob = [await fleet.client(name) for name in ("alice", "http", "bob")]
    disturbing = asyncio.ensure_future(disturb(fleet, "bob"))
    told = await script(fleet, alice, None, ["zebra-0", "zebra-none"])
    told += await script(fleet, http, delegates.token("alice"), ["zebra-0", "zebra-none"])
    disturbing.cancel()
    await asyncio.wait({disturbing})
    assert "a-one" in words_of(told)
    assert "zebra" not in words_of(told)
    for client, token in ((alice, None), (http, delegates.token("alice"))):
        for name in ("zebra-0", "zebra-gone", "zebra-none"):
            error, text, *_ = await outcome(fleet, client.search("whale", nodes=[name], behalf=token))
            assert (error, text.count("zebra")) == ("UnknownNode", 1), "the name that he gave himself, and no more"
    theirs = await bob.search("whale", limit=1, paged=True)
    assert theirs.next is not None
    assert "zebra" in words_of(theirs)
    for client, token in ((alice, None), (http, delegates.token("alice"))):
        with pytest.raises(CursorExpired) as refused:
            await client.page(theirs.next, behalf=token)
        assert "zebra" not in refused.value.text


def test_that_a_master_suspects_itself_for_the_others_failures_is_told_to_those_who_see_them() -> None:
    async def main() -> tuple[tuple[str, ...], tuple[str, ...]]:
        async with TestFleet(**SEARCHES) as fleet:
            know(await fleet.master())
            for name in ("a-one", "b-one", "b-two", "a2-three"):
                await fleet.node(name, searching(Member("", name, "fails", ())))
            ops, alice = await fleet.client("ops"), await fleet.client("alice")
            await ops.set_policy(POLICY)
            for _ in range(10):
                await ops.search("whale")
            return (await ops.search("whale")).coverage.degraded, (await alice.search("whale")).coverage.degraded

    assert virtual_run(main()) == (("self",), ())


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in EXEMPT])
def test_what_tells_of_the_whole_fleet_is_for_operators_and_masters(kind: Kind) -> None:
    rights = grants(kind, "somebody", "one" if kind is Kind.NODE else None)
    whole = f"{PREFIX}.{VERSION}."
    for name, message in routed().items():
        pattern = message.route.template.pattern()
        if issubclass(message, Fact) and Kind.MASTER in message.route.sent_by:
            assert not rights.may_subscribe(pattern), f"{name} tells of everybody"
            assert not any(allows(pattern, one) for one in rights.subscribe), name
    for area in ("monitor.ask", "breaker.list", "breaker.order", "registry.ping", "policy.get", "policy.set"):
        assert not rights.may_publish(f"{whole}{area}.somebody"), area
    assert not rights.may_subscribe(f"{whole}{SearchAsk.route.template.text.replace('<caller>', '*')}")
    assert not rights.may_subscribe("_I.>")
    assert not rights.may_publish("$SRV.PING")
