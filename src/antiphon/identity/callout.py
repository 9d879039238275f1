"""The auth callout's codec: what the server asks when somebody connects, and what it is told (NATS ADR-26).

The server sends a JWT that it has signed, sealed for our curve key, with all that the client said; it takes a JWT
that the issuer has signed, sealed for the server's own curve key: an error, or a user with his permissions. Nothing
here decides; `possession` only says whether the client has proved that its key is its own, by a signature over the
server's nonce.

A fabric with a curve key takes sealed requests alone: otherwise whoever can publish one in the clear would get an
answer in the clear.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from antiphon.decide.identities import Reason
from antiphon.decide.login import Login
from antiphon.errors import Malformed, Oversize
from antiphon.identity import jws
from antiphon.identity.keypair import KeyPair, Role, decode_public
from antiphon.identity.proof import is_signed
from antiphon.identity.server_config import APP_ACCOUNT
from antiphon.identity.xkey import CurvePair
from antiphon.messages.tokens import Nkey

XKEY_HEADER: Final = "Nats-Server-Xkey"
HEADER: Final = {"typ": "JWT", "alg": "ed25519-nkey"}
CLIENT: Final = "Client"
CLIENT_TYPES: Final = frozenset({"nats", "websocket"})
UNBOUNDED: Final = -1
"""Limits in a user's JWT that the server ignores in this mode; the account has them (nats-facts.md)."""

WORD_MAX: Final = 1_024
LINE_MAX: Final = 8_192


def _cut(said: object, chars_max: int) -> object:
    return said[:chars_max] if isinstance(said, str) else said


Word = Annotated[str, Field(max_length=WORD_MAX)]
Said = Annotated[str, BeforeValidator(lambda said: _cut(said, WORD_MAX))]
"""What a stranger says: too long a text is cut and judged as it is then, so he is refused and told of as others are."""
Line = Annotated[str, BeforeValidator(lambda said: _cut(said, LINE_MAX)), Field(repr=False)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class ServerId(_Part):
    """The server that asks."""

    id: Nkey
    name: Word = ""
    host: Word = ""
    version: Word = ""
    cluster: Word = ""
    xkey: Nkey | None = None


class ClientInfo(_Part):
    """What the server knows of the connection."""

    host: Word = ""
    id: int = 0
    """The connection's number on that server (`cid`)."""
    user: Said = ""
    name: Said = ""
    kind: Word = ""
    """`Client`, or `Leafnode` and the like."""
    type: Word = ""
    """`nats`, `mqtt` or `websocket`."""
    nonce: Word = ""
    """What the server gave the client to sign: text, signed as it stands."""


class ConnectOptions(_Part):
    """What the client said of itself; anybody may say anything."""

    nkey: Said = ""
    sig: Line = ""
    jwt: Line = ""
    auth_token: Line = ""
    user: Said = ""
    password: Line = Field(default="", alias="pass")
    name: Said = ""
    lang: Said = ""
    version: Said = ""
    protocol: int = 0


class AuthRequest(_Part):
    """A client wants to connect; secrets stay out of the text form."""

    user_nkey: Nkey
    """The key that the server made for this one connection; the answer is about it."""
    server: ServerId = Field(alias="server_id")
    client: ClientInfo = Field(alias="client_info")
    connect: ConnectOptions = Field(alias="connect_opts")
    type: Literal["authorization_request"]
    version: Literal[2]


class _Claims(_Part):
    iss: Word
    aud: Literal["nats-authorization-request"]
    nats: AuthRequest


class Callout:
    """Reads the server's requests and writes the answers; with a curve key, sealed ones alone."""

    def __init__(self, issuer: KeyPair, xkey: CurvePair | None) -> None:
        assert issuer.role is Role.ACCOUNT
        self._issuer = issuer
        self._xkey = xkey

    def open(self, data: bytes, headers: Mapping[str, str] | None) -> AuthRequest:
        """Return what the server asks; raise `Malformed` or `Oversize` for what no server of ours has sent."""
        if len(data) > jws.BYTES_MAX:
            raise Oversize(f"an authorization request of {len(data)} bytes; {jws.BYTES_MAX} are the most")
        sender = (headers or {}).get(XKEY_HEADER)
        try:
            text = self._opened(data, sender).decode("ascii")
        except UnicodeDecodeError as error:
            raise Malformed("an authorization request that is no JWT") from error
        try:
            claims = _Claims.model_validate_json(jws.read(text, HEADER, Role.SERVER))
        except ValidationError as error:
            raise Malformed("the claims of an authorization request that are none") from error
        request = claims.nats
        decode_public(request.user_nkey, Role.USER)
        if claims.iss != request.server.id or (self._xkey is not None and sender != request.server.xkey):
            raise Malformed("an authorization request that one server signed or sealed, and that names another")
        return request

    def admit(self, request: AuthRequest, login: Login, now_ms: int) -> bytes:
        """Return the answer that lets somebody in, as what the login says and until it expires, to the second."""
        user = {
            **self._claims(request.user_nkey, APP_ACCOUNT, now_ms),
            "name": login.label,
            "exp": login.expires_ms // 1_000,
            "nats": {
                **login.grants.permissions(),
                "subs": UNBOUNDED,
                "data": UNBOUNDED,
                "payload": UNBOUNDED,
                "type": "user",
                "version": 2,
            },
        }
        return self._answer(request, {"jwt": jws.sign(HEADER, user, self._issuer)}, now_ms)

    def refuse(self, request: AuthRequest, reason: Reason, now_ms: int) -> bytes:
        """Return the answer that keeps somebody out; the reason goes to the server's log, the client is not told."""
        return self._answer(request, {"error": str(reason)}, now_ms)

    def _opened(self, data: bytes, sender: str | None) -> bytes:
        if self._xkey is None:
            return data
        if sender is None:
            raise Malformed("an authorization request in the clear: this fabric takes sealed ones alone")
        return self._xkey.open(data, sender)

    def _answer(self, request: AuthRequest, said: dict[str, str], now_ms: int) -> bytes:
        claims = {
            **self._claims(request.user_nkey, request.server.id, now_ms),
            "nats": {**said, "type": "authorization_response", "version": 2},
        }
        text = jws.sign(HEADER, claims, self._issuer).encode("ascii")
        if self._xkey is None:
            return text
        assert request.server.xkey is not None, "it was compared when the request was opened"
        return self._xkey.seal(text, request.server.xkey)

    def _claims(self, subject: str, audience: str, now_ms: int) -> dict[str, Any]:
        return {
            "iss": self._issuer.public,
            "sub": subject,
            "aud": audience,
            "iat": now_ms // 1_000,
            "jti": secrets.token_urlsafe(16),
        }


def is_client(request: AuthRequest) -> bool:
    """Whether it is a client that connects.

    A leaf node would become a part of the account and see what others listen to, and an MQTT client would use the
    server's own subjects and streams; to neither do permissions mean what they mean to a client.
    """
    return request.client.kind == CLIENT and request.client.type in CLIENT_TYPES


def possession(request: AuthRequest) -> Reason | None:
    """Return why a client has not proved that its key is its own and brings a credential, or None if it has."""
    said = request.connect
    if not said.nkey or not said.auth_token:
        return Reason.MISSING
    nonce = request.client.nonce
    return None if nonce and is_signed(said.nkey, nonce.encode(), said.sig) else Reason.NO_PROOF
