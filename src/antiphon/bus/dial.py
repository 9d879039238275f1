"""One connection to a NATS server: what nats-py is told, what is mended of it, and what a refusal means.

A server that asks for a login closes the door without a word where the first line is not to its liking, so whether it
asked is read from its greeting (`auth_required`): then it is the login that is wrong, and not the way there.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import nats.errors
import structlog
from nats.aio.client import PING_PROTO, Client

from antiphon.bus.endpoint import Endpoint
from antiphon.bus.protocol import Headers, Login, Take
from antiphon.bus.server import check_version
from antiphon.errors import AntiphonError, InvalidSetting, NotAuthenticated, NotConnected

log = structlog.get_logger("antiphon.bus")

CONNECT_TIMEOUT_S = 5
"""The callout may need two seconds of it (`server_config.py`)."""
RECONNECT_WAIT_S = 0.2
FIRST_ATTEMPTS_MAX = 1
"""Further attempts at each server before the first connection fails; a lost one is tried again for ever."""
DRAIN_TIMEOUT_S = 10
REFUSED = ("authorization violation", "authentication expired", "authentication timeout", "nonce")
"""How the server's words for a refused login begin or what they hold, in nats-py's lower case."""


class StrictClient(Client):
    """nats-py's client without two of its faults (2.16), and with a short way for what comes and goes in bursts.

    A search of ten nodes is ten publishes and ten answers. Each answer costs stock nats-py an object, a queue and a
    turn of a task, each publish a check of two subjects, which are ours.
    """

    def __init__(self) -> None:
        super().__init__()
        self.taps: dict[int, Take] = {}
        """Subscription -> who takes its messages as they are read."""

    async def publish_each(self, ways: Sequence[tuple[str, str]], payload: bytes) -> None:
        """Publish the same payload to each (subject, reply) as one write."""
        tail = b" %d\r\n%b\r\n" % (len(payload), payload)
        burst = b"".join([f"PUB {subject} {reply}".encode() + tail for subject, reply in ways])
        self.stats["out_msgs"] += len(ways)
        self.stats["out_bytes"] += len(payload) * len(ways)
        await self._send_command(burst)
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        """Drop a message that cannot be read; stock nats-py stops reading for good, and anybody could send one."""
        try:
            take = self.taps.get(sid)
            if take is not None:
                self.stats["in_msgs"] += 1
                self.stats["in_bytes"] += len(data)
                self._tapped(take, subject.decode(), data, (await self._process_headers(headers)) if headers else None)
                return
            await super()._process_msg(sid, subject, reply, data, headers)
        except (ValueError, IndexError) as error:
            # a subject that is not UTF-8, a header block of a bare or an undecodable status
            await self._error_cb(error)

    def _tapped(self, take: Take, subject: str, data: bytes, headers: Headers | None) -> None:
        try:
            take(subject, data, headers)
        except Exception:
            # as for other receivers: a bug loses its message, not the connection's reader
            log.exception("bus.receiver_bug", subject=subject)

    async def _send_ping(self, future: asyncio.Future[Any] | None = None) -> None:
        """Ping behind what is pending; stock nats-py overtakes it, and a flush returns before it was sent."""
        if not self.is_connected:
            await super()._send_ping(future)  # pyright: ignore[reportUnknownMemberType] - nats-py's futures name no result
            return
        self._pongs.append(  # pyright: ignore[reportUnknownMemberType] - the same
            asyncio.get_running_loop().create_future() if future is None else future
        )
        await self._send_command(PING_PROTO)
        await self._flush_pending()

    @property
    def asks_for_login(self) -> bool:
        """Whether the server's greeting asked for one."""
        return bool(self._server_info.get("auth_required"))


@dataclass(frozen=True, slots=True)
class Calls:
    """What a connection tells of itself."""

    errored: Callable[[Exception], Awaitable[None]]
    disconnected: Callable[[], Awaitable[None]]
    reconnected: Callable[[], Awaitable[None]]
    closed: Callable[[], Awaitable[None]]


async def dial(endpoint: Endpoint, login: Login | None, *, name: str, inbox: str, calls: Calls) -> StrictClient:
    """Return a connection.

    One whose login is a token is not connected again by nats-py, which would show the old token for ever: whoever
    holds it dials anew (`nats.py`).

    Raises `NotAuthenticated` when the server lets nobody in with this login, `NotConnected` when nobody is there,
    `ServerTooOld` for a server below the supported version.
    """
    client = StrictClient()
    heard: list[Exception] = []

    async def errored(error: Exception) -> None:
        heard.append(error)
        await calls.errored(error)

    is_token = login is not None and login.token is not None
    try:
        await client.connect(
            endpoint.url,
            name=name,
            inbox_prefix=inbox,
            connect_timeout=CONNECT_TIMEOUT_S,
            reconnect_time_wait=cast("int", RECONNECT_WAIT_S),
            # nats-py counts the first connection as a reconnection, and -1 would keep trying for ever
            max_reconnect_attempts=FIRST_ATTEMPTS_MAX,
            allow_reconnect=not is_token,
            drain_timeout=DRAIN_TIMEOUT_S,
            error_cb=errored,
            disconnected_cb=calls.disconnected,
            reconnected_cb=calls.reconnected,
            closed_cb=calls.closed,
            skip_subject_validation=True,  # every subject is made of checked tokens, or is a reply that came by NATS
            **credentials(endpoint, login),
        )
    except (OSError, TimeoutError, nats.errors.Error) as error:
        with suppress(Exception):
            await client.close()
        raise _refusal(client, endpoint, [error, *heard], is_token=is_token) from error
    client.options["max_reconnect_attempts"] = -1
    check_version(str(client.connected_server_version))
    return client


def _refusal(client: StrictClient, endpoint: Endpoint, errors: list[Exception], *, is_token: bool) -> AntiphonError:
    words = " ".join(str(error) for error in errors).lower()
    if any(one in words for one in REFUSED) or (client.asks_for_login and not _is_tls(errors)):
        advice = "its masters' log says why" if is_token else "`antiphon login` gets a credential for this machine"
        return NotAuthenticated(f"the NATS server at {endpoint.url} does not let this process in: {advice}")
    reason = next((str(error) for error in reversed(errors) if str(error)), type(errors[0]).__name__)
    return NotConnected(f"no NATS server at {endpoint.url}: {reason}")


def _is_tls(errors: list[Exception]) -> bool:
    return any(isinstance(error, ssl.SSLError) for error in errors)


def credentials(endpoint: Endpoint, login: Login | None = None) -> dict[str, Any]:
    """Return the connect options that an endpoint's credentials, or a login, stand for."""
    given: dict[str, Any] = {
        "user": endpoint.user,
        "password": endpoint.password,
        "token": endpoint.token,
        "user_credentials": None if endpoint.credentials is None else str(endpoint.credentials),
        "nkeys_seed": None if endpoint.nkey_seed_file is None else str(endpoint.nkey_seed_file),
        "tls": context(endpoint),
    }
    if login is not None:
        given |= {"nkeys_seed_str": login.nkey_seed, "token": login.token}
    return {option: value for option, value in given.items() if value is not None}


def context(endpoint: Endpoint) -> ssl.SSLContext | None:
    """Return how to check the server and what to show it, None where nothing is said: then TLS is the URL's to ask for.

    Raises `InvalidSetting` for a file that cannot be used; its words name the file and not what is in it.
    """
    if endpoint.ca is None and endpoint.certificate is None and not endpoint.is_tls:
        return None
    try:
        made = ssl.create_default_context(cafile=None if endpoint.ca is None else str(endpoint.ca))
        if endpoint.certificate is not None:
            key = endpoint.key or endpoint.certificate
            made.load_cert_chain(str(endpoint.certificate), str(key))
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(str(one) for one in (endpoint.ca, endpoint.certificate, endpoint.key) if one is not None)
        raise InvalidSetting(f"TLS cannot be set up with {files}: {type(error).__name__}") from None
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    return made
