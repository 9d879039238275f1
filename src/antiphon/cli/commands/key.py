"""`antiphon key`: API keys, and the keys that sign tokens."""

from __future__ import annotations

from cyclopts import App

command = App(name="key", help="Make and revoke API keys, and rotate the keys that sign tokens.")
ELSEWHERE = {
    "create": ("antiphon.cli.identity.keys:create", "Make an API key; it is shown this once."),
    "ls": ("antiphon.cli.identity.keys:ls", "List the API keys of an identity, or of all."),
    "revoke": ("antiphon.cli.identity.keys:revoke", "Revoke API keys."),
    "rotate": ("antiphon.cli.identity.keys:rotate", "Let the next signing key sign, or expel one that has leaked."),
}
"""Loaded when they are called: `antiphon key --help` needs no client."""
for _name, (_place, _help) in ELSEWHERE.items():
    command.command(_place, name=_name, help=_help)
