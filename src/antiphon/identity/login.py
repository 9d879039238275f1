"""Logging in: an API key or a join token becomes a credential file, from which every later process takes its tokens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from antiphon.bus.home import prepare
from antiphon.errors import InvalidSetting
from antiphon.identity import credential as files
from antiphon.identity import kept, opaque
from antiphon.identity.connect import NODES_JOIN
from antiphon.identity.credential import Credential
from antiphon.identity.keypair import KeyPair, Role
from antiphon.identity.opaque import Sort
from antiphon.identity.session import Place
from antiphon.identity.sources import JoinSource, with_grant
from antiphon.messages.base import Kind
from antiphon.messages.tokens import TokenGrant


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """What a login has made.

    Attributes:
        file: the credential.
        grant: what it says; its secrets stay out of its text form.
    """

    file: Path
    grant: TokenGrant


async def log_in(place: Place, token: str, data: Path, key: KeyPair | None = None) -> LoggedIn:
    """Keep in a data directory what an API key or a join token buys; commands and nodes find it there.

    A publisher or operator is from then on who asks from this directory, where no other name is given.

    Args:
        place: the server, and who is to be there; of a node, which instance.
        token: the API key or join token.
        data: the data directory.
        key: the nkey that an API key is bound to; default: a new one.

    Raises:
        InvalidSetting: it is neither, a join token without an instance of a node, or an API key for a node.
        NotAuthenticated: it is refused.
        NotConnected: nobody is there.
    """
    found = opaque.parse(token.strip())
    if found is None or found.sort is Sort.REFRESH:
        raise InvalidSetting("this is neither an API key (ak_...) nor a join token (jt_...): one letter may be missing")
    home = prepare(data)
    if found.sort is Sort.JOIN:
        if place.kind is not Kind.NODE or place.instance is None:
            raise InvalidSetting("a join token makes an instance of a node: log in with --kind node")
        path = files.path_of(home, place.name, place.instance)
        return LoggedIn(path, (await JoinSource(place, token.strip(), path).obtain(None, 0)).grant)
    if place.kind is Kind.NODE:
        raise InvalidSetting(NODES_JOIN)
    key = key or KeyPair.make(Role.USER)
    answered = await place.ask(None, key, token.strip())
    grant = answered.grant
    path = files.path_of(home, grant.name)
    made = Credential(name=grant.name, kind=grant.kind, seed=key.seed(), api_key=token.strip())
    files.write(path, with_grant(made, answered))
    kept.choose(home, grant.name)
    return LoggedIn(path, grant)
