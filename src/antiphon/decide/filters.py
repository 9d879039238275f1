"""Which nodes a listing shows: by status, capability, topic, a glob of the name, and an expression over the metadata.

The expression is a list of comparisons that all have to hold, joined by commas or `and`:
`region=eu, tier!=test and weight>50`. A key is looked up in the node's metadata, then among its `weight`, `version`
and `balancer`. `=` and `!=` compare text; `<`, `<=`, `>` and `>=` compare numbers. What a node does not say is not
equal to anything, and neither less nor greater. Keys and values with blanks, commas or signs stand in double quotes.
It is matched by one regular expression a comparison and never evaluated, so it can do nothing but compare.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from operator import ge, gt, le, lt
from typing import Final, Protocol

from antiphon.errors import Malformed
from antiphon.messages.registry import NodeList, Status

COMPARISON: Final = re.compile(
    r"""\s*(?:"(?P<quoted_key>[^"]*)"|(?P<key>[\w./:-]+))
        \s*(?P<sign>!=|>=|<=|=|>|<)
        \s*(?:"(?P<quoted_value>[^"]*)"|(?P<value>[^\s,"=<>!]+))
        (?P<join>\s*,|\s+and\s|\s*$)""",
    re.VERBOSE,
)
NUMBER: Final = re.compile(r"[+-]?[0-9]{1,15}(\.[0-9]{1,15})?")
ORDERS: Final[dict[str, Callable[[float, float], bool]]] = {"<": lt, "<=": le, ">": gt, ">=": ge}
OWN: Final = ("weight", "version", "balancer")


class Shown(Protocol):
    """What a filter looks at; an entry of a listing, and a node as the hot path reads it."""

    @property
    def node(self) -> str:
        """Its name."""
        ...

    @property
    def status(self) -> Status:
        """How it is."""
        ...

    @property
    def capabilities(self) -> Collection[str]:
        """What it can do."""
        ...

    @property
    def topics(self) -> Collection[str]:
        """What it is about."""
        ...

    @property
    def metadata(self) -> Mapping[str, str]:
        """What else it says."""
        ...


Filter = Callable[[Shown], bool]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One condition on one key."""

    key: str
    sign: str
    value: str

    def holds(self, node: Shown) -> bool:
        """Whether a node meets it."""
        said = said_of(node, self.key)
        if self.sign == "!=":
            return said != self.value
        if said is None:
            return False
        if self.sign == "=":
            return said == self.value
        return NUMBER.fullmatch(said) is not None and ORDERS[self.sign](float(said), float(self.value))


def said_of(node: Shown, key: str) -> str | None:
    """Return what a node says under a key, as text, or None where it says nothing."""
    if key in node.metadata:
        return node.metadata[key]
    own = getattr(node, key) if key in OWN else None
    return None if own is None else str(own)


def parse(expression: str) -> tuple[Comparison, ...]:
    """Return the comparisons of an expression.

    Raises `Malformed` with the place at which it stops making sense.
    """
    found: list[Comparison] = []
    at, is_joined = 0, True
    while is_joined:
        match = COMPARISON.match(expression, at)
        if match is None:
            rest = expression[at : at + 40].strip() or "its end"
            raise Malformed(f"where: no comparison at {rest!r}; write for example region=eu, tier!=test, weight>50")
        groups = match.groupdict()
        key = groups["key"] if groups["quoted_key"] is None else groups["quoted_key"]
        value = groups["value"] if groups["quoted_value"] is None else groups["quoted_value"]
        if groups["sign"] in ORDERS and NUMBER.fullmatch(value) is None:
            raise Malformed(f"where: {key[:40]} {groups['sign']} {value[:40]!r}: only numbers are less or greater")
        found.append(Comparison(key, groups["sign"], value))
        at, is_joined = match.end(), bool(groups["join"].strip())
    return tuple(found)


def of(ask: NodeList) -> Filter:
    """Return whether a node is one of those that are asked for.

    Raises `Malformed` for an expression that is none.
    """
    where = () if ask.where is None else parse(ask.where)

    def is_wanted(node: Shown) -> bool:
        return (
            (ask.after is None or node.node > ask.after)
            and (ask.status is None or node.status is ask.status)
            and (ask.capability is None or ask.capability in node.capabilities)
            and (ask.topic is None or ask.topic in node.topics)
            and (ask.name is None or fnmatchcase(node.node, ask.name))
            and all(comparison.holds(node) for comparison in where)
        )

    return is_wanted
