"""One stored message of a saga as the fold takes it: what it says, where it stands, when the broker stored it.

Subjects carry half of what a history says (the ticket, the node), so reading a message is reading both. Who reads an
outcome from the subject of the node that was commanded, and from no other, cannot be told it by another node.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple, TypeAlias

import msgspec
from pydantic import ValidationError

from antiphon.messages.saga_history import (
    SagaEnded,
    SagaOrdered,
    SagaParked,
    SagaResumed,
    SagaStarted,
    SagaTimerFired,
    SagaTimerSet,
    StepCommanded,
    StepOutcome,
    StepVoided,
)
from antiphon.subjects import PREFIX, TOKEN, VERSION, Template

TICKET: Final = re.compile(r"([1-9][0-9]?)([fb])([2-9]|[1-9][0-9]{1,2})?")
CHAIN: Final = Template("saga.<saga>.k")

Event: TypeAlias = (
    SagaStarted
    | StepCommanded
    | SagaParked
    | SagaResumed
    | SagaEnded
    | SagaOrdered
    | SagaTimerSet
    | SagaTimerFired
    | StepOutcome
    | StepVoided
)
Link: TypeAlias = SagaStarted | StepCommanded | SagaParked | SagaResumed | SagaEnded
"""What stands in the chain, where each link is written by compare-and-set."""
PLACES: Final[dict[tuple[str, ...], tuple[type[Event], int]]] = {
    ("k", "start"): (SagaStarted, 4),
    ("k", "c"): (StepCommanded, 6),
    ("k", "park"): (SagaParked, 5),
    ("k", "resume"): (SagaResumed, 5),
    ("k", "end"): (SagaEnded, 4),
    ("x",): (SagaOrdered, 4),
    ("t", "set"): (SagaTimerSet, 4),
    ("t", "fired"): (SagaTimerFired, 4),
}
"""What stands below `saga.<saga>.`, by the tokens that follow, and how many tokens there are in all."""
TOKENS_MIN: Final = 4


class Way:
    """Whether a step is to be done or undone, as it stands in a subject."""

    FORTH: Final = "f"
    BACK: Final = "b"


class Ticket(NamedTuple):
    """What one command is for: the step by its number from 1, which way, and how often it was commanded before.

    A plain tuple, and the way a plain text: they are hashed some hundred times a saga.

    >>> Ticket.parse("2b3"), str(Ticket(2, Way.BACK)), str(Ticket(2, Way.BACK).next())
    (Ticket(step=2, way='b', round=3), '2b', '2b2')
    """

    step: int
    way: str
    round: int = 1

    def __str__(self) -> str:
        """Return the subject token."""
        return f"{self.step}{self.way}" + (str(self.round) if self.round > 1 else "")

    @classmethod
    def parse(cls, text: str) -> Ticket | None:
        """Return the ticket of a subject token, or None for one that is none."""
        match = TICKET.fullmatch(text)
        return None if match is None else cls(int(match[1]), match[2], int(match[3] or 1))

    def next(self) -> Ticket:
        """Return the ticket of the same for the round after this."""
        return Ticket(self.step, self.way, self.round + 1)

    def key(self, saga: str) -> str:
        """Return the idempotency key, which all rounds share."""
        return f"{saga}/{self.step}{self.way}"


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One stored message.

    Attributes:
        saga: the saga's id.
        seq: its sequence in its stream.
        at_ms: the broker's stamp, UTC.
        event: what it says; None for a link of the chain that a newer version wrote and this one cannot read.
        ticket: of a command, an outcome, a park or what resumed it.
        node: of a command, or whose outcome it is.
        nonce: of an order.
    """

    saga: str
    seq: int
    at_ms: int
    event: Event | None
    ticket: Ticket | None = None
    node: str = ""
    nonce: str = ""

    @property
    def is_link(self) -> bool:
        """Whether it stands in the chain."""
        return self.event is None or isinstance(self.event, Link)


def subject_of(event: Event, saga: str, *, prefix: str = PREFIX, **keys: str) -> str:
    """Return the subject that an event stands under; `keys` are its ticket, node and nonce, as it has them."""
    return event.route.template.subject(prefix=prefix, saga=saga, **keys)


def chain_of(saga: str, *, prefix: str = PREFIX) -> str:
    """Return the wildcard that a link's compare-and-set is over: `<prefix>.v1.saga.<saga>.k.>`."""
    return CHAIN.subject(prefix=prefix, saga=saga) + ".>"


def read(subject: str, data: bytes, seq: int, at_ms: int, *, prefix: str = PREFIX) -> Entry | None:
    """Return a stored message as an entry; None for what says nothing of a saga, such as a node's own marker.

    A link of the chain that cannot be read is an entry without an event: whoever cannot read all of a chain must not
    write to it. An outcome that cannot be read is an unknown one: the stream has taken it and will take no other.
    """
    head, _, rest = subject.partition(f"{prefix}.{VERSION}.")
    tokens = rest.split(".")
    if head or any(TOKEN.fullmatch(one) is None for one in tokens):
        return None
    if tokens[0] == "outcome":
        return _outcome(tokens, data, seq, at_ms)
    if tokens[0] != "saga" or len(tokens) < TOKENS_MIN:
        return None
    _, saga, *below = tokens
    kind, count = PLACES.get((below[0],)) or PLACES.get((below[0], below[1])) or (None, 0)
    ticket = Ticket.parse(tokens[-1])
    has_ticket = kind in (StepCommanded, SagaParked, SagaResumed)
    is_wrong = len(tokens) != count or (has_ticket and ticket is None)
    event = None if kind is None or is_wrong else _decoded(kind, data)
    if event is None:
        return Entry(saga, seq, at_ms, None) if below[0] == "k" else None
    node = tokens[-2] if kind is StepCommanded else ""
    nonce = tokens[-1] if kind is SagaOrdered else ""
    return Entry(saga, seq, at_ms, event, ticket if has_ticket else None, node, nonce)


def _outcome(tokens: list[str], data: bytes, seq: int, at_ms: int) -> Entry | None:
    ticket = Ticket.parse(tokens[2]) if len(tokens) == TOKENS_MIN else None
    if ticket is None:
        return None
    _, saga, _, node = tokens
    event = _decoded(StepOutcome, data) or StepOutcome(outcome="unknown", code="malformed")
    return Entry(saga, seq, at_ms, event, ticket, node)


def _decoded(kind: type[Event], data: bytes) -> Event | None:
    if len(data) > kind.size_max:
        return None
    try:
        return kind.model_validate_json(data or b"{}")
    except ValidationError:
        return None
