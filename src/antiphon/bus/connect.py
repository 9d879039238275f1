"""From an identity's name to its started bus: resolve where, connect, subscribe the inbox."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

from antiphon import subjects
from antiphon.bus.bounds import Bounds
from antiphon.bus.bus import Bus
from antiphon.bus.endpoint import resolve
from antiphon.bus.nats import NatsTransport

PREFIX_VARIABLE: Final = "ANTIPHON_PREFIX"


async def connect(
    name: str,
    *,
    nats: str | None = None,
    context: str | None = None,
    data: Path | None = None,
    prefix: str | None = None,
    bounds: Bounds | None = None,
) -> Bus:
    """Return the started bus of an identity.

    Args:
        name: the identity; the last token of everything it asks and tells.
        nats: the server's URL; else the NATS context, `ANTIPHON_NATS`, the embedded server of `data`, in this order.
        context: a NATS context by name.
        data: the data directory of an embedded server.
        prefix: the first token of all subjects; default: `ANTIPHON_PREFIX`, else `antiphon`.
        bounds: the bus's limits.

    Raises:
        NotConnected: nobody is there; the text says what to do.
        ServerTooOld: the server's version is below the supported one.
        InvalidName: the name is no subject token.
    """
    session = secrets.token_hex(8)
    inbox = subjects.inbox(name, session)
    endpoint = resolve(nats, context=context, data=data)
    transport = await NatsTransport.connect(endpoint, name=name, inbox=inbox)
    first = subjects.token(prefix or os.environ.get(PREFIX_VARIABLE) or subjects.PREFIX)
    bus = Bus(transport, name=name, session=session, prefix=first, bounds=bounds)
    await bus.start()
    return bus
