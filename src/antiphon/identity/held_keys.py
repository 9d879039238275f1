"""The keys that a process holds to check the tokens of others: those that came with its own last token, or newer ones.

Between two tokens of its own a fabric may change its signing keys more often than the ring looks ahead. Then somebody's
token names a key that this process has not heard of, and it asks the masters for the keys of now, once in a while.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final
from weakref import WeakKeyDictionary

from antiphon.bus.bus import Bus
from antiphon.decide.identities import Reason
from antiphon.decide.login import DelegatedClaims, advice
from antiphon.errors import AntiphonError, NotAllowed
from antiphon.identity.badge import BadgedTransport, Reader
from antiphon.identity.jwks import KeySet, read_document
from antiphon.identity.session import Session
from antiphon.identity.sources import wall_ms
from antiphon.identity.tokens import verify_on_behalf
from antiphon.messages.tokens import KeysAsk

LOOK_MS: Final = 1_000
"""Between two looks for new keys: anybody can send what names a key that nobody has."""
LOOK_WAIT_MS: Final = 1_000


class HeldKeys:
    """What a session holds to check the tokens of others."""

    def __init__(self, session: Session, prefix: str) -> None:
        self._session = session
        self._prefix = prefix
        self._read = ""
        self._keys = KeySet(())
        self._next_look_ms = 0

    def now(self) -> KeySet:
        """Return the keys; none where no document was the issuer's."""
        granted = self._session.grant
        if granted is not None and granted.keys != self._read:
            self._read = granted.keys
            self._learn(granted.keys)
        return self._keys

    def _learn(self, document: str) -> bool:
        """Take the keys of a document, unless it is older than what is known: somebody may have kept an old one."""
        granted = self._session.grant
        found = KeySet(())
        if granted is not None:
            with suppress(AntiphonError):
                found = read_document(document, granted.issuer, self._prefix, wall_ms())
        is_newer = len(found) > 0 and found.until_ms >= self._keys.until_ms
        if is_newer:
            self._keys = found
        return is_newer

    async def look(self, bus: Bus, reason: Reason) -> bool:
        """Ask for the keys of now where one was missing; return whether there are any that were not known."""
        now_ms = bus.clock.now_ms()
        if reason is not Reason.UNKNOWN_KEY_ID or now_ms < self._next_look_ms:
            return False
        self._next_look_ms = now_ms + LOOK_MS
        try:
            answer = await bus.ask(KeysAsk(), budget_ms=LOOK_WAIT_MS)
        except AntiphonError:
            return False
        return self._learn(answer.document)

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


def put_on_badge(bus: Bus, session: Session, prefix: str) -> None:
    """Have a bus show this process's badge, and look at those of others."""
    held = held_keys(session, prefix)

    async def look(reason: Reason, _token: str) -> bool:
        return await held.look(bus, reason)

    reader = Reader(held.now, prefix, wall_ms)
    bus.transport = BadgedTransport(bus.transport, lambda: session.badge, reader, look=look)
    bus.rejected = session.hurry
