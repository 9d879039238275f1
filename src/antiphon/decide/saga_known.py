"""What follows from a definition, worked out once: most sagas of a service have one and the same.

It is remembered by content, for every submission is decoded anew, and a saga's plan, its digest and whether it is sound
are wanted several times for each.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Collection, Mapping
from functools import cache, cached_property
from typing import Final, cast

from pydantic import JsonValue
from pydantic_core import to_json

from antiphon.decide.saga_plan import Plan, plan, problems
from antiphon.decide.saga_refs import references
from antiphon.messages.base import Message
from antiphon.messages.saga import SagaDefinition

KNOWN_MAX: Final = 256
KNOWN_BYTES_MAX: Final = 16 * 1024
"""Larger definitions are worked out each time, so that what is remembered is bounded by 4 MiB of JSON."""


class Known:
    """One definition, and what follows from it."""

    def __init__(self, definition: SagaDefinition, size: int) -> None:
        self.definition = definition
        self.size = size
        """Bytes of its JSON."""

    @cached_property
    def plan(self) -> Plan:
        """It laid out; raises `InvalidSaga`."""
        return plan(self.definition)

    @cached_property
    def canonical(self) -> str:
        """Its canonical JSON, without what has its default."""
        return canonical(said(self.definition))

    @cached_property
    def inputs(self) -> frozenset[str] | None:
        """The names of the input that it refers to, None where anything is wrong with it."""
        if problems(self.definition):
            return None
        params = [part.params for step in self.definition.steps for part in (step, step.compensate) if part is not None]
        found = (one for some in params for one in references(some))
        return frozenset(one.path[0] for one in found if one.root == "input" and one.path)

    def is_sound(self, given: Mapping[str, JsonValue]) -> bool:
        """Whether it may be submitted with this input."""
        return self.inputs is not None and self.inputs <= given.keys()


remembered: Final[OrderedDict[bytes, Known]] = OrderedDict()
"""By the bytes of its JSON, the one that was asked for longest ago first."""
ASKED_MAX: Final = 64
_asked: Final[dict[int, tuple[SagaDefinition, Known]]] = {}
"""The last answers, by the very definition: taking a saga in asks several times of it, and so do many at once."""


def known(definition: SagaDefinition) -> Known:
    """Return what follows from a definition."""
    asked = _asked.get(id(definition))
    if asked is not None:  # it is kept, so nothing else has its id
        return asked[1]
    raw = to_json(definition)
    found = remembered.get(raw)
    if found is None:
        found = Known(definition, len(raw))
        if len(raw) <= KNOWN_BYTES_MAX:
            remembered[raw] = found
            if len(remembered) > KNOWN_MAX:
                remembered.popitem(last=False)
    else:
        remembered.move_to_end(raw)
    if len(raw) > KNOWN_BYTES_MAX or len(_asked) >= ASKED_MAX:  # at most one that is large
        _asked.clear()
    _asked[id(definition)] = (definition, found)
    return found


def canonical(value: object) -> str:
    """Return the one way to write a value as JSON."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def said(message: Message, without: Collection[str] = ()) -> dict[str, object]:
    """Return the fields that are not at their default. Pydantic's own way takes a default that was said for none."""
    defaults = _defaults(type(message))
    fields = {name: _plain(getattr(message, name)) for name in type(message).model_fields if name not in without}
    return {name: value for name, value in fields.items() if name not in defaults or value != defaults[name]}


@cache
def _defaults(kind: type[Message]) -> dict[str, object]:
    return {
        name: _plain(field.get_default(call_default_factory=True))
        for name, field in kind.model_fields.items()
        if not field.is_required()
    }


def _plain(value: object) -> object:
    if isinstance(value, Message):
        return said(value)
    return [_plain(one) for one in cast("tuple[object, ...]", value)] if isinstance(value, tuple) else value
