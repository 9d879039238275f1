"""`antiphon key` and `antiphon node invite`: secrets that are made and shown once, and the keys that sign tokens.

A secret goes to stdout, alone, so that it can be piped to where it belongs; how to use it goes to stderr.
"""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from antiphon.cli import duration, say
from antiphon.cli.identity.asking import at_desk, print_json, print_table, when
from antiphon.cli.identity.entries import STYLES, credential_rows
from antiphon.cli.nodes.asking import Output
from antiphon.cli.options import Connection
from antiphon.cli.safe import json_text
from antiphon.errors import InvalidSetting
from antiphon.identity.desk import Desk
from antiphon.messages.identities import IdentityDetail, KeyLine


def create(
    identity: str,
    /,
    *,
    label: str = "",
    keep: str | None = None,
    nkey: str | None = None,
    output: Output = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """Make an API key. It is shown this once; masters keep a keyed hash of it alone.

    Args:
        identity: whose; `antiphon identity create` makes one.
        label: what it is for, for people.
        keep: how long it is good, such as 12h, 30d or 4w; default: until it is revoked.
        nkey: the only nkey (U...) that may use it.
        output: how to write the key to stdout; table is the key and nothing else.
        at: where the server is.
    """
    keep_ms = None if keep is None else duration.parse(keep, "--keep")
    made = at_desk(at, lambda desk: desk.create_key(identity, label=label, keep_ms=keep_ms, nkey=nkey))
    print(json_text(made.model_dump_json()) if output == "json" else made.key)
    sys.stdout.flush()
    say(f"this key ({made.id}) is shown once; it is good {_until(made.expires_ms)}")
    say(f"use it: antiphon login --name {identity}   (it reads the key from stdin, or from $ANTIPHON_TOKEN)")
    return 0


def ls(
    identity: str | None = None,
    /,
    *,
    output: Output = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """List the API keys of an identity, or of all; never their secrets, which nobody has.

    Args:
        identity: only this one's.
        output: how to write the list to stdout.
        at: where the server is.
    """

    async def ask(desk: Desk) -> list[IdentityDetail]:
        names = [identity] if identity is not None else [one.name for one in await desk.identities()]
        return [await desk.get(name) for name in names]

    details = at_desk(at, ask)
    keys: list[KeyLine] = [key for detail in details for key in detail.keys]
    if output == "json":
        print_json(keys)
        return 0
    rows = [
        (detail.identity.name, *row[1:]) for detail in details for row in credential_rows(detail) if row[0] == "key"
    ]
    print_table(("identity", "id", "status", "made", "ends", "label"), rows, STYLES)
    if not rows:
        say("there is no API key: `antiphon key create NAME` makes one")
    return 0


def revoke(*ids: str, output: Output = "table", at: Connection = Connection()) -> int:  # noqa: B008 - frozen
    """Revoke API keys; connections that live by them are ended.

    Args:
        ids: their ids, which `antiphon key ls` lists.
        output: how to write what was revoked to stdout.
        at: where the server is.
    """
    from antiphon.cli.identity import steer  # noqa: PLC0415 - it has the words

    if not ids:
        raise InvalidSetting("name at least one key by its id: `antiphon key ls` lists them")
    return steer.revoke(key=ids, output=output, at=at)


def rotate(
    *,
    expel: str | None = None,
    output: Output = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """Let the next signing key sign from now on; tokens of the one before stay good until they end.

    Nobody notices: every master and node knows the next key before it signs. If a key has leaked, --expel it: its
    tokens are refused at once, and their owners get new ones by what they hold.

    Args:
        expel: the id of the signing key that has leaked.
        output: how to write the keys' ids to stdout.
        at: where the server is.
    """
    ring = at_desk(at, lambda desk: desk.rotate(expel=expel))
    if output == "json":
        print(json_text(ring.model_dump_json()))
        return 0
    rows = [("active", ring.active), ("next", ring.next), *(("retiring", kid) for kid in ring.retiring)]
    print_table(("signing key", "id"), rows, {})
    return 0


def invite(
    node: str,
    /,
    *,
    instances: Annotated[int, Parameter(validator=Number(gte=1, lte=256))] = 1,
    keep: str = "1d",
    output: Output = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """Make a join token, by which new instances of a node come in. It is shown this once.

    Args:
        node: the node's name; it need not have been here before.
        instances: how many new instances it lets in.
        keep: how long it is good, such as 90min, 12h or 1d.
        output: how to write the token to stdout; table is the token and nothing else.
        at: where the server is.
    """
    keep_ms = duration.parse(keep, "--keep")
    made = at_desk(at, lambda desk: desk.invite(node, instances=instances, keep_ms=keep_ms))
    print(json_text(made.model_dump_json()) if output == "json" else made.token)
    sys.stdout.flush()
    many = f"{instances} new instances" if instances > 1 else "one new instance"
    say(f"this join token ({made.id}) is shown once; it lets {many} of {node} in, and ends {when(made.expires_ms)}")
    say(f"use it: ANTIPHON_TOKEN=... antiphon node serve folder ./docs --name {node}")
    say(f"or:     antiphon login --kind node --name {node}   (it reads the token from stdin)")
    return 0


def _until(expires_ms: int | None) -> str:
    return "until it is revoked" if expires_ms is None else f"until it ends {when(expires_ms)}"
