"""Where to read a stream from, and what of it is lost: a pure function of the position and of what the stream says.

A stream that was made again has another birthday: everything in it is new. One whose end lies before the position has
lost its end, as after a power cut: what comes has numbers that were read already. One whose beginning lies behind the
position has given up what nobody had read in time. Each loss is a row in `gaps`; none stops the reading.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Position:
    """How far a stream has been read.

    Attributes:
        created_us: which stream it is: when that was made, UTC.
        sequence: of the last message that is in the store; 0 before the first.
    """

    created_us: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch of a stream that can no longer be read.

    Attributes:
        first: its first sequence.
        last: its last one; None where nobody knows.
        reason: retention, recreated or rewound.
    """

    first: int
    last: int | None
    reason: str


def begun(position: Position | None, created_us: int, first: int, last: int) -> tuple[Position, Gap | None]:
    """Return from where a stream is read on, as it says that it is, and what is lost.

    >>> begun(Position(7, 100), 7, 151, 200)
    (Position(created_us=7, sequence=150), Gap(first=101, last=150, reason='retention'))
    """
    if position is None:
        position = Position(created_us, 0)
    elif position.created_us != created_us:
        return Position(created_us, 0), Gap(position.sequence + 1, None, "recreated")
    elif last < position.sequence:
        return Position(created_us, last), Gap(last + 1, position.sequence, "rewound")
    if first > position.sequence + 1:
        return Position(created_us, first - 1), Gap(position.sequence + 1, first - 1, "retention")
    return position, None
