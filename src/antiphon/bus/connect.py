"""From an identity's name to its started bus: resolve where, connect, subscribe the inbox."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

from antiphon import subjects
from antiphon.bus.bounds import Bounds
from antiphon.bus.bus import Bus
from antiphon.bus.endpoint import Endpoint, resolve
from antiphon.bus.nats import NatsTransport
from antiphon.bus.protocol import Logins

PREFIX_VARIABLE: Final = "ANTIPHON_PREFIX"


async def connect(
    name: str,
    *,
    nats: str | None = None,
    context: str | None = None,
    data: Path | None = None,
    endpoint: Endpoint | None = None,
    prefix: str | None = None,
    bounds: Bounds | None = None,
    logins: Logins | None = None,
) -> Bus:
    """Return the started bus of an identity.

    Args:
        name: the identity; the last token of everything it asks and tells.
        nats: the server's URL; else the NATS context, `ANTIPHON_NATS`, the embedded server of `data`, in this order.
        context: a NATS context by name.
        data: the data directory of an embedded server.
        endpoint: where to connect, if it is known already.
        prefix: the first token of all subjects; default: `ANTIPHON_PREFIX`, else `antiphon`.
        bounds: the bus's limits.
        logins: what to show at the door; default: what the endpoint says.

    Raises:
        NotConnected: nobody is there; the text says what to do.
        ServerTooOld: the server's version is below the supported one.
        InvalidName: the name is no subject token.
    """
    session = secrets.token_hex(8)
    inbox = subjects.inbox(name, session)
    endpoint = endpoint or resolve(nats, context=context, data=data)
    transport = await NatsTransport.connect(endpoint, name=name, inbox=inbox, logins=logins)
    bus = Bus(transport, name=name, session=session, prefix=prefix_of(prefix), bounds=bounds)
    await bus.start()
    return bus


def prefix_of(given: str | None) -> str:
    """Return the first token of all subjects: the given one, `$ANTIPHON_PREFIX`, or `antiphon`."""
    return subjects.token(given or os.environ.get(PREFIX_VARIABLE) or subjects.PREFIX)
