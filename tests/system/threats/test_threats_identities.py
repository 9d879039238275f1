"""Attacks on identities: credentials tried, taken over, kept after they were taken away, or lent to others."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from jwt.api_jws import PyJWS

from antiphon.decide import login
from antiphon.decide.login import Redemption
from antiphon.decide.policy import Principal
from antiphon.errors import NotAllowed, NotAuthenticated
from antiphon.identity import opaque
from antiphon.identity.jws import decode64
from antiphon.identity.keypair import KeyPair, Role
from antiphon.identity.opaque import Sort
from antiphon.messages.base import Kind
from antiphon.messages.identities import (
    CredentialRevoke,
    IdentityOrder,
    IdentityUpdate,
    KeyCreate,
    NodeInvite,
)
from antiphon.messages.policy import PolicySet, SearchRule
from antiphon.messages.registry import NodeJoin, NodeLeave
from antiphon.messages.tokens import BehalfAsk
from arena import Party, Scene, both, bought, claims_of, drawn, happens, no
from forged import part

pytestmark = pytest.mark.asyncio(loop_scope="module")


def nobody_is_kicked(scene: Scene, patch: pytest.MonkeyPatch) -> None:
    assert scene.role.gate is not None
    patch.setattr(scene.role.gate, "kick", lambda *_how: None)


async def with_api_key(scene: Scene) -> tuple[Party, opaque.Opaque]:
    """A publisher, and an API key of his."""
    party = await scene.party()
    made = opaque.parse((await scene.operator.ask(KeyCreate(identity=party.name))).key)
    assert made is not None
    return party, made


@both
async def test_t35_an_api_key_is_tried_out(scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool) -> None:
    """Attacker: whoever has the public id of a key and a long list of secrets, of which the last is right. Wants: in.

    Defence: after 60 failures a minute with one credential from one place even the right secret is refused unseen,
    whatever nkey he comes with. Source: OWASP ASVS 5.0, 6.3.1; FACTS, "API keys" (256 random bits are the other line).
    """
    if not is_defended:
        monkeypatch.setattr("antiphon.decide.knocks.Knocks.is_held", no)
    _, key = await with_api_key(scene)
    for _ in range(62):
        wrong = replace(key, secret=opaque.make(Sort.API_KEY).secret)
        assert not await scene.is_let_in(KeyPair.make(Role.USER), wrong.reveal())
    assert await scene.is_let_in(KeyPair.make(Role.USER), key.reveal()) is not is_defended


@both
async def test_t36_an_owner_is_shut_out_by_failing_in_his_name(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: a program on the machine of another, or behind the same address. Wants: that the other stays out.

    Defence: whoever has come in before with that credential and his nkey is judged all the same; to claim an nkey
    without proof holds nobody. Source: OWASP ASVS 5.0, 6.3 (lock-out as a denial of service); `decide/knocks.py`.
    """
    if not is_defended:
        monkeypatch.setattr("antiphon.decide.knocks.Knocks.came_in", lambda *_how: None)
    owner, key = await with_api_key(scene)
    assert await scene.is_let_in(owner.key, key.reveal())
    for _ in range(62):
        wrong = replace(key, secret=opaque.make(Sort.API_KEY).secret)
        assert not await scene.is_let_in(KeyPair.make(Role.USER), wrong.reveal())
    assert await scene.is_let_in(owner.key, key.reveal()) is is_defended


@both
async def test_t37_a_join_token_takes_a_living_instance_over(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: whoever has seen a join token, e.g. in a deployment's variables. Wants: to be an instance that lives.

    Defence: a join token displaces nobody: another key is refused while the instance's family lives. Source: RFC 9700,
    2.2 (binding to a key); `decide/login.py`, `judge_invite`.
    """
    if not is_defended:
        monkeypatch.setattr(login, "_may_join", lambda *_how: None)
    node, owner, thief = drawn("node"), KeyPair.make(Role.USER), KeyPair.make(Role.USER)
    token = (await scene.operator.ask(NodeInvite(node=node, instances=2))).token
    assert await join(scene, node, owner, token)
    assert await join(scene, node, thief, token) is not is_defended
    assert await join(scene, node, owner, token) is is_defended, (
        "the owner may ask again; one who was displaced may not"
    )


async def join(scene: Scene, node: str, key: KeyPair, token: str, instance: str = "one") -> bool:
    """Whether somebody becomes an instance."""
    bus = await scene.bus(Party(node, instance, key, None), token)  # type: ignore[arg-type]  # it has no grant yet
    try:
        await bought(bus, key, token, instance)
    except NotAuthenticated:
        return False
    return True


@both
async def test_t38_a_join_token_is_used_up_and_used_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: whoever has seen a join token. Wants: one more instance, which is asked and answers.

    Defence: a join token is good for so many instances, counted by compare-and-set. Source: RFC 9700, 4.5 (codes are
    good once); `decide/login.py`, `judge_invite`.
    """
    judge = login.judge_invite
    if not is_defended:

        def endless(record: Any, *how: Any) -> Redemption:
            more = record.model_copy(update={"instances_left": 2})
            return judge(more, *how)

        monkeypatch.setattr(login, "judge_invite", endless)
    node = drawn("node")
    token = (await scene.operator.ask(NodeInvite(node=node, instances=1))).token
    assert await join(scene, node, KeyPair.make(Role.USER), token)
    assert await join(scene, node, KeyPair.make(Role.USER), token, "two") is not is_defended


@both
async def test_t39_a_suspended_identity_stays_connected(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: somebody who has just been found out. Wants: to go on until his token expires.

    Defence: a suspension ends live connections on all servers, and the door stays shut until he may come back. Source:
    FACTS, "Kick"; NIST SP 800-207, 2.1 (access is revoked while a session lasts).
    """
    if not is_defended:
        nobody_is_kicked(scene, monkeypatch)
    party = await scene.party(Kind.NODE)
    live = await scene.raw(party)
    lane = await live.listen(scene.subject(f"node.{party.name}.one.search"))
    await scene.operator.ask(IdentityOrder(name=party.name, order="suspend"))
    assert not await scene.is_let_in(party)
    if is_defended:
        await asyncio.wait_for(live.ended.wait(), 5)
    else:
        await (await scene.master()).send(scene.subject(f"node.{party.name}.one.search"), b"{}", "_I.master.x.y")
        assert await live.heard(lane)
    await scene.operator.ask(IdentityOrder(name=party.name, order="resume"))
    assert await scene.is_let_in(party)


@both
@pytest.mark.parametrize("kind", [Kind.PUBLISHER, Kind.NODE])
async def test_t40_a_suspended_identity_asks_before_it_is_cut_off(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool, kind: Kind
) -> None:
    """Attacker: somebody who has just been found out, on a server whose connections cannot be ended. Wants: answers.

    Defence: masters refuse what a suspended identity asks. Source: `decide/policy.py`, `Access.principal`. (Nobody is
    kicked in both runs.)
    """
    nobody_is_kicked(scene, monkeypatch)
    party = await scene.party(kind)
    client = await scene.client(party)
    await scene.operator.ask(IdentityOrder(name=party.name, order="suspend"))
    if not is_defended:
        monkeypatch.setattr("antiphon.decide.policy.Access.principal", lambda _self, name: Principal(name))
    with pytest.raises(NotAllowed) if is_defended else nullcontext():
        if kind is Kind.NODE:
            await client.bus.ask(NodeJoin(instance="one"), instance="one")
        else:
            await client.search("whales")
    if kind is Kind.NODE:
        with pytest.raises(NotAllowed) if is_defended else nullcontext():
            await client.bus.ask(NodeLeave(instance="one"), instance="one")


@both
@pytest.mark.parametrize("what", ["token", "key", "family"])
async def test_t41_a_revoked_credential_stays_connected(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool, what: str
) -> None:
    """Attacker: whoever has stolen a token with its key, and is connected. Wants: the rest of the hour.

    Defence: what is revoked (one token, one API key, one family) is refused at once, and the connections that live by
    it are ended, and no others. Source: RFC 7009, 2; RFC 9700, 4.14.2.
    """
    if not is_defended:
        nobody_is_kicked(scene, monkeypatch)
    party, key = await with_api_key(scene)
    bus = await scene.bus(party)
    grant = party.grant if what == "family" else await bought(bus, party.key, key.reveal())
    said = claims_of(grant.access)
    other = await scene.raw(KeyPair.make(Role.USER), (await with_api_key(scene))[1].reveal())
    live, own = await scene.raw(party.key, grant.access), await scene.raw(party)
    serial = {"token": said["jti"], "key": said.get("key"), "family": said.get("fam")}[what]
    await scene.operator.ask(CredentialRevoke.model_validate({"what": what, "id": serial}))
    assert not await scene.is_let_in(party.key, grant.access)
    if is_defended:
        await asyncio.wait_for(live.ended.wait(), 5)
    else:
        await live.client.flush()
    assert own.ended.is_set() is (is_defended and what == "family"), "by another family he is as welcome as before"
    await other.client.flush()


# -- delegates


async def delegate_of(scene: Scene) -> tuple[Party, Party, str]:
    """A delegate, its principal, and a node that only the principal may search."""
    delegate, principal, node = await scene.party(), await scene.party(), await scene.node()
    await scene.operator.ask(IdentityUpdate(name=delegate.name, is_delegate=True))
    rules = (SearchRule(who=(principal.name,), nodes=(node.name,)),)
    await scene.operator.ask(PolicySet(search=rules))
    assert await happens(lambda: scene.role.access.current.policy.search == rules)
    return delegate, principal, node.name


@pytest_asyncio.fixture(loop_scope="module")
async def no_policy(scene: Scene) -> Any:
    yield
    await scene.operator.ask(PolicySet(search=()))


async def sees(scene: Scene, party: Party, node: str, behalf: str | None) -> bool:
    """Whether somebody's search reaches a node that he may not search himself."""
    client = await scene.client(party)
    assert not (await client.search("whales")).hits
    try:
        answer = await client.search("whales", behalf=behalf)
    except NotAllowed:
        return False
    return [hit.node for hit in answer.hits] == [node]


@both
async def test_t42_a_delegate_forges_its_principal(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool, no_policy: None
) -> None:
    """Attacker: a face for many (HTTP, an assistant) that was taken over. Wants: what a principal sees who never asked.

    Defence: an on-behalf-of token is signed by a master, and says who asks for whom. Source: RFC 8693, 4.1 (`act`); RFC
    8725.
    """
    delegate, principal, node = await delegate_of(scene)
    bus = await scene.bus(delegate)
    true = (await bus.ask(BehalfAsk(principal=(await scene.party()).name))).token
    head, _, signature = true.split(".")
    forged = f"{head}.{part(claims_of(true) | {'sub': principal.name})}.{signature}"
    if not is_defended:
        monkeypatch.setattr(PyJWS, "decode", lambda _self, token, *_how, **_more: decode64(token.split(".")[1]))
    assert await sees(scene, delegate, node, forged) is not is_defended
    assert await sees(scene, delegate, node, (await bus.ask(BehalfAsk(principal=principal.name))).token)


@both
@pytest.mark.parametrize("check", ["judged", "asked"])
async def test_t43_another_presents_a_delegates_token(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool, no_policy: None, check: str
) -> None:
    """Attacker: whoever has read an on-behalf-of token, e.g. another delegate at whose node it was. Wants: to use it.

    Defence: a token names its delegate, and only he may present it, while he is one. Source: RFC 8693, 4.1; RFC 7800.
    (Where it is judged and where it is asked with; each alone keeps him out, so the other is off in both runs.)
    """
    judge, thief = login.judge_on_behalf, await scene.party()
    delegate, principal, node = await delegate_of(scene)
    stolen = (await (await scene.bus(delegate)).ask(BehalfAsk(principal=principal.name))).token
    # he is one himself, or that alone would keep him out
    await scene.operator.ask(IdentityUpdate(name=thief.name, is_delegate=True))
    if check == "judged" or not is_defended:
        monkeypatch.setattr("antiphon.actors.asker.Askers._claims", lambda self, *how: self._verify(*how))
    if check == "asked" or not is_defended:

        def unasked(claims: Any, _caller: str, named: Any, *how: Any, **more: Any) -> Any:
            named = None if named is None else named.model_copy(update={"name": claims.delegate, "is_delegate": True})
            return judge(claims, claims.delegate, named, *how, **more)

        monkeypatch.setattr(login, "judge_on_behalf", unasked)
    assert await sees(scene, thief, node, stolen) is not is_defended


@both
async def test_t44_a_publisher_speaks_for_others(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool, no_policy: None
) -> None:
    """Attacker: a publisher. Wants: a token to ask for somebody else; a delegate wants one for an operator.

    Defence: masters make such tokens for delegates only, and none for operators. Source: RFC 8693, 2.1 (policy of the
    server); `decide/login.py`, `judge_on_behalf`.
    """
    delegate, principal, node = await delegate_of(scene)
    attacker = await scene.party()
    if not is_defended:
        monkeypatch.setattr(login, "judge_on_behalf", lambda *_how, **_more: None)
    bus = await scene.bus(attacker)
    if is_defended:
        with pytest.raises(NotAuthenticated):
            await bus.ask(BehalfAsk(principal=principal.name))
        with pytest.raises(NotAuthenticated):
            await (await scene.bus(delegate)).ask(BehalfAsk(principal=scene.operator.name))
    else:
        token = (await bus.ask(BehalfAsk(principal=principal.name))).token
        assert await sees(scene, attacker, node, token)
