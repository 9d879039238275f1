"""`antiphon action`: see what nodes can do, run it on one, several or all, and follow it."""

from __future__ import annotations

from typing import Final

from cyclopts import App

command = App(name="action", help="See what nodes can do, run it on one, several or all, and follow it.")
ELSEWHERE: Final = {
    "ls": ("antiphon.cli.acting.listing:ls", "List the actions that you may run."),
    "show": ("antiphon.cli.acting.listing:show", "Show what an action takes, returns and does."),
    "run": ("antiphon.cli.acting.run:run_action", "Run an action on one node, several or all, and watch it."),
    "attach": ("antiphon.cli.acting.attach:attach", "Watch a job again, from any terminal, for a day."),
    "cancel": ("antiphon.cli.acting.attach:cancel", "Cancel a job: ask nobody more, cut off what runs."),
}
"""Loaded when they are called: `antiphon action --help` needs no client."""
for _name, (_place, _help) in ELSEWHERE.items():
    command.command(_place, name=_name, help=_help)
