"""`antiphon saga`: begin steps that are all done or undone, watch them, and put right what needs a person."""

from __future__ import annotations

from typing import Final

from cyclopts import App

command = App(name="saga", help="Begin, watch and steer sagas: steps that are all done, or undone again.")
ELSEWHERE: Final = {
    "submit": ("antiphon.cli.sagas.submit:submit", "Begin a saga that a file says, and watch it."),
    "validate": ("antiphon.cli.sagas.validate:validate", "Say what is wrong with a saga, without beginning it."),
    "ls": ("antiphon.cli.sagas.listing:ls", "List sagas: your own, or all as an operator."),
    "show": ("antiphon.cli.sagas.show:show", "Show a saga: its steps, times, attempts, what was undone."),
    "watch": ("antiphon.cli.sagas.watch:watch", "Watch a saga until it has ended or needs a person."),
    "cancel": ("antiphon.cli.sagas.steer:cancel", "Turn a saga back: what was done is undone."),
    "pause": ("antiphon.cli.sagas.steer:pause", "Begin no more of a saga's steps until it is resumed."),
    "resume": ("antiphon.cli.sagas.steer:resume", "Go on with a paused saga."),
    "retry": ("antiphon.cli.sagas.mend:retry", "Try the step again at which a saga is parked."),
    "skip": ("antiphon.cli.sagas.mend:skip", "Go on without the step at which a saga is parked."),
    "resolve": ("antiphon.cli.sagas.mend:resolve", "Say what became of the step at which a saga is parked."),
    "abandon": ("antiphon.cli.sagas.mend:abandon", "End a saga as it stands; nothing more is done or undone."),
}
"""Loaded when they are called: `antiphon saga --help` needs no client."""
for _name, (_place, _help) in ELSEWHERE.items():
    command.command(_place, name=_name, help=_help)
