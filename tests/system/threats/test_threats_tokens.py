"""Attacks with tokens: forged, stolen, replayed, or good for something else."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from jwt.api_jws import PyJWS
from pydantic import ConfigDict

from antiphon.decide import families
from antiphon.decide.identities import Reason
from antiphon.decide.login import AccessClaims
from antiphon.errors import NotAuthenticated
from antiphon.identity import jwks, tokens
from antiphon.identity.jws import decode64
from antiphon.identity.keypair import KeyPair, Role
from antiphon.identity.tokens import verify_access
from antiphon.messages.base import Kind
from antiphon.messages.identities import KeysRotate
from antiphon.messages.tokens import Enrol, KeysAsk
from arena import EVERYTHING, Party, Scene, TrueForge, both, bought, drawn, first_word, forge, inbox, opened, yes
from forged import part, signed

pytestmark = pytest.mark.asyncio(loop_scope="module")


def gullible(patch: pytest.MonkeyPatch, trust: Callable[[dict[str, Any], bytes, bytes, bytes], bool]) -> None:
    """Replace the verifier by one that lets the token's own header say how it is to be checked."""
    strict = tokens._verified

    def verified(token: str, typ: str, model: Any, *, keys: Any, audience: str, now_ms: int) -> Any:
        head, body, signature = token.split(".")
        header = orjson.loads(decode64(head))
        public = keys.find(header.get("kid", ""), now_ms) or b""
        if trust(header, f"{head}.{body}".encode(), decode64(signature), public):
            claims = model.model_validate_json(decode64(body))
            return tokens._untimely(claims, audience, now_ms) or claims
        return strict(token, typ, model, keys=keys, audience=audience, now_ms=now_ms)

    patch.setattr(tokens, "_verified", verified)
    patch.setattr(tokens, "_Header", Lenient)


class Lenient(tokens._Header):
    """A header that may say anything."""

    model_config = ConfigDict(extra="ignore")


async def is_believed(scene: Scene, party: Party, token: str) -> bool:
    """Whether a forged token lets its maker in, where the true one does."""
    assert await scene.is_let_in(party)
    return await scene.is_let_in(party, token)


@both
async def test_t20_alg_none(scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool) -> None:
    """Attacker: anybody. Wants: to be whom he says, with a token that nobody has signed.

    Defence: one algorithm is accepted, whatever the token says. Source: RFC 8725, 2.1 and 3.1.
    """
    if not is_defended:
        gullible(monkeypatch, lambda header, *_: header["alg"] == "none")
    party = await scene.party()
    assert await is_believed(scene, party, forge(scene, party).unsigned()) is not is_defended


@both
async def test_t21_hs256_with_the_public_key(scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool) -> None:
    """Attacker: anybody who has the published keys. Wants: a signature that a confused verifier makes of them.

    Defence: one algorithm is accepted, whatever the token says. Source: RFC 8725, 2.1; CVE-2015-9235.
    """

    def by_hmac(header: dict[str, Any], signed_part: bytes, signature: bytes, public: bytes) -> bool:
        return header["alg"] == "HS256" and hmac.digest(public, signed_part, "sha256") == signature

    if not is_defended:
        gullible(monkeypatch, by_hmac)
    party = await scene.party()
    assert await is_believed(scene, party, forge(scene, party).with_public_key_as_secret()) is not is_defended


@both
async def test_t22_an_unknown_key_that_the_token_brings(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: anybody. Wants: that his own key is believed, because the token names it or holds it.

    Defence: a key id is looked up locally and nowhere else; a header with `jwk`, `jku` or anything more is refused.
    Source: RFC 8725, 3.10; CVE-2018-0114.
    """

    def by_its_own_key(header: dict[str, Any], signed_part: bytes, signature: bytes, _public: bytes) -> bool:
        if "jwk" not in header:
            return False
        Ed25519PublicKey.from_public_bytes(decode64(header["jwk"]["x"])).verify(signature, signed_part)
        return True

    if not is_defended:
        gullible(monkeypatch, by_its_own_key)
    party = await scene.party()
    forger = forge(scene, party)
    assert not await scene.is_let_in(party, forger.by_a_stranger()), "an unknown kid alone"
    assert await is_believed(scene, party, forger.embedded()) is not is_defended


@both
async def test_t23_claims_that_were_changed(scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool) -> None:
    """Attacker: a publisher with a true token. Wants: another kind, another name, more groups.

    Defence: the signature is over the claims. Source: RFC 7515; RFC 8037.
    """
    if not is_defended:
        monkeypatch.setattr(PyJWS, "decode", lambda _self, token, *_how, **_more: decode64(token.split(".")[1]))
    party, victim = await scene.party(), await scene.party()
    head, _, signature = party.grant.access.split(".")
    said = forge(scene, victim).claims(cnf={"nkey": party.key.public})
    monkeypatch.setattr("antiphon.decide.login._source", lambda *_how: None)  # the family's own key is another line
    assert await is_believed(scene, party, f"{head}.{part(said)}.{signature}") is not is_defended


@both
async def test_t24_an_expired_token(scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool) -> None:
    """Attacker: whoever was let in once. Wants: to be let in for ever.

    Defence: `exp` is required, is a number, and is compared with the masters' clock. Source: RFC 8725, 3.8 and 3.10;
    FACTS, "Tokens": PyJWT takes a missing `exp`, and one that is a string.
    """
    if not is_defended:
        monkeypatch.setattr(tokens, "_untimely", lambda *_how: None)
        monkeypatch.setattr(tokens, "verify_access", lasting)
    party = await scene.party()
    forger = forge(scene, party)
    then = forger.now_ms - 4_000_000
    old = forger.token(iat=then // 1_000, iat_ms=then, exp=then // 1_000 + 3_600)
    assert await is_believed(scene, party, old) is not is_defended
    for odd in (None, "99999999999", 99_999_999_999.5, True):
        assert not await scene.is_let_in(party, forger.token(exp=odd))


def lasting(*how: Any) -> AccessClaims | Reason:
    """A verifier to which a token is good for ever."""
    found = verify_access(*how)
    return found if isinstance(found, Reason) else replace(found, expires_ms=how[-1] + 60_000)


@both
async def test_t25_a_token_of_another_fabric(scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool) -> None:
    """Attacker: whoever was let into a fabric whose masters share their keys with this one's. Wants: in here, too.

    Defence: `aud` is the fabric. Source: RFC 8725, 3.9; RFC 9068, 4.
    """
    if not is_defended:
        untimely = tokens._untimely
        monkeypatch.setattr(tokens, "_untimely", lambda claims, _audience, now_ms: untimely(claims, claims.aud, now_ms))
    party = await scene.party()
    assert await is_believed(scene, party, forge(scene, party).token(aud="acme")) is not is_defended


@both
async def test_t26_a_stolen_token(scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool) -> None:
    """Attacker: whoever has read a token somewhere, and not the key that it is bound to. Wants: to be its owner.

    Defence: a token names the nkey whose owner may use it, and the server has the client sign a nonce.
    Source: RFC 7800; RFC 9700, 2.2 (sender-constrained tokens).
    """
    if not is_defended:
        monkeypatch.setattr("antiphon.decide.login.compare_digest", yes)
    party = await scene.party()
    assert await scene.is_let_in(KeyPair.make(Role.USER), party.grant.access) is not is_defended
    assert await scene.is_let_in(party)


@both
async def test_t27_a_stolen_token_with_the_name_of_its_key(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: whoever has a token, and so the public half of its key. Wants: to be its owner.

    Defence: the callout checks the signature over the server's nonce, for the server does not. Source: FACTS, "Proof of
    possession"; ADR-26.
    """
    if not is_defended:
        monkeypatch.setattr("antiphon.actors.callout.possession", lambda _request: None)
    party, thief = await scene.party(), KeyPair.make(Role.USER)
    signatures: list[bytes] = []

    def owners(nonce: bytes) -> bytes:
        signatures.append(party.key.sign(nonce))
        return signatures[0]

    assert await first_word(scene.server.url, party.grant.access, party.key.public, owners) == "PONG\r\n"
    for sign in (thief.sign, lambda _nonce: b"", lambda _nonce: signatures[0]):
        said = await first_word(scene.server.url, party.grant.access, party.key.public, sign)
        assert ("Authorization Violation" in said) is is_defended, said


@both
async def test_t28_a_refresh_token_is_used_twice(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: whoever has copied a credential file. Wants: to live on beside its owner, unseen.

    Defence: a refresh token is good once; one that comes again revokes its family, and ends its connections. Source:
    RFC 9700, 4.14.2.
    """
    if not is_defended:
        monkeypatch.setattr(families, "judge", lambda family, *_how: families.Issue(family, is_again=True))
    owner = await scene.party()
    live, stolen = await scene.raw(owner), owner.grant.refresh
    bus = await scene.bus(owner)
    assert stolen is not None
    second = await bought(bus, owner.key, stolen)
    assert second.refresh is not None
    third = await bought(bus, owner.key, second.refresh)
    assert await scene.is_let_in(owner.key, stolen) is not is_defended
    if is_defended:
        await asyncio.wait_for(live.ended.wait(), 5)
        assert not await scene.is_let_in(owner.key, third.access)
        assert not await scene.is_let_in(owner.key, third.refresh)
    else:
        assert await scene.is_let_in(owner.key, third.access)


@both
async def test_t29_a_refresh_token_without_its_key(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: whoever has a refresh token from an old backup, and not its key. Wants: tokens, or its owner shut out.

    Defence: a family is bound to a key, and a stranger's attempt changes nothing. Source: RFC 9700, 4.14.2.
    """
    if not is_defended:
        monkeypatch.setattr(families, "compare_digest", yes)
    owner, thief = await scene.party(), KeyPair.make(Role.USER)
    stolen = owner.grant.refresh
    assert stolen is not None
    assert await scene.is_let_in(thief, stolen) is not is_defended
    if is_defended:
        assert (await bought(await scene.bus(owner), owner.key, stolen)).refresh != stolen, "he is as well as before"


@both
async def test_t30_a_token_of_a_key_that_has_leaked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: whoever has got hold of a signing key. Wants: to go on making tokens after it was noticed.

    Defence: a key that is expelled is believed no more from that moment. Source: RFC 9700; NIST SP 800-57, 8.3.
    """
    async with opened(tmp_path / "data") as arena, arena.scene() as scene:  # its own: an expulsion ends everybody
        assert scene.role.gate is not None
        authority = scene.role.gate.identity.authority
        party = await scene.party()
        forger, believed = forge(scene, party), authority.keys
        assert await scene.is_let_in(party, forger.token())
        await scene.operator.ask(KeysRotate(order="rotate", expel=forger.ring.active.kid))
        if not is_defended:
            monkeypatch.setattr(authority, "take_ring", lambda _ring: None)  # the bucket's watch tells of it once more
            monkeypatch.setattr(authority, "keys", believed)
        assert await scene.is_let_in(party, forger.token()) is not is_defended


@both
async def test_t31_an_old_key_document_is_played_back(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: whoever stands between a node and the masters. Wants: that an expelled key is believed for ever.

    Defence: the document is signed by the issuer, names its fabric, and is good for two hours.
    Source: OpenID Federation 1.0, 5.2.1 (signed JWK Sets); RFC 8725, 3.8.
    """
    if not is_defended:
        lasts = type("Lasts", (jwks._Document,), {"__getattribute__": endless})
        monkeypatch.setattr(jwks, "_Document", lasts)
    issuer, prefix = scene.vault.issuer.public, scene.role.bus.prefix
    document = (await scene.operator.ask(KeysAsk())).document
    now_ms = scene.role.bus.clock.wall_ms()
    assert len(jwks.read_document(document, issuer, prefix, now_ms)) >= 2
    if is_defended:
        with pytest.raises(NotAuthenticated):
            jwks.read_document(document, issuer, prefix, now_ms + 3 * 3_600_000)
    else:
        assert len(jwks.read_document(document, issuer, prefix, now_ms + 3 * 3_600_000)) >= 2
    own = KeyPair.make(Role.ACCOUNT)
    forged = jwks.sign_document(forge(scene, await scene.party()).ring, own, prefix, now_ms)
    with pytest.raises(NotAuthenticated):
        jwks.read_document(forged, issuer, prefix, now_ms)


def endless(self: Any, name: str) -> Any:
    """A document that is never out of date."""
    return 2**40 if name == "exp" else object.__getattribute__(self, name)


@both
async def test_t32_a_bootstrap_connection_does_more(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: whoever has a credential that only buys tokens, e.g. from a script. Wants: to work with it directly.

    Defence: such a connection may ask for tokens and hear the answer, for a minute. Source: RFC 6749, 1.5;
    `decide/login.py`, `bootstrap`.
    """
    if not is_defended:
        monkeypatch.setattr("antiphon.decide.login.Grants", lambda **_how: EVERYTHING)
    party = await scene.party()
    client = await scene.raw(party.key, party.grant.refresh)
    answers, lane = await client.listen(f"_I.{party.name}.>"), await client.listen(scene.subject("node.*.*.search"))
    await scene.node()
    await client.send(scene.subject(f"search.ask.{party.name}"), b'{"query": "whales"}', inbox(party.name))
    if not is_defended:
        assert b"whales" in (await answers.next_msg(5)).data
    assert bool(await client.heard(lane)) is not is_defended
    assert await client.heard(answers) == 0


@both
async def test_t33_a_node_under_the_name_of_a_publisher(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: somebody for whom an operator's tool enrols nodes by name. Wants: a publisher's inbox, by his name.

    Defence: a name belongs to one kind. Source: DESIGN, "Identity is in the subject": names are unique across kinds.
    """
    victim, key = await scene.client(), KeyPair.make(Role.USER)
    ask = Enrol(name=victim.name, kind=Kind.NODE, instance="one", nkey=key.public)
    if is_defended:
        with pytest.raises(NotAuthenticated):
            await scene.operator.ask(ask)
        return
    assert scene.role.gate is not None
    book = scene.role.gate.identity.ledger.book
    identity = book.identity

    def of_any_kind(name: str) -> Any:
        found = identity(name)
        return found.model_copy(update={"kind": Kind.NODE}) if found and name == victim.name else found

    monkeypatch.setattr(book, "identity", of_any_kind)
    grant = await scene.operator.ask(ask)
    spy = await scene.raw(key, grant.access)
    heard = await spy.listen(f"_I.{victim.name}.>")
    await victim.search("whales")
    assert await spy.heard(heard)


ODD: dict[str, Callable[[TrueForge], str]] = {
    "typ of a delegate": lambda f: f.headed(typ="obo+jwt"),
    "typ of a key set": lambda f: f.headed(typ="jwk-set+jwt"),
    "crit": lambda f: f.headed(crit=["exp"], exp=1),
    "kid a path": lambda f: f.headed(kid="../../keys/issuer.seed"),
    "kid SQL": lambda f: f.headed(kid="' OR 1=1 --"),
    "issued in the future": lambda f: f.token(iat=f.now_ms // 1_000 + 600, iat_ms=f.now_ms + 600_000),
    "sub another": lambda f: f.token(sub=drawn("nobody")),
    "instance another": lambda f: f.token(instance="other"),
    "kind another": lambda f: f.token(kind="operator"),
    "a master": lambda f: f.token(sub="master", kind="master"),
    "family another": lambda f: f.token(fam="b" * 16),
    "claims nested": lambda f: f.in_bytes(b'{"a":' * 400 + b"1" + b"}" * 400),
    "header nested": lambda f: f.nested(),
    "signed by the next key": lambda f: signed(f.header(), f.claims(), f.ring.next),
}


@both
async def test_t34_tokens_that_are_true_but_for_one_thing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: whoever finds one way in which a verifier is lenient. Wants: in.

    Defence: every member of the header and every claim is required, of its own type and compared, at last with the
    records. Source: RFC 8725, 3; RFC 9068, 4. (Open: the records are not asked.)
    """
    if not is_defended:
        monkeypatch.setattr("antiphon.decide.login.judge_access", lambda *_how, **_more: None)
    party = await scene.party()
    forger = forge(scene, party)
    let_in = {name for name, make in ODD.items() if await scene.is_let_in(party, make(forger))}
    of_records = {"sub another", "instance another", "kind another", "family another", "a master"}
    assert let_in == (set() if is_defended else of_records)
