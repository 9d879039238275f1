"""Nkeys: the same as the library of NATS makes, read strictly; and sealed boxes."""

from __future__ import annotations

import base64

import nkeys
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from antiphon.errors import Malformed
from antiphon.identity.keypair import (
    KeyPair,
    Role,
    decode_public,
    decode_seed,
    encode_public,
    encode_seed,
    verify,
)
from antiphon.identity.xkey import CurvePair

KEYS = st.binary(min_size=32, max_size=32)
SIGNERS = st.sampled_from([Role.ACCOUNT, Role.SERVER, Role.USER])
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


@given(SIGNERS, KEYS, st.binary(max_size=100))
def test_a_key_is_the_key_that_the_library_of_nats_makes(role: Role, raw: bytes, message: bytes) -> None:
    ours = KeyPair(role, raw)
    theirs = nkeys.from_seed(bytearray(ours.seed().encode()))
    assert nkeys.encode_seed(raw, int(role)).decode() == ours.seed()
    assert theirs.public_key.decode() == ours.public
    assert theirs.sign(message) == ours.sign(message)
    assert verify(ours.public, role, message, theirs.sign(message))
    assert ours.public.startswith(role.letter)
    assert ours.seed().startswith("S" + role.letter)


def test_the_letters_are_those_of_nats() -> None:
    assert {role.name: role.letter for role in Role} == {"ACCOUNT": "A", "SERVER": "N", "USER": "U", "CURVE": "X"}


@given(st.sampled_from(Role), KEYS)
def test_names_and_seeds_come_back(role: Role, raw: bytes) -> None:
    assert decode_public(encode_public(role, raw), role) == raw
    assert decode_seed(encode_seed(role, raw), role) == raw


@given(st.sampled_from(Role), st.sampled_from(Role), KEYS)
def test_a_key_of_another_role_is_refused(role: Role, other: Role, raw: bytes) -> None:
    assume(role is not other)
    with pytest.raises(Malformed, match="which would begin with"):
        decode_public(encode_public(role, raw), other)
    with pytest.raises(Malformed, match="which would begin with"):
        decode_seed(encode_seed(role, raw), other)


@given(KEYS, st.integers(0, 57), st.sampled_from(ALPHABET))
def test_one_changed_letter_is_refused_and_not_quoted(raw: bytes, at: int, letter: str) -> None:
    for text, read in (
        (encode_public(Role.USER, raw), decode_public),
        (encode_seed(Role.USER, raw), decode_seed),
    ):
        spot = at % len(text)
        changed = text[:spot] + letter + text[spot + 1 :]
        if changed != text:
            with pytest.raises(Malformed) as caught:
                read(changed, Role.USER)
            assert changed not in caught.value.text


def test_the_spare_bits_of_a_seed_are_zero() -> None:
    seed = KeyPair.make(Role.USER).seed()
    spellings = [seed[:-1] + letter for letter in ALPHABET]
    lax = base64.b32decode(seed + "======")
    same = [text for text in spellings if base64.b32decode(text + "======") == lax]
    assert len(same) > 1, "base64's own decoder takes several spellings"
    read = [text for text in same if loads(text)]
    assert read == [seed]


def loads(seed: str) -> bool:
    try:
        KeyPair.load(seed, Role.USER)
    except Malformed:
        return False
    return True


@pytest.mark.parametrize(
    "text", ["", "U", "U" * 56, "u" * 56, "0" * 56, "é" * 56, "U" * 55 + "=", " " * 56, "U" * 55 + "\n", "U" * 57]
)
def test_what_is_no_key_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        decode_public(text, Role.USER)
    with pytest.raises(Malformed):
        verify(text, Role.USER, b"", b"\0" * 64)
    with pytest.raises(Malformed):
        KeyPair.load(text, Role.USER)


def test_signatures_of_others_and_of_other_words_are_refused() -> None:
    one, other = KeyPair.make(Role.USER), KeyPair.make(Role.USER)
    signature = one.sign(b"words")
    assert verify(one.public, Role.USER, b"words", signature)
    assert not verify(one.public, Role.USER, b"word", signature)
    assert not verify(other.public, Role.USER, b"words", signature)
    assert not verify(one.public, Role.USER, b"words", signature[:-1])
    assert not verify(one.public, Role.USER, b"words", b"")
    with pytest.raises(Malformed):
        verify(one.public, Role.ACCOUNT, b"words", signature)


def test_the_text_form_is_the_public_key() -> None:
    pair, curve = KeyPair.make(Role.USER), CurvePair.make()
    for one in (pair, curve):
        assert one.public in repr(one)
        assert one.seed() not in f"{one!r} {one}"
        assert one.seed()[2:20] not in repr(one)


@given(st.binary(max_size=2_000))
def test_what_is_sealed_is_read_by_its_receiver_alone(message: bytes) -> None:
    server, callout, stranger = CurvePair.make(), CurvePair.make(), CurvePair.make()
    sealed = server.seal(message, callout.public)
    assert callout.open(sealed, server.public) == message
    assert CurvePair.load(callout.seed()).open(sealed, server.public) == message
    for reader, sender in ((stranger, server), (callout, stranger)):
        with pytest.raises(Malformed):
            reader.open(sealed, sender.public)


def test_sealed_messages_that_were_changed_are_refused() -> None:
    server, callout = CurvePair.make(), CurvePair.make()
    sealed = server.seal(b"words", callout.public)
    assert server.seal(b"words", callout.public) != sealed, "each has a nonce of its own"
    broken = [sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :] for at in range(len(sealed))]
    for one in [*broken, b"", b"xkv1", sealed[:27], sealed[:28], sealed[:-1], sealed + b"\0", sealed[4:]]:
        with pytest.raises(Malformed):
            callout.open(one, server.public)
    with pytest.raises(Malformed):
        callout.open(sealed, KeyPair.make(Role.USER).public)


@pytest.mark.parametrize("raw", [bytes(32), bytes([1, *bytes(31)])])
def test_a_curve_key_of_low_order_is_refused(raw: bytes) -> None:
    weak = encode_public(Role.CURVE, raw)
    with pytest.raises(Malformed):
        CurvePair.make().seal(b"words", weak)
    with pytest.raises(Malformed):
        CurvePair.make().open(b"xkv1" + bytes(60), weak)
