"""Round robin: each instance in turn, so that shares are equal and none starves."""

from __future__ import annotations

from collections.abc import Sequence


def order(turn: int, instances: Sequence[str]) -> tuple[str, ...]:
    """Return the instances in the order in which to try them on the given turn.

    The first is asked; the others follow when it turns out that nobody listens there.
    """
    if len(instances) < 2:  # noqa: PLR2004 - one has no turn
        return tuple(instances)
    at = turn % len(instances)
    return (*instances[at:], *instances[:at])
