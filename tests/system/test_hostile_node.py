"""Bad input: nodes that send what they must not, and askers that ask what nobody may; each time the answer is right.

A hostile node is a plain subscriber on its lane, so that it can send any bytes. Two honest nodes stand beside it:
whatever it does, their hits come in their order, its own line says what happened, and the next question is answered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from antiphon import Client, SearchAnswer
from antiphon.actors.registry import INSTANCES_MAX
from antiphon.bus.bus import Bus
from antiphon.bus.protocol import Delivery
from antiphon.errors import AntiphonError, Malformed, Overloaded, Oversize
from antiphon.messages.lane import Load, NodeSearch
from antiphon.messages.registry import HeartBeaten, NodeJoin, NodeLeave
from antiphon.messages.search import SearchAsk
from fabrics import until
from fleet import Fleet, found

HONEST = ("whale songs", "whale bones")
Behave = Callable[["Hostile", Delivery, dict[str, Any]], Any]


class Hostile:
    """A responder that is no node of ours."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.behave: Behave = lambda me, asked, ask: me.send(asked, good(ask))

    async def begin(self) -> None:
        lane = NodeSearch.route.template.subject(prefix=self.bus.prefix, node=self.bus.name, instance="evil")
        await self.bus.transport.subscribe(lane, self._receive)
        await self.bus.transport.flush()
        await self.bus.ask(NodeJoin(instance="evil", capabilities=("search",)), instance="evil")

    async def _receive(self, asked: Delivery) -> None:
        await self.behave(self, asked, orjson.loads(asked.data))

    async def send(self, asked: Delivery, data: bytes, headers: dict[str, str] | None = None, *, to: str = "") -> None:
        await self.bus.transport.publish(to or asked.reply, data, headers=headers)


def reply(ask: dict[str, Any], *hits: dict[str, Any], **more: Any) -> bytes:
    return orjson.dumps({"request": ask["request"], "hits": hits, **more})


def hit(**more: Any) -> dict[str, Any]:
    return {"id": "evil", "doc": {"title": "whale evil"}, **more}


def good(ask: dict[str, Any]) -> bytes:
    return reply(ask, hit())


def sending(make: Callable[[dict[str, Any]], bytes], headers: dict[str, str] | None = None) -> Behave:
    return lambda me, asked, ask: me.send(asked, make(ask), headers)


def counts(ask: dict[str, Any], *, docs: int, df: int, length: int, postings: int = 0) -> dict[str, Any]:
    terms = len(ask["terms"])
    statistics = {"docs": docs, "total_length": length, "df": [df] * terms, "postings": postings}
    return {"analyser": ask["analyser"], "statistics": statistics}


def raw(data: bytes) -> Behave:
    return sending(lambda _ask: data)


def error(code: str, **more: str) -> Behave:
    return sending(lambda _ask: b"", {"Nats-Service-Error-Code": code, "Nats-Service-Error": "evil", **more})


DEEP = b"[" * 100_000 + b"]" * 100_000

REFUSED: dict[str, tuple[Behave, str]] = {
    "garbage": (raw(b"\x00\x01garbage"), "invalid_reply"),
    "nothing": (raw(b""), "invalid_reply"),
    "invalid UTF-8": (raw(b'{"hits": [{"id": "\xff\xfe", "doc": {}}]}'), "invalid_reply"),
    "invalid UTF-8 in a document": (raw(b'{"hits": [{"id": "a", "doc": {"title": "\xff"}}]}'), "invalid_reply"),
    "half a surrogate pair": (raw(b'{"hits": [{"id": "a", "doc": {"title": "\\ud800"}}]}'), "invalid_reply"),
    "NaN": (raw(b'{"hits": [{"id": "a", "doc": {}, "score": NaN}]}'), "invalid_reply"),
    "infinity": (raw(b'{"hits": [{"id": "a", "doc": {}, "score": 1e999}]}'), "invalid_reply"),
    "a number of 100,000 digits": (raw(b'{"load": {"in_flight": ' + b"9" * 100_000 + b"}}"), "invalid_reply"),
    "no object": (raw(b"[]"), "invalid_reply"),
    "null": (raw(b"null"), "invalid_reply"),
    "hits are no list": (raw(b'{"hits": 5}'), "invalid_reply"),
    "a hit without an id": (sending(lambda ask: reply(ask, {"doc": {}})), "invalid_reply"),
    "an id too long": (sending(lambda ask: reply(ask, hit(id="x" * 513))), "invalid_reply"),
    "a score that is text": (sending(lambda ask: reply(ask, hit(score="best"))), "invalid_reply"),
    "negative counts": (sending(lambda ask: reply(ask, hit(tf=[-1], length=5))), "invalid_reply"),
    "a negative length": (sending(lambda ask: reply(ask, hit(tf=[1], length=-5))), "invalid_reply"),
    "counts above all bounds": (sending(lambda ask: reply(ask, hit(tf=[2**60], length=2**60))), "invalid_reply"),
    "negative df": (sending(lambda ask: reply(ask, hit(), **counts(ask, docs=5, df=-1, length=9))), "invalid_reply"),
    "someone else's request": (sending(lambda _ask: reply({"request": "another"}, hit())), "invalid_reply"),
    "nested 100,000 deep": (raw(b'{"hits": ' + DEEP + b"}"), "invalid_reply"),
    "nested deep where nobody looks": (raw(b'{"unknown": ' + DEEP + b"}"), "invalid_reply"),
    "nested deep in a document": (raw(b'{"hits": [{"id": "a", "doc": ' + DEEP + b"}]}"), "invalid_reply"),
    "an error of its own making": (error("from_the_future"), "service_error"),
    "an error that says stop": (error("stopping"), "stopping"),
    "an error that says nobody is there": (error("no_responders"), "no_responders"),
    "an error with a retry of 5,000 digits": (error("internal", **{"Antiphon-Retry-After": "9" * 5_000}), "internal"),
    "an error with a long text": (error("internal", **{"Nats-Service-Error": "e" * 50_000}), "internal"),
}


class World:
    """Two honest nodes, a hostile one, and an asker."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet

    async def begin(self) -> None:
        self.role = await self.fleet.master()
        await self.fleet.node("blog", found(*HONEST))
        await self.fleet.node("shop", found("whale watch"))
        self.client = await self.fleet.client()
        self.before = [(h.node, h.id) for h in (await self.client.search("whales")).hits]
        assert len(self.before) == 3
        self.hostile = Hostile(await self.fleet.bus("evil"))
        await self.hostile.begin()
        self.children = self.role.supervisor.children

    async def search(self, **more: Any) -> SearchAnswer:
        """Search, and check what must be true whatever the hostile node does."""
        answer: SearchAnswer = await self.client.search("whales", **{"deadline_ms": 5_000, "limit": 100, **more})
        honest = [(h.node, h.id) for h in answer.hits if h.node != "evil"]
        assert honest == self.before, "the honest hits come in their order"
        lines = {line.node: line for line in answer.nodes}
        assert set(lines) == {"blog", "evil", "shop"}
        assert [lines[name].outcome.value for name in ("blog", "shop")] == ["answered", "answered"]
        coverage = answer.coverage
        assert coverage.expected == 3
        assert coverage.answered + coverage.failed + coverage.timed_out + coverage.skipped_open == 3
        assert [h.rank for h in answer.hits] == sorted(h.rank for h in answer.hits)
        return answer

    async def lives_on(self) -> None:
        """Check that nothing was restarted and that the hostile node is heard when it behaves."""
        self.hostile.behave = sending(good)
        answer = await self.search()
        assert answer.complete
        assert self.role.supervisor.children == self.children
        assert self.role.bus._waiting == {}


@pytest.fixture
async def world(fleet: Fleet) -> World:
    world = World(fleet)
    await world.begin()
    return world


def evil(answer: SearchAnswer) -> tuple[str, str | None, tuple[str, ...], int]:
    (line,) = [line for line in answer.nodes if line.node == "evil"]
    return line.outcome.value, line.code, line.flags, line.hits


async def test_what_is_no_reply_is_a_failed_line_with_a_code(world: World) -> None:
    for name, (behave, code) in REFUSED.items():
        world.hostile.behave = behave
        answer = await world.search()
        assert evil(answer)[:2] == ("failed", code), name
        assert not answer.complete
        (line,) = [line for line in answer.nodes if line.node == "evil"]
        assert line.text is None or len(line.text) <= 200
    assert (world.role.bus.counters.strays, world.role.bus.counters.late) == (0, 0)
    await world.lives_on()


async def test_ten_thousand_hits_are_cut_off_and_said(world: World) -> None:
    world.hostile.behave = sending(lambda ask: reply(ask, *({"id": str(at), "doc": {}} for at in range(10_000))))
    answer = await world.search()
    assert evil(answer) == ("answered", None, ("hits_clipped",), 1_000)
    assert answer.total == 1_003
    await world.lives_on()


ILLEGAL: dict[str, bytes] = {
    "a list": b"[]",
    "a number": b"5",
    "a title that is a number": b'{"title": 5}',
    "a title too long": orjson.dumps({"title": "x" * 301}),
    "huge": orjson.dumps({"unknown": "x" * 20_000}),
    "nested fields": b'{"fields": {"a": {"b": 1}}}',
    "endless time": b'{"time_ms": 1e300}',
    "an infinite field": b'{"fields": {"a": 1e999}}',
    "a field of thousands of digits": b'{"fields": {"a": ' + b"7" * 6_000 + b"}}",
    "a field beyond 64 bits": b'{"fields": {"a": 18446744073709551616}}',
}


async def test_documents_that_are_none_are_not_passed_on_and_said(world: World) -> None:
    for name, document in ILLEGAL.items():
        data = b'{"hits": [{"id": "a", "doc": ' + document + b'}, {"id": "b", "doc": {"title": "whale evil"}}]}'
        world.hostile.behave = raw(data)
        answer = await world.search()
        assert [h.id for h in answer.hits if h.node == "evil"] == ["b"], name
        assert evil(answer) == ("answered", None, ("document_refused",), 2), name
    await world.lives_on()


@pytest.mark.parametrize("unknown", [b"[" * 195 + b"]" * 195, b"[" * 900 + b"]" * 900, b"7" * 4_400, b'{"a": [1]}'])
async def test_what_nobody_knows_of_a_document_stays_behind(world: World, unknown: bytes) -> None:
    document = b'{"title": "whale evil", "z": ' + unknown + b"}"
    world.hostile.behave = raw(b'{"hits": [{"id": "a", "doc": ' + document + b"}]}")
    answer = await world.search()
    assert {h.node for h in answer.hits} >= {"blog", "shop"}, "one node makes no answer unreadable"
    assert evil(answer)[0] in ("answered", "failed")
    await world.lives_on()


async def test_unknown_fields_are_ignored(world: World) -> None:
    world.hostile.behave = sending(lambda ask: reply(ask, hit(future={"a": [1]}), new=True))
    answer = await world.search()
    assert evil(answer) == ("answered", None, (), 1)
    assert answer.complete


@pytest.mark.parametrize(
    ("lie", "flags"),
    [
        (lambda ask: reply(ask, hit(tf=[9] * 5, length=99), analyser=ask["analyser"]), ("counts_malformed",)),
        (lambda ask: reply(ask, hit(tf=[50], length=3), analyser=ask["analyser"]), ("counts_impossible",)),
        (lambda ask: reply(ask, hit(tf=[2], length=3), analyser="xx-9"), ("foreign_analyser",)),
        (lambda ask: reply(ask, hit(), **counts(ask, docs=5, df=900, length=5_000)), ("df_clamped",)),
        (lambda ask: reply(ask, hit(), **counts(ask, docs=2**53, df=2**53, length=2**53)), None),
        (lambda ask: reply(ask, hit(), **counts(ask, docs=0, df=0, length=0)), ()),
        (lambda ask: reply(ask, hit(), **counts(ask, docs=1, df=1, length=2**53, postings=2**53)), None),
    ],
    ids=["tf of another length", "more than fits", "another analyser", "df above docs", "all", "nothing", "postings"],
)
async def test_lies_about_counts_are_flagged_and_move_no_honest_hit(
    world: World, lie: Callable[[dict[str, Any]], bytes], flags: tuple[str, ...] | None
) -> None:
    world.hostile.behave = sending(lie)
    outcome, code, said, hits = evil(await world.search())
    assert (outcome, code, hits) == ("answered", None, 1)
    assert flags is None or said == flags
    await world.lives_on()


async def test_a_node_that_answers_twice_counts_once(world: World) -> None:
    async def twice(me: Hostile, asked: Delivery, ask: dict[str, Any]) -> None:
        await me.send(asked, good(ask))
        await me.send(asked, reply(ask, hit(id="second")))
        await me.send(asked, b"\xff")

    world.hostile.behave = twice
    answer = await world.search()
    assert evil(answer) == ("answered", None, (), 1)
    counters = world.role.bus.counters
    await until(lambda: counters.strays == 2)
    assert counters.late == 0
    await world.lives_on()


async def test_an_answer_after_the_deadline_is_late_and_counted(world: World) -> None:
    asks: list[tuple[Delivery, dict[str, Any]]] = []

    async def hold(_me: Hostile, asked: Delivery, ask: dict[str, Any]) -> None:
        asks.append((asked, ask))

    world.hostile.behave = hold
    answer = await world.search(deadline_ms=1_000)
    assert evil(answer) == ("timed_out", "out_of_budget", (), 0)
    assert answer.took_us < 1_000_000
    asked, ask = asks[0]
    await world.hostile.send(asked, good(ask))
    counters = world.role.bus.counters
    await until(lambda: counters.late == 1)
    await world.hostile.send(asked, good(ask))
    await until(lambda: counters.strays == 1)
    await world.lives_on()


async def test_an_answer_on_a_guessed_token_is_dropped_and_counted(world: World) -> None:
    async def guess(me: Hostile, asked: Delivery, ask: dict[str, Any]) -> None:
        head = asked.reply.rpartition(".")[0]
        for token in ("0" * 32, "f" * 32, "x", "*", "a.b"):
            await me.bus.transport.publish(f"{head}.{token}".replace("*", "star"), good(ask))

    world.hostile.behave = guess
    answer = await world.search(deadline_ms=1_000)
    assert evil(answer) == ("timed_out", "out_of_budget", (), 0)
    assert not any(h.node == "evil" for h in answer.hits)
    counters = world.role.bus.counters
    await until(lambda: counters.strays == 6)  # five guesses, and one answer to the order to stop
    await world.lives_on()


async def test_answers_as_large_as_can_be_still_make_a_page(world: World) -> None:
    title = "\x01" * 300

    def huge(ask: dict[str, Any]) -> bytes:
        # ids of control characters are six bytes each in JSON, and the whole reply is as large as the server takes
        hits = [hit(id="\x01" * 500 + f"{at:04}", doc={"title": title, "unknown": "x" * 12_400}) for at in range(60)]
        data = reply(ask, *hits)
        assert 1_000_000 < len(data) < 1024 * 1024
        return data

    world.hostile.behave = sending(huge)
    await world.fleet.node("crm", found(*(f"{at} {'whale ' * 40}" for at in range(40))))
    answer = await world.client.search("whales", limit=100, paged=True, explain=True)
    assert evil(answer)[0] == "answered"
    assert len(answer.hits) < 100, "the page ends at its bytes"
    seen = [(h.node, h.id) for h in answer.hits]
    while answer.next is not None:
        answer = await world.client.page(answer.next, limit=100)
        seen += [(h.node, h.id) for h in answer.hits]
    assert len(seen) == len(set(seen)) == 103


async def test_a_copied_hash_takes_no_hit_away(world: World) -> None:
    honest = (await world.client.search("whales", nodes=["blog", "shop"])).hits
    hashes = [h.hash for h in honest]
    assert all(hashes)
    world.hostile.behave = sending(
        lambda ask: reply(ask, *(hit(id=f"{at}" * 200, hash=one) for at, one in enumerate(hashes)))
    )
    answer = await world.client.search("whales")
    assert answer.total == 6, "a hash without its title is no copy"
    assert {h.doc.title for h in answer.hits if h.node != "evil"} == {h.doc.title for h in honest}
    await world.lives_on()


async def test_a_node_cannot_speak_for_another_or_end_its_place(world: World) -> None:
    """Heartbeats and leaves of a stranger are its own only: the writer is in the subject."""
    await world.hostile.bus.publish(HeartBeaten(load=Load()), instance="one")
    await world.hostile.bus.ask(NodeLeave(instance="one"), instance="one")
    await world.hostile.bus.ask(NodeLeave(instance="one"), instance="one")
    await world.search()
    assert {node.node for node in await world.client.nodes()} == {"blog", "shop", "evil"}


async def test_a_node_that_joins_under_ever_new_names_is_refused_at_a_bound(world: World) -> None:
    bus = world.hostile.bus
    for at in range(1, INSTANCES_MAX):
        await bus.ask(NodeJoin(instance=f"i{at}", capabilities=("search",)), instance=f"i{at}")
    with pytest.raises(Overloaded) as caught:
        await bus.ask(NodeJoin(instance="one-more", capabilities=("search",)), instance="one-more")
    assert caught.value.retry_after_ms == 900_000
    await bus.ask(
        NodeJoin(instance="evil", capabilities=("search",), version="2"), instance="evil"
    )  # who is in may say so again
    await bus.ask(NodeLeave(instance="i1"), instance="i1")
    await bus.ask(NodeJoin(instance="one-more", capabilities=("search",)), instance="one-more")
    answer = await world.search()
    assert answer.took_us < 3_000_000, "a node of which almost nobody listens costs time, and that is bounded"


# -- bad asks


async def ask_raw(client: Client, data: bytes, headers: dict[str, str] | None = None) -> SearchAnswer:
    subject = SearchAsk.route.template.subject(prefix=client.bus.prefix, caller=client.bus.name)
    return SearchAnswer.model_validate_json(await client.bus.ask_bytes(subject, data, headers=headers, budget_ms=5_000))


BAD_ASKS: dict[str, tuple[bytes, type[AntiphonError]]] = {
    "nothing": (b"", Malformed),
    "empty": (b'{"query": ""}', Malformed),
    "spaces": (b'{"query": " \\n\\t "}', Malformed),
    "100 kB": (orjson.dumps({"query": "whale " * 17_000}), Oversize),
    "60 kB": (orjson.dumps({"query": "whale " * 10_000}), Malformed),
    "a control character": (b'{"query": "a\\u0000b"}', Malformed),
    "an escape sequence": (b'{"query": "\\u001b[2J"}', Malformed),
    "invalid UTF-8": (b'{"query": "\xff\xfe"}', Malformed),
    "half a surrogate pair": (b'{"query": "\\ud83d"}', Malformed),
    "a number": (b'{"query": 5}', Malformed),
    "a list": (b'{"query": ["a"]}', Malformed),
    "limit 0": (b'{"query": "a", "limit": 0}', Malformed),
    "limit 10^9": (b'{"query": "a", "limit": 1000000000}', Malformed),
    "limit 1.5": (b'{"query": "a", "limit": 1.5}', Malformed),
    "limit of 10,000 digits": (b'{"query": "a", "limit": 1' + b"0" * 10_000 + b"}", Malformed),
    "coverage of 2": (b'{"query": "a", "min_coverage": 2}', Malformed),
    "coverage NaN": (b'{"query": "a", "min_coverage": NaN}', Malformed),
    "nodes of everything": (b'{"query": "a", "nodes": ["*"]}', Malformed),
    "a node's lane as a name": (b'{"query": "a", "nodes": ["blog.one.search"]}', Malformed),
    "257 nodes": (orjson.dumps({"query": "a", "nodes": [f"n{at}" for at in range(257)]}), Malformed),
    "nested": (b'{"query": ' + b"[" * 30_000 + b"]" * 30_000 + b"}", Malformed),
}


async def test_bad_asks_get_a_typed_error_and_the_next_is_answered(world: World) -> None:
    for name, (data, kind) in BAD_ASKS.items():
        with pytest.raises(AntiphonError) as caught:
            await ask_raw(world.client, data)
        assert type(caught.value) is kind, name
        assert len(caught.value.text) <= 300, name
    assert sum(world.role.bus.counters.refused.values()) == len(BAD_ASKS)
    odd = b'{"query": "whales \\ud83d\\ude00 \\u202e \\n\\t x", "unknown": {"a": 1}, "limit": 100}'
    assert len((await ask_raw(world.client, odd)).hits) == 4
    await world.lives_on()


async def test_questions_of_odd_letters_are_questions(world: World) -> None:
    for query in (
        "?",
        "!!!",
        "🐳",
        "a" * 4_096,
        "鯨の歌",
        "\u202ewhales",
        "'; DROP TABLE x; --",
        "* OR 1",
        "whale " * 600,
    ):
        answer = await world.client.search(query)
        assert answer.complete
        assert answer.query == query.strip()
        assert len(answer.terms) <= 32


async def test_a_flood_of_garbage_on_every_subject_of_a_master_ends_nothing(world: World) -> None:
    bus = world.client.bus
    garbage = (b"", b"\xff" * 100, b"[" * 10_000, b"null", b'{"a":', b"x" * 70_000)
    subjects = ("search.ask.web", "search.page.master.web", "registry.join.one.web", "registry.leave.one.web")
    facts = ("beat.node.one.web", "fact.search.finished.web", "search.ask.We b", "search.ask.web.more")
    for name in (*subjects, *facts, "registry.list.web"):
        for data in garbage:
            if " " not in name:
                await bus.transport.publish(f"{bus.prefix}.v1.{name}", data, reply=bus.inbox_dot + "nobody")
    await bus.transport.flush()
    await world.lives_on()
