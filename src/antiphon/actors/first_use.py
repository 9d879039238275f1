"""First use: writes down that a grant has arrived, because a token of it is used.

From then on the refresh token that it was bought with is no lost answer's any more (`decide/families.py`). It is
written once a renewal, after whoever uses the token has been let in, who waits for nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from antiphon.actors.ledger import Ledger
from antiphon.decide.login import AccessClaims
from antiphon.errors import AntiphonError
from antiphon.identity.authority import Authority

log = structlog.get_logger("antiphon.identity")


class FirstUse:
    """A part of the identity actor.

    Args:
        authority: judges by the book what is to be written.
        ledger: writes it.
        tell: puts work into the mailbox of the actor that holds the ledger.
    """

    def __init__(
        self, authority: Authority, ledger: Ledger, tell: Callable[[Callable[[], Awaitable[None]]], None]
    ) -> None:
        self._authority = authority
        self._ledger = ledger
        self._tell = tell
        self._writing: set[str] = set()

    def note(self, claims: AccessClaims) -> None:
        """Note that a token is used."""
        family = claims.family
        if family is None or family in self._writing or not self._authority.first_use(claims):
            return
        self._writing.add(family)

        async def write() -> None:
            try:
                await self._ledger.change(lambda: self._authority.first_use(claims))
            except AntiphonError as error:  # the next message or connection notes it again
                log.warning("identity.use_not_noted", credential=family, code=error.code)
            finally:
                self._writing.discard(family)

        self._tell(write)
