"""`antiphon action run NAME`: on one node, several or all; with a bar while it runs, and a summary of who failed."""

from __future__ import annotations

import re
import secrets
import sys
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from antiphon.cli import duration, say
from antiphon.cli.acting import params
from antiphon.cli.acting.follow import Form, follow
from antiphon.cli.nodes.asking import is_confirmed
from antiphon.cli.options import Connection, listed
from antiphon.client import Client
from antiphon.errors import InvalidSetting, Unconfirmed, UnknownAction
from antiphon.jobs import Job
from antiphon.runtime.loop import run

WHERE = Group("Where", sort_key=10)
WITH = Group("With what", sort_key=20)
HOW = Group("In which order", sort_key=30)

SEED_MAX = 10**6
_AMOUNT = re.compile(r"[1-9][0-9]{0,5}%?")

Whole = Annotated[int | None, Parameter(group=HOW, validator=Number(gte=1, lte=1_000))]


def run_action(
    name: str,
    /,
    *,
    node: Annotated[tuple[str, ...], Parameter(group=WHERE)] = (),
    all: Annotated[bool, Parameter(group=WHERE)] = False,  # noqa: A002 - the option's name
    where: Annotated[str | None, Parameter(group=WHERE)] = None,
    topic: Annotated[str | None, Parameter(group=WHERE)] = None,
    capability: Annotated[str | None, Parameter(group=WHERE)] = None,
    match: Annotated[str | None, Parameter(group=WHERE)] = None,
    param: Annotated[tuple[str, ...], Parameter(group=WITH)] = (),
    json_params: Annotated[str | None, Parameter(group=WITH, allow_leading_hyphen=True)] = None,
    parallel: Whole = None,
    batch: Whole = None,
    canary: Annotated[bool, Parameter(group=HOW)] = False,
    stop_after: Annotated[str | None, Parameter(group=HOW)] = None,
    limit: Annotated[str | None, Parameter(group=HOW)] = None,
    seed: Annotated[int | None, Parameter(group=HOW, validator=Number(gte=0))] = None,
    timeout: str = "30s",
    deadline: str | None = None,
    dry_run: bool = False,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"])] = False,
    detach: bool = False,
    output: Annotated[Literal["table", "json", "jsonl"], Parameter(name=["--output", "-o"])] = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """Run an action on one node, several or all, and watch it.

    Exit codes: 0 all nodes did it, 1 none did, 2 usage, 3 some did not, 4 nobody could be asked or has answered,
    7 no connection, 8 not allowed, 130 ended by Ctrl-C: then the job goes on.

    Args:
        name: the action's name.
        node: on these, repeated or separated by commas.
        all: on every node that has it.
        where: on nodes whose metadata holds, such as region=eu, tier!=test.
        topic: on nodes about this.
        capability: on nodes that can do this, too.
        match: on nodes whose name matches this glob, such as shop-*.
        param: name=value; text where the action takes text, else JSON.
        json_params: all params as one JSON object, @FILE or - for stdin.
        parallel: nodes at once, 32 unless set; 1 is one after the other.
        batch: so many nodes have to end before the next ones begin.
        canary: first one node, then 10 %, then the rest; stops at the first failure unless --stop-after says more.
        stop_after: so many failures, 5 or 10%, and nobody more is asked.
        limit: only so many of the nodes, 5 or 10%, drawn by --seed.
        seed: the same seed draws the same nodes.
        timeout: how long each node may take, such as 90s or 10min.
        deadline: how long the whole job may take; default: as long as its nodes may.
        dry_run: have it said what would be done; nothing is.
        yes: do not ask before something destructive; needed where there is no terminal to ask at.
        detach: return once it is accepted, with the job's id on stdout.
        output: how to write what became of it to stdout; jsonl writes each change as it comes.
        at: where the server is.
    """
    at.configure_logs("error")
    names = listed(node)
    if not (names or all or where or topic or capability or match):
        raise InvalidSetting("say where: --node NAME, --all, --where, --topic, --capability or --match")
    if names and all:
        raise InvalidSetting("--node and --all exclude each other")
    how: dict[str, Any] = {
        "nodes": names or None,
        "everywhere": all or None,
        "where": where,
        "topic": topic,
        "capability": capability,
        "name": match,
        "parallel": parallel,
        "batch": batch,
        "canary": canary or None,
        "stop_after": _amount(stop_after, "--stop-after"),
        "limit": _amount(limit, "--limit"),
        "seed": secrets.randbelow(SEED_MAX) if limit and seed is None else seed,
        "timeout_ms": duration.parse(timeout, "--timeout"),
        "deadline_ms": None if deadline is None else duration.parse(deadline, "--deadline"),
        "dry_run": dry_run or None,
        "confirmed": yes or None,
    }
    given = {key: value for key, value in how.items() if value is not None}

    async def running() -> int:
        async with Client(**at.place()) as client:
            entries = await client.actions(action=name)
            if not entries:
                raise UnknownAction(f"no node has an action {name!r} that you may run; `antiphon action ls` lists them")
            typed = params.read(param, json_params, entries[0].contract.params)
            job = await _begun(client, name, typed, given)
            if limit and seed is None:
                say(f"the nodes are drawn by --seed {given['seed']}, which draws them again")
            if detach:
                print(job.id, flush=True)
                say(f"`antiphon action attach {job.id}` follows it")
                return 0
            return await follow(job, Form(output))

    return run(running())


def _amount(text: str | None, option: str) -> str | None:
    if text is not None and not _AMOUNT.fullmatch(text):
        raise InvalidSetting(f"{option} {text[:40]!r}: write so many nodes, such as 5, or a share of them, such as 10%")
    return text


async def _begun(client: Client, name: str, typed: dict[str, Any], given: dict[str, Any]) -> Job:
    try:
        return await client.run(name, typed, **given)
    except Unconfirmed as error:
        if not sys.stdin.isatty():
            raise Unconfirmed(f"{error.text}; add --yes, or try it with --dry-run") from None
        if not is_confirmed(f"{error.text}. Go on?", yes=False):
            raise Unconfirmed("nothing was done") from None
    return await client.run(name, typed, **given, confirmed=True)
