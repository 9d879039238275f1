"""The audit: everything that is granted, refused, revoked or cut off is a fact and a line of the log.

Names of refused ones are claims of strangers, so they are cut and made printable; a secret has no way in here: a
credential is named by its public id.
"""

from __future__ import annotations

from typing import Literal

import structlog

from antiphon.bus.bus import Bus
from antiphon.messages.identities import IdentityAudited
from antiphon.runtime.facts import Facts

log = structlog.get_logger("antiphon.identity")

CHARS_MAX = 200
What = Literal[
    "connected", "granted", "refused", "created", "changed", "suspended", "resumed", "revoked", "kicked", "rotated",
    "invited", "violated", "doubled",
]  # fmt: skip
LOUD = frozenset({"refused", "revoked", "kicked", "violated", "doubled", "suspended"})


class Audit:
    """Tells what happened to identities."""

    def __init__(self, bus: Bus, facts: Facts) -> None:
        self._bus = bus
        self._facts = facts

    def tell(
        self,
        what: What,
        who: str,
        *,
        kind: str | None = None,
        instance: str | None = None,
        why: str = "",
        where: str = "",
        by: str | None = None,
        credential: str | None = None,
    ) -> None:
        """Tell one thing that happened, to the log and as a fact."""
        fact = IdentityAudited(
            at_ms=self._bus.clock.wall_ms(),
            what=what,
            who=_plain(who),
            kind=kind,
            instance=_plain(instance) if instance else None,
            why=_plain(why),
            where=_plain(where),
            by=by,
            credential=_plain(credential) if credential else None,
        )
        said = fact.model_dump(exclude_none=True, exclude={"at_ms", "what"}, exclude_defaults=True)
        (log.warning if what in LOUD else log.info)(f"identity.{what}", **said)
        self._facts.tell(fact)


def _plain(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:CHARS_MAX])
