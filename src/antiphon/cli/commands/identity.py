"""`antiphon identity`: who there is, what they hold, shutting them out and letting them in."""

from __future__ import annotations

from cyclopts import App

command = App(name="identity", help="See who there is, and shut identities out or let them in.")
ELSEWHERE = {
    "ls": ("antiphon.cli.identity.entries:ls", "List the identities."),
    "show": ("antiphon.cli.identity.entries:show", "Show an identity and what it holds."),
    "create": ("antiphon.cli.identity.entries:create", "Make an identity."),
    "update": ("antiphon.cli.identity.entries:update", "Change what an identity belongs to and may do."),
    "suspend": ("antiphon.cli.identity.steer:suspend", "Shut identities out until they are resumed."),
    "resume": ("antiphon.cli.identity.steer:resume", "Let suspended identities in again."),
    "revoke": ("antiphon.cli.identity.steer:revoke", "Make what identities hold worthless, or one credential."),
}
"""Loaded when they are called: `antiphon identity --help` needs no client."""
for _name, (_place, _help) in ELSEWHERE.items():
    command.command(_place, name=_name, help=_help)
