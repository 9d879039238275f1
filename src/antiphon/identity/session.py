"""A session: the login of one process, with tokens that are renewed before they expire.

Where the first token comes from is a `Source`; the session keeps it fresh: at three quarters of a token's life it
asks for the next over the live connection and has the transport change over to it (make before break); after a long
time offline it asks over a connection of its own that can do nothing else. A token that cannot be had now is asked
for again, with growing pauses, for as long as the process lives.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random
from typing import Final, Protocol

import structlog

from antiphon.bus.bus import Bus
from antiphon.bus.connect import connect
from antiphon.bus.endpoint import Endpoint
from antiphon.bus.protocol import Login
from antiphon.errors import AntiphonError, InvalidSetting, NotAuthenticated, OutOfBudget
from antiphon.identity.keypair import KeyPair
from antiphon.identity.proof import prove
from antiphon.messages.base import Kind
from antiphon.messages.tokens import KeysAsk, TokenAsk, TokenGrant

log = structlog.get_logger("antiphon.identity")

RENEW_SHARE: Final = 0.75
"""Of a token's life: the rest is for trying again."""
JITTER_SHARE: Final = 0.05
"""Of a token's life, by which a process is later than that: two with one credential do not ask at the same time."""
SPARE_MS: Final = 2_000
"""A token that has less left than this is not shown to a server any more."""
RETRY_MS: Final = 1_000
RETRY_MS_MAX: Final = 60_000
ASK_MS: Final = 5_000
HURRY_MS: Final = 10_000
"""A token that is younger is not replaced because somebody does not take it: that one has another reason."""


@dataclass(frozen=True, slots=True)
class Held:
    """Tokens as a process holds them; times on its own monotonic clock, in milliseconds.

    Attributes:
        key: the process's own.
        grant: the tokens.
        got_ms: when they were had.
        life_ms: how long the access token lives as a whole; None for one that is new. One from a file is older.
        is_open: whether they were had on a server that asks nobody, and may be shown on one.
        jitter: this process's share of `JITTER_SHARE`.
    """

    key: KeyPair
    grant: TokenGrant
    got_ms: int
    life_ms: int | None = None
    is_open: bool = False
    jitter: float = 0.0

    @property
    def expires_ms(self) -> int:
        """When the access token is no longer good."""
        return self.got_ms + self.grant.expires_in_ms

    @property
    def renew_ms(self) -> int:
        """When the next one is asked for."""
        life_ms = self.grant.expires_in_ms if self.life_ms is None else self.life_ms
        late_ms = int(life_ms * JITTER_SHARE * self.jitter)
        return max(self.got_ms, self.expires_ms - spare_ms(life_ms) + late_ms)


def spare_ms(life_ms: int) -> int:
    """Return how much of a token's life is kept for trying again: one that has no more left is to be renewed."""
    return life_ms - int(life_ms * RENEW_SHARE)


class Source(Protocol):
    """Where a process gets its tokens from."""

    async def obtain(self, live: Bus | None, now_ms: int, *, but: str | None = None) -> Held:
        """Return fresh tokens; over the live connection where there is one. Raises `NotAuthenticated` for a no.

        `but`: an access token that the server has refused; it must not be this one again.
        """
        ...


class Session:
    """The login of one process; give it to the transport, then `begin` with the bus that stands on it."""

    def __init__(self, source: Source, now_ms: Callable[[], int], dice: Random | None = None) -> None:
        self._jitter = (dice or Random()).random()  # noqa: S311 - no secret; of the process, so that a copy has another
        self._source = source
        self._now_ms = now_ms
        self._held: Held | None = None
        self._refused: str | None = None
        self._obtaining = asyncio.Lock()
        self._renewing: asyncio.Task[None] | None = None
        self._hurried = asyncio.Event()

    @property
    def badge(self) -> str | None:
        """The access token of now, for a server that does not ask for it."""
        return self._held.grant.access if self._held else None

    @property
    def grant(self) -> TokenGrant | None:
        """What was granted last."""
        return self._held.grant if self._held else None

    @property
    def is_open(self) -> bool:
        """Whether the tokens may be shown on a server that asks nobody: they were had on one."""
        return self._held is not None and self._held.is_open

    @property
    def expires_in_ms(self) -> int:
        """How long the access token is still good."""
        return self._held.expires_ms - self._now_ms() if self._held else 0

    async def login(self) -> Login:
        """Return what to show at the server's door, asking for it where it is not there, expired or was refused."""
        async with self._obtaining:
            held = self._held
            if held is None or held.expires_ms - self._now_ms() < SPARE_MS or held.grant.access == self._refused:
                held = await self._obtain(None)
        return Login(nkey_seed=held.key.seed(), token=held.grant.access, expires_ms=held.expires_ms)

    def refused(self) -> None:
        """Note that the server does not take the access token of now: it is not shown again."""
        if self._held is not None:
            self._refused = self._held.grant.access

    def hurry(self) -> None:
        """Have the next token now, because somebody does not take this one, whose key may have been expelled."""
        held = self._held
        if held is not None and self._now_ms() - held.got_ms >= HURRY_MS:
            self._refused = held.grant.access
            self._hurried.set()

    def begin(self, bus: Bus) -> None:
        """Renew from now on, until the bus is closed."""
        self._renewing = asyncio.get_running_loop().create_task(self._renew(bus), name=f"session:{bus.name}")
        bus.before_close(self.end)

    async def end(self) -> None:
        """Renew no more."""
        if self._renewing is not None:
            self._renewing.cancel()
            with suppress(asyncio.CancelledError):
                await self._renewing

    async def _obtain(self, live: Bus | None) -> Held:
        held = await self._source.obtain(live, self._now_ms(), but=self._refused)
        self._held = replace(held, jitter=self._jitter)
        return self._held

    def _is_due(self) -> bool:
        held = self._held
        return held is not None and (self._now_ms() >= held.renew_ms or held.grant.access == self._refused)

    async def _until_due(self, bus: Bus, held: Held) -> None:
        """Return when a token is to be renewed, or when somebody is in a hurry."""
        if self._is_due():
            return
        self._hurried.clear()
        waits = {
            asyncio.ensure_future(bus.clock.sleep_ms(max(0, held.renew_ms - self._now_ms()))),
            asyncio.ensure_future(self._hurried.wait()),
        }
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()

    async def _renew(self, bus: Bus) -> None:
        pause_ms, is_behind = RETRY_MS, False
        while True:
            assert self._held is not None, "the transport has logged in with it"
            if not is_behind:
                await self._until_due(bus, self._held)
            try:
                async with self._obtaining:
                    if self._is_due():  # else a new connection has needed a new one meanwhile
                        await self._obtain(bus)
                        is_behind = True
                if is_behind:
                    await bus.transport.renew()
                    log.debug("session.renewed", name=bus.name)
                pause_ms, is_behind = RETRY_MS, False
            except (AntiphonError, OSError) as error:  # an OSError is one of the credential file
                code = error.code if isinstance(error, AntiphonError) else type(error).__name__
                text = error.text if isinstance(error, AntiphonError) else str(error)
                log.warning("session.not_renewed", name=bus.name, code=code, error=text)
                await bus.clock.sleep_ms(min(pause_ms, RETRY_MS_MAX))
                pause_ms *= 2


@dataclass(frozen=True, slots=True)
class Place:
    """Which fabric, and who is to be there.

    Attributes:
        endpoint: the server.
        prefix: first token of the fabric's subjects.
        name: the identity.
        kind: what it is.
        instance: which instance of a node.
    """

    endpoint: Endpoint
    prefix: str
    name: str
    kind: Kind
    instance: str | None = None

    async def ask(
        self, live: Bus | None, key: KeyPair, credential: str, *, issuer: str | None = None, is_open: bool | None = None
    ) -> Answered:
        """Return what a credential buys: over a live connection, else over one that can do nothing else.

        Args:
            live: the live connection.
            key: the process's own.
            credential: what to buy with.
            issuer: the fabric that the credential belongs to, None before the first exchange.
            is_open: whether it was made on a server that asks nobody, None before the first exchange.

        Raises `NotAuthenticated` when it is refused, `NotConnected` when nobody is there, and `InvalidSetting` when the
        server is not the one that it belongs to; then it was not shown to anybody who listens.
        """
        if live is not None and live.transport.is_connected:
            return await self._bought(live, key, credential, issuer, is_open)
        bus = await connect(self.name, endpoint=self.endpoint, prefix=self.prefix, logins=Fixed(key, credential))
        try:
            await bus.transport.flush()
            if getattr(bus.transport, "violations", 0):  # it may not even hear its own answers
                text = f"this credential is not that of {self.name!r}: say whose it is, by --name or $ANTIPHON_NAME"
                raise NotAuthenticated(text)
            return await self._bought(bus, key, credential, issuer, is_open)
        except OutOfBudget:
            if getattr(bus.transport, "violations", 0):
                text = f"the server's fabric is another one: $ANTIPHON_PREFIX is {self.prefix!r} here"
                raise InvalidSetting(text) from None
            raise
        finally:
            await bus.close()

    async def _bought(
        self, bus: Bus, key: KeyPair, credential: str, issuer: str | None, is_open: bool | None
    ) -> Answered:
        asks = bus.transport.asks_for_login
        if not may_show(asks=asks, is_open=is_open):
            raise wrong_door(self.endpoint)
        if not asks and issuer is not None:
            await self._find(bus, issuer)
        nonce = secrets.token_hex(16)
        at_ms = bus.clock.wall_ms()
        proof = prove(key, nonce, credential, at_ms)
        ask = TokenAsk(
            credential=credential, nkey=key.public, nonce=nonce, at_ms=at_ms, proof=proof, instance=self.instance
        )
        grant = await bus.ask(ask, budget_ms=ASK_MS)
        if issuer not in (None, grant.issuer):
            raise InvalidSetting(f"whoever answers at {self.endpoint.url} is not the fabric of this credential")
        return Answered(grant, not asks)

    async def _find(self, bus: Bus, issuer: str) -> None:
        """Return if a fabric is there; raise `InvalidSetting` where whoever answers is another one.

        It is no proof, because anybody may play the document back; it keeps a credential from a server that is only
        the wrong one.
        """
        from antiphon.identity.jwks import read_document  # noqa: PLC0415 - costs 5 MB, which few processes need

        document = (await bus.ask(KeysAsk(), budget_ms=ASK_MS)).document
        try:
            read_document(document, issuer, self.prefix, bus.clock.wall_ms())
        except NotAuthenticated as error:
            text = f"the fabric at {self.endpoint.url} is not that of this credential, which was not shown"
            raise InvalidSetting(f"{text}: {error.text}") from None


@dataclass(frozen=True, slots=True)
class Answered:
    """What a credential has bought, and whether on a server that asks nobody."""

    grant: TokenGrant
    is_open: bool


def may_show(*, asks: bool, is_open: bool | None) -> bool:
    """Whether a credential may be shown on a server that asks who comes in, or asks nobody.

    What is published on one that asks nobody is heard by all; only what was made there is worth no more than that.
    """
    return asks or is_open is not False


def wrong_door(endpoint: Endpoint) -> InvalidSetting:
    """Return the error for a credential that would be shown to everybody who listens."""
    return InvalidSetting(
        f"this credential is for a server that asks who comes in, and {endpoint.url} asks nobody: it was not shown. "
        "Is it the right server? For one that asks nobody, log in there with a key of its own"
    )


class Fixed:
    """A login that never changes: a static user's key, or a credential for a connection that asks for tokens."""

    def __init__(self, key: KeyPair, token: str | None = None) -> None:
        self._key = key
        self._token = token

    async def login(self) -> Login:
        """Return it."""
        return Login(nkey_seed=self._key.seed(), token=self._token)

    def refused(self) -> None:
        """Have no other."""
