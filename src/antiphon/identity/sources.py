"""Where a process gets its tokens from: a credential file, an API key, a join token, or the operator of its machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TypedDict

from antiphon.bus.bus import Bus
from antiphon.bus.connect import connect
from antiphon.errors import InvalidSetting, NotAuthenticated
from antiphon.identity import credential as files
from antiphon.identity.credential import Credential
from antiphon.identity.keypair import KeyPair, Role
from antiphon.identity.session import ASK_MS, Answered, Held, Place, Session, spare_ms
from antiphon.messages.base import Kind
from antiphon.messages.tokens import Enrol, TokenGrant


class FileSource:
    """A credential file; whoever renews it holds its lock, so several processes may use one.

    A token that is not due for renewal yet was renewed by another process, and is used as it is.
    """

    def __init__(self, place: Place, path: Path) -> None:
        self.place = place
        self.path = path

    async def obtain(self, live: Bus | None, now_ms: int, *, but: str | None = None) -> Held:
        """Return the file's token while it is fresh, else buy the next one and write it down."""
        async with files.held(self.path) as held:
            found = held.credential
            left_ms = found.access_expires_ms - wall_ms()
            is_due = left_ms <= spare_ms(found.access_life_ms)
            if found.access not in (None, but) and found.issuer is not None and not is_due:
                return Held(found.keypair, _remembered(found, left_ms), now_ms, found.access_life_ms, found.is_open)
            credential = found.refresh or found.api_key
            if credential is None:
                raise NotAuthenticated(f"{self.path} has nothing to get a token with: log in again")
            answered = await self.place.ask(live, found.keypair, credential, issuer=found.issuer, is_open=found.is_open)
            held.replace(with_grant(found, answered))
            return Held(found.keypair, answered.grant, now_ms, is_open=answered.is_open)


class KeySource:
    """An API key that a process was given: its nkey and its tokens live as long as the process."""

    def __init__(self, place: Place, api_key: str) -> None:
        self._place = place
        self._api_key = api_key
        self._key = KeyPair.make(Role.USER)
        self._first: Answered | None = None

    async def obtain(self, live: Bus | None, now_ms: int, *, but: str | None = None) -> Held:  # noqa: ARG002 - all are new
        """Return a new token, from the fabric that the first one was from."""
        answered = await self._place.ask(live, self._key, self._api_key, **_pinned(self._first))
        self._first = self._first or answered
        return Held(self._key, answered.grant, now_ms, is_open=answered.is_open)


class JoinSource:
    """A join token: good for one new instance, which keeps what it got in a file."""

    def __init__(self, place: Place, join: str, path: Path) -> None:
        self._place = place
        self._join = join
        self._file = FileSource(place, path)
        self._has_joined = False

    async def obtain(self, live: Bus | None, now_ms: int, *, but: str | None = None) -> Held:
        """Join once; from then on the file is enough.

        A file that is refused when the process starts is replaced: who has given it a token wants that to be used.
        Later it is not, or nobody could be put out who has a token left.
        """
        found = files.find(self._file.path)
        if found is None or found.refresh is None:
            held = await self._join_as(found, live, now_ms)
        else:
            try:  # at first its token is not taken for good, which a revoked one still looks like
                held = await self._file.obtain(live, now_ms, but=but if self._has_joined else found.access)
            except NotAuthenticated:
                if self._has_joined:
                    raise
                held = await self._join_as(found, live, now_ms)
        self._has_joined = True
        return held

    async def _join_as(self, found: Credential | None, live: Bus | None, now_ms: int) -> Held:
        """Join with the key of a credential that was found, or a new one; nothing is lost of one by a refusal."""
        path, place = self._file.path, self._place
        if found is None:
            # The key first: if the answer is lost, the same instance with the same key may ask again.
            seed = KeyPair.make(Role.USER).seed()
            files.write(path, Credential(name=place.name, kind=Kind.NODE, instance=place.instance, seed=seed))
        async with files.held(path) as held:
            there = held.credential
            if there.refresh is None or (found is not None and there.refresh == found.refresh):
                try:
                    answered = await place.ask(live, there.keypair, self._join)
                except NotAuthenticated:
                    if found is None:  # nothing was handed out for it
                        files.discard(path)
                    raise
                held.replace(with_grant(there, answered))
                return Held(there.keypair, answered.grant, now_ms, is_open=answered.is_open)
        return await self._file.obtain(live, now_ms)  # another process has joined meanwhile


class LocalSource:
    """The operator of this machine, who vouches for its processes: nothing has to be set up, nothing is kept."""

    def __init__(self, place: Place, operator: Path) -> None:
        self._place = place
        self.operator = operator
        self._key = KeyPair.make(Role.USER)
        self._last: Answered | None = None

    async def obtain(self, live: Bus | None, now_ms: int, *, but: str | None = None) -> Held:  # noqa: ARG002 - all are new
        """Renew by the refresh token; begin anew, by the operator, where that is not accepted any more."""
        answered, last = None, self._last
        if last is not None and last.grant.refresh is not None:
            try:
                answered = await self._place.ask(live, self._key, last.grant.refresh, **_pinned(last))
            except NotAuthenticated:
                answered = None
        answered = self._last = answered or await self._enrol(now_ms)
        return Held(self._key, answered.grant, now_ms, is_open=answered.is_open)

    async def _enrol(self, now_ms: int) -> Answered:
        place, operator = self._place, files.read(self.operator)
        theirs = Place(place.endpoint, place.prefix, operator.name, operator.kind)
        session = Session(FileSource(theirs, self.operator), lambda: now_ms)
        bus = await connect(operator.name, endpoint=place.endpoint, prefix=place.prefix, logins=session)
        try:
            ask = Enrol(name=place.name, kind=place.kind, instance=place.instance, nkey=self._key.public)
            return Answered(await bus.ask(ask, budget_ms=ASK_MS), not bus.transport.asks_for_login)
        finally:
            await bus.close()


class _Pinned(TypedDict, total=False):
    issuer: str
    is_open: bool


def _pinned(answered: Answered | None) -> _Pinned:
    """Return what a credential belongs to that is kept in memory."""
    return {} if answered is None else {"issuer": answered.grant.issuer, "is_open": answered.is_open}


def with_grant(found: Credential, answered: Answered) -> Credential:
    """Return a credential with what was granted; a refresh token that was used is gone.

    The fabric that it belongs to stays what it was first; a credential that has come in at a door is for doors.
    """
    grant = answered.grant
    if found.issuer not in (None, grant.issuer):
        raise InvalidSetting(f"{found.name} was granted a token by another fabric than the credential is for")
    changed = {
        "access": grant.access,
        "access_expires_ms": wall_ms() + grant.expires_in_ms,
        "access_life_ms": grant.expires_in_ms,
        "refresh": grant.refresh,
        "issuer": grant.issuer,
        "is_open": answered.is_open,
        "keys": grant.keys,
        "kind": grant.kind,
    }
    return Credential.model_validate(found.model_dump() | changed)


def wall_ms() -> int:
    """Return this machine's wall clock: what stands in files has to mean something to the next process."""
    return time.time_ns() // 1_000_000


def _remembered(found: Credential, left_ms: int) -> TokenGrant:
    assert found.access is not None
    assert found.issuer is not None
    return TokenGrant(
        access=found.access,
        expires_in_ms=left_ms,
        refresh=found.refresh,
        name=found.name,
        kind=found.kind,
        instance=found.instance,
        issuer=found.issuer,
        keys=found.keys or "-",
    )
