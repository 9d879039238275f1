"""What is stored in one message though it is two: a start with its first command, an outcome with what follows from it.

Every write is a round trip that a saga waits for, and work for the server; three steps one after the other take four
instead of eight. A message is stored whole or not at all, so nobody ever sees half of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from antiphon.decide.saga import Append, Keep, Move, fold, moves
from antiphon.decide.saga_log import Entry
from antiphon.decide.saga_retry import Dice, dice_of
from antiphon.decide.saga_state import Saga
from antiphon.messages.saga_history import SagaEnded, SagaStarted, StepCommanded, StepOutcome, StepTold


def commanded(saga: str, start: SagaStarted, now_ms: int) -> tuple[SagaStarted, bool]:
    """Return a start with the command for its first step, where it has one at once, and whether that is all for now."""
    if start.delay_ms or start.start_at_ms:  # by the broker's stamp it could be too early
        return start, False
    found = moves(fold(Saga(saga), Entry(saga, 0, now_ms, start)), now_ms)
    for move in found[:1]:
        if isinstance(move, Append) and isinstance(move.event, StepCommanded):
            return start.model_copy(update={"first": move.event}), is_all(found)
    return start, False


def is_all(found: Sequence[Move]) -> bool:
    """Whether nothing is left to do once the first of these moves is made.

    It is a command, and from that nothing follows before its outcome, so nobody need look at the saga again.
    """
    return len(found) == 1 and isinstance(found[0].event, StepCommanded)


def followed(saga: Saga, entry: Entry, now_ms: int, dice: Dice = dice_of) -> tuple[Append | Keep, bool]:
    """Return how to write an outcome that is not stored: with the command or the end that follows, or by itself.

    And whether nothing is left to do then.

    With them is one write instead of two, and no less safe. The link is refused unless its writer has seen the whole
    chain, and with each link the outcomes that it was decided on. So where another outcome of the same command was
    stored by itself meanwhile, nobody has acted on it; and nobody will, for this link is what he would have to follow.
    """
    assert isinstance(entry.event, StepOutcome)
    assert entry.ticket is not None
    found = () if saga.is_foreign else moves(fold(saga, entry), now_ms, dice)
    for move in found[:1]:
        if isinstance(move, Append) and isinstance(move.event, StepCommanded | SagaEnded):
            told = StepTold(ticket=str(entry.ticket), node=entry.node, said=entry.event)
            return replace(move, event=move.event.model_copy(update={"told": told})), is_all(found)
    return Keep(entry.event, entry.ticket, entry.node), False
