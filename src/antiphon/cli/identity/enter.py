"""`antiphon login`, by which a secret from stdin becomes a credential file, and `antiphon whoami`."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path
from typing import Any

from antiphon.bus.connect import prefix_of
from antiphon.cli import say
from antiphon.cli.identity.asking import print_table
from antiphon.cli.listing import since
from antiphon.cli.nodes.asking import asked
from antiphon.cli.options import Connection
from antiphon.cli.safe import json_text, line
from antiphon.client import Client, user_name
from antiphon.errors import InvalidSetting, Malformed
from antiphon.identity.connect import NAME_VARIABLE, TOKEN_VARIABLE, credential_of, session_of
from antiphon.identity.desk import Desk
from antiphon.identity.keypair import KeyPair, Role
from antiphon.identity.login import LoggedIn, log_in
from antiphon.identity.private import read_private
from antiphon.identity.session import Place
from antiphon.messages.base import Kind
from antiphon.messages.tokens import WhoIs
from antiphon.runtime.loop import run
from antiphon.subjects import token

TOKEN_CHARS_MAX = 1_000


def login(at: Connection, *, name: str | None, kind: str, instance: str | None, seed: Path | None, output: str) -> int:
    """Log in with what stdin or the environment says."""
    at.configure_logs("error")
    secret = _secret()
    who = token(name or os.environ.get(NAME_VARIABLE) or user_name())
    which = None if kind != Kind.NODE else token(instance or secrets.token_hex(4))
    place = Place(at.endpoint(), prefix_of(None), who, Kind(kind), which)
    made = run(log_in(place, secret, at.home(), None if seed is None else _key(seed)))
    _show_login(made, output)
    return 0


def whoami(at: Connection, output: str) -> int:
    """Ask the masters, and say what this process logged in with."""
    who, own = asked(at, lambda client: _who(client, at))
    if output == "json":
        print(_json({**who.model_dump(mode="json"), "credential": own}))
        return 0
    rows = [
        ("name", who.name),
        ("kind", str(who.kind) if who.kind else "not known"),
        ("groups", line(", ".join(who.groups)) or "-"),
        ("delegate", "yes" if who.is_delegate else "no"),
        ("mode", who.mode),
        ("master", who.master),
        ("credential", own["file"] or own["source"]),
        ("token", f"good for {since(own['expires_in_ms'])}, renewed by itself" if own["expires_in_ms"] else "none"),
    ]
    print_table(("", ""), rows, {})
    return 0


async def _who(client: Client, at: Connection) -> tuple[WhoIs, dict[str, Any]]:
    who = await Desk(client.bus).whoami()
    session = session_of(client.bus)
    source, file = credential_of(client.name, at.endpoint(), at.where()["data"], at.credentials)
    return who, {
        "source": source,
        "file": str(file) if file else None,
        "expires_in_ms": session.expires_in_ms if session else 0,
    }


def _show_login(made: LoggedIn, output: str) -> None:
    grant = made.grant
    if output == "json":
        shown = {
            "name": grant.name,
            "kind": str(grant.kind),
            "instance": grant.instance,
            "groups": list(grant.groups),
            "file": str(made.file),
        }
        print(_json(shown))
    else:
        print(made.file)
    sys.stdout.flush()
    if grant.kind is Kind.NODE:
        place = f"instance {grant.instance} of {grant.name}"
        say(f"this machine is {place} now: `antiphon node serve folder ./docs --name {grant.name}`")
    else:
        say(f"commands on this machine ask as {grant.name} now, a{'n' if grant.kind[0] in 'ao' else ''} {grant.kind}")


def _key(seed: Path) -> KeyPair:
    try:
        return KeyPair.load(read_private(seed).strip(), Role.USER)
    except (FileNotFoundError, Malformed):
        raise InvalidSetting(f"{seed} holds no nkey of a user (SU...)") from None


def _secret() -> str:
    """Return the secret, which is never an argument: those are in the list of processes and in the shell's history."""
    given = os.environ.get(TOKEN_VARIABLE)
    if given:
        return given.strip()
    if sys.stdin.isatty():
        import getpass  # noqa: PLC0415 - for people only

        text = getpass.getpass("API key or join token: ", stream=sys.stderr)
    else:
        text = sys.stdin.read(TOKEN_CHARS_MAX)
    if not text.strip():
        raise InvalidSetting(f"give an API key or a join token on stdin, or in ${TOKEN_VARIABLE}")
    return text.strip()


def _json(value: dict[str, Any]) -> str:
    import json  # noqa: PLC0415 - for this form only

    return json_text(json.dumps(value))
