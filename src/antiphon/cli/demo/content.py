"""What the demo serves and what it asks.

The standard library lies on two nodes whose parts overlap, so that a document found twice is shown once with both its
sources; Antiphon's own documentation has two instances, which take turns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from antiphon.connectors import Connector, catalogue


@dataclass(frozen=True, slots=True)
class Part:
    """One process of the demo: an instance of a node over some content.

    Attributes:
        node: the node's name.
        kind: the connector.
        instance: the instance's name, the same at every start, so that a killed demo leaves no ghosts behind.
        options: the connector's options.
    """

    node: str
    kind: str
    instance: str = "1"
    options: Mapping[str, str] = field(default_factory=dict[str, str])

    def content(self) -> Connector:
        """Return the connector, not yet opened."""
        return catalogue()[self.kind](**self.options)


PARTS: Final = (
    Part("python-a-l", "stdlib", options={"modules": "[a-l]*"}),
    Part("python-j-z", "stdlib", options={"modules": "[j-z]*"}),
    Part("packages", "packages"),
    Part("antiphon-docs", "antiphon", "1"),
    Part("antiphon-docs", "antiphon", "2"),
)
"""The longest to index first."""

QUESTIONS: Final = (
    "how do I parse a json string",
    "fast json encoder",
    "who answers a search and who does not",
)
"""The first is found on two nodes at once, the second on different ones, the third in Antiphon's own words."""
