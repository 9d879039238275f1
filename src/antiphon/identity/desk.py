"""The operators' side of identities: who there is, their keys and invites, and taking them away.

```python
from antiphon import Client
from antiphon.identity.desk import Desk

async with Client() as operator:
    desk = Desk(operator.bus)
    await desk.create("cellar", "publisher", groups=["staff"])
    made = await desk.create_key("cellar", label="the web server in the cellar")
    assert made.key.startswith("ak_")  # shown this once
    await desk.order("cellar", "suspend")
```
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from antiphon.bus.bus import Bus
from antiphon.bus.codec import first_reason
from antiphon.errors import Malformed
from antiphon.messages.base import Kind, Message
from antiphon.messages.identities import (
    CredentialRevoke,
    IdentityCreate,
    IdentityDetail,
    IdentityEntry,
    IdentityGet,
    IdentityList,
    IdentityOrder,
    IdentityUpdate,
    KeyCreate,
    KeyCreated,
    KeysRotate,
    NodeInvite,
    NodeInvited,
    RingView,
)
from antiphon.messages.tokens import WhoAmI, WhoIs

DAY_MS = 86_400_000

M = TypeVar("M", bound=Message)


class Desk:
    """What an operator asks of the masters about identities; every answer is from the shared record of all masters.

    Args:
        bus: the started bus of an operator. `Client.bus` is one.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def whoami(self) -> WhoIs:
        """Return whom the masters take this process for; everybody may ask."""
        return await self._bus.ask(WhoAmI())

    # -- identities

    async def identities(self, kind: Kind | str | None = None) -> tuple[IdentityEntry, ...]:
        """Return the identities, all or of one kind, by name."""
        found: list[IdentityEntry] = []
        after: str | None = None
        while True:
            page = await self._bus.ask(_made(IdentityList, kind=kind, after=after))
            found += page.identities
            after = page.next
            if after is None:
                return tuple(found)

    async def get(self, name: str) -> IdentityDetail:
        """Return an identity with its credentials; raises `UnknownIdentity` where there is none."""
        return await self._bus.ask(_made(IdentityGet, name=name))

    async def create(
        self,
        name: str,
        kind: Kind | str,
        *,
        groups: Sequence[str] = (),
        is_delegate: bool = False,
        instances_max: int | None = None,
    ) -> IdentityEntry:
        """Make an identity; making the same again is the same as once.

        Args:
            name: its name, unique over all kinds.
            kind: publisher, node, operator or analyst.
            groups: what it belongs to; policy and nodes go by it.
            is_delegate: whether it may ask for others: a face for many, such as an HTTP gateway.
            instances_max: of a node: how many instances it may have; default: the most there may be.

        Raises:
            AlreadyRegistered: there is another identity of this name.
            NotAllowed: it is a name or kind of masters.
            Malformed: a field is outside its bounds.
        """
        given = {} if instances_max is None else {"instances_max": instances_max}
        ask = _made(IdentityCreate, name=name, kind=kind, groups=tuple(groups), is_delegate=is_delegate, **given)
        return await self._bus.ask(ask)

    async def update(
        self,
        name: str,
        *,
        groups: Sequence[str] | None = None,
        is_delegate: bool | None = None,
        instances_max: int | None = None,
    ) -> IdentityEntry:
        """Change what is given of an identity and leave the rest; raises `UnknownIdentity` where there is none."""
        ask = _made(
            IdentityUpdate,
            name=name,
            groups=None if groups is None else tuple(groups),
            is_delegate=is_delegate,
            instances_max=instances_max,
        )
        return await self._bus.ask(ask)

    async def order(self, name: str, order: str) -> IdentityEntry:
        """Suspend an identity, resume it, or revoke everything that it holds; its live connections are ended.

        Args:
            name: the identity.
            order: `suspend` keeps it out until `resume`, with what it holds; `revoke` makes what it holds worthless.

        Raises:
            UnknownIdentity: there is none of this name.
        """
        return await self._bus.ask(_made(IdentityOrder, name=name, order=order))

    # -- credentials

    async def revoke(self, what: str, serial: str) -> None:
        """Revoke one credential; connections that live by it are ended.

        Args:
            what: `token` (an access token, by its `jti`), `family` (an instance's refresh tokens), `key` or `invite`.
            serial: its id, never the secret.

        Raises:
            UnknownIdentity: there is none of this id.
        """
        await self._bus.ask(_made(CredentialRevoke, what=what, id=serial))

    async def create_key(
        self, identity: str, *, label: str = "", keep_ms: int | None = None, nkey: str | None = None
    ) -> KeyCreated:
        """Make an API key; the answer holds it, and nothing else ever will.

        Args:
            identity: whose; there has to be such an identity.
            label: what it is for.
            keep_ms: how long it is good; default: until it is revoked.
            nkey: the only nkey (`U...`) that may use it.
        """
        return await self._bus.ask(_made(KeyCreate, identity=identity, label=label, keep_ms=keep_ms, nkey=nkey))

    async def invite(self, node: str, *, instances: int = 1, keep_ms: int = DAY_MS) -> NodeInvited:
        """Make a join token for so many new instances of a node; the answer holds it, and nothing else ever will."""
        return await self._bus.ask(_made(NodeInvite, node=node, instances=instances, keep_ms=keep_ms))

    # -- the keys that sign tokens

    async def rotate(self, *, expel: str | None = None) -> RingView:
        """Let the next signing key sign; or expel one that has leaked, by its id, whose tokens die at once."""
        return await self._bus.ask(_made(KeysRotate, order="rotate", expel=expel))


def _made(model: type[M], /, **fields: Any) -> M:
    """Return a message, or raise `Malformed` with what is wrong."""
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise Malformed(first_reason(error)) from None
