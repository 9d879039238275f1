"""Delegates on both buses: with a token it is the principal who asks, at the door, at every node and in the record."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from antiphon import ActionContext, Hit, Saga
from antiphon.app import MasterRole
from antiphon.decide.identities import IdentityRecord, Standing
from antiphon.decide.login import DelegatedClaims
from antiphon.errors import CursorExpired, Malformed, NotAllowed, Overloaded
from antiphon.messages.base import Kind
from antiphon.messages.facts import SearchFinished
from antiphon.messages.lane import NodeSearch
from antiphon.messages.policy import SearchRule
from antiphon.messages.search import Outcome, SearchAsk, SearchPage
from delegates import Delegates
from fabrics import MemoryFabric, own_nats, until
from fleet import Fleet, fleet_on, found
from tokens import tokens_in

RULES = (
    SearchRule(who=("alice",), nodes=("a-blog", "handbook")),
    SearchRule(who=("bob",), nodes=("b-blog",)),
    SearchRule(who=("http",), nodes=("docs",)),
    SearchRule(who=("group:staff",), nodes=("intern",)),
)
PEOPLE = (
    IdentityRecord(name="ops", kind=Kind.OPERATOR),
    IdentityRecord(name="http", kind=Kind.PUBLISHER, groups=("faces",), is_delegate=True),
    IdentityRecord(name="alice", kind=Kind.PUBLISHER, groups=("a",)),
    IdentityRecord(name="bob", kind=Kind.PUBLISHER),
)


def know(role: MasterRole, *people: IdentityRecord) -> None:
    """Let a master know identities, as its identity actor does."""
    role.access.replace(role.access.current.with_identities({one.name: one for one in PEOPLE + people}))


async def started(fleet: Fleet, delegates: Delegates, *, handler: Any = None) -> MasterRole:
    role = await fleet.master(verify=delegates.verify)
    know(role)
    for name in ("a-blog", "b-blog", "docs", "intern"):
        await fleet.node(name, found(f"{name} whales"), verify=delegates.verify)
    await fleet.node("handbook", handler or found("handbook whales"), verify=delegates.verify)
    await (await fleet.client("ops")).set_policy(RULES)
    return role


def seen(answer: Any) -> set[str]:
    return {line.node for line in answer.nodes}


async def test_with_a_token_it_is_the_principal_who_asks_and_without_one_the_delegate(fleet: Fleet) -> None:
    delegates = Delegates()
    asked: list[tuple[Any, ...]] = []

    async def handler(query: Any) -> list[Hit]:
        asked.append((query.caller, query.groups, query.delegate))
        return [Hit(id="1", title="whales")]

    await started(fleet, delegates, handler=handler)
    http, alice = await fleet.client("http"), await fleet.client("alice")
    facts = await fleet.heard(SearchFinished)
    assert seen(await http.search("whales", behalf=delegates.token("alice"))) == {"a-blog", "handbook"}
    assert seen(await http.search("whales", behalf=delegates.token("bob"))) == {"b-blog"}
    assert seen(await http.search("whales")) == {"docs"}
    assert seen(await alice.search("whales")) == {"a-blog", "handbook"}
    assert asked == [("alice", ("a",), "http"), ("alice", ("a",), None)]
    await until(lambda: len(facts) == 4)
    told = [(fact.caller, fact.delegate) for fact in facts]
    assert told == [("alice", "http"), ("bob", "http"), ("http", None), ("alice", None)]
    assert [tokens_in(fact.model_dump_json()) for fact in facts] == [[]] * 4


async def test_what_is_known_of_a_principal_now_wins_over_what_its_token_says(fleet: Fleet) -> None:
    delegates = Delegates()
    role = await started(fleet, delegates)
    http = await fleet.client("http")
    stranger = delegates.token("carol", groups=("staff",))
    assert seen(await http.search("whales", behalf=stranger)) == {"intern"}
    know(role, IdentityRecord(name="carol", kind=Kind.PUBLISHER))
    assert seen(await http.search("whales", behalf=stranger)) == set(), "she has left the group since"
    know(role, IdentityRecord(name="carol", kind=Kind.PUBLISHER, status=Standing.SUSPENDED))
    with pytest.raises(NotAllowed, match="suspended"):
        await http.search("whales", behalf=stranger)


@pytest.mark.parametrize("kind", ["memory", "nats"])
async def test_the_rate_is_the_principals_whoever_asks_for_him(kind: str, tmp_path: Path) -> None:
    async def run(fleet: Fleet) -> None:
        delegates = Delegates()
        role = await fleet.master(verify=delegates.verify)
        know(role)
        http, other, alice = [await fleet.client(name) for name in ("http", "chat", "alice")]
        for _ in range(2):
            await http.search("whales", behalf=delegates.token("alice"))
        await other.search("whales", behalf=delegates.token("alice", "chat"))
        await alice.search("whales")
        for client, token in ((http, delegates.token("alice")), (alice, None)):
            with pytest.raises(Overloaded, match="alice may search 4 times"):
                await client.search("whales", behalf=token)
        await http.search("whales", behalf=delegates.token("bob"))
        await http.search("whales")

    if kind == "memory":
        async with fleet_on(MemoryFabric(), caller_per_minute=4) as fleet:
            await run(fleet)
    else:
        async with own_nats(tmp_path / "nats") as fabric, fleet_on(fabric, caller_per_minute=4) as fleet:
            await run(fleet)


async def test_a_page_is_the_principals(fleet: Fleet) -> None:
    delegates = Delegates()
    await started(fleet, delegates)
    http, chat, alice = [await fleet.client(name) for name in ("http", "chat", "alice")]
    first = await http.search("whales", limit=1, paged=True, behalf=delegates.token("alice"))
    assert first.next is not None
    for client, token in ((http, None), (http, delegates.token("bob")), (await fleet.client("bob"), None)):
        with pytest.raises(CursorExpired):
            await client.page(first.next, behalf=token)
    with pytest.raises(NotAllowed):
        await chat.page(first.next, behalf=delegates.token("alice"))
    for client, token in ((http, delegates.token("alice")), (alice, None), (chat, delegates.token("alice", "chat"))):
        assert (await client.page(first.next, behalf=token)).offset == 1
    pages = [page async for page in http.pages("whales", limit=1, behalf=delegates.token("alice"))]
    assert [page.offset for page in pages] == [0, 1]


def forged(delegates: Delegates) -> dict[str, str]:
    """Tokens of which each has one thing wrong, as the delegate `http` would present them."""
    good = delegates.token("alice")
    header, claims, signature = good.split(".")
    return {
        "expired": delegates.token("alice", age_ms=6 * 60_000),
        "of another delegate": delegates.token("alice", "chat"),
        "signed by a stranger": Delegates().token("alice"),
        "without a signature": f"{header}.{claims}.",
        "with another's signature": f"{header}.{delegates.token('bob').split('.')[1]}.{signature}",
        "cut short": good[:-8],
        "not a token": "alice",
    }


async def test_a_token_that_is_none_is_refused_by_the_master(fleet: Fleet) -> None:
    delegates = Delegates()
    await started(fleet, delegates)
    http = await fleet.client("http")
    facts = await fleet.heard(SearchFinished)
    wrong = forged(delegates)
    for token in wrong.values():
        with pytest.raises(NotAllowed) as refused:
            await http.search("whales", behalf=token)
        assert token not in refused.value.text
        with pytest.raises(NotAllowed):
            await http.page("master.0123.1", behalf=token)
    await until(lambda: len(facts) == len(wrong))
    told = {(fact.caller, fact.delegate, fact.code) for fact in facts}
    assert told == {("http", None, "not_allowed")}, "nobody is taken for whom he only says he asks for"
    for illegal in ("a b", "x" * 4_001, "ä", ""):
        with pytest.raises(Malformed):
            await http.search("whales", behalf=illegal)


async def test_a_master_that_verifies_no_tokens_takes_none(fleet: Fleet) -> None:
    await fleet.master()
    http = await fleet.client("http")
    with pytest.raises(NotAllowed, match="verifies no tokens"):
        await http.search("whales", behalf=Delegates().token("alice"))
    assert (await http.search("whales")).coverage.expected == 0


async def test_who_comes_with_many_tokens_that_are_none_has_to_wait(tmp_path: Path) -> None:
    async with fleet_on(MemoryFabric(), caller_per_minute=5) as fleet:
        delegates = Delegates()
        await fleet.master(verify=delegates.verify)
        http, chat = await fleet.client("http"), await fleet.client("chat")
        for _ in range(5):
            with pytest.raises(NotAllowed):
                await http.search("whales", behalf="forged")
        read = len(delegates.verified)
        with pytest.raises(Overloaded) as refused:
            await http.search("whales", behalf="forged")
        assert refused.value.retry_after_ms
        with pytest.raises(Overloaded):
            await http.search("whales", behalf=delegates.token("alice"))
        assert len(delegates.verified) == read, "what costs is not done any more"
        await http.search("whales")
        await chat.search("whales", behalf=delegates.token("alice", "chat"))


def gullible(token: str, caller: str) -> DelegatedClaims:
    """Take any token for alice's: how a master would verify that somebody has got hold of."""
    return DelegatedClaims("alice", Kind.PUBLISHER, (), caller, "jti", 0, 2**52)


async def test_a_master_looks_itself_whose_the_token_is() -> None:
    async with fleet_on(MemoryFabric()) as fleet:
        await fleet.master(verify=lambda token, _caller: gullible(token, "chat"))
        with pytest.raises(NotAllowed, match="somebody else's"):
            await (await fleet.client("http")).search("whales", behalf="token")
        await (await fleet.client("chat")).search("whales", behalf="token")


async def test_a_token_that_is_none_is_refused_by_each_node_too(fleet: Fleet) -> None:
    delegates = Delegates()
    await fleet.master(verify=gullible)
    node = await fleet.node("blog", found("whales"), verify=delegates.verify)
    await fleet.node("trusting", found("more whales"))
    http = await fleet.client("http")
    assert node._bus is not None
    refused = node._bus.counters.refused
    wrong = {**forged(delegates), "for another principal": delegates.token("bob")}
    for times, token in enumerate(wrong.values(), 1):
        answer = await http.search("whales", behalf=token)
        lines = {line.node: (line.outcome, line.code) for line in answer.nodes}
        assert lines["blog"] == (Outcome.FAILED, "not_allowed")
        assert lines["trusting"] == (Outcome.ANSWERED, None), "it cannot tell, and takes the master's word"
        assert {hit.node for hit in answer.hits} == {"trusting"}
        assert refused["not_allowed"] == times
    assert (await http.search("whales", behalf=delegates.token("alice"))).complete
    assert (await http.search("whales")).complete
    assert refused["not_allowed"] == len(wrong)


@pytest.mark.parametrize(
    "given", [{"delegate": "http"}, {"behalf": "TOKEN"}, {"delegate": "chat", "behalf": "TOKEN"}, {"caller": None}]
)
async def test_on_its_lane_a_node_wants_token_delegate_and_principal_to_fit(given: dict[str, Any]) -> None:
    async with fleet_on(MemoryFabric()) as fleet:
        delegates = Delegates()
        await fleet.master()
        await fleet.node("blog", found("whales"), verify=delegates.verify)
        token = delegates.token("alice")
        bus = await fleet.bus("master-two")
        subject = NodeSearch.route.template.subject(prefix=bus.prefix, node="blog", instance="one")

        async def ask(**fields: Any) -> Any:
            body = {"request": "r", "budget_ms": 1_000, "query": "whales", **fields}
            body = {name: token if value == "TOKEN" else value for name, value in body.items()}
            return orjson.loads(await bus.ask_bytes(subject, orjson.dumps(body), budget_ms=2_000))

        whole = {"caller": "alice", "delegate": "http", "behalf": "TOKEN"}
        assert (await ask(**whole))["hits"]
        assert (await ask(caller="alice"))["hits"]
        with pytest.raises(NotAllowed):
            await ask(**({"caller": "alice", **given} if "caller" not in given else {**whole, **given}))


async def test_a_delegate_that_leaves_ends_its_own_search(fleet: Fleet) -> None:
    delegates = Delegates()
    begun, cut_off = asyncio.Event(), asyncio.Event()

    async def waits(_query: Any) -> list[Hit]:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cut_off.set()
        return []

    await fleet.master(verify=delegates.verify)
    await fleet.node("blog", waits)
    http = await fleet.client("http")
    searching = asyncio.ensure_future(http.search("whales", behalf=delegates.token("alice")))
    await begun.wait()
    searching.cancel()
    async with asyncio.timeout(5):
        await cut_off.wait()


def test_a_token_is_not_shown_where_a_message_is() -> None:
    token = Delegates().token("alice")
    for message in (
        SearchAsk(query="q", behalf=token),
        SearchPage(cursor="c", behalf=token),
        NodeSearch(request="r", budget_ms=1, query="q", behalf=token),
    ):
        assert token not in repr(message)
        assert token not in str(message)


async def test_a_sagas_handlers_know_for_whom_they_work_and_what_he_belongs_to(fleet: Fleet) -> None:
    delegates = Delegates()
    asked: list[tuple[Any, ...]] = []

    async def handler(context: ActionContext) -> None:
        asked.append((context.caller, context.groups, context.delegate))

    know(await fleet.master(verify=delegates.verify))
    await fleet.node("bank", actions={"charge": handler, "refund": handler}, verify=delegates.verify)
    saga = Saga("s").step("charge", node="bank", compensate="refund").step("charge_again", "charge", node="bank")
    http, alice = await fleet.client("http"), await fleet.client("alice")
    await (await http.submit(saga, wait=True, behalf=delegates.token("alice"))).result()
    await (await alice.submit(saga, wait=True)).result()
    assert asked == [("alice", ("a",), "http")] * 2 + [("alice", ("a",), None)] * 2
