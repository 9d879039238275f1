"""Access and on-behalf-of tokens: what is minted is read, and every forgery is refused for its own reason."""

from __future__ import annotations

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.decide.identities import Reason
from antiphon.decide.login import AccessClaims, DelegatedClaims
from antiphon.decide.ring import expel, rotate
from antiphon.errors import Oversize
from antiphon.identity.jwks import KeySet, make_ring, make_signing_key, public_keys
from antiphon.identity.keypair import KeyPair, Role
from antiphon.identity.tokens import (
    ACCESS_MS,
    ON_BEHALF_MS,
    TOKEN_BYTES_MAX,
    mint_access,
    mint_on_behalf,
    new_jti,
    verify_access,
    verify_on_behalf,
)
from antiphon.messages.base import Kind
from antiphon.messages.lane import GROUPS_MAX
from antiphon.subjects import TOKEN
from forged import ATTACKS, NOW_MS, Forge
from tokens import tokens_in

NKEY = KeyPair.make(Role.USER).public
RING = make_ring(NOW_MS)
KEYS = KeySet.of(RING)
NAMES = st.from_regex(TOKEN, fullmatch=True)
WEB = AccessClaims(
    "web", Kind.PUBLISHER, ("a", "b"), NKEY, "j" * 22, NOW_MS, NOW_MS // 1_000 * 1_000 + 1_000, key="k" * 16
)
FOR_ANNA = DelegatedClaims("anna", Kind.PUBLISHER, ("a",), "http", "j" * 22, NOW_MS, NOW_MS // 1_000 * 1_000 + 1_000)


@given(
    NAMES,
    st.sampled_from(Kind),
    st.none() | NAMES,
    st.lists(NAMES, max_size=GROUPS_MAX).map(tuple),
    st.tuples(st.integers(0, 2**42), st.integers(1, ACCESS_MS // 1_000)),
)
def test_what_is_minted_is_read(
    name: str, kind: Kind, instance: str | None, groups: tuple[str, ...], times: tuple[int, int]
) -> None:
    now_ms, life_s = times
    expires_ms = now_ms // 1_000 * 1_000 + life_s * 1_000
    claims = AccessClaims(name, kind, groups, NKEY, new_jti(), now_ms, expires_ms, instance, family="f" * 16)
    token = mint_access(claims, RING.active, "antiphon")
    assert tokens_in(f"badge={token!r}") == [token], "leaks are found by it"
    assert len(token) <= TOKEN_BYTES_MAX
    assert verify_access(token, KEYS, "antiphon", now_ms) == claims
    assert verify_access(token, KEYS, "antiphon", expires_ms - 1) == claims
    assert verify_access(token, KEYS, "antiphon", expires_ms) is Reason.EXPIRED
    assert verify_on_behalf(token, KEYS, "antiphon", now_ms) is Reason.WRONG_TYPE


def test_another_library_reads_them_too() -> None:
    token = mint_access(WEB, RING.active, "antiphon")
    [jwk] = [one for one in public_keys(RING, NOW_MS)["keys"] if one["kid"] == RING.active.kid]
    read = jwt.decode(
        token,
        jwt.PyJWK(jwk),
        algorithms=["EdDSA"],
        audience="antiphon",
        options={"verify_exp": False, "verify_iat": False},
    )
    assert read["cnf"] == {"nkey": NKEY}
    assert read["sub"] == "web"
    assert jwt.get_unverified_header(token) == {"alg": "EdDSA", "typ": "at+jwt", "kid": RING.active.kid}


def test_the_forge_makes_good_tokens_where_nothing_is_wrong() -> None:
    forge = Forge(NKEY)
    found = verify_access(forge.token(), KeySet.of(forge.ring), "antiphon", NOW_MS)
    assert isinstance(found, AccessClaims)
    assert isinstance(
        verify_access(forge.token(future="ignored"), KeySet.of(forge.ring), "antiphon", NOW_MS), AccessClaims
    )


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_forgery_is_refused_for_its_own_reason(attack: str) -> None:
    make, reason = ATTACKS[attack]
    forge = Forge(NKEY)
    assert verify_access(make(forge), KeySet.of(forge.ring), "antiphon", NOW_MS) is reason


@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=100))
def test_no_text_raises(head: str, claims: str, signature: str) -> None:
    for text in (head, f"{head}.{claims}.{signature}", f"{head}.{claims}"):
        assert isinstance(verify_access(text, KEYS, "antiphon", NOW_MS), Reason)


@given(st.data())
def test_one_changed_letter_is_refused(dice: st.DataObject) -> None:
    token = mint_access(WEB, RING.active, "antiphon")
    at = dice.draw(st.integers(0, len(token) - 3))  # the last letter of a signature has spare bits
    letter = dice.draw(st.sampled_from("ABCDEFabcdef0123456789-_."))
    changed = token[:at] + letter + token[at + 1 :]
    if changed != token:
        assert isinstance(verify_access(changed, KEYS, "antiphon", NOW_MS), Reason)


def test_a_delegates_token() -> None:
    token = mint_on_behalf(FOR_ANNA, RING.active, "antiphon")
    assert verify_on_behalf(token, KEYS, "antiphon", NOW_MS) == FOR_ANNA
    assert verify_on_behalf(token, KEYS, "other", NOW_MS) is Reason.WRONG_AUDIENCE
    assert verify_on_behalf(token, KEYS, "antiphon", FOR_ANNA.expires_ms) is Reason.EXPIRED
    assert verify_access(token, KEYS, "antiphon", NOW_MS) is Reason.WRONG_TYPE, "it opens no connection"


def test_no_token_outlives_its_bound() -> None:
    long = AccessClaims("web", Kind.PUBLISHER, (), NKEY, new_jti(), NOW_MS, NOW_MS + ACCESS_MS + 1, key="k" * 16)
    with pytest.raises(AssertionError):
        mint_access(long, RING.active, "antiphon")
    other = DelegatedClaims("anna", Kind.PUBLISHER, (), "http", new_jti(), NOW_MS, NOW_MS + ON_BEHALF_MS + 1)
    with pytest.raises(AssertionError):
        mint_on_behalf(other, RING.active, "antiphon")
    for family, key in ((None, None), ("f" * 16, "k" * 16)):
        with pytest.raises(AssertionError):
            mint_access(
                AccessClaims("a", Kind.NODE, (), NKEY, "j", 0, 1_000, family=family, key=key), RING.active, "antiphon"
            )


def test_the_largest_token_fits_into_a_connect_line() -> None:
    groups = tuple(f"{at:02}{'g' * 61}" for at in range(GROUPS_MAX))
    claims = AccessClaims(
        "n" * 63, Kind.PUBLISHER, groups, NKEY, new_jti(), NOW_MS, NOW_MS + ACCESS_MS, "i" * 63, family="f" * 16
    )
    assert len(mint_access(claims, RING.active, "p" * 63)) <= TOKEN_BYTES_MAX
    with pytest.raises(Oversize):
        mint_access(
            AccessClaims("n", Kind.PUBLISHER, groups * 2, NKEY, "j" * 22, NOW_MS, NOW_MS + 1_000, key="k" * 16),
            RING.active,
            "antiphon",
        )


def test_tokens_survive_a_rotation_and_die_with_an_expelled_key() -> None:
    token = mint_access(WEB, RING.active, "antiphon")
    turned = rotate(RING, make_signing_key(NOW_MS), NOW_MS)
    assert verify_access(token, KeySet.of(turned), "antiphon", NOW_MS) == WEB
    again = mint_access(WEB, turned.active, "antiphon")
    assert verify_access(again, KEYS, "antiphon", NOW_MS) == WEB, "who has not heard of the rotation knows the key"
    gone = expel(turned, RING.active.kid, make_signing_key(NOW_MS), NOW_MS)
    assert verify_access(token, KeySet.of(gone), "antiphon", NOW_MS) is Reason.UNKNOWN_KEY_ID
