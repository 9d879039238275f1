"""Badges: the weaker mode, for a server that lets everybody in.

Where no callout stands at the door, each message carries its sender's access token in a header, and each responder does
what the server's permissions would have done: it reads the token and drops what its owner may not publish on that
subject (`decide/grants.py`), lanes and facts among them. What this cannot do: keep anybody from listening, who then has
the tokens that he sees, for an hour; keep anybody out of JetStream; cut off a live connection. Use it inside a network
that you trust, or put the callout at the door (docs/security.md). `antiphon doctor` says which mode is on.

A token is checked once and remembered; what it hangs on (a suspension, a revocation) is asked each time, where there is
a book to ask. Before somebody is refused for what may just have changed elsewhere, a key or a record, it is looked for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from antiphon.bus.codec import ERROR, ERROR_CODE
from antiphon.bus.protocol import (
    Bucket,
    Counter,
    CounterStream,
    Delivery,
    Hand,
    Headers,
    Journal,
    JournalStream,
    KeyValue,
    Receive,
    Subscription,
    Take,
    Transport,
)
from antiphon.bus.protocol import Reader as StreamReader
from antiphon.decide.grants import Grants
from antiphon.decide.identities import Reason
from antiphon.decide.login import AccessClaims, advice, full
from antiphon.errors import NotAuthenticated
from antiphon.identity import tokens
from antiphon.identity.jwks import KeySet
from antiphon.messages.tokens import KeysAsk, TokenAsk
from antiphon.subjects import INBOX

log = structlog.get_logger("antiphon.identity")

BADGE: Final = "Antiphon-Token"
BARE: Final = (INBOX, "$")
"""What needs no badge: answers, and the server's own subjects."""
TOKENS_MAX: Final = 10_000
"""Tokens remembered as good; the one that was used longest ago is forgotten first."""


class Judge(Protocol):
    """What a master asks of its book."""

    def __call__(self, claims: AccessClaims, now_ms: int, /) -> Reason | None:
        """Return why a token whose signature is good is refused all the same, or None."""
        ...


class Look(Protocol):
    """What is done before somebody is refused."""

    async def __call__(self, reason: Reason, token: str, /) -> bool:
        """Look for what would change the verdict; return whether something new was found, so that it is asked again."""
        ...


@dataclass(frozen=True, slots=True)
class Seen:
    """A token whose signature is good."""

    claims: AccessClaims
    grants: Grants


class Reader:
    """Reads badges.

    Args:
        keys: returns the keys that are believed now.
        prefix: the fabric.
        wall_ms: the wall clock.
        judge: what a master's book says of a token; None for a node, which has none.
    """

    def __init__(
        self, keys: Callable[[], KeySet], prefix: str, wall_ms: Callable[[], int], judge: Judge | None = None
    ) -> None:
        self._keys = keys
        self._prefix = prefix
        self._wall_ms = wall_ms
        self._judge = judge
        self._seen: OrderedDict[str, Seen] = OrderedDict()
        open_to_all = (TokenAsk, KeysAsk)  # a credential and its proof are in the first; the second is signed
        self._open = tuple(one.route.template.pattern(prefix=prefix).rstrip("*") for one in open_to_all)

    def check(self, subject: str, headers: Headers | None) -> Reason | None:
        """Return why whoever sent this may not have, or None."""
        if subject.startswith(self._open):
            return None
        token = (headers or {}).get(BADGE)
        if not token:
            return Reason.MISSING
        now_ms = self._wall_ms()
        seen = self._seen.get(token)
        if seen is None:
            claims = tokens.verify_access(token, self._keys(), self._prefix, now_ms)
            if isinstance(claims, Reason):
                return claims
            seen = self._seen[token] = Seen(claims, full(claims, prefix=self._prefix).grants)
            if len(self._seen) > TOKENS_MAX:
                self._seen.popitem(last=False)
        else:
            self._seen.move_to_end(token)
        if now_ms >= seen.claims.expires_ms:
            return Reason.EXPIRED
        if self._judge is not None and (reason := self._judge(seen.claims, now_ms)) is not None:
            return reason
        return None if seen.grants.may_publish(subject) else Reason.WRONG_NAME


class BadgedTransport:
    """A transport whose messages carry a badge, and that lets nothing through without one.

    Args:
        transport: what carries them.
        badge: returns this process's own access token of now.
        reader: reads those of others.
        refused: is told the subject, and why, of what was dropped.
        look: is asked before.
    """

    def __init__(
        self,
        transport: Transport,
        badge: Callable[[], str | None],
        reader: Reader,
        refused: Callable[[str, Reason], None] | None = None,
        look: Look | None = None,
    ) -> None:
        self._transport = transport
        self._badge = badge
        self._reader = reader
        self._refused = refused
        self._look = look
        self.dropped = 0

    @property
    def payload_max(self) -> int:
        """The largest payload in bytes, with room for the badge."""
        return self._transport.payload_max - tokens.TOKEN_BYTES_MAX

    @property
    def is_connected(self) -> bool:
        """Whether a publish now would leave this process."""
        return self._transport.is_connected

    @property
    def asks_for_login(self) -> bool:
        """Whether the server asks for one: it does not, or there would be no badges."""
        return self._transport.asks_for_login

    @property
    def losses(self) -> int:
        """How often the connection was lost so far."""
        return self._transport.losses

    async def publish(
        self, subject: str, data: bytes, *, reply: str = "", headers: Headers | None = None, via: object = None
    ) -> None:
        """Send, with the badge; an answer needs none, it goes to an inbox that was told to nobody else."""
        if not subject.startswith(BARE) and (token := self._badge()):
            headers = {**(headers or {}), BADGE: token}
        await self._transport.publish(subject, data, reply=reply, headers=headers, via=via)

    async def publish_each(self, ways: Sequence[tuple[str, str]], data: bytes) -> None:
        """Send the same payload to each (subject, reply), each with the badge."""
        for subject, reply in ways:
            await self.publish(subject, data, reply=reply)

    async def tap(self, subject: str, take: Take) -> Subscription:
        """Take answers: an inbox needs no badge."""
        assert subject.startswith(INBOX), "only answers are tapped"
        return await self._transport.tap(subject, take)

    async def subscribe(self, subject: str, receive: Receive, *, queue: str | None = None) -> Subscription:
        """Receive what those publish on a subject who may."""
        if subject.startswith(BARE):
            return await self._transport.subscribe(subject, receive, queue=queue)

        async def checked(delivery: Delivery) -> None:
            reason = self._reader.check(delivery.subject, delivery.headers)
            if reason is not None and self._look is not None:
                token = (delivery.headers or {}).get(BADGE)
                if token and await self._look(reason, token):
                    reason = self._reader.check(delivery.subject, delivery.headers)
            if reason is None:
                await receive(delivery)
            else:
                await self._refuse(delivery, reason)

        return await self._transport.subscribe(subject, checked, queue=queue)

    async def hand(self, subject: str, hand: Hand, *, queue: str | None = None) -> Subscription:
        """Receive the same, from a queue: a badge may have to be looked at by somebody else."""

        async def receive(delivery: Delivery) -> None:
            hand(delivery)

        return await self.subscribe(subject, receive, queue=queue)

    async def _refuse(self, delivery: Delivery, reason: Reason) -> None:
        self.dropped += 1
        if self._refused is not None:
            self._refused(delivery.subject, reason)
        if delivery.reply.startswith(INBOX):
            told: Mapping[str, str] = {ERROR_CODE: NotAuthenticated.code, ERROR: advice(reason)}
            await self._transport.publish(delivery.reply, b"", headers=told, via=self._transport.way_of(delivery))

    def way_of(self, delivery: Delivery) -> object:
        """Return the connection that brought a message."""
        return self._transport.way_of(delivery)

    async def flush(self) -> None:
        """Return when the server has seen everything sent so far."""
        await self._transport.flush()

    async def key_value(self, bucket: Bucket) -> KeyValue:
        """Open a declared bucket; JetStream knows no badges."""
        return await self._transport.key_value(bucket)

    async def counter(self, stream: CounterStream) -> Counter:
        """Open declared counters."""
        return await self._transport.counter(stream)

    async def journal(self, stream: JournalStream) -> Journal:
        """Open a declared stream."""
        return await self._transport.journal(stream)

    async def reader(self, stream: str, *, is_masters: bool = False) -> StreamReader:
        """Read a stream by its name."""
        return await self._transport.reader(stream, is_masters=is_masters)

    async def renew(self) -> None:
        """Have nothing to change over: the next message carries the next badge."""

    def on_reconnect(self, call: Callable[[], None]) -> None:
        """Call whenever a lost connection is back."""
        self._transport.on_reconnect(call)

    async def close(self) -> None:
        """Disconnect."""
        await self._transport.close()
