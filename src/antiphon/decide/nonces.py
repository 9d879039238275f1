"""Nonces of proofs: each is good once, and the proof that it is in for a while only.

A proof says when it was made, so a nonce has to be remembered for as long as the proof would be taken. Each master
remembers its own; what it has taken lately is forgotten when it ends.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from antiphon.decide.identities import Reason

WINDOW_MS: Final = 300_000
"""How far the clock of whoever asks may be from the masters', either way."""
KEPT_MAX: Final = 100_000


class Nonces:
    """What was used lately; one object of one reader, changed in place."""

    def __init__(self, kept_max: int = KEPT_MAX) -> None:
        self._until: OrderedDict[str, int] = OrderedDict()
        self._kept_max = kept_max

    def use(self, nonce: str, made_ms: int, now_ms: int) -> Reason | None:
        """Return why a proof with this nonce is refused, or None, and then it is used up.

        Args:
            nonce: of a proof that is good.
            made_ms: when the proof says that it was made.
            now_ms: wall clock.
        """
        if abs(made_ms - now_ms) > WINDOW_MS:
            return Reason.WRONG_CLOCK
        while self._until and next(iter(self._until.values())) < now_ms:
            self._until.popitem(last=False)
        if nonce in self._until:
            return Reason.REPLAYED
        if len(self._until) >= self._kept_max:
            return Reason.TOO_OFTEN
        self._until[nonce] = now_ms + 2 * WINDOW_MS  # the longest that any proof of now is taken
        return None

    def forget(self, nonce: str) -> None:
        """Take a use back that came to nothing: refused once, it is refused again by itself."""
        self._until.pop(nonce, None)
