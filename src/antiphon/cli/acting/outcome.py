"""A job on its way to stdout: who did what, who failed and why, what it comes to; and the exit code that follows."""

from __future__ import annotations

import json
import sys

from antiphon.cli import say
from antiphon.cli.exits import Exit
from antiphon.cli.safe import json_text, line
from antiphon.cli.show import duration
from antiphon.jobs import JobResult
from antiphon.messages.actions import Aggregation, JobEnd, JobLine, JobTotal, JobView, RunState

COLUMNS = ("node", "state", "took", "result")
STYLES = {
    RunState.SUCCEEDED: "green",
    RunState.FAILED: "red",
    RunState.NO_ANSWER: "red",
    RunState.CANCELLED: "yellow",
    RunState.SKIPPED: "yellow",
    RunState.RUNNING: "cyan",
    RunState.WAITING: "dim",
}
WORST_FIRST = (RunState.SUCCEEDED, RunState.SKIPPED, RunState.CANCELLED, RunState.FAILED, RunState.NO_ANSWER)
"""What stands last is next to the prompt, where it is seen."""
BUCKETS_SHOWN = 8
ENDS = {
    JobEnd.STOPPED: "too many failed",
    JobEnd.DEADLINE: "its deadline passed",
    JobEnd.LOST: "the master that ran it is gone",
}


def written(result: JobResult, output: str) -> int:
    """Write what became of a job to stdout and a summary to stderr, and return the exit code."""
    if output == "json":
        print(json_text(document(result)))
    elif output == "table":
        if sys.stdout.isatty():
            _table(result)
        else:
            for one in ordered(result):
                print("\t".join(row(one)))
    sys.stdout.flush()
    for text in summary(result.view):
        say(text)
    return code(result.view)


def document(result: JobResult) -> str:
    """Return a job as one JSON object."""
    whole = _told(result)
    whole["lines"] = [json.loads(one.model_dump_json(exclude_none=True)) for one in result.lines]
    return json.dumps(whole, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None)


def ending(result: JobResult) -> str:
    """Return the end of a job as one JSON object on one line, without what its nodes have said."""
    return json.dumps(_told(result), ensure_ascii=False)


def ordered(result: JobResult) -> list[JobLine]:
    """Return the lines by name, the worst last."""
    order = {state: at for at, state in enumerate(WORST_FIRST)}
    return sorted(result.lines, key=lambda one: (order.get(one.state, -1), one.node))


def row(one: JobLine) -> tuple[str, ...]:
    """Return what is shown of a node, in the order of `COLUMNS`."""
    return (one.node, str(one.state), duration(one.took_us) if one.took_us else "-", what(one))


def what(one: JobLine) -> str:
    """Return what came of a node, or how far it is."""
    if one.state is RunState.SUCCEEDED:
        return line(json.dumps(one.result, ensure_ascii=False, separators=(", ", ": ")))
    if one.state is RunState.RUNNING:
        far = f"{one.done}/{one.total} " if one.total else ""
        return line(far + (one.text or ""))
    told = " ".join(filter(None, (f"{one.code}:" if one.code else "", one.text or "")))
    more = f" (asked {one.attempts} times)" if one.attempts > 1 else ""
    return line(told + more) or "-"


def summary(view: JobView) -> list[str]:
    """Return a few lines on how a job ended: how many did it, who did not, what it comes to."""
    counts = view.counts
    every = counts.succeeded + counts.failed + counts.no_answer + counts.skipped + counts.cancelled
    every += counts.waiting + counts.running
    parts = [f"{counts.succeeded}/{every} nodes in {duration(view.took_us)}"]
    bad = ("failed", "no_answer", "skipped", "cancelled")
    parts += [f"{number} {name.replace('_', ' ')}" for name in bad if (number := getattr(counts, name))]
    if view.dry_run:
        parts.append("a dry run: nothing was done")
    texts = ["; ".join([*parts, f"job {view.job}"])]
    if view.no_answer:
        texts.append(f"no answer from: {', '.join(view.no_answer)}; they may have done it")
    if view.not_allowed:
        texts.append(f"not allowed on: {', '.join(view.not_allowed)}")
    if view.end is not None and view.end is not JobEnd.DONE:
        by = f" by {view.by}" if view.by else ""
        texts.append(f"the job ended early: {ENDS.get(view.end, view.end)}{by}")
    return texts + [total(one) for one in view.totals if one.count]


def total(one: JobTotal) -> str:
    """Return one aggregate in words."""
    name = line(one.field)
    if one.kind is Aggregation.HISTOGRAM:
        shown = [f"{line(str(bucket.value))}: {bucket.count}" for bucket in one.buckets[:BUCKETS_SHOWN]]
        others = one.others + sum(bucket.count for bucket in one.buckets[BUCKETS_SHOWN:])
        return f"{name}: {', '.join(shown)}" + (f", others: {others}" if others else "")
    value = f"{one.value:.6g}" if isinstance(one.value, float) else str(one.value)
    return f"{one.kind} of {name}: {value} (of {one.count} node{'' if one.count == 1 else 's'})"


def code(view: JobView) -> Exit:
    """Return the exit code of a job."""
    counts = view.counts
    if counts.succeeded:
        rest = counts.failed + counts.no_answer + counts.skipped + counts.cancelled + counts.waiting + counts.running
        return Exit.PARTIAL if rest else Exit.DONE
    return Exit.FAILED if counts.failed or counts.cancelled else Exit.NOBODY


def _told(result: JobResult) -> dict[str, object]:
    whole: dict[str, object] = json.loads(result.view.model_dump_json(exclude_none=True))
    for name in ("lines", "after", "is_more"):
        whole.pop(name, None)
    return whole


def _table(result: JobResult) -> None:
    from rich.console import Console  # noqa: PLC0415 - for people only
    from rich.table import Table  # noqa: PLC0415 - rich, for people only
    from rich.text import Text  # noqa: PLC0415 - rich, too

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in COLUMNS:
        table.add_column(column, no_wrap=column != "result", justify="right" if column == "took" else "left")
    for one in ordered(result):
        name, state, took, text = row(one)
        table.add_row(Text(name, "bold"), Text(state, STYLES[one.state]), took, Text(text, overflow="fold"))
    Console(highlight=False).print(table)
