"""What each identity may publish and subscribe: a table that follows from the messages' declared routes.

The intuition: a route names the kinds that send and read it, and its keys name identities. Where a key is the
identity's own (its name as caller or writer, its node, its instance, its master), the pattern says that name;
where it is somebody else's, it says `*`. Nothing else is granted, so a new message brings its own permissions.

What a stream keeps (`Route.stream`) is written and read by masters, and never subscribed to. Nobody else has any right
on JetStream: its answers go to whatever subject an asker names, past all permissions, and are stored there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from antiphon.errors import InvalidName
from antiphon.messages import Routed, loaded, routed
from antiphon.messages.base import Kind, Route
from antiphon.subjects import INBOX, PREFIX, is_master, token

DISCOVERY: Final = "$SRV.>"
VERBS: Final = ("PING", "INFO", "STATS")
"""What is asked in discovery (ADR-32): of everybody, of a name, of one instance of it."""
STORAGE: Final = ("$JS.ACK.>", "$JS.API.>", "$KV.>")
"""JetStream belongs to the masters; one permitted key of a shared bucket would be too much (nats-facts.md, hole 2)."""
RESPONSES_MAX: Final = 1
RESPONSE_TTL_MS: Final = 600_000
"""The largest budget that a request can carry: an answer that is later than that has no reader."""
NOTHING: Final = ">"


@dataclass(frozen=True, slots=True)
class Respond:
    """The right to answer requests: this many messages to each reply subject, for this long."""

    messages_max: int = RESPONSES_MAX
    ttl_ms: int = RESPONSE_TTL_MS


@dataclass(frozen=True, slots=True)
class Grants:
    """Everything that one identity may do.

    Attributes:
        publish: patterns of subjects, sorted.
        subscribe: patterns of subjects, sorted.
        may_respond: whether it may answer what it receives, and how; None for one that serves nothing.
    """

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    may_respond: Respond | None = None

    def may_publish(self, subject: str) -> bool:
        """Whether it may publish on a subject of its own accord."""
        return any(allows(pattern, subject) for pattern in self.publish)

    def may_subscribe(self, subject: str) -> bool:
        """Whether it may subscribe to a subject or to all of a pattern."""
        return any(allows(pattern, subject) for pattern in self.subscribe)

    def permissions(self) -> dict[str, Any]:
        """Return the permissions of a NATS user JWT; an empty list is written as a denial, as NATS reads it as all."""
        found: dict[str, Any] = {"pub": _listed(self.publish), "sub": _listed(self.subscribe)}
        if self.may_respond is not None:
            found["resp"] = {"max": self.may_respond.messages_max, "ttl": self.may_respond.ttl_ms * 1_000_000}
        return found


class Rights:
    """What a process's own identity may ask; it does not import the messages of other roles to find that out.

    What is asked is a message that is imported, so those of now nearly always say yes. Only before a no, all are
    looked at: without them a node is 1 MB smaller.
    """

    def __init__(self, kind: Kind, name: str, instance: str | None = None, *, prefix: str = PREFIX) -> None:
        self._all = partial(grants, kind, name, instance, prefix=prefix)
        self._known = self._all(among=loaded())

    def whole(self) -> Grants:
        """Return everything that it may do."""
        return self._all()

    def may_publish(self, subject: str) -> bool:
        """Whether it may publish on a subject of its own accord."""
        if not self._known.may_publish(subject):
            self._known = self.whole()
        return self._known.may_publish(subject)


def grants(
    kind: Kind,
    name: str,
    instance: str | None = None,
    *,
    prefix: str = PREFIX,
    among: Mapping[str, Routed] | None = None,
) -> Grants:
    """Return what an identity may do; without an instance, what all instances of that name together may.

    `among`: the messages that count, all where not given.

    Raises `InvalidName` for a name outside the grammar (a node named `*` would get the rights of others), for a
    master that is not named as one, and for anybody else who is.
    """
    if is_master(token(name)) != (kind is Kind.MASTER):
        raise InvalidName(f"{name!r} cannot be a {kind}: `master` and `master-...` name masters, and nothing else does")
    routes = [message.route for message in (routed() if among is None else among).values()]
    sender, reader = _as_sender(kind, name, instance), _as_reader(kind, name, instance)
    publish = {route.template.pattern(prefix=prefix, **sender) for route in routes if kind in route.sent_by}
    heard = [route for route in routes if kind in route.read_by and route.stream is None]
    read = {route.template.pattern(prefix=prefix, **reader) for route in heard}
    serves = any(not _is_fact(route) for route in heard)
    if kind is Kind.MASTER:
        publish.update(STORAGE)
    if kind in (Kind.MASTER, Kind.OPERATOR):
        publish.add(DISCOVERY)
    return Grants(
        publish=tuple(sorted(publish)),
        subscribe=tuple(sorted({f"{INBOX}.{name}.>"} | read | (_discovery(kind, name, instance) if serves else set()))),
        may_respond=Respond() if serves else None,
    )


def allows(pattern: str, subject: str) -> bool:
    """Whether a pattern covers a subject, or all that another pattern covers, by the rules of NATS.

    >>> allows("a.*.c", "a.b.c"), allows("a.>", "a.b.c"), allows("a.>", "a"), allows("a.*", "a.>")
    (True, True, False, False)
    """
    wanted, asked = pattern.split("."), subject.split(".")
    if not all(asked):
        return False
    for at, one in enumerate(wanted):
        if one == ">":
            return len(asked) > at
        if at >= len(asked) or asked[at] == ">" or one not in ("*", asked[at]):
            return False
    return len(wanted) == len(asked)


def _as_sender(kind: Kind, name: str, instance: str | None) -> dict[str, str]:
    """Return the keys that are the sender's own; the others of its subjects name whom it sends to."""
    own = {"caller": name, "writer": name}
    return own | {"instance": token(instance)} if kind is Kind.NODE and instance is not None else own


def _as_reader(kind: Kind, name: str, instance: str | None) -> dict[str, str]:
    """Return the keys that are the reader's own; it reads from every caller and writer."""
    if kind is Kind.NODE:
        return {"node": name} if instance is None else {"node": name, "instance": token(instance)}
    return {"master": name} if kind is Kind.MASTER else {}


def _discovery(kind: Kind, name: str, instance: str | None) -> set[str]:
    """Return where somebody is asked in discovery; a node only under its own name, or it would be heard for others."""
    if kind is Kind.MASTER:
        return {DISCOVERY}
    places = ("", f".{name}", f".{name}.{instance or '*'}")
    return {f"$SRV.{verb}{place}" for verb in VERBS for place in places}


def _is_fact(route: Route) -> bool:
    return "writer" in route.template.keys


def _listed(patterns: tuple[str, ...]) -> dict[str, list[str]]:
    return {"allow": list(patterns)} if patterns else {"deny": [NOTHING]}
