"""What `antiphon monitor` does: asks all masters, shows, waits, and asks again; with leave it resets breakers."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from antiphon.cli import overview, say
from antiphon.cli.options import Connection
from antiphon.cli.safe import json_text
from antiphon.client import Client
from antiphon.errors import AntiphonError, InvalidSetting
from antiphon.messages.monitor import MonitorView
from antiphon.runtime.loop import run

Show = Callable[[MonitorView, Mapping[str, float]], None]
"""Shows a view, and which masters are silent for how many seconds."""

INTERVAL_S_MIN = 0.1
PING_MS = 500
FORGET_S = 900.0
"""A master that has been silent for so long has stopped."""
AGAIN_S = 30.0
"""A breaker that opens again within this of its reset is left to its own probes: its instance answers pings only."""


def watch(at: Connection, *, once: bool, interval_s: float, is_recovering: bool, output: str) -> int:
    """Show how everything is; returns after the first look, or never."""
    if not interval_s >= INTERVAL_S_MIN:
        raise InvalidSetting(f"--interval: at least {INTERVAL_S_MIN} s")
    run(_watch(at, once=once, interval_s=interval_s, is_recovering=is_recovering, output=output))
    return 0


async def _watch(at: Connection, *, once: bool, interval_s: float, is_recovering: bool, output: str) -> None:
    recovery = Recovery() if is_recovering else None
    async with Client(**at.place()) as client:
        view: MonitorView | None = await client.monitor()
        shown, show = _display(output, is_live=not once)
        masters = Masters()
        with shown:
            while True:
                if view is not None:
                    show(view, masters.look(view.masters, time.monotonic()))
                if recovery is not None and view is not None:
                    await recovery.look(client, view)
                if once:
                    return
                await asyncio.sleep(interval_s)
                view = await _again(client)


async def _again(client: Client) -> MonitorView | None:
    try:
        return await client.monitor()
    except AntiphonError as error:
        say(f"antiphon: {error.code}: {error.text}")
        return None


class Masters:
    """Which masters have answered before and do not now: nobody else knows of them, for they do not know each other."""

    def __init__(self) -> None:
        self._seen: dict[str, float] = {}

    def look(self, answered: Sequence[str], now: float) -> dict[str, float]:
        """Note who has answered, and return who has not, and for how many seconds."""
        self._seen |= dict.fromkeys(answered, now)
        self._seen = {name: at for name, at in self._seen.items() if now - at < FORGET_S}
        return {name: now - at for name, at in sorted(self._seen.items()) if at < now}


class Recovery:
    """Resets breakers that opened by themselves and whose instance answers pings."""

    def __init__(self) -> None:
        self._reset_at: dict[tuple[str, str, str], float] = {}

    async def look(self, client: Client, view: MonitorView) -> None:
        """Reset what may be reset, and say so."""
        if all(node.breaker == "closed" for node in view.nodes):
            return
        try:
            await self._reset(client)
        except AntiphonError as error:
            say(f"auto-recover: {error.code}: {error.text}")

    async def _reset(self, client: Client) -> None:
        now = time.monotonic()
        listing = await client.breakers()
        shut = {
            (one.node, one.instance, one.verb)
            for one in listing.breakers
            if one.state == "open" and one.holds_ms is not None  # by hand it is held for a reason
        }
        due = sorted(key for key in shut if now - self._reset_at.get(key, -AGAIN_S) >= AGAIN_S)
        if not due:
            return
        answer = await client.ping(*sorted({node for node, _, _ in due}), wait_ms=PING_MS)
        well = {(one.node, one.instance) for one in answer.lines if one.rtt_us is not None}
        for key in due:
            node, instance, verb = key
            if (node, instance) in well:
                await client.breaker("reset", node, instance, verb=verb)
                self._reset_at[key] = now
                say(f"auto-recover: {node}/{instance} answers pings: its breaker for {verb} was reset")


def _display(output: str, *, is_live: bool) -> tuple[AbstractContextManager[Any], Show]:
    """Return what is open while it is shown, and how to show."""
    if output == "json":
        return nullcontext(), _json
    if not sys.stdout.isatty():
        return nullcontext(), _plain
    from rich.console import Console  # noqa: PLC0415 - for people only

    console = Console(highlight=False)
    if not is_live:
        return nullcontext(), lambda view, silent: _once(console, view, silent)
    from rich.live import Live  # noqa: PLC0415 - as above

    live = Live(console=console, auto_refresh=False)
    return live, lambda view, silent: live.update(overview.screen(view, *console.size, silent), refresh=True)


def _json(view: MonitorView, _silent: Mapping[str, float]) -> None:
    print(json_text(view.model_dump_json()), flush=True)


def _plain(view: MonitorView, silent: Mapping[str, float]) -> None:
    for node in view.nodes:
        print("\t".join(overview.row(node)))
    sys.stdout.flush()
    _say_footer(view, silent)


def _once(console: Any, view: MonitorView, silent: Mapping[str, float]) -> None:
    console.print(overview.table(view, console.width))
    _say_footer(view, silent)


def _say_footer(view: MonitorView, silent: Mapping[str, float]) -> None:
    for text in overview.footer(view, silent):
        say(text)
