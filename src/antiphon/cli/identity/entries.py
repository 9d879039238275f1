"""`antiphon identity ls`, `show`, `create` and `update`: who there is, and what each holds."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from antiphon.cli import say
from antiphon.cli.identity.asking import at_desk, print_json, print_table, when
from antiphon.cli.nodes.asking import Output
from antiphon.cli.options import Connection, listed
from antiphon.cli.safe import json_text, line
from antiphon.errors import InvalidSetting
from antiphon.messages.identities import FamilyLine, IdentityDetail, IdentityEntry, InviteLine, KeyLine

Kind = Literal["publisher", "node", "operator", "analyst"]
YesNo = Literal["yes", "no"]
COLUMNS = ("identity", "kind", "status", "groups", "instances", "keys", "created")
STYLES = {"active": "green", "suspended": "yellow", "good": "green", "revoked": "red", "over": "dim"}


def ls(
    *,
    kind: Kind | None = None,
    output: Output = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """List the identities.

    Args:
        kind: only publishers, nodes, operators or analysts.
        output: how to write the list to stdout.
        at: where the server is.
    """
    show_entries(at_desk(at, lambda desk: desk.identities(kind)), output)
    return 0


def show(name: str, /, *, output: Output = "table", at: Connection = Connection()) -> int:  # noqa: B008 - frozen
    """Show an identity, its instances, its keys and its invites; none of their secrets, which nobody has.

    Args:
        name: the identity.
        output: how to write it to stdout.
        at: where the server is.
    """
    detail = at_desk(at, lambda desk: desk.get(name))
    if output == "json":
        print(json_text(detail.model_dump_json()))
        return 0
    print_table(("", ""), _fields(detail.identity), STYLES)
    rows = list(credential_rows(detail))
    if rows and sys.stdout.isatty():
        print()
    print_table(("what", "id", "status", "made", "ends", "of"), rows, STYLES)
    return 0


def create(
    name: str,
    /,
    *,
    kind: Kind = "publisher",
    groups: tuple[str, ...] = (),
    delegate: bool = False,
    instances_max: Annotated[int | None, Parameter(validator=Number(gte=1, lte=256))] = None,
    output: Output = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """Make an identity. It can do nothing before it has a key (`antiphon key create`), a node an invite.

    Args:
        name: its name, unique over all kinds.
        kind: publisher, node, operator or analyst.
        groups: what it belongs to, separated by commas; the policy and nodes go by it.
        delegate: it may ask for others: a gateway, an assistant.
        instances_max: how many instances a node may have.
        output: how to write it to stdout.
        at: where the server is.
    """
    entry = at_desk(
        at,
        lambda desk: desk.create(name, kind, groups=listed(groups), is_delegate=delegate, instances_max=instances_max),
    )
    show_entries([entry], output)
    if not entry.keys and not entry.families:
        way = f"`antiphon node invite {name}`" if kind == "node" else f"`antiphon key create {name}`"
        say(f"{name} holds nothing to log in with yet: {way} makes it")
    return 0


def update(
    name: str,
    /,
    *,
    groups: tuple[str, ...] | None = None,
    delegate: YesNo | None = None,
    instances_max: Annotated[int | None, Parameter(validator=Number(gte=1, lte=256))] = None,
    output: Output = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """Change what an identity belongs to and may do; what is not given stays.

    Args:
        name: the identity.
        groups: what it belongs to, separated by commas; "" is nothing.
        delegate: yes or no: whether it may ask for others.
        instances_max: how many instances a node may have.
        output: how to write it to stdout.
        at: where the server is.
    """
    if groups is None and delegate is None and instances_max is None:
        raise InvalidSetting("nothing to change: see `antiphon identity update --help`")
    entry = at_desk(
        at,
        lambda desk: desk.update(
            name,
            groups=None if groups is None else listed(groups),
            is_delegate=None if delegate is None else delegate == "yes",
            instances_max=instances_max,
        ),
    )
    show_entries([entry], output)
    return 0


def show_entries(entries: Sequence[IdentityEntry], output: str) -> None:
    """Write identities in one of the forms table, json."""
    if output == "json":
        print_json(entries)
    elif entries:
        print_table(COLUMNS, map(row, entries), STYLES)
    else:
        say("there is no such identity: `antiphon identity create NAME` makes one")


def row(entry: IdentityEntry) -> tuple[str, ...]:
    """Return what is shown of an identity, in the order of `COLUMNS`."""
    return (
        entry.name,
        f"{entry.kind}{', delegate' if entry.is_delegate else ''}",
        entry.status,
        line(", ".join(entry.groups)) or "-",
        str(entry.families),
        str(entry.keys),
        when(entry.created_ms),
    )


def credential_rows(detail: IdentityDetail) -> Iterator[tuple[str, ...]]:
    """Yield what an identity holds, a row each."""
    for family in detail.families:
        yield ("family", family.id, _standing(family), when(family.created_ms), when(family.expires_ms), _of(family))
    for key in detail.keys:
        yield ("key", key.id, _standing(key), when(key.created_ms), when(key.expires_ms), line(key.label) or "-")
    for invite in detail.invites:
        left = f"{invite.instances_left} instance{'' if invite.instances_left == 1 else 's'} left"
        yield ("invite", invite.id, _standing(invite), "-", when(invite.expires_ms), left)


def _fields(entry: IdentityEntry) -> Iterator[tuple[str, str]]:
    yield from zip(COLUMNS, row(entry), strict=True)
    if entry.not_before_ms:
        yield "revoked", f"{when(entry.not_before_ms)}: what was made before is refused"
    if entry.kind == "node":
        yield "instances max", str(entry.instances_max)


def _standing(one: FamilyLine | KeyLine | InviteLine) -> str:
    is_revoked = one.revoked is not None if isinstance(one, FamilyLine) else one.is_revoked
    if is_revoked:
        return "revoked"
    if isinstance(one, InviteLine) and not one.instances_left:
        return "used up"
    return "over" if when(one.expires_ms).endswith("ago") else "good"


def _of(family: FamilyLine) -> str:
    why = f" ({line(family.revoked)})" if family.revoked else ""
    return f"{family.instance or 'no instance'}{why}"
