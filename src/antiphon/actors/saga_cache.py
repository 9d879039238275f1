"""The sagas that one master remembers, so that it need not read them at each event; those not needed longest go first.

It is bounded in number and in size, for a saga of a few steps takes some kilobytes and one of many takes megabytes.
"""

from __future__ import annotations

from collections import OrderedDict

from pydantic_core import to_json

from antiphon.decide.saga_known import known
from antiphon.decide.saga_state import Saga


class SagaCache:
    """Sagas by id; what is found here may be old.

    Args:
        count_max: so many.
        bytes_max: of what is in them, as JSON.
    """

    def __init__(self, count_max: int, bytes_max: int) -> None:
        self.count_max = count_max
        self.bytes_max = bytes_max
        self.bytes = 0
        self._kept: OrderedDict[str, tuple[Saga, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, name: str) -> Saga | None:
        """Return a saga that is remembered."""
        found = self._kept.get(name)
        return None if found is None else found[0]

    def keep(self, saga: Saga) -> None:
        """Remember a saga as it is now; the one that was kept last always stays."""
        before, size = self._kept.get(saga.id, (Saga(saga.id), 0))
        more = _more(saga, before)
        self.bytes += more
        self._kept[saga.id] = (saga, size + more)
        self._kept.move_to_end(saga.id)
        while len(self._kept) > 1 and (len(self._kept) > self.count_max or self.bytes > self.bytes_max):
            _, (_, gone) = self._kept.popitem(last=False)
            self.bytes -= gone

    def forget(self, name: str) -> None:
        """Forget a saga."""
        _, gone = self._kept.pop(name, (None, 0))
        self.bytes -= gone


def _more(saga: Saga, before: Saga) -> int:
    """Return how many bytes have come to a saga: those parts that may be large."""
    size = sum(len(to_json(one.said.params)) for ticket, one in saga.commands.items() if ticket not in before.commands)
    size += sum(len(to_json(one.said.result)) for key, one in saga.outcomes.items() if key not in before.outcomes)
    if saga.start is not None and before.start is None:
        size += known(saga.start.definition).size + len(to_json(saga.start.input))
    if saga.end is not None and before.end is None:
        size += len(to_json(saga.end.results))
    return size
