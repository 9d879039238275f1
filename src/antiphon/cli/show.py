"""An answer on its way to stdout: for people as a table or as plain text, for programs as JSON, JSON lines or CSV."""

from __future__ import annotations

import os
import sys

from antiphon.cli import say
from antiphon.cli.safe import json_text, line
from antiphon.messages.hit import RankedHit
from antiphon.messages.search import NodeLine, Outcome, SearchAnswer

SILENT = {
    Outcome.TIMED_OUT: "timed out",
    Outcome.FAILED: "failed",
    Outcome.SKIPPED: "skipped",
}
CSV_COLUMNS = ("rank", "score", "node", "id", "title", "url", "snippet", "also")


def answer(answer: SearchAnswer, output: str, *, is_paged: bool = True) -> None:
    """Write an answer in one of the forms table, json, jsonl, csv; `is_paged` tells how to see the next page."""
    if output == "json":
        print(json_text(answer.model_dump_json(indent=2 if sys.stdout.isatty() else None)))
        return
    if output == "jsonl":
        for hit in answer.hits:
            print(json_text(hit.model_dump_json()))
    elif output == "csv":
        _csv(answer)
    elif sys.stdout.isatty():
        from antiphon.cli import table  # noqa: PLC0415 - rich, for people only

        table.show(answer)
    else:
        _plain(answer)
    sys.stdout.flush()  # before what is said about it, where both go to one terminal
    say(footer(answer))
    if is_paged and answer.next:
        say(f"next page: antiphon search --cursor {answer.next}")


def footer(answer: SearchAnswer) -> str:
    """Return who answered, how fast, how many hits there are, and who did not answer."""
    coverage, missing = answer.coverage, [one for one in answer.nodes if one.outcome in SILENT]
    parts = [f"{coverage.answered}/{coverage.expected} nodes in {duration(answer.took_us)}", _hits(answer)]
    if not coverage.expected:
        return "no node has joined that can search: `antiphon node serve folder ./docs` makes one"
    if missing:
        parts.append("no answer: " + ", ".join(f"{one.node} ({_why(one)})" for one in missing))
    parts += [line(reason) for reason in coverage.degraded]
    return "; ".join(part for part in parts if part)


def has_colour() -> bool:
    """Whether colours are wanted on a terminal (https://no-color.org)."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def duration(took_us: int) -> str:
    """Return a duration as people read it."""
    return f"{took_us / 1_000:.1f} ms" if took_us < 10_000 else f"{took_us / 1_000:.0f} ms"  # noqa: PLR2004 - digits


def also(hit: RankedHit) -> str:
    """Return where else a hit was found, or nothing."""
    names = dict.fromkeys(source.node for source in hit.also if source.node != hit.node)
    return f"also in {', '.join(names)}" if names else ""


def explained(hit: RankedHit) -> str:
    """Return how a hit's score came about, on one line."""
    return line(" ".join(f"{key}={_number(value)}" for key, value in (hit.explain or {}).items()))


def _hits(answer: SearchAnswer) -> str:
    shown = f", {answer.offset + 1}-{answer.offset + len(answer.hits)} shown" if len(answer.hits) < answer.total else ""
    return f"{answer.total} hit{'' if answer.total == 1 else 's'}{shown if answer.hits else ''}"


def _why(node: NodeLine) -> str:
    is_told = node.outcome is not Outcome.TIMED_OUT and node.code
    return f"{SILENT[node.outcome]}: {node.code}" if is_told else SILENT[node.outcome]


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _csv(answer: SearchAnswer) -> None:
    import csv  # noqa: PLC0415 - for this form only

    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(CSV_COLUMNS)
    for hit in answer.hits:
        names = " ".join(source.node for source in hit.also)
        texts = (hit.id, hit.title, hit.doc.url or "", hit.doc.snippet or "")
        rows.writerow((hit.rank, f"{hit.score:.6g}", hit.node, *map(line, texts), names))


def _plain(answer: SearchAnswer) -> None:
    """Write text without colour that a program may cut at line ends: nothing is wrapped."""
    for hit in answer.hits:
        places = "; ".join(filter(None, (hit.node, also(hit))))
        print(f"{hit.rank}. {line(hit.title)}  [{places}]  {hit.score:.4g}")
        for text in (hit.doc.snippet, hit.doc.url):
            if text:
                print(f"   {line(text)}")
        if hit.explain:
            print(f"   {explained(hit)}")
