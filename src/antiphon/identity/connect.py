"""From an identity's name to its started bus: where, with which credential, and with tokens that stay fresh.

The credential is the first that is there: a file or a token that was given, one that an earlier start has kept, the
operator of this machine (who vouches for whatever runs here), or none, for a server that asks for none.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from antiphon import subjects
from antiphon.bus.bounds import Bounds
from antiphon.bus.bus import Bus
from antiphon.bus.connect import connect as connect_with
from antiphon.bus.connect import prefix_of
from antiphon.bus.endpoint import Endpoint, resolve
from antiphon.bus.home import default_data_dir, running
from antiphon.decide.grants import Rights
from antiphon.errors import InvalidSetting
from antiphon.identity import credential as files
from antiphon.identity import kept, opaque
from antiphon.identity.opaque import Sort
from antiphon.identity.session import Place, Session, Source, may_show, wrong_door
from antiphon.identity.sources import FileSource, JoinSource, KeySource, LocalSource
from antiphon.messages.base import Kind

if TYPE_CHECKING:
    from antiphon.decide.login import DelegatedClaims

FILE_VARIABLE: Final = "ANTIPHON_CREDENTIALS"
TOKEN_VARIABLE: Final = "ANTIPHON_TOKEN"  # noqa: S105 - the name of a variable
NAME_VARIABLE: Final = "ANTIPHON_NAME"


NODES_JOIN: Final = "an API key is for a publisher or operator; a node takes a join token: `antiphon node invite`"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to log in with, as far as somebody has said.

    Attributes:
        file: a credential file; else `$ANTIPHON_CREDENTIALS`.
        token: an API key or a join token; else `$ANTIPHON_TOKEN`. Never an argument on a command line, which all see.
    """

    file: Path | None = None
    token: str | None = None

    @classmethod
    def of(cls, file: Path | None, environment: Mapping[str, str] = os.environ) -> Wanted:
        """Return what was given, completed from the environment."""
        named = environment.get(FILE_VARIABLE)
        found = file or (Path(named).expanduser() if named else None)
        return cls(found, environment.get(TOKEN_VARIABLE) or None)


async def connect(
    name: str,
    *,
    kind: Kind = Kind.PUBLISHER,
    instance: str | None = None,
    nats: str | None = None,
    context: str | None = None,
    data: Path | None = None,
    prefix: str | None = None,
    bounds: Bounds | None = None,
    credentials: Path | None = None,
) -> Bus:
    """Return the started bus of an identity, logged in as it is needed here.

    Args:
        name: the identity; the last token of everything it asks and tells.
        kind: what it is; one that is known already keeps its kind.
        instance: which instance of a node.
        nats: the server's URL; else the NATS context, `ANTIPHON_NATS`, the embedded server of `data`, in this order.
        context: a NATS context by name.
        data: the data directory of an embedded server.
        prefix: the first token of all subjects; default: `ANTIPHON_PREFIX`, else `antiphon`.
        bounds: the bus's limits.
        credentials: a credential file; default: `$ANTIPHON_CREDENTIALS`, `$ANTIPHON_TOKEN`, or what this machine has.

    Raises:
        NotAuthenticated: the credential is refused.
        NotConnected: nobody is there, or who is there lets nobody in; the text says what to do.
        ServerTooOld: the server's version is below the supported one.
        InvalidName: the name is no subject token.
    """
    endpoint = resolve(nats, context=context, data=data)
    place = Place(endpoint, prefix_of(prefix), subjects.token(name), kind, instance)
    source = source_of(place, Wanted.of(credentials), data)
    if source is None:
        return await connect_with(name, endpoint=endpoint, prefix=place.prefix, bounds=bounds)
    session = Session(source, monotonic_ms)
    bus = await connect_with(name, endpoint=endpoint, prefix=place.prefix, bounds=bounds, logins=session)
    granted = session.grant
    assert granted is not None, "the transport has logged in with it"
    fabric = files.fabric_of(granted.access)
    if fabric not in (None, place.prefix):
        await bus.close()
        raise InvalidSetting(f"this credential is for the fabric {fabric!r}: $ANTIPHON_PREFIX is {place.prefix!r}")
    bus.rights = Rights(granted.kind, granted.name, granted.instance, prefix=place.prefix)
    bus.verify = partial(_verify, session, place.prefix)
    if not may_show(asks=bus.transport.asks_for_login, is_open=session.is_open):
        await bus.close()
        raise wrong_door(endpoint)
    if not bus.transport.asks_for_login:
        from antiphon.identity.held_keys import put_on_badge  # noqa: PLC0415 - costs 5 MB, which few processes need

        put_on_badge(bus, session, place.prefix)
    session.begin(bus)
    _sessions[bus] = session
    return bus


def _verify(session: Session, prefix: str, token: str, caller: str) -> DelegatedClaims:
    from antiphon.identity.held_keys import held_keys  # noqa: PLC0415 - as above: few processes are asked for somebody else

    return held_keys(session, prefix).verify(token, caller)


_sessions: WeakKeyDictionary[Bus, Session] = WeakKeyDictionary()


def session_of(bus: Bus) -> Session | None:
    """Return the session that a bus stands on, None where the server asks for none."""
    return _sessions.get(bus)


def source_of(place: Place, wanted: Wanted, data: Path | None) -> Source | None:
    """Return where this process gets its tokens from, None where it needs none.

    Raises `InvalidSetting` for a token that is none, and what reading a file raises.
    """
    if wanted.file is not None:
        found = files.read(wanted.file)
        if found.name != place.name:
            raise InvalidSetting(f"{wanted.file} is the credential of {found.name!r}, not of {place.name!r}")
        if place.instance is not None and found.instance != place.instance:
            which = f"instance {found.instance!r}, not of {place.instance!r}"
            raise InvalidSetting(f"{wanted.file} is the credential of {which}")
        return FileSource(place, wanted.file)
    path = files.path_of(data or default_data_dir(), place.name, place.instance)
    if wanted.token is not None:
        return _with_token(place, wanted.token, path)
    if _is_known(place.endpoint):
        return None
    return FileSource(place, path) if _holds_token(path) else _local(place, data)


def _holds_token(path: Path) -> bool:
    found = files.find(path)
    return found is not None and found.has_token


def _local(place: Place, data: Path | None) -> Source | None:
    operator = local_operator(place.endpoint, data)
    if operator is None:
        return None
    is_operator = files.read(operator).name == place.name
    return FileSource(place, operator) if is_operator else LocalSource(place, operator)


def credential_of(
    name: str, endpoint: Endpoint, data: Path | None, credentials: Path | None
) -> tuple[str, Path | None]:
    """Return what a publisher or operator logs in with, in words, and the file that it is in, if it is in one."""
    found = source_of(Place(endpoint, subjects.PREFIX, name, Kind.PUBLISHER), Wanted.of(credentials), data)
    if isinstance(found, FileSource):
        return "file", found.path
    if isinstance(found, LocalSource):
        return "the operator of this machine", found.operator
    return (f"${TOKEN_VARIABLE}" if found is not None else "none"), None


def own_name(user: str, data: Path | None, credentials: Path | None) -> str:
    """Return who a process is that was given no name.

    1. whom its credential file names; 2. `$ANTIPHON_NAME`; 3. whoever logged in here last; 4. its user.
    """
    wanted = Wanted.of(credentials)
    if wanted.file is not None:
        return files.read(wanted.file).name
    return os.environ.get(NAME_VARIABLE) or (None if wanted.token else kept.chosen(data)) or user


def local_operator(endpoint: Endpoint, data: Path | None) -> Path | None:
    """Return the credential of this machine's operator, if the endpoint is the server of a data directory here."""
    homes = [default_data_dir()] if data is None else [data, default_data_dir()]
    for home in homes:
        note = running(home)
        if note is not None and note.url in endpoint.urls and (home / files.OPERATOR).is_file():
            return home / files.OPERATOR
    return None


def monotonic_ms() -> int:
    """Return milliseconds that go on while the machine sleeps, where the system can tell."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime_ns(clock) // 1_000_000


def _with_token(place: Place, text: str, path: Path) -> Source:
    found = opaque.parse(text.strip())
    if found is None or found.sort is Sort.REFRESH:
        raise InvalidSetting(f"${TOKEN_VARIABLE} is neither an API key nor a join token: one letter may be missing")
    if found.sort is Sort.API_KEY:
        if place.kind is Kind.NODE:
            raise InvalidSetting(NODES_JOIN)
        return KeySource(place, text.strip())
    if place.kind is not Kind.NODE or place.instance is None:
        raise InvalidSetting("a join token is for a node; publishers and operators take an API key")
    return JoinSource(place, text.strip(), path)


def _is_known(endpoint: Endpoint) -> bool:
    """Whether the endpoint says itself what to show at the door."""
    return any((endpoint.user, endpoint.password, endpoint.token, endpoint.credentials, endpoint.nkey_seed_file))
