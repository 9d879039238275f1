"""The demo's own process: the embedded server, the master, the questions, and a clean end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from antiphon.app import embedded, recorder_beside
from antiphon.cli import say
from antiphon.cli.demo import screen
from antiphon.cli.demo.fleet import Fleet
from antiphon.cli.demo.timing import Timing
from antiphon.cli.safe import json_text
from antiphon.cli.serving import told_by_signals
from antiphon.client import Client
from antiphon.messages.search import SearchAnswer
from antiphon.settings import Settings

HITS = 3
"""Of each of the demo's own questions: three of them fit on a screen."""
HITS_OF_ONE = 10
JOIN_MS_MAX = 60_000


class Stage:
    """One run of the demo."""

    def __init__(self, fleet: Fleet, data: Path, option: str, timing: Timing, log_file: Path) -> None:
        self.fleet = fleet
        self.data = data
        self.option = option
        self.timing = timing
        self.log_file = log_file
        self.told = asyncio.Event()

    async def run(self, questions: Sequence[str], *, once: bool, is_json: bool) -> None:
        """Start everything, ask, and stay up unless `once`."""
        self.told = told_by_signals()
        settings = Settings.read()
        async with embedded(self.data, settings) as (server, role):
            self.timing.mark("master")

            async def stays_up() -> None:
                if settings.record:  # behind the answers: it would take its share of the processors from them
                    await role.supervisor.start("recorder", lambda: recorder_beside(server, self.log_file))

            serving = asyncio.ensure_future(role.run())
            try:
                playing = asyncio.ensure_future(
                    self._play(server.url, questions, None if once else stays_up, is_json=is_json)
                )
                waiting = asyncio.ensure_future(self.told.wait())
                await asyncio.wait({playing, waiting, serving}, return_when=asyncio.FIRST_COMPLETED)
                for one in (playing, serving):
                    if one.done():
                        one.result()
                waiting.cancel()
                playing.cancel()
            finally:
                await asyncio.to_thread(self.fleet.stop)
                role.supervisor.stop()
                await serving

    async def _play(
        self, url: str, questions: Sequence[str], stays_up: Callable[[], Awaitable[None]] | None, *, is_json: bool
    ) -> None:
        await self._gather_nodes()
        if not is_json:
            say(screen.ready(self.fleet, self.timing))
        answers: list[SearchAnswer] = []
        async with Client(data=self.data) as client:
            for question in questions:
                answer = await client.search(question, limit=HITS if len(questions) > 1 else HITS_OF_ONE)
                if not answers:
                    self.timing.mark("first_answer")
                answers.append(answer)
                if not is_json:
                    screen.answered(question, answer)
        if is_json:
            print(json_text(self._document(answers)), flush=True)
        else:
            say(f"\nfirst answer {screen.seconds(self.timing.marks['first_answer'])} after the command")
        if stays_up is not None:
            await stays_up()
            if not is_json:
                screen.goodbye(self.option, url)
            await self.told.wait()

    async def _gather_nodes(self) -> None:
        progress = screen.Progress(self.fleet)

        def changed() -> None:
            progress.draw()
            if "indexed" not in self.timing.marks and all(one.indexed_ms is not None for one in self.fleet.processes):
                self.timing.mark("indexed")

        progress.draw()
        self.fleet.changed = changed
        self.fleet.invite(self.data)
        try:
            async with asyncio.timeout(JOIN_MS_MAX / 1_000):
                await self.fleet.joined()
        finally:
            progress.clear()
        self.timing.mark("joined")

    def _document(self, answers: Sequence[SearchAnswer]) -> str:
        import orjson  # noqa: PLC0415 - for this form only

        nodes = [
            {"node": one.part.node, "instance": one.part.instance, "documents": one.entries, "index_ms": one.indexed_ms}
            for one in self.fleet.processes
        ]
        return orjson.dumps(
            {
                "answers": [answer.model_dump(mode="json") for answer in answers],
                "nodes": nodes,
                "since_start_ms": self.timing.marks,
            }
        ).decode()
