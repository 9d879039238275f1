"""Opaque credentials, proofs of possession, sealed rings and the signed key set."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from antiphon.decide.ring import RETIRING_MAX, rotate
from antiphon.errors import Malformed, NotAuthenticated, Oversize, SecretsUnusable
from antiphon.identity import jws, opaque
from antiphon.identity.jwks import (
    DOCUMENT_MS,
    KeySet,
    make_ring,
    make_signing_key,
    public_keys,
    read_document,
    sign_document,
    thumbprint,
)
from antiphon.identity.keypair import KeyPair, Role
from antiphon.identity.opaque import Sort, parse
from antiphon.identity.proof import is_proved, is_signed, prove
from antiphon.identity.record_mac import opened, signed
from antiphon.identity.seal import seal, seal_ring, unseal, unseal_ring
from tokens import tokens_in

NOW_MS = 1_790_000_000_123
PEPPER, OTHER = b"p" * 32, b"q" * 32
SORTS = st.sampled_from(Sort)


@given(SORTS)
def test_a_credential_comes_back_from_its_text(sort: Sort) -> None:
    one = opaque.make(sort)
    text = one.reveal()
    assert len(text) == 80
    assert parse(text) == one
    assert opaque.make(sort) != one
    assert one.secret not in f"{one!r} {one}", "only reveal shows the secret"
    assert [text.startswith(seen) for seen in tokens_in(f"key={text}")] == [True], "leaks are found by it"
    assert tokens_in(f"{one!r} {one}") == []


@given(SORTS, st.integers(0, 79), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567_"))
def test_one_changed_letter_needs_no_look_up(sort: Sort, at: int, letter: str) -> None:
    text = opaque.make(sort).reveal()
    changed = text[:at] + letter + text[at + 1 :]
    assert changed == text or parse(changed) is None


@given(st.text(max_size=100))
def test_other_texts_are_no_credentials(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize("change", ["{}\n", " {}", "{} ", "x{}", "{}0"])
def test_only_the_whole_text(change: str) -> None:
    assert parse(change.format(opaque.make(Sort.API_KEY).reveal())) is None


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_macs_and_successors_hang_on_token_and_pepper(pepper: bytes, other: bytes) -> None:
    assume(pepper != other)
    one, two = opaque.make(Sort.REFRESH), opaque.make(Sort.REFRESH)
    assert one.mac(pepper) == one.mac(pepper) != one.mac(other)
    assert one.mac(pepper) != two.mac(pepper)
    after = one.successor(pepper)
    assert after == one.successor(pepper) != one.successor(other)
    assert (after.sort, after.id) == (one.sort, one.id)
    assert after != one
    assert parse(after.reveal()) == after
    assert one.digest() == hashlib.sha256(one.reveal().encode()).hexdigest()
    kept = bytes.fromhex(one.mac(pepper))
    assert base64.b32encode(kept).decode().rstrip("=").lower() != after.secret, "what is kept makes no successor"


def test_a_line_of_successors_never_meets_itself() -> None:
    one = opaque.make(Sort.REFRESH)
    seen = set()
    for _ in range(1_000):
        seen.add(one.reveal())
        one = one.successor(PEPPER)
    assert len(seen) == 1_000


@given(st.text(max_size=40), st.text(max_size=100))
def test_a_proof_fits_one_key_one_request_and_one_credential(nonce: str, credential: str) -> None:
    key, other = KeyPair.make(Role.USER), KeyPair.make(Role.USER)
    proof = prove(key, nonce, credential, 7)
    assert is_proved(key.public, nonce, credential, 7, proof)
    assert not is_proved(other.public, nonce, credential, 7, proof)
    assert not is_proved(key.public, nonce + "1", credential, 7, proof)
    assert not is_proved(key.public, nonce, credential + "1", 7, proof)
    assert not is_proved(key.public, nonce, credential, 8, proof)


def test_signatures_in_the_alphabets_of_all_clients() -> None:
    key = KeyPair.make(Role.USER)
    raw = next(raw for at in range(1_000) if {62, 63} <= letters(raw := key.sign(b"%d" % at)))
    message = next(b"%d" % at for at in range(1_000) if key.sign(b"%d" % at) == raw)
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        text = encode(raw).decode()
        assert is_signed(key.public, message, text)
        assert is_signed(key.public, message, text.rstrip("="))
    for text in ("", "=", "?" * 86, "é" * 86, base64.b64encode(raw[:-1]).decode(), base64.b64encode(raw * 2).decode()):
        assert not is_signed(key.public, message, text)
    assert not is_signed("U" * 56, message, base64.b64encode(raw).decode()), "no key, no proof"
    assert not is_signed("", message, base64.b64encode(raw).decode())


def letters(raw: bytes) -> set[int]:
    number = int.from_bytes(raw, "big") << 2
    return {number >> 6 * at & 63 for at in range(86)}


@given(st.binary(max_size=200), st.text(max_size=20), st.text(max_size=20))
def test_a_sealed_secret_opens_in_its_place_with_its_pepper(secret: bytes, place: str, elsewhere: str) -> None:
    sealed = seal(secret, PEPPER, place)
    assert unseal(sealed, PEPPER, place) == secret
    assert seal(secret, PEPPER, place) != sealed
    assert len(secret) < 8 or secret not in sealed
    wrong: list[tuple[bytes, bytes, str]] = [
        (sealed, OTHER, place),
        (sealed[:-1], PEPPER, place),
        (sealed[:10], PEPPER, place),
        (b"", PEPPER, place),
        (b"as2" + sealed[3:], PEPPER, place),
        (sealed[:-1] + bytes([sealed[-1] ^ 1]), PEPPER, place),
    ]
    if place != elsewhere:
        wrong.append((sealed, PEPPER, elsewhere))
    for text, pepper, where in wrong:
        with pytest.raises(SecretsUnusable):
            unseal(text, pepper, where)


def test_a_sealed_ring() -> None:
    ring = make_ring(NOW_MS)
    sealed = seal_ring(ring, PEPPER, "antiphon-identity/ring")
    assert unseal_ring(sealed, PEPPER, "antiphon-identity/ring") == ring
    assert ring.active.secret.encode() not in sealed
    with pytest.raises(SecretsUnusable, match="no ring"):
        unseal_ring(seal(b"{}", PEPPER, "x"), PEPPER, "x")


def test_the_thumbprint_is_that_of_the_rfc() -> None:
    # RFC 8037, appendix A.2 and A.3
    assert thumbprint("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo") == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_the_key_set_says_what_the_ring_does() -> None:
    ring = make_ring(NOW_MS)
    issuer = KeyPair.make(Role.ACCOUNT)
    for _ in range(RETIRING_MAX):
        ring = rotate(ring, make_signing_key(NOW_MS), NOW_MS)
    document = sign_document(ring, issuer, "antiphon", NOW_MS)
    read, own = read_document(document, issuer.public, "antiphon", NOW_MS), KeySet.of(ring)
    assert len(read) == len(own) == RETIRING_MAX + 2
    for key in (ring.active, ring.next, *ring.retiring):
        assert read.find(key.kid, NOW_MS) == own.find(key.kid, NOW_MS) == jws.decode64(key.public)
        assert key.secret not in document
        assert key.secret not in str(public_keys(ring, NOW_MS))
    drop_ms = ring.retiring[0].drop_ms
    assert drop_ms is not None
    assert own.find(ring.retiring[0].kid, drop_ms - 1) is not None
    assert own.find(ring.retiring[0].kid, drop_ms) is None
    assert own.find(ring.active.kid, drop_ms * 2) is not None
    assert own.find("unknown", NOW_MS) is None


def test_a_key_set_of_another_issuer_fabric_or_time_is_refused() -> None:
    ring, issuer, other = make_ring(NOW_MS), KeyPair.make(Role.ACCOUNT), KeyPair.make(Role.ACCOUNT)
    document = sign_document(ring, issuer, "antiphon", NOW_MS)
    over_ms = NOW_MS // 1_000 * 1_000 + DOCUMENT_MS
    keys = read_document(document, issuer.public, "antiphon", over_ms - 1)
    assert keys.find(ring.active.kid, over_ms - 1) is not None
    assert keys.find(ring.active.kid, over_ms) is None, "what was read is over when the document is"
    head, _, signature = document.split(".")
    stolen = jws.encode64(
        jws.read(document, HEADER, Role.ACCOUNT, issuer=issuer.public).replace(b"antiphon", b"antiphon2")
    )
    for text, who, fabric, now_ms in (
        (document, other.public, "antiphon", NOW_MS),
        (document, issuer.public, "other", NOW_MS),
        (document, issuer.public, "antiphon", over_ms),
        (sign_document(ring, other, "antiphon", NOW_MS), issuer.public, "antiphon", NOW_MS),
        (f"{head}.{stolen}.{signature}", issuer.public, "antiphon", NOW_MS),
        ("", issuer.public, "antiphon", NOW_MS),
        ("a.b.c", issuer.public, "antiphon", NOW_MS),
    ):
        with pytest.raises(NotAuthenticated):
            read_document(text, who, fabric, now_ms)


HEADER = {"alg": "EdDSA", "typ": "jwk-set+jwt"}


@pytest.mark.parametrize(
    "changed",
    [
        {"kid": make_signing_key(0).kid},
        {"alg": "HS256"},
        {"kty": "oct"},
        {"crv": "Ed448"},
        {"use": "enc"},
        {"x": "short"},
    ],
    ids=",".join,
)
def test_a_key_set_with_a_key_that_is_none_of_ours(changed: dict[str, str]) -> None:
    issuer = KeyPair.make(Role.ACCOUNT)
    keys: list[dict[str, Any]] = [*public_keys(make_ring(0), 0)["keys"]]
    keys[0] |= changed
    claims = {"iss": issuer.public, "sub": "antiphon", "iat": 0, "exp": 100, "keys": keys}
    with pytest.raises(NotAuthenticated):
        read_document(jws.sign(HEADER, claims, issuer), issuer.public, "antiphon", 0)


def test_signed_texts_are_read_strictly() -> None:
    key, other = KeyPair.make(Role.ACCOUNT), KeyPair.make(Role.ACCOUNT)
    header = {"alg": "ed25519-nkey", "typ": "JWT"}
    text = jws.sign(header, {"iss": key.public, "a": 1}, key)
    assert b'"a":1' in jws.read(text, header, Role.ACCOUNT)
    assert jws.read(text, header, Role.ACCOUNT, issuer=key.public)
    head, body, signature = text.split(".")
    swapped = ".".join([*jws.sign(header, {"iss": key.public}, other).split(".")[:2], signature])
    nested = jws.encode64(b"[" * 10_000)
    for wrong in (
        jws.sign(header, {"iss": key.public}, other),
        jws.sign({**header, "alg": "none"}, {"iss": key.public}, key),
        jws.sign({**header, "kid": "x"}, {"iss": key.public}, key),
        jws.sign(header, {}, key),
        jws.sign(header, {"iss": 5}, key),
        jws.sign(header, {"iss": KeyPair.make(Role.USER).public}, key),
        swapped,
        f"{head}.{body}",
        f"{head}.{body}.",
        f"{head}=.{body}.{signature}",
        f"{head}.{body}.{signature}.",
        f"{nested}.{body}.{signature}",
        f"{head}.{nested}.{signature}",
        f"{head}.{jws.encode64(b'no json')}.{signature}",
        f"{jws.encode64(b'no json')}.{body}.{signature}",
        "é.é.é",
        "...",
        "",
    ):
        with pytest.raises(Malformed):
            jws.read(wrong, header, Role.ACCOUNT)
    with pytest.raises(Malformed):
        jws.read(text, header, Role.ACCOUNT, issuer=other.public)
    with pytest.raises(Oversize):
        jws.read("a" * (jws.BYTES_MAX + 1), header, Role.ACCOUNT)


def test_a_record_is_believed_as_it_was_written_where_it_was_written() -> None:
    value = signed(b"{}", b"p" * 32, "antiphon.id.web")
    assert opened(value, b"p" * 32, "antiphon.id.web") == b"{}"
    for other in (b"{}", b"", value + b" ", value[:-1], value.replace(b"am1", b"am2")):
        assert opened(other, b"p" * 32, "antiphon.id.web") is None
    assert opened(value, b"q" * 32, "antiphon.id.web") is None
    assert opened(value, b"p" * 32, "antiphon.id.app") is None
