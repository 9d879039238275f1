"""A whole search on both buses: coverage, instances, requirements, paging, dedupe, fallback, facts, discovery."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import orjson
import pytest

from antiphon import Client, Counts, Found, Hit, Node, Query, SearchAnswer, Statistics
from antiphon.decide import fuse
from antiphon.decide.asking import AskingBounds
from antiphon.errors import CursorExpired, Malformed, NoResponders, RequestError, UnknownMethod, UnknownNode
from antiphon.messages.facts import InstanceChanged, SearchFinished
from antiphon.messages.lane import NodeSearch
from antiphon.messages.search import Outcome
from antiphon.responder import SearchHandler
from antiphon.settings import Settings
from antiphon.testing import virtual_run
from fabrics import MemoryFabric, until
from fleet import Fleet, fleet_on, found


def lines(answer: SearchAnswer) -> dict[str, tuple[str, str | None]]:
    return {line.node: (line.outcome.value, line.code) for line in answer.nodes}


def adds_up(answer: SearchAnswer) -> bool:
    """Whether the coverage is the sum of the lines of the expected nodes."""
    expected = [line for line in answer.nodes if "fallback" not in line.flags]
    counts = Counter(line.outcome for line in expected)
    coverage = answer.coverage
    return (
        coverage.expected == len(expected)
        and coverage.answered == counts[Outcome.ANSWERED] + counts[Outcome.EMPTY]
        and coverage.empty == counts[Outcome.EMPTY]
        and coverage.failed == counts[Outcome.FAILED]
        and coverage.timed_out == counts[Outcome.TIMED_OUT]
        and coverage.skipped_open == counts[Outcome.SKIPPED]
        and coverage.answered + coverage.failed + coverage.timed_out + coverage.skipped_open == coverage.expected
        and answer.complete is (coverage.answered == coverage.expected)
    )


async def fails(_query: Any) -> list[Hit]:
    raise LookupError("the author's bug; password=hunter2")


async def sleeps(_query: Any) -> list[Hit]:
    await asyncio.sleep(3_600)
    return []


async def test_one_question_many_nodes_one_honest_answer(fleet: Fleet) -> None:
    await fleet.master()
    await fleet.node("blog", found("whale songs", "whale bones"))
    await fleet.node("shop", found("whale watch"))
    await fleet.node("empty", found())
    await fleet.node("broken", fails)

    def in_a_thread(_query: Any) -> list[dict[str, Any]]:
        return [{"id": "t", "title": "whale thread", "text": "whales", "fields": {"price": 5, "new": True}}]

    await fleet.node("threads", in_a_thread)
    await fleet.node("slow", sleeps)
    client = await fleet.client()
    answer = await client.search("whales", deadline_ms=2_000)
    assert lines(answer) == {
        "blog": ("answered", None),
        "broken": ("failed", "handler_failed"),
        "empty": ("empty", None),
        "shop": ("answered", None),
        "slow": ("timed_out", "out_of_budget"),
        "threads": ("answered", None),
    }
    assert adds_up(answer)
    assert (answer.complete, answer.sufficient, answer.total) == (False, True, 4)
    assert {(hit.node, hit.title) for hit in answer.hits} == {
        ("blog", "whale songs"),
        ("blog", "whale bones"),
        ("shop", "whale watch"),
        ("threads", "whale thread"),
    }
    assert [hit.rank for hit in answer.hits] == [1, 2, 3, 4]
    assert [hit.score for hit in answer.hits] == sorted((hit.score for hit in answer.hits), reverse=True)
    assert next(hit for hit in answer.hits if hit.node == "threads").doc.fields == {"price": 5, "new": True}
    assert "hunter2" not in answer.model_dump_json(), "a node's secrets stay at home"
    assert answer.took_us < 2_000_000


async def test_the_instances_of_a_node_share_the_questions(fleet: Fleet) -> None:
    asked: Counter[str] = Counter()

    def counting(instance: str) -> Any:
        async def search(_query: Any) -> list[Hit]:
            asked[instance] += 1
            return [Hit(id=instance, title="whales")]

        return search

    await fleet.master()
    for instance in ("a", "b", "c"):
        await fleet.node("blog", counting(instance), instance=instance)
    client = await fleet.client()
    for _ in range(30):
        answer = await client.search("whales", balancer="round_robin")
        assert answer.coverage.expected == 1
    assert asked == {"a": 10, "b": 10, "c": 10}


async def test_an_instance_that_nobody_listens_on_any_more_is_replaced_at_once(fleet: Fleet) -> None:
    await fleet.master()
    gone = await fleet.node("blog", found("x"), instance="gone")
    await fleet.node("blog", found("whale"), instance="here")
    assert gone._bus is not None
    await gone._bus.transport.close()  # as a kill does: it never left
    client = await fleet.client()
    attempts: list[int] = []
    for _ in range(4):
        answer = await client.search("whales", deadline_ms=10_000, balancer="round_robin")
        assert answer.complete
        (line,) = answer.nodes
        assert line.instance == "here"
        assert answer.took_us < 2_000_000
        attempts.append(line.attempts)
    assert sorted(attempts) == [1, 1, 2, 2]


async def test_when_no_instance_listens_the_node_has_failed_at_once(fleet: Fleet) -> None:
    await fleet.master()
    gone = await fleet.node("blog", found("x"))
    await fleet.node("shop", found("whale"))
    assert gone._bus is not None
    await gone._bus.transport.close()
    client = await fleet.client()
    answer = await client.search("whales", deadline_ms=10_000)
    assert lines(answer) == {"blog": ("failed", "no_responders"), "shop": ("answered", None)}
    assert answer.took_us < 2_000_000
    assert adds_up(answer)


async def test_a_node_that_left_is_no_longer_expected_and_one_that_joins_is(fleet: Fleet) -> None:
    await fleet.master()
    await fleet.node("blog", found("a"))
    leaver = await fleet.node("shop", found("b"))
    client = await fleet.client()
    assert set(lines(await client.search("whales"))) == {"blog", "shop"}
    await leaver.stop()
    fleet.nodes.remove(leaver)
    assert set(lines(await client.search("whales"))) == {"blog"}
    await fleet.node("shop", found("b"))
    assert set(lines(await client.search("whales"))) == {"blog", "shop"}
    assert [node.node for node in await client.nodes()] == ["blog", "shop"]


async def test_what_is_sufficient(fleet: Fleet) -> None:
    await fleet.master()
    await fleet.node("blog", found("a"))
    await fleet.node("shop", found("b"))
    await fleet.node("broken", fails)
    client = await fleet.client()

    async def sufficient(**needs: Any) -> bool:
        answer = await client.search("whales", **needs)
        assert adds_up(answer)
        return answer.sufficient

    assert await sufficient()
    assert await sufficient(required=["blog"])
    assert not await sufficient(required=["blog", "broken"])
    assert await sufficient(min_coverage=0.66)
    assert not await sufficient(min_coverage=0.67)
    assert await sufficient(min_coverage=1.0, optional=["broken"])
    assert await sufficient(nodes=["blog"], min_coverage=1.0)
    assert not await sufficient(nodes=["blog"], required=["broken"])


async def test_filters_and_names_that_nobody_has(fleet: Fleet) -> None:
    await fleet.master()
    await fleet.node("blog", found("a"))
    await fleet.node("shop", found("b"))
    client = await fleet.client()
    assert set(lines(await client.search("whales", nodes=["shop"]))) == {"shop"}
    for names in ({"nodes": ["blog", "nobody"]}, {"required": ["nobody"]}):
        with pytest.raises(UnknownNode, match="nobody"):
            await client.search("whales", **names)  # type: ignore[arg-type]
    with pytest.raises(UnknownMethod, match="rrf"):
        await client.search("whales", fusion="magic")
    assert (await client.search("whales")).complete


@pytest.mark.parametrize("method", sorted(fuse.methods()))
async def test_every_method_answers_and_explains(fleet: Fleet, method: str) -> None:
    await fleet.master()
    await fleet.node("blog", found("whale songs", "whale bones"))
    await fleet.node("shop", found("whale watch"))
    client = await fleet.client()
    plain = await client.search("whale songs", fusion=method)
    explained = await client.search("whale songs", fusion=method, explain=True)
    assert plain.fusion == method
    assert [(hit.node, hit.id, hit.score) for hit in plain.hits] == [
        (hit.node, hit.id, hit.score) for hit in explained.hits
    ]
    assert len(plain.hits) == 3
    assert all(hit.explain is None for hit in plain.hits)
    assert all(hit.explain for hit in explained.hits)


async def test_pages_are_one_list_without_gaps_or_repeats(fleet: Fleet) -> None:
    await fleet.master()
    for name in ("blog", "shop", "crm"):
        await fleet.node(name, found(*(f"{name} whale {at}" for at in range(9))))
    client = await fleet.client()
    whole = await client.search("whales", limit=100)
    assert (whole.total, whole.next) == (27, None)
    paged = [answer async for answer in client.pages("whales", limit=4)]
    assert [len(answer.hits) for answer in paged] == [4] * 6 + [3]
    assert [answer.offset for answer in paged] == list(range(0, 28, 4))
    assert [(hit.node, hit.id, hit.rank) for answer in paged for hit in answer.hits] == [
        (hit.node, hit.id, hit.rank) for hit in whole.hits
    ]
    assert {answer.total for answer in paged} == {27}
    first = await client.search("whales", limit=4, explain=True, paged=True)
    assert first.next is not None
    second = await client.page(first.next, limit=4)
    assert all(hit.explain for hit in second.hits)
    assert (await client.page(first.next, limit=4)).hits == second.hits, "a cursor may be used twice"


async def test_cursors_of_nobody(fleet: Fleet) -> None:
    await fleet.master()
    await fleet.master("master-2")
    await fleet.node("blog", found(*(f"whale {at}" for at in range(9))))
    client = await fleet.client()
    answer = await client.search("whales", limit=2, paged=True)
    assert answer.next is not None
    _, token, offset = answer.next.split(".")
    other = {"master": "master-2", "master-2": "master"}[answer.master]
    for cursor in (f"{other}.{token}.{offset}", f"master-9.{token}.{offset}", f"{answer.master}.{'0' * 32}.2"):
        with pytest.raises(CursorExpired):
            await client.page(cursor)
    for garbage in ("", "x", "a.b", "....", "master.x.-1", "master.x.1e3", "*.x.1", ">.x.1", f"A B.{token}.2", "\x00"):
        with pytest.raises(RequestError):
            await client.page(garbage)
    beyond = await client.page(f"{answer.master}.{token}.999999")
    assert (beyond.hits, beyond.next) == ((), None)


def test_a_cursor_expires_exactly_after_its_time() -> None:
    async def main() -> None:
        async with fleet_on(MemoryFabric(), page_keep_ms=60_000) as fleet:
            await fleet.master()
            await fleet.node("blog", found(*(f"whale {at}" for at in range(9))))
            client = await fleet.client()
            answer = await client.search("whales", limit=2, paged=True)
            assert answer.next is not None
            await client.bus.clock.sleep_ms(59_999)
            assert len((await client.page(answer.next)).hits) == 7
            await client.bus.clock.sleep_ms(1)
            with pytest.raises(CursorExpired, match="60 s"):
                await client.page(answer.next)

    virtual_run(main())


async def test_the_same_content_is_one_hit_that_lists_its_other_sources(fleet: Fleet) -> None:
    async def mirror(_query: Any) -> list[Hit]:
        return [Hit(id="copy", title="Whale Songs", text="whale songs are   about whales", url="https://mirror/1")]

    async def origin(_query: Any) -> list[Hit]:
        return [Hit(id="1", title="whale songs", text="whale songs are about whales", url="https://blog/1")]

    await fleet.master()
    await fleet.node("blog", origin)
    await fleet.node("mirror", mirror)
    client = await fleet.client()
    answer = await client.search("whales")
    (hit,) = answer.hits
    assert answer.total == 1
    sources = {(hit.node, hit.id, hit.doc.url), *((also.node, also.id, also.url) for also in hit.also)}
    assert sources == {("blog", "1", "https://blog/1"), ("mirror", "copy", "https://mirror/1")}
    assert adds_up(answer)


def local(name: str, search: Any) -> Node:
    node = Node(name)
    node.search(search)
    return node


async def test_when_the_remotes_are_down_the_fallback_answers_and_says_so(fleet: Fleet) -> None:
    await fleet.master(fallbacks=[local("local", found("whale cache")), local("spare", fails)])
    client = await fleet.client()
    nobody = await client.search("whales")
    assert nobody.coverage.degraded == ("no_nodes", "fallback")
    assert [hit.title for hit in nobody.hits] == ["whale cache"]
    await fleet.node("blog", fails)
    answer = await client.search("whales")
    assert [hit.node for hit in answer.hits] == ["local"]
    assert lines(answer) == {
        "blog": ("failed", "handler_failed"),
        "local": ("answered", None),
        "spare": ("failed", "handler_failed"),
    }
    assert [line.node for line in answer.nodes if "fallback" in line.flags] == ["local", "spare"]
    assert answer.coverage.degraded == ("fallback",)
    assert not answer.complete
    assert adds_up(answer)
    assert not (await client.search("whales", min_coverage=0.1)).sufficient, "a fallback counts for no coverage"
    await fleet.node("shop", found("whale watch"))
    answer = await client.search("whales")
    assert [hit.node for hit in answer.hits] == ["shop"]
    assert answer.coverage.degraded == (), "the fallback is not asked when a remote answers"


async def test_a_fallback_still_answers_in_time_when_the_remotes_are_silent(fleet: Fleet) -> None:
    await fleet.master(fallbacks=[local("local", found("whale cache")), local("lazy", sleeps)])
    await fleet.node("blog", sleeps)
    client = await fleet.client()
    answer = await client.search("whales", deadline_ms=2_000)
    assert [hit.node for hit in answer.hits] == ["local"]
    assert lines(answer) == {
        "blog": ("timed_out", "out_of_budget"),
        "local": ("answered", None),
        "lazy": ("timed_out", "out_of_budget"),
    }


async def test_every_search_leaves_a_fact_that_adds_up(fleet: Fleet) -> None:
    finished = await fleet.heard(SearchFinished)
    changed = await fleet.heard(InstanceChanged)
    await fleet.master()
    await fleet.node("blog", found("whale songs", "whale bones"))
    await fleet.node("copy", found("whale songs"))
    leaver = await fleet.node("broken", fails)
    client = await fleet.client("shop-front")
    answer = await client.search("whales", limit=1, request_id="r-77")
    with pytest.raises(UnknownNode):
        await client.search("whales", nodes=["nobody"])
    await leaver.stop()
    fleet.nodes.remove(leaver)
    await until(lambda: len(finished) == 2 and len(changed) == 4)
    fact, refused = finished
    assert (fact.request, fact.caller, fact.query, fact.code) == ("r-77", "shop-front", "whales", None)
    assert (fact.hits, fact.total, fact.duplicates, fact.fusion) == (1, 2, 1, "evidence")
    assert fact.coverage == answer.coverage
    assert fact.nodes == answer.nodes
    assert sum(line.hits for line in fact.nodes) == fact.total + fact.duplicates
    assert fact.contributed == {answer.hits[0].node: 1}
    assert (fact.complete, fact.sufficient) == (answer.complete, answer.sufficient)
    assert fact.at_ms > 1_600_000_000_000
    assert (refused.code, refused.coverage, refused.caller) == ("unknown_node", None, "shop-front")
    assert [(fact.node, fact.change) for fact in changed] == [
        ("blog", "joined"),
        ("copy", "joined"),
        ("broken", "joined"),
        ("broken", "left"),
    ]


async def discover(client: Client, subject: str) -> list[dict[str, Any]]:
    """Ask discovery as `nats micro` does: one publish, any number of answers."""
    answers: list[dict[str, Any]] = []
    gather_more = asyncio.Event()

    async def hear(delivery: Any) -> None:
        if delivery.data:
            answers.append(orjson.loads(delivery.data))
            gather_more.set()

    transport = client.bus.transport
    inbox = f"{client.bus.inbox}x"
    subscription = await transport.subscribe(inbox, hear)
    await transport.publish(subject, b"", reply=inbox)
    async with asyncio.timeout(10):
        await gather_more.wait()
    # the answers of others come in the same burst; a round trip over the bus ends it
    await transport.flush()
    await client.nodes()
    await subscription.drain()
    return answers


async def test_every_role_answers_discovery(fleet: Fleet) -> None:
    await fleet.master()
    await fleet.node("blog", found("a"), instance="one", description="our articles")
    client = await fleet.client()
    await client.search("whales")
    answers = {(one["name"], one["id"]): one for one in await discover(client, "$SRV.PING")}
    assert set(answers) == {("antiphon-master", "master"), ("blog", "one")}
    for answer in answers.values():
        assert answer["type"] == "io.nats.micro.v1.ping_response"
        assert set(answer) == {"type", "name", "id", "version", "metadata"}
        assert answer["version"].count(".") >= 1
    (info,) = await discover(client, "$SRV.INFO.blog")
    assert info["type"] == "io.nats.micro.v1.info_response"
    assert info["description"] == "our articles"
    subject = NodeSearch.route.template.subject(prefix=fleet.settings.prefix, node="blog", instance="one")
    assert ("search", subject) in [(one["name"], one["subject"]) for one in info["endpoints"]]
    assert all(isinstance(one["queue_group"], str) and isinstance(one["metadata"], dict) for one in info["endpoints"])
    (stats,) = await discover(client, "$SRV.STATS.blog.one")
    assert stats["type"] == "io.nats.micro.v1.stats_response"
    (endpoint,) = (one for one in stats["endpoints"] if one["name"] == "search")
    assert (endpoint["num_requests"], endpoint["num_errors"]) == (1, 0)
    assert endpoint["processing_time"] > 0
    assert endpoint["average_processing_time"] == endpoint["processing_time"]
    (master,) = await discover(client, "$SRV.STATS.antiphon-master")
    searches = {one["name"]: one["num_requests"] for one in master["endpoints"]}
    assert searches["search"] == 1
    assert {"search", "page", "join", "leave", "list_nodes"} <= set(searches)


async def test_without_a_master_the_asker_is_told_at_once(fleet: Fleet) -> None:
    client = await fleet.client()
    with pytest.raises(NoResponders):
        await client.search("whales", deadline_ms=30_000)


async def test_two_masters_share_the_questions_and_see_the_same_nodes(fleet: Fleet) -> None:
    await fleet.master("master-1")
    second = await fleet.master("master-2")
    await fleet.node("blog", found("a"))
    await fleet.node("shop", found("b"))
    await until(lambda: len(second.view.current.nodes) == 2)
    client = await fleet.client()
    answers = [await client.search("whales") for _ in range(40)]
    assert {answer.master for answer in answers} == {"master-1", "master-2"}
    assert all(answer.complete and answer.coverage.expected == 2 for answer in answers)


async def test_two_fabrics_on_one_server_know_nothing_of_each_other(fleet: Fleet) -> None:
    other = Fleet(fleet.buses.fabric, Settings(prefix=fleet.settings.prefix + "-b"))
    try:
        await fleet.master()
        await other.master()
        await fleet.node("blog", found("a"))
        await other.node("shop", found("b"))
        for one, name in ((fleet, "blog"), (other, "shop")):
            answer = await (await one.client()).search("whales")
            assert lines(answer) == {name: ("answered", None)}
    finally:
        await other.close()


async def test_a_master_that_starts_later_knows_the_nodes_before_it_serves(fleet: Fleet) -> None:
    await fleet.master("master-1")
    for at in range(8):
        await fleet.node(f"n{at}", found("a"))
    later = await fleet.master("master-2")
    assert len(later.view.current.searchable) == 8


def test_an_instance_that_falls_silent_is_skipped_and_comes_back_with_its_next_heartbeat() -> None:
    async def main() -> None:
        async with fleet_on(MemoryFabric(), heartbeat_ms=1_000, misses_max=3) as fleet:
            changed = await fleet.heard(InstanceChanged)
            await fleet.master()
            silent = await fleet.node("blog", found("a"))
            await fleet.node("shop", found("b"))
            client = await fleet.client()
            assert silent._bus is not None
            silent._bus.transport.sever()  # type: ignore[attr-defined]
            clock = client.bus.clock
            answer = await client.search("whales")
            assert lines(answer)["blog"] == ("failed", "no_responders")
            await clock.sleep_ms(4_100)
            answer = await client.search("whales")
            assert lines(answer)["blog"] == ("skipped_open", "down")
            assert adds_up(answer)
            assert not answer.complete
            silent._bus.transport.mend()  # type: ignore[attr-defined]
            await clock.sleep_ms(1_100)
            assert (await client.search("whales")).complete
            assert [fact.change for fact in changed if fact.node == "blog"] == ["joined", "down", "recovered"]

    virtual_run(main())


async def test_questions_that_are_none_are_refused_by_the_client_and_by_the_master(fleet: Fleet) -> None:
    await fleet.master()
    await fleet.node("blog", found("a"))
    client = await fleet.client()
    for query in ("", "   ", "x" * 4_097, "a\x00b", "a\x1b[31m"):
        with pytest.raises(Malformed):
            await client.search(query)
    for limit in (0, -1, 101, 10**9):
        with pytest.raises(Malformed):
            await client.search("whales", limit=limit)
    assert (await client.search("  whales\n")).query == "whales"


def test_the_deadline_reaches_the_handler_whether_it_is_longer_or_shorter_than_the_default() -> None:
    ended: list[tuple[str, int, int]] = []

    async def patient(query: Any) -> list[Hit]:
        began = round(asyncio.get_running_loop().time() * 1_000)
        how = "cancelled"
        try:
            await asyncio.sleep(8)
            how = "done"
            return [Hit(id="1", title="whales at last")]
        finally:
            ended.append((how, query.budget_ms, round(asyncio.get_running_loop().time() * 1_000) - began))

    async def main() -> None:
        async with fleet_on(MemoryFabric()) as fleet:
            await fleet.master()
            await fleet.node("blog", patient)
            client = Client(bus=(await fleet.client()).bus, asking=AskingBounds(share_permille=0))
            answer = await client.search("whales", deadline_ms=20_000)
            assert answer.complete
            answer = await client.search("whales", deadline_ms=1_000)
            assert lines(answer) == {"blog": ("timed_out", "out_of_budget")}
            await client.bus.clock.sleep_ms(100)

    virtual_run(main())
    assert ended == [("done", 19_950, 8_000), ("cancelled", 950, 950)]


async def test_a_node_counts_for_no_more_documents_than_it_joined_with_or_is_registered_for(fleet: Fleet) -> None:
    await fleet.master()
    client = await fleet.client("ops")

    def holding(docs: int) -> SearchHandler:
        async def search(query: Query) -> Found:
            counts = Counts(tf=(1,) * len(query.terms), length=10)
            whole = Statistics(docs=docs, total_length=docs * 10, postings=docs * 5, df=(3,) * len(query.terms))
            return Found(
                [Hit(id="1", title=f"whale {docs}", snippet=f"whales {docs}", counts=counts)], whole, query.analyser
            )

        return search

    async def flags(**how: Any) -> dict[str, tuple[str, ...]]:
        return {line.node: line.flags for line in (await client.search("whales", **how)).nodes}

    await fleet.node("large", holding(50_000), documents=50_000)
    await fleet.node("liar", holding(40_000), documents=10_000)
    assert await flags() == {"large": ("docs_clamped",), "liar": ("docs_clamped",)}
    await client.update("large", documents=50_000)
    assert await flags() == {"large": (), "liar": ("docs_clamped",)}, "an operator's word lets it count for more"
    await client.update("liar", documents=40_000)
    assert (await flags())["liar"] == ("docs_clamped",), "and not beyond its own"
    first = await client.search("whales", paged=True, explain=True, limit=1)
    assert first.next is not None
    second = await client.page(first.next, limit=1)
    whole = await client.search("whales", explain=True)
    assert [hit.explain for hit in (*first.hits, *second.hits)] == [hit.explain for hit in whole.hits]
