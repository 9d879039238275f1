"""The keys that a process holds to check the tokens of others: those that came with its own last token."""

from __future__ import annotations

from contextlib import suppress
from weakref import WeakKeyDictionary

from antiphon.bus.protocol import Transport
from antiphon.decide.identities import Reason
from antiphon.decide.login import DelegatedClaims, advice
from antiphon.errors import AntiphonError, NotAllowed
from antiphon.identity.badge import BadgedTransport, Reader
from antiphon.identity.jwks import KeySet, read_document
from antiphon.identity.session import Session
from antiphon.identity.sources import wall_ms
from antiphon.identity.tokens import verify_on_behalf


class HeldKeys:
    """The keys that came with the last token, read once."""

    def __init__(self, session: Session, prefix: str) -> None:
        self._session = session
        self._prefix = prefix
        self._read: tuple[str, KeySet] = ("", KeySet(()))

    def now(self) -> KeySet:
        """Return them; none where the document is not the issuer's."""
        granted = self._session.grant
        if granted is not None and granted.keys != self._read[0]:
            found = KeySet(())
            with suppress(AntiphonError):
                found = read_document(granted.keys, granted.issuer, self._prefix, wall_ms())
            self._read = (granted.keys, found)
        return self._read[1]

    def verify(self, token: str, caller: str) -> DelegatedClaims:
        """Return what an on-behalf-of token says that `caller` presents; raises `NotAllowed`."""
        claims = verify_on_behalf(token, self.now(), self._prefix, wall_ms())
        if isinstance(claims, Reason):
            raise NotAllowed(advice(claims))
        if claims.delegate != caller:
            raise NotAllowed(advice(Reason.WRONG_NAME))
        return claims


_held: WeakKeyDictionary[Session, HeldKeys] = WeakKeyDictionary()


def held_keys(session: Session, prefix: str) -> HeldKeys:
    """Return the keys of a session."""
    found = _held.get(session)
    if found is None:
        found = _held[session] = HeldKeys(session, prefix)
    return found


def badged(transport: Transport, session: Session, prefix: str) -> BadgedTransport:
    """Return a transport that shows this process's badge and looks at those of others."""
    return BadgedTransport(transport, lambda: session.badge, Reader(held_keys(session, prefix).now, prefix, wall_ms))
