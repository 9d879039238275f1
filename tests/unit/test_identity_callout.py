"""The callout's codec without a server: what is read, what is refused, and what the server is told."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.decide.identities import Reason
from antiphon.decide.login import bootstrap
from antiphon.errors import AntiphonError, Malformed, Oversize
from antiphon.identity import jws
from antiphon.identity.callout import HEADER, XKEY_HEADER, AuthRequest, Callout, possession
from antiphon.identity.keypair import KeyPair, Role
from antiphon.identity.xkey import CurvePair
from antiphon.messages.base import Kind
from tokens import tokens_in

NOW_MS = 1_790_000_000_123
SERVER, ISSUER, USER, CLIENT = (KeyPair.make(role) for role in (Role.SERVER, Role.ACCOUNT, Role.USER, Role.USER))
SERVERS_CURVE, OURS = CurvePair.make(), CurvePair.make()
CALLOUT = Callout(ISSUER, OURS)
HEADERS = {XKEY_HEADER: SERVERS_CURVE.public}
NONCE = "Qf_YbyhmUNA6f7g"


def claims(**changed: Any) -> dict[str, Any]:
    """What a nats-server 2.15.1 says, taken from one."""
    nats: dict[str, Any] = {
        "server_id": {
            "name": "antiphon-35163000",
            "host": "127.0.0.1",
            "id": SERVER.public,
            "version": "2.15.1",
            "xkey": SERVERS_CURVE.public,
        },
        "user_nkey": USER.public,
        "client_info": {
            "host": "127.0.0.1",
            "id": 9,
            "user": CLIENT.public,
            "name": "me",
            "kind": "Client",
            "type": "nats",
            "nonce": NONCE,
        },
        "connect_opts": {
            "nkey": CLIENT.public,
            "sig": base64.b64encode(CLIENT.sign(NONCE.encode())).decode(),
            "auth_token": "the token",
            "pass": "the password",
            "name": "me",
            "lang": "python3",
            "version": "2.16.0",
            "protocol": 1,
        },
        "type": "authorization_request",
        "version": 2,
    }
    for key, value in changed.items():
        nats[key] = {**nats[key], **value} if isinstance(value, dict) else value
    return {
        "aud": "nats-authorization-request",
        "exp": NOW_MS // 1_000 + 2,
        "iat": NOW_MS // 1_000,
        "iss": SERVER.public,
        "nats": nats,
    }


def sealed(said: dict[str, Any], signer: KeyPair = SERVER) -> bytes:
    return SERVERS_CURVE.seal(jws.sign(HEADER, said, signer).encode(), OURS.public)


def request(**changed: Any) -> AuthRequest:
    return CALLOUT.open(sealed(claims(**changed)), HEADERS)


def test_what_the_server_asks() -> None:
    asked = request()
    assert (asked.user_nkey, asked.server.id, asked.server.xkey) == (USER.public, SERVER.public, SERVERS_CURVE.public)
    assert (asked.client.host, asked.client.kind, asked.client.id, asked.client.nonce) == (
        "127.0.0.1",
        "Client",
        9,
        NONCE,
    )
    assert (asked.connect.nkey, asked.connect.auth_token, asked.connect.lang) == (CLIENT.public, "the token", "python3")
    assert asked.connect.password == "the password"
    assert possession(asked) is None
    for secret in ("the token", "the password", asked.connect.sig):
        assert secret not in f"{asked!r} {asked}"


def test_a_fabric_without_a_curve_key() -> None:
    plain = Callout(ISSUER, None)
    text = jws.sign(HEADER, claims(), SERVER).encode()
    asked = plain.open(text, None)
    assert asked == request()
    answer = jws.read(plain.refuse(asked, Reason.EXPIRED, NOW_MS).decode(), HEADER, Role.ACCOUNT, issuer=ISSUER.public)
    assert json.loads(answer)["nats"]["error"] == "expired"


def test_a_request_in_the_clear_is_refused_where_they_are_sealed() -> None:
    text = jws.sign(HEADER, claims(), SERVER).encode()
    for headers in (None, {}, HEADERS):
        with pytest.raises(Malformed):
            CALLOUT.open(text, headers)


def test_requests_that_no_server_of_ours_sent() -> None:
    stranger, other_curve = KeyPair.make(Role.SERVER), CurvePair.make()
    by_other = other_curve.seal(jws.sign(HEADER, claims(), SERVER).encode(), OURS.public)
    wrong: list[tuple[bytes, dict[str, str] | None]] = [
        (sealed(claims(), stranger), HEADERS),
        (sealed(claims() | {"iss": stranger.public}, stranger), HEADERS),
        (sealed(claims() | {"iss": ISSUER.public}, ISSUER), HEADERS),
        (sealed(claims() | {"aud": "other"}), HEADERS),
        (sealed(claims(type="authorization_response")), HEADERS),
        (sealed(claims(version=1)), HEADERS),
        (sealed(claims(user_nkey=ISSUER.public)), HEADERS),
        (sealed(claims(user_nkey="U" * 56)), HEADERS),
        (sealed(claims(server_id={"xkey": None})), HEADERS),
        (sealed(claims(server_id={"id": stranger.public})), HEADERS),
        (sealed(claims(client_info={"host": "x" * 2_000})), HEADERS),
        (by_other, HEADERS),
        (by_other, {XKEY_HEADER: other_curve.public}),
        (sealed(claims()), {XKEY_HEADER: "nonsense"}),
        (sealed(claims()), {}),
        (sealed(claims())[:-1], HEADERS),
        (SERVERS_CURVE.seal(b"\xff", OURS.public), HEADERS),
        (SERVERS_CURVE.seal(b"[" * 5_000, OURS.public), HEADERS),
        (b"", HEADERS),
    ]
    for data, headers in wrong:
        with pytest.raises(Malformed):
            CALLOUT.open(data, headers)
    with pytest.raises(Oversize):
        CALLOUT.open(b"x" * (jws.BYTES_MAX + 1), HEADERS)


def test_what_a_stranger_says_too_long_is_cut_and_judged() -> None:
    long = dict.fromkeys(("nkey", "user", "name", "lang", "version", "sig", "auth_token"), "x" * 10_000)
    asked = request(connect_opts=long, client_info={"user": "x" * 2_000, "name": "x" * 2_000})
    assert {len(text) for text in (asked.connect.nkey, asked.connect.user, asked.client.name)} == {1_024}
    assert len(asked.connect.auth_token) == 8_192
    assert possession(asked) is Reason.NO_PROOF


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    for one in (data, SERVERS_CURVE.seal(data, OURS.public)):
        with pytest.raises(AntiphonError):
            CALLOUT.open(one, HEADERS)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"nkey": ""}, Reason.MISSING),
        ({"auth_token": ""}, Reason.MISSING),
        ({"sig": ""}, Reason.NO_PROOF),
        ({"nkey": KeyPair.make(Role.USER).public}, Reason.NO_PROOF),
        ({"nkey": ISSUER.public}, Reason.NO_PROOF),
        ({"nkey": "U" * 56}, Reason.NO_PROOF),
        ({"sig": base64.b64encode(CLIENT.sign(b"another nonce")).decode()}, Reason.NO_PROOF),
        ({"sig": base64.urlsafe_b64encode(CLIENT.sign(NONCE.encode())).decode().rstrip("=")}, None),
    ],
    ids=[
        *("no key", "no token", "no signature", "another user's key", "an account's key", "no key at all"),
        *("of another nonce", "of this nonce"),
    ],
)
def test_possession(changed: dict[str, str], reason: Reason | None) -> None:
    assert possession(request(connect_opts=changed)) is reason


def test_without_a_nonce_nothing_is_proved() -> None:
    signed = {"sig": base64.b64encode(CLIENT.sign(b"")).decode()}
    assert possession(request(connect_opts=signed, client_info={"nonce": ""})) is Reason.NO_PROOF


def answered(answer: bytes) -> dict[str, Any]:
    text = SERVERS_CURVE.open(answer, OURS.public).decode()
    found: dict[str, Any] = json.loads(jws.read(text, HEADER, Role.ACCOUNT, issuer=ISSUER.public))
    return found


def test_who_is_let_in() -> None:
    login = bootstrap(Kind.NODE, "docs", "docs-1", NOW_MS)
    answer = answered(CALLOUT.admit(request(), login, NOW_MS))
    assert (answer["sub"], answer["aud"], answer["iss"]) == (USER.public, SERVER.public, ISSUER.public)
    assert {key: answer["nats"][key] for key in ("type", "version")} == {"type": "authorization_response", "version": 2}
    user = json.loads(jws.read(answer["nats"]["jwt"], HEADER, Role.ACCOUNT, issuer=ISSUER.public))
    assert (user["sub"], user["aud"], user["name"]) == (USER.public, "APP", "node:docs:docs-1:::")
    assert tokens_in(answer["nats"]["jwt"]) == [answer["nats"]["jwt"]], "leaks are found by it"
    assert user["exp"] == (NOW_MS + 60_000) // 1_000
    assert user["nats"] == {
        "pub": {"allow": ["antiphon.v1.identity.token.docs"]},
        "sub": {"allow": ["_I.docs.>"]},
        "subs": -1,
        "data": -1,
        "payload": -1,
        "type": "user",
        "version": 2,
    }


@pytest.mark.parametrize("reason", Reason)
def test_who_is_refused(reason: Reason) -> None:
    answer = answered(CALLOUT.refuse(request(), reason, NOW_MS))
    assert answer["nats"] == {"error": str(reason), "type": "authorization_response", "version": 2}
    assert (answer["sub"], answer["aud"]) == (USER.public, SERVER.public)
