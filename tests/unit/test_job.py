"""A job is what its record says: a fold that forgets no node, believes nobody about another, and comes to an end."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from antiphon.decide.job import GRACE_MS, ROOM, Job, Seen, Written, fold, job_id, newest, view
from antiphon.decide.rollout import FINAL
from antiphon.messages.actions import JobEnd, JobLine, JobView, RunState
from antiphon.messages.jobs import JobRecord, JobReported, RunEnd

NOTHING = Seen()


def record(*lines: JobLine, **more: Any) -> JobRecord:
    given = {
        "request": "r",
        "action": "sync",
        "caller": "web",
        "timeout_ms": 1_000,
        "deadline_ms": 5_000,
        "started_ms": 0,
    }
    return JobRecord.model_validate({**given, "lines": [line.model_dump() for line in lines], **more})


def line(node: str, state: str = "waiting", instance: str | None = None, **more: Any) -> JobLine:
    attempts = 0 if instance is None else 1
    return JobLine.model_validate({"node": node, "state": state, "instance": instance, "attempts": attempts, **more})


def report(number: int = 1, end: str | None = None, result: Any = None, **more: Any) -> JobReported:
    told = None if end is None else RunEnd.model_validate({"state": end, "result": result})
    return JobReported(number=number, end=told, **more)


def by_master(message: JobRecord, sequence: int = 1, writer: str = "master") -> Written:
    return Written(sequence, writer, None, message)


def by_node(node: str, message: JobReported, sequence: int, instance: str = "i1") -> Written:
    return Written(sequence, node, instance, message)


def folded(*written: Written) -> Job:
    found = fold("j", written)
    assert found is not None
    return found


def shown(*written: Written, after: Seen = NOTHING, wall_ms: int = 100, is_gone: bool = False) -> JobView:
    return view(folded(*written), after=after, wall_ms=wall_ms, is_gone=is_gone)


def states(one: JobView) -> dict[str, str]:
    return {told.node: str(told.state) for told in one.lines}


def test_only_a_masters_record_makes_a_job() -> None:
    assert fold("j", []) is None
    assert fold("j", [by_node("shop", report(end="succeeded"), 1)]) is None
    assert fold("j", [by_master(record(line("shop")), writer="shop")]) is None


def test_of_two_masters_records_the_one_that_began_first_counts() -> None:
    first, second = record(line("shop"), started_ms=1), record(line("blog"), started_ms=2)
    assert folded(by_master(second, 1, "master-b"), by_master(first, 2, "master-a")).master == "master-a"


def test_a_report_of_a_stranger_is_nobodys() -> None:
    one = shown(by_master(record(line("shop"))), by_node("evil", report(end="succeeded", result="forged"), 2))
    assert states(one) == {"shop": "waiting"}


def test_what_a_node_reports_is_seen_before_its_master_has_written_it_down() -> None:
    one = shown(
        by_master(record(line("blog"), line("shop", "running", "i1"))),
        by_node("blog", report(2, done=3, total=9, text="page 3"), 2),
        by_node("shop", report(1, "succeeded", {"records": 1}), 3),
    )
    assert states(one) == {"blog": "running", "shop": "succeeded"}
    assert [told.result for told in one.lines] == [None, {"records": 1}]
    assert (one.recorded, one.after, one.end, one.counts.succeeded) == (1, 3, None, 1)


def test_what_its_master_has_sealed_stays_whatever_comes_later() -> None:
    sealed = record(line("shop", "no_answer", "i1", code="out_of_budget"), end="done", took_us=7)
    one = shown(by_master(sealed), by_node("shop", report(9, "succeeded", "too late"), 2))
    assert states(one) == {"shop": "no_answer"}
    assert (one.end, one.no_answer, one.took_us) == (JobEnd.DONE, ("shop",), 7)


def test_a_result_is_that_of_the_instance_that_counts() -> None:
    sealed = record(line("shop", "succeeded", "i2"), end="done")
    one = shown(
        by_master(sealed),
        by_node("shop", report(1, "succeeded", "of i1"), 3, "i1"),
        by_node("shop", report(1, "succeeded", "of i2"), 2, "i2"),
    )
    assert one.lines[0].result == "of i2"


def test_a_reader_is_shown_what_is_new_since_he_asked() -> None:
    written = [
        by_master(record(line("blog", "running", "i1"), line("shop", "running", "i1")), 1),
        by_node("blog", report(1, done=1), 2),
        by_node("shop", report(1, done=1), 5),
    ]
    assert set(states(shown(*written))) == {"blog", "shop"}
    assert set(states(shown(*written, after=Seen(1, 2)))) == {"shop"}
    nothing = shown(*written, after=Seen(1, 5))
    assert (nothing.lines, nothing.recorded, nothing.after) == ((), 1, 5)
    assert nothing.counts.running == 2, "the counts are of all"


def test_the_numbers_of_the_two_streams_do_not_compare() -> None:
    written = [by_master(record(line("blog", "failed", "i1"), line("shop", "running", "i1")), 900)]
    first = shown(*written)
    assert (first.recorded, first.after) == (900, 0)
    later = shown(*written, by_node("shop", report(1, done=1), 3), after=Seen(900, 2))
    assert (states(later), later.recorded, later.after) == ({"shop": "running"}, 900, 3)
    sealed = by_master(record(line("blog", "failed", "i1"), line("shop", "failed", "i1"), end="done"), 901)
    assert set(states(shown(sealed, by_node("shop", report(1, done=1), 3000), after=Seen(900, 3000)))) == {
        "blog",
        "shop",
    }


def test_a_job_whose_master_is_gone_has_ended() -> None:
    written = [
        by_master(record(line("a", "running", "i1"), line("b", "running", "i1"), line("c"), aggregates={"n": "sum"})),
        by_node("a", report(1, "succeeded", {"n": 2}), 2),
    ]
    one = shown(*written, is_gone=True)
    assert states(one) == {"a": "succeeded", "b": "no_answer", "c": "skipped"}
    assert (one.end, one.no_answer, one.totals[0].value) == (JobEnd.LOST, ("b",), 2)
    again = shown(*written, after=Seen(one.recorded, one.after), is_gone=True)
    assert states(again) == {"b": "no_answer", "c": "skipped"}, "whoever has seen them running learns it, too"


def test_a_job_that_should_have_ended_long_ago_has() -> None:
    written = by_master(record(line("shop", "running", "i1")))
    assert shown(written, wall_ms=5_000 + GRACE_MS).end is None
    assert shown(written, wall_ms=5_001 + GRACE_MS).end is JobEnd.LOST


def test_more_than_a_message_holds_comes_in_parts() -> None:
    count, size = 60, 30_000
    names = [f"n{number:02}" for number in range(count)]
    written = [by_master(record(*(line(name, "running", "i1") for name in names)))]
    written += [by_node(name, report(1, "succeeded", "x" * size), 2 + at) for at, name in enumerate(names)]
    seen: list[str] = []
    after, parts = Seen(), 0
    while True:
        one = shown(*written, after=after)
        assert sum(len(told.model_dump_json()) for told in one.lines) <= ROOM + size
        assert after.is_behind(Seen(one.recorded, one.after))
        seen += [told.node for told in one.lines]
        after, parts = Seen(one.recorded, one.after), parts + 1
        if not one.is_more:
            break
    assert (sorted(seen), parts > 2) == (names, True)


def test_a_request_of_somebody_else_is_another_job() -> None:
    assert job_id("web", "r") == job_id("web", "r")
    assert len({job_id("web", "r"), job_id("web", "s"), job_id("shop", "r"), job_id("we", "b/r")}) == 4


ends = st.none() | st.sampled_from(["succeeded", "failed", "cancelled"])


@st.composite
def records(draw: st.DrawFn) -> list[Written]:
    names = draw(st.lists(st.sampled_from("abcde"), min_size=1, unique=True))
    lines = []
    for name in names:
        state = draw(st.sampled_from(list(RunState)))
        is_asked = state not in (RunState.WAITING, RunState.SKIPPED)
        lines.append(line(name, state, draw(st.sampled_from(["i1", "i2"])) if is_asked else None))
    is_over = all(one.state in FINAL for one in lines)
    written = [
        by_master(record(*lines, end="done" if is_over and draw(st.booleans()) else None), draw(st.integers(1, 9)))
    ]
    for at in range(draw(st.integers(0, 6))):
        message = report(draw(st.integers(1, 3)), draw(ends), draw(st.integers(0, 3)))
        node, instance = draw(st.sampled_from("abcdef")), draw(st.sampled_from(["i1", "i2", "i3"]))
        written.append(by_node(node, message, 10 + at, instance))
    return written


@given(records(), st.booleans(), st.randoms())
def test_the_laws_of_the_fold(written: list[Written], is_gone: bool, dice: Any) -> None:
    job = folded(*written)
    one = view(job, after=Seen(), wall_ms=0, is_gone=is_gone)
    assert [told.node for told in sorted(one.lines, key=lambda told: told.node)] == sorted(
        told.node for told in job.record.lines
    ), "each target has one line, and nobody else has one"
    assert sum(one.counts.model_dump().values()) == len(job.record.lines)
    for told in job.record.lines:
        if told.state in FINAL:
            assert states(one)[told.node] == told.state, "what is sealed stays"
    if one.end is not None:
        assert all(told.state in FINAL for told in one.lines) or job.record.end is not None
    if is_gone:
        assert one.end is not None
    shuffled = list(written)
    dice.shuffle(shuffled)
    assert fold("j", shuffled) == job, "the order of reading means nothing"
    assert Seen(one.recorded, one.after) == newest(job)


@given(records(), st.builds(Seen, st.integers(0, 20), st.integers(0, 20)))
def test_in_parts_a_reader_gets_what_he_would_at_once(written: list[Written], after: Seen) -> None:
    whole = {told.node: told for told in shown(*written).lines}
    later = shown(*written, after=after)
    assert all(whole[told.node] == told for told in later.lines)
    assert not Seen(later.recorded, later.after).is_behind(after)
