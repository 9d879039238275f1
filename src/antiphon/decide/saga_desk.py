"""What may be asked of sagas: whether a submission is new, the same again or another one, and which orders make sense.

The id of a saga is its idempotency key: who did not hear whether his submission arrived sends it again. So that nobody
gets the answer to somebody else's saga, or thinks that his own changed input was taken, the start keeps a digest of
what was submitted. It leaves out what has its default: a later version that knows more fields comes to the same digest.

An order is judged twice. Here, so that whoever gives it hears at once why it makes no sense; and when it is followed
(`decide/saga.py`), for by then another one may have been followed.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from antiphon.decide.saga_known import canonical, known, said
from antiphon.decide.saga_plan import Pick, checked, settled
from antiphon.decide.saga_state import UNRESOLVED, Leg, Saga, standing
from antiphon.errors import AlreadySubmitted, Malformed, NotAllowed, UnknownSaga, WrongState
from antiphon.messages.saga_desk import SagaOrder, SagaSubmit
from antiphon.messages.saga_history import REPLY, SagaOrdered, SagaStarted

OWN: Final = ("cancel", "pause", "resume")
"""What whoever submitted a saga may order, besides operators."""
MENDING: Final = ("retry", "skip", "resolve")
NO_MATTER: Final = ("id", "wait", "behalf", "definition")
"""Fields of a submission that do not make it another one; the definition does, and has a canonical form of its own."""
ORDERS_MAX: Final = 1_000
"""Orders that one saga takes: all of them are read again whenever it is. To abandon it is always taken."""
OWN_ORDERS_MAX: Final = 100
"""So many of them may be there for whoever submitted it to add another; the rest is for operators."""
ROUND_MAX: Final = 999
"""As many as a ticket can say."""


def digest_of(ask: SagaSubmit) -> str:
    """Return the SHA-256 of what was submitted, in hexadecimal; neither its id nor whether anybody waits counts."""
    fields = {name: canonical(value) for name, value in said(ask, without=NO_MATTER).items()}
    fields["definition"] = known(ask.definition).canonical
    inside = ",".join(f'"{name}":{fields[name]}' for name in sorted(fields))
    return sha256(f"{{{inside}}}".encode()).hexdigest()


def begin(
    ask: SagaSubmit,
    caller: str,
    pick: Pick,
    *,
    groups: tuple[str, ...] = (),
    delegate: str | None = None,
    reply: str | None = None,
) -> SagaStarted:
    """Return the start of a submitted saga, to be written with `expected` 0.

    Args:
        ask: what was submitted.
        caller: who counts, after policy.
        pick: a node for a step that says `where`.
        groups: what he belongs to; handlers are told, as of any action.
        delegate: who submitted it for him.
        reply: where its end is awaited.

    Raises:
        InvalidSaga: the definition makes no sense; each problem is a line of the text.
        UnknownNode: no node is where a step says.
        Malformed: it begins both after a delay and at a time.
    """
    if ask.delay_ms and ask.start_at_ms:
        raise Malformed("SagaSubmit: either delay_ms or start_at_ms")
    if not known(ask.definition).is_sound(ask.input):
        checked(ask.definition, ask.input)  # says all that is wrong
    definition = settled(ask.definition, pick)
    return SagaStarted(
        definition=definition,
        input=ask.input,
        caller=caller,
        groups=groups or None,
        delegate=delegate,
        digest=digest_of(ask),
        delay_ms=ask.delay_ms,
        start_at_ms=ask.start_at_ms,
        # one that is none of ours is answered now, and not told the end by whoever comes to it later
        reply=reply if ask.wait and reply is not None and REPLY.fullmatch(reply) else None,
    )


def check_same(saga: Saga, ask: SagaSubmit, caller: str) -> None:
    """Return where the saga that has this id is what was submitted now, by the same caller.

    Raises `AlreadySubmitted` where it is another one: another definition, input, time or caller.
    """
    there = saga.end or saga.start
    if there is None or there.caller != caller or there.digest != digest_of(ask):
        raise AlreadySubmitted(f"the id {saga.id} is another saga's: take another id, or submit exactly the same")


def order(ask: SagaOrder, saga: Saga, by: str, *, is_operator: bool) -> SagaOrdered:
    """Return an order as it is to be stored.

    Args:
        ask: the order.
        saga: as it was read afresh.
        by: who gives it.
        is_operator: else it must be whoever submitted the saga, and not every order is his to give.

    Raises:
        UnknownSaga: there is none of that id, or it is not this caller's to know of.
        NotAllowed: only an operator may order this.
        WrongState: it makes no sense as the saga is; the text says why.
    """
    there = saga.end or saga.start
    if there is None or not (is_operator or there.caller == by):
        raise UnknownSaga(f"there is no saga {ask.id}")
    if not is_operator and ask.order not in OWN:
        raise NotAllowed(f"only an operator may {ask.order} a saga")
    if saga.end is not None:
        raise WrongState(f"{ask.id} has ended: {saga.end.state}")
    if len(saga.orders) >= (ORDERS_MAX if is_operator else OWN_ORDERS_MAX) and ask.order != "abandon":
        raise WrongState(f"{ask.id} was given {len(saga.orders)} orders: an operator may abandon it")
    ticket = _parked(ask, saga) if ask.order in MENDING else None
    if ask.order == "cancel" and _is_committed(saga):
        raise WrongState(f"{ask.id} is past its pivot: it can only go forward, or be abandoned")
    if ask.order == "resume" and not saga.is_paused:
        raise WrongState(f"{ask.id} is not paused; a parked step takes retry, skip or resolve")
    is_resolve = ask.order == "resolve"
    return SagaOrdered(
        order=ask.order,
        by=by,
        ticket=ticket,
        outcome=ask.outcome if is_resolve else "succeeded",
        result=ask.result if is_resolve and ask.outcome == "succeeded" else None,
        text=ask.text,
    )


def _is_committed(saga: Saga) -> bool:
    return saga.plan is not None and standing(saga, saga.plan).is_committed


def _parked(ask: SagaOrder, saga: Saga) -> str:
    """Return the ticket of the parked step that an order is for."""
    assert saga.plan is not None
    stand = standing(saga, saga.plan)
    legs = [leg for leg in (*stand.forth.values(), *stand.back.values()) if leg.is_parked]
    open_ = {saga.plan.step(leg.ticket.step).name: leg for leg in legs}
    if ask.step is not None:
        open_ = {name: leg for name, leg in open_.items() if name == ask.step}
    if not open_:
        at = f" at {ask.step}" if ask.step is not None else ""
        raise WrongState(f"{ask.id} is not parked{at}")
    if len(open_) > 1:
        raise WrongState(f"{ask.id} is parked at several steps: say which of {', '.join(open_)}")
    [(name, leg)] = open_.items()
    _check_sense(ask, name, leg, is_pivot=leg.ticket.step == saga.plan.pivot)
    return str(leg.ticket)


def _check_sense(ask: SagaOrder, name: str, leg: Leg, *, is_pivot: bool) -> None:
    if ask.order == "retry" and leg.code == UNRESOLVED:
        raise WrongState(f"{name}: its references point at nothing, and will again: skip or resolve it")
    if ask.order == "retry" and leg.ticket.round >= ROUND_MAX:
        raise WrongState(f"{name} was tried {ROUND_MAX} times: skip or resolve it")
    if ask.order == "resolve" and ask.outcome == "failed" and not is_pivot:
        raise WrongState(f"{name} is parked because it failed; only of a pivot it helps to know that it did")
