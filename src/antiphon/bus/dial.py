"""One connection to a NATS server: what nats-py is told, what is mended of it, and what a refusal means.

A server that asks for a login closes the door without a word where the first line is not to its liking, so whether it
asked is read from its greeting (`auth_required`): then it is the login that is wrong, and not the way there.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import nats.errors
from nats.aio.client import Srv

from antiphon.bus.endpoint import CA_VARIABLE, CERTIFICATE_VARIABLE, Endpoint
from antiphon.bus.link import TRIES_MAX, Link
from antiphon.bus.protocol import Login
from antiphon.bus.version import check_version
from antiphon.errors import AntiphonError, InvalidSetting, NotAuthenticated, NotConnected

CONNECT_TIMEOUT_S = 5
"""The callout may need two seconds of it (`server_config.py`)."""
RECONNECT_WAIT_S = 0.2
ABSENT_WAIT_MS: Final = 200
"""Between attempts where nobody listens, which costs nobody anything. It is not drawn: parties that come back one by
one look like failures to those who are back already."""
SEED: Final = re.compile(r"SU[A-Z2-7]{56}")
CREDENTIALS_BYTES_MAX: Final = 65_536
CREDENTIALS_MARKS: Final = (b"BEGIN NATS USER JWT", b"BEGIN USER NKEY SEED")
REFUSED = ("authorization violation", "authentication expired", "authentication timeout", "nonce")
"""How the server's words for a refused login begin or what they hold, in nats-py's lower case."""
FULL = "maximum"
"""What they hold where there is no room: `maximum connections exceeded`, `maximum account active connections ...`."""
FAR = (TimeoutError, ConnectionRefusedError, ssl.SSLError)
"""Nobody has looked at the login yet: a greeting that asked for one says nothing then."""


@dataclass(frozen=True, slots=True)
class Calls:
    """What a connection tells of itself."""

    errored: Callable[[Exception], Awaitable[None]]
    ended: Callable[[Link], None]


async def dial(  # noqa: D417 - the others are described where they come from
    endpoint: Endpoint,
    login: Login | None,
    *,
    name: str,
    inbox: str,
    own: str,
    calls: Calls,
    known: Sequence[Srv] = (),
    beside: Link | None = None,
    tries: int = TRIES_MAX,
) -> Link:
    """Return a connection.

    Args:
        own: what the queue groups of its transport's own subscriptions begin with.
        known, beside, tries: see `Link`.

    Raises `NotAuthenticated` when the server lets nobody in with this login, `NotConnected` when nobody is there,
    `ServerTooOld` for a server below the supported version, `InvalidSetting` for a file that is not what it should be.
    """
    options = credentials(endpoint, login)
    client = Link(needs_tls=endpoint.needs_tls, on_end=calls.ended, known=known, beside=beside, tries=tries)
    heard: list[Exception] = []

    async def errored(error: Exception) -> None:
        if not client.is_live:
            heard.append(error)
        elif not isinstance(error, nats.errors.UnexpectedEOF):  # the end itself, which is told as such
            await calls.errored(error)

    is_token = login is not None and login.token is not None
    try:
        await client.connect(
            endpoint.urls,
            name=name,
            inbox_prefix=inbox,
            connect_timeout=CONNECT_TIMEOUT_S,
            reconnect_time_wait=cast("int", RECONNECT_WAIT_S),
            # nats-py counts the first connection as a reconnection, and -1 would keep trying for ever
            max_reconnect_attempts=TRIES_MAX - 1,
            dont_randomize=True,  # the order is the link's own
            error_cb=errored,
            skip_subject_validation=True,  # every subject is made of checked tokens, or is a reply that came by NATS
            **options,
        )
        if not client.is_connected:  # nats-py takes a server that hangs up for one that has let it in
            raise nats.errors.UnexpectedEOF  # noqa: TRY301 - a refusal as those are that nats-py sees
        check_version(str(client.connected_server_version))
    except (OSError, nats.errors.Error) as error:
        await client.end()
        raise _refusal(client, endpoint, [*heard, error], is_token=is_token) from error
    except BaseException:
        await client.end()  # too old a server, or nobody waits any more: the socket would stay
        raise
    client.begin(own, None if login is None else login.expires_ms)
    return client


def _refusal(client: Link, endpoint: Endpoint, errors: list[Exception], *, is_token: bool) -> AntiphonError:
    """Return what the errors of an attempt mean, of which the last but nats-py's summary says the most."""
    last = next((one for one in reversed(errors) if not isinstance(one, nats.errors.NoServersError)), errors[-1])
    if isinstance(last, nats.errors.SecureConnWantedError):
        return NotConnected(
            f"the server at {endpoint.url} does not encrypt, and was told nothing: say nats://, and no CA"
        )
    words = " ".join(str(error) for error in errors).lower()
    is_told = any(one in words for one in REFUSED)
    is_hung_up = isinstance(last, (OSError, nats.errors.UnexpectedEOF)) and not isinstance(last, FAR)
    if not is_told and (isinstance(last, ssl.SSLError) or (is_hung_up and client.asks_for_certificate)):
        return NotConnected(f"no encrypted connection to {endpoint.url}: {_tls_words(client, endpoint, last)}")
    if is_told or (client.asks_for_login and not isinstance(last, FAR) and FULL not in words):
        advice = "its masters' log says why" if is_token else "`antiphon login` gets a credential for this machine"
        return NotAuthenticated(f"the NATS server at {endpoint.url} does not let this process in: {advice}")
    is_absent = isinstance(last, OSError) and not isinstance(last, TimeoutError)
    return NotConnected(
        f"no NATS server at {endpoint.url}: {str(last) or type(last).__name__}",
        retry_after_ms=ABSENT_WAIT_MS if is_absent else None,
    )


def _tls_words(client: Link, endpoint: Endpoint, error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        advice = f"; ${CA_VARIABLE} names the file of who vouches for it" if endpoint.ca is None else ""
        return f"its certificate is not accepted: {error.verify_message}{advice}"
    if client.asks_for_certificate:
        wrong = "does not accept this process's certificate" if endpoint.certificate else "asks for a certificate"
        return f"the server {wrong} (${CERTIFICATE_VARIABLE})"
    return (error.reason if isinstance(error, ssl.SSLError) else None) or type(error).__name__


def credentials(endpoint: Endpoint, login: Login | None = None) -> dict[str, Any]:
    """Return the connect options that an endpoint's credentials, or a login, stand for.

    Raises `InvalidSetting` for what is none; nats-py would look for the end of a damaged file for ever.
    """
    creds, seed = endpoint.credentials, endpoint.nkey_seed_file
    if creds is not None and not all(mark in _read(creds, endpoint) for mark in CREDENTIALS_MARKS):
        raise InvalidSetting(f"{endpoint.source}: {creds} holds no NATS credentials")
    key = None if seed is None else _read(seed, endpoint).decode("ascii", "replace").strip()
    given: dict[str, Any] = {
        "user": endpoint.user,
        "password": endpoint.password,
        "token": endpoint.token,
        "user_credentials": None if creds is None else str(creds),
        "nkeys_seed_str": key,
        "tls": context(endpoint),
    }
    if login is not None:
        key = login.nkey_seed
        given |= {"nkeys_seed_str": key, "token": login.token}
    if key is not None and SEED.fullmatch(key) is None:
        raise InvalidSetting(f"{seed if login is None else 'the key of a login'} is no nkey of a user")
    return {option: value for option, value in given.items() if value is not None}


def _read(path: Path, endpoint: Endpoint) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(CREDENTIALS_BYTES_MAX)
    except OSError as error:
        raise InvalidSetting(f"{endpoint.source}: {path} cannot be read: {error.strerror}") from error


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
            # a password that opens nothing, because OpenSSL would ask a terminal for the right one
            made.load_cert_chain(str(endpoint.certificate), str(key), password="")
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(str(one) for one in (endpoint.ca, endpoint.certificate, endpoint.key) if one is not None)
        raise InvalidSetting(f"TLS cannot be set up with {files}: {type(error).__name__}") from None
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    return made
