"""`antiphon identity suspend`, `resume` and `revoke`: shut out for a while, let in again, make worthless."""

from __future__ import annotations

import json
import sys
from typing import Annotated

from cyclopts import Group, Parameter

from antiphon.cli import say
from antiphon.cli.identity.asking import at_desk
from antiphon.cli.identity.entries import show_entries
from antiphon.cli.nodes.asking import Output, is_confirmed
from antiphon.cli.options import Connection, listed
from antiphon.cli.safe import json_text
from antiphon.errors import InvalidSetting
from antiphon.identity.desk import Desk
from antiphon.messages.identities import IdentityEntry

ONE = Group("One credential", sort_key=20)
Ids = Annotated[tuple[str, ...], Parameter(group=ONE)]


def suspend(*names: str, output: Output = "table", at: Connection = Connection()) -> int:  # noqa: B008 - frozen
    """Shut identities out until they are resumed, and end their connections; what they hold stays good for later.

    Args:
        names: the identities.
        output: how to write them to stdout.
        at: where the server is.
    """
    return _ordered(names, "suspend", output, at)


def resume(*names: str, output: Output = "table", at: Connection = Connection()) -> int:  # noqa: B008 - frozen
    """Let suspended identities in again, with what they hold.

    Args:
        names: the identities.
        output: how to write them to stdout.
        at: where the server is.
    """
    return _ordered(names, "resume", output, at)


def revoke(
    *names: str,
    token: Ids = (),
    family: Ids = (),
    key: Ids = (),
    invite: Ids = (),
    yes: bool = False,
    output: Output = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """Make everything worthless that identities hold, or one credential; connections that live by it are ended.

    The identities stay: a new key or invite lets them in again. `antiphon identity show NAME` lists the ids.

    Args:
        names: the identities.
        token: access tokens by their jti; whoever has one gets the next by what it was bought with.
        family: refresh tokens of an instance, by their id.
        key: API keys by their id.
        invite: invites by their id.
        yes: ask nothing.
        output: how to write what was revoked to stdout.
        at: where the server is.
    """
    given = {"token": token, "family": family, "key": key, "invite": invite}
    credentials = [(what, serial) for what, serials in given.items() for serial in listed(serials)]
    if not names and not credentials:
        raise InvalidSetting("name identities, or a credential by --token, --family, --key or --invite")
    if names and not is_confirmed(f"revoke everything that {', '.join(names)} holds?", yes=yes):
        say("nothing was revoked")
        return 1
    entries = at_desk(at, lambda desk: _revoke(desk, names, credentials))
    _show_revoked(entries, credentials, output)
    return 0


async def _revoke(desk: Desk, names: tuple[str, ...], credentials: list[tuple[str, str]]) -> list[IdentityEntry]:
    entries = [await desk.order(name, "revoke") for name in names]
    for what, serial in credentials:
        await desk.revoke(what, serial)
    return entries


def _show_revoked(entries: list[IdentityEntry], credentials: list[tuple[str, str]], output: str) -> None:
    if output == "json":
        rows = [{"what": "identity", "id": entry.name} for entry in entries]
        rows += [{"what": what, "id": serial} for what, serial in credentials]
        print(json_text(json.dumps(rows)))
    else:
        for entry in entries:
            print(f"identity\t{entry.name}\trevoked")
        for what, serial in credentials:
            print(f"{what}\t{serial}\trevoked")
    sys.stdout.flush()


def _ordered(names: tuple[str, ...], order: str, output: str, at: Connection) -> int:
    if not names:
        raise InvalidSetting("name at least one identity: `antiphon identity ls` lists them")

    async def ask(desk: Desk) -> list[IdentityEntry]:
        if order == "suspend" and (own := (await desk.whoami()).name) in names:
            say(f"{own!r} is you: only another operator, or the next start of `antiphon up` here, lets you in again")
            if not is_confirmed("suspend yourself?", yes=False):
                raise InvalidSetting("nobody was suspended")
        return [await desk.order(name, order) for name in names]

    show_entries(at_desk(at, ask), output)
    return 0
