"""What a request must show before it is read: whose inbox its answer goes to, its type, and the time that is left."""

from __future__ import annotations

from typing import Any

from antiphon import subjects
from antiphon.bus.bounds import Bounds
from antiphon.bus.codec import BUDGET, TYPE, is_whole_number
from antiphon.errors import Malformed, OutOfBudget, UnknownVersion
from antiphon.messages.base import Request


def may_reply(kind: type[Request[Any]], caller: str, reply: str) -> bool:
    """Whether the reply lies where it must; without this, answers can be laundered (nats-facts.md, hole 1).

    An order without a reply is refused, too: the server's own acknowledgement of what somebody has stored goes to
    whatever subject he names, and has none. White space other than the space is let through by the server, and what
    has some can be answered by nobody.
    """
    if not reply.isprintable():
        return False
    if kind.route.is_lane:
        owner = subjects.inbox_owner(reply)
        return owner is not None and subjects.is_master(owner)
    return subjects.is_inbox_of(reply, caller)


def check_type(kind: type[Request[Any]], given: str | None) -> None:
    """Raise `Malformed` for another message's type, `UnknownVersion` for another major version; none is no error."""
    if given is None:
        return
    name, _, version = given.partition("/")
    if name != kind.__name__:
        raise Malformed(f"{TYPE} says {name[:80]!r}, this subject takes {kind.__name__}")
    if version.split(".")[0] != kind.wire_version.split(".")[0]:
        raise UnknownVersion(f"{kind.__name__} {version[:20]!r}; this process speaks {kind.wire_version}")


def budget_ms(given: str | None, bounds: Bounds) -> int:
    """Return the milliseconds that a header leaves, or raise `Malformed` or `OutOfBudget`."""
    if given is None:
        return bounds.budget_default_ms
    if not is_whole_number(given.removeprefix("-")):
        raise Malformed(f"{BUDGET}: {given[:20]!r} is not a number of milliseconds")
    return within_ms(int(given), bounds)


def within_ms(budget_ms: int, bounds: Bounds) -> int:
    """Return a budget within the bound, or raise `OutOfBudget` where nothing is left."""
    if budget_ms <= 0:
        raise OutOfBudget("the budget was spent before the request arrived")
    return min(budget_ms, bounds.budget_max_ms)
