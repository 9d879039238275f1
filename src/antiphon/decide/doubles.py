"""Doubles: instances of nodes that two connections have at once, for longer than a renewal takes.

A token is renewed over a second connection that takes the place of the first within seconds. Two that stand beside each
other in two lists of the servers' are two processes with one credential: a mistake in a deployment, or a copy.
"""

from __future__ import annotations

from collections.abc import Mapping

from antiphon.decide.headcount import Place

Instance = tuple[str, str]
"""The node and the instance."""


class Doubles:
    """What the lists have shown; one object of one reader, changed in place."""

    def __init__(self) -> None:
        self._before: Mapping[Place, Instance] = {}
        self._told: set[Instance] = set()

    def look(self, listed: Mapping[Place, Instance]) -> list[Instance]:
        """Return the instances that have two of the same connections in this list as in the last, each told once."""
        lasting: dict[Instance, int] = {}
        for place, instance in listed.items():
            if self._before.get(place) == instance:
                lasting[instance] = lasting.get(instance, 0) + 1
        self._before = dict(listed)
        found = {instance for instance, count in lasting.items() if count > 1}
        fresh = sorted(found - self._told)
        self._told = found
        return fresh
