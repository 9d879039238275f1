"""Who is let in: one verdict for each thing that may have changed since a credential was made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.decide.grants import Grants, grants
from antiphon.decide.identities import (
    ApiKeyRecord,
    FamilyRecord,
    IdentityRecord,
    InviteRecord,
    Reason,
    Record,
    Standing,
)
from antiphon.decide.login import (
    BOOTSTRAP_MS,
    AccessClaims,
    DelegatedClaims,
    Joining,
    Redemption,
    advice,
    bootstrap,
    full,
    judge_access,
    judge_api_key,
    judge_family,
    judge_invite,
    judge_on_behalf,
)
from antiphon.errors import InvalidName
from antiphon.messages.base import Kind

MINE, OTHER = "U" + "A" * 55, "U" + "B" * 55
MAC, WRONG = "a" * 64, "b" * 64
NOW_MS = 10_000
CLAIMS = AccessClaims("docs", Kind.NODE, (), MINE, "j" * 22, 5_000, 20_000, "docs-1", family="f" * 16)
BY_KEY = replace(CLAIMS, family=None, key="k" * 16)
IDENTITY = IdentityRecord(name="docs", kind=Kind.NODE, created_ms=1)
PUBLISHER = IdentityRecord(name="docs", kind=Kind.PUBLISHER, created_ms=1)
FAMILY = FamilyRecord(
    id="f" * 16, identity="docs", instance="docs-1", nkey=MINE, current=MAC, rotated_ms=5_000, expires_ms=50_000
)
KEY = ApiKeyRecord(id="k" * 16, identity="docs", mac=MAC, created_ms=5_000)
INVITE = InviteRecord(id="i" * 16, node="docs", mac=MAC, instances_left=2, created_ms=1, expires_ms=50_000)
JOINING = Joining("docs", "docs-2", OTHER)


def but(record: Any, **changed: Any) -> Any:
    """A record with fields changed, checked as if it had been read."""
    return type(record).model_validate(record.model_dump() | changed)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({}, None),
        ({"nkey": OTHER}, Reason.WRONG_KEY),
        ({"now_ms": 20_000}, Reason.EXPIRED),
        ({"is_denied": True}, Reason.REVOKED_TOKEN),
        ({"identity": None}, Reason.UNKNOWN_IDENTITY),
        ({"identity": but(IDENTITY, kind="publisher")}, Reason.WRONG_KIND),
        ({"identity": but(IDENTITY, status="suspended")}, Reason.SUSPENDED),
        ({"identity": but(IDENTITY, not_before_ms=5_001)}, Reason.ISSUED_BEFORE),
        ({"identity": but(IDENTITY, not_before_ms=5_000)}, None),
        ({"source": None}, Reason.UNKNOWN_CREDENTIAL),
        ({"source": but(FAMILY, id="e" * 16)}, Reason.UNKNOWN_CREDENTIAL),
        ({"source": but(FAMILY, identity="shop")}, Reason.UNKNOWN_CREDENTIAL),
        ({"source": but(FAMILY, revoked="reused")}, Reason.REVOKED_FAMILY),
        ({"source": but(FAMILY, nkey=OTHER)}, Reason.WRONG_KEY),
        ({"source": but(FAMILY, instance="docs-2")}, Reason.WRONG_INSTANCE),
        ({"source": but(FAMILY, instance=None)}, Reason.WRONG_INSTANCE),
        ({"source": but(FAMILY, expires_ms=NOW_MS)}, None),
        ({"claims": BY_KEY, "source": KEY}, None),
        ({"claims": BY_KEY, "source": FAMILY}, Reason.UNKNOWN_CREDENTIAL),
        ({"claims": BY_KEY, "source": but(KEY, is_revoked=True)}, Reason.REVOKED_KEY),
        ({"claims": BY_KEY, "source": but(KEY, expires_ms=NOW_MS)}, Reason.EXPIRED),
        ({"claims": BY_KEY, "source": but(KEY, expires_ms=NOW_MS + 1)}, None),
        ({"claims": BY_KEY, "source": but(KEY, identity="shop")}, Reason.UNKNOWN_CREDENTIAL),
    ],
    ids=str,
)
def test_an_access_token(changed: dict[str, Any], reason: Reason | None) -> None:
    asked: dict[str, Any] = {"claims": CLAIMS, "nkey": MINE, "identity": IDENTITY, "source": FAMILY, "now_ms": NOW_MS}
    assert judge_access(**(asked | changed)) is reason


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({}, None),
        ({"nkey": OTHER}, None),
        ({"record": None}, Reason.UNKNOWN_CREDENTIAL),
        ({"mac": WRONG}, Reason.WRONG_SECRET),
        ({"record": but(KEY, is_revoked=True)}, Reason.REVOKED_KEY),
        ({"record": but(KEY, expires_ms=NOW_MS)}, Reason.EXPIRED),
        ({"record": but(KEY, expires_ms=NOW_MS + 1)}, None),
        ({"record": but(KEY, nkey=OTHER)}, Reason.WRONG_KEY),
        ({"record": but(KEY, nkey=MINE)}, None),
        ({"identity": None}, Reason.UNKNOWN_IDENTITY),
        ({"identity": IDENTITY}, Reason.WRONG_KIND),
        ({"identity": but(PUBLISHER, name="shop")}, Reason.UNKNOWN_IDENTITY),
        ({"identity": but(PUBLISHER, status="suspended")}, Reason.SUSPENDED),
        ({"identity": but(PUBLISHER, not_before_ms=5_001)}, Reason.ISSUED_BEFORE),
        ({"mac": WRONG, "record": but(KEY, is_revoked=True)}, Reason.WRONG_SECRET),
    ],
    ids=str,
)
def test_an_api_key(changed: dict[str, Any], reason: Reason | None) -> None:
    asked: dict[str, Any] = {"record": KEY, "mac": MAC, "nkey": MINE, "identity": PUBLISHER, "now_ms": NOW_MS}
    assert judge_api_key(**(asked | changed)) is reason


@pytest.mark.parametrize(
    ("identity", "reason"),
    [
        (IDENTITY, None),
        (None, Reason.UNKNOWN_IDENTITY),
        (but(IDENTITY, name="shop"), Reason.UNKNOWN_IDENTITY),
        (but(IDENTITY, status="suspended"), Reason.SUSPENDED),
        (but(IDENTITY, not_before_ms=5_001), Reason.ISSUED_BEFORE),
    ],
    ids=str,
)
def test_a_family(identity: IdentityRecord | None, reason: Reason | None) -> None:
    assert judge_family(FAMILY, identity) is reason


MINE_ALREADY = but(FAMILY, instance="docs-2", nkey=OTHER)
"""The family of the very instance and key that want to join."""


@pytest.mark.parametrize(
    ("changed", "left"),
    [
        ({}, 1),
        ({"identity": None}, 1),
        ({"joining": replace(JOINING, holder=MINE_ALREADY)}, 2),
        ({"joining": replace(JOINING, holder=MINE_ALREADY), "record": but(INVITE, instances_left=0)}, 0),
        ({"joining": replace(JOINING, holder=but(MINE_ALREADY, nkey=MINE, revoked="by ops"))}, 1),
        ({"joining": replace(JOINING, holder=but(MINE_ALREADY, nkey=MINE, expires_ms=NOW_MS))}, 1),
        ({"joining": replace(JOINING, holder=but(MINE_ALREADY, revoked="by ops"))}, 1),
        ({"joining": replace(JOINING, others=255)}, 1),
        ({"record": None}, Reason.UNKNOWN_CREDENTIAL),
        ({"mac": WRONG}, Reason.WRONG_SECRET),
        ({"record": but(INVITE, is_revoked=True)}, Reason.REVOKED_INVITE),
        ({"record": but(INVITE, expires_ms=NOW_MS)}, Reason.EXPIRED),
        ({"record": but(INVITE, instances_left=0)}, Reason.USED_UP),
        ({"joining": replace(JOINING, node="shop")}, Reason.WRONG_NAME),
        ({"joining": replace(JOINING, holder=but(MINE_ALREADY, nkey=MINE))}, Reason.INSTANCE_TAKEN),
        ({"joining": replace(JOINING, others=256)}, Reason.TOO_MANY_INSTANCES),
        (
            {"joining": replace(JOINING, others=1), "identity": but(IDENTITY, instances_max=1)},
            Reason.TOO_MANY_INSTANCES,
        ),
        ({"identity": but(IDENTITY, kind="publisher")}, Reason.WRONG_KIND),
        ({"identity": but(IDENTITY, name="shop")}, Reason.WRONG_NAME),
        ({"identity": but(IDENTITY, status="suspended")}, Reason.SUSPENDED),
    ],
    ids=str,
)
def test_a_join_token(changed: dict[str, Any], left: int | Reason) -> None:
    asked: dict[str, Any] = {"record": INVITE, "mac": MAC, "joining": JOINING, "identity": IDENTITY, "now_ms": NOW_MS}
    found = judge_invite(**(asked | changed))
    if isinstance(left, Reason):
        assert found == Redemption(left)
    else:
        assert found.reason is None
        assert found.invite == but(INVITE, instances_left=left)


@given(st.integers(1, 5), st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from([MINE, OTHER]))))
def test_an_invite_admits_no_more_instances_than_it_says(places: int, comers: list[tuple[str, str]]) -> None:
    invite, families = but(INVITE, instances_left=places), dict[str, FamilyRecord]()
    for instance, nkey in comers:
        others = sum(name != instance for name in families)
        joining = Joining("docs", instance, nkey, families.get(instance), others)
        found = judge_invite(invite, MAC, joining, None, NOW_MS)
        if found.invite is not None:
            invite = found.invite
            assert families.get(instance, FAMILY).nkey in (nkey, FAMILY.nkey)
            families[instance] = but(FAMILY, instance=instance, nkey=nkey)
        elif instance in families:
            assert found.reason is Reason.INSTANCE_TAKEN
            assert families[instance].nkey != nkey
        else:
            assert found.reason is Reason.USED_UP
    assert len(families) + invite.instances_left == places


HTTP = IdentityRecord(name="http", kind=Kind.PUBLISHER, is_delegate=True)
ANNA = IdentityRecord(name="anna", kind=Kind.PUBLISHER)
SPEAKS = DelegatedClaims("anna", Kind.PUBLISHER, (), "http", "j" * 22, 5_000, 20_000)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({}, None),
        ({"caller": "web"}, Reason.WRONG_NAME),
        ({"now_ms": 20_000}, Reason.EXPIRED),
        ({"is_denied": True}, Reason.REVOKED_TOKEN),
        ({"delegate": None}, Reason.NOT_A_DELEGATE),
        ({"delegate": but(HTTP, is_delegate=False)}, Reason.NOT_A_DELEGATE),
        ({"delegate": but(HTTP, name="web")}, Reason.NOT_A_DELEGATE),
        ({"delegate": but(HTTP, status="suspended")}, Reason.SUSPENDED),
        ({"delegate": but(HTTP, not_before_ms=5_001)}, Reason.ISSUED_BEFORE),
        ({"principal": None}, Reason.UNKNOWN_IDENTITY),
        ({"principal": but(ANNA, name="bert")}, Reason.UNKNOWN_IDENTITY),
        ({"principal": but(ANNA, kind="operator")}, Reason.WRONG_KIND),
        ({"principal": but(ANNA, status="suspended")}, Reason.SUSPENDED),
        ({"principal": but(ANNA, not_before_ms=5_001)}, Reason.ISSUED_BEFORE),
    ],
    ids=str,
)
def test_on_behalf_of(changed: dict[str, Any], reason: Reason | None) -> None:
    asked: dict[str, Any] = {
        "claims": SPEAKS,
        "caller": "http",
        "delegate": HTTP,
        "principal": ANNA,
        "now_ms": NOW_MS,
    }
    assert judge_on_behalf(**(asked | changed)) is reason


def test_what_a_login_may_do() -> None:
    whole = full(CLAIMS)
    assert whole.grants == grants(Kind.NODE, "docs", "docs-1")
    assert (whole.label, whole.expires_ms) == (f"node:docs:docs-1:{CLAIMS.family}:{CLAIMS.jti}:", 20_000)
    by_key = replace(CLAIMS, kind=Kind.PUBLISHER, instance=None, family=None, key="k" * 16)
    assert full(by_key).label == f"publisher:docs::{'k' * 16}:{CLAIMS.jti}:"
    least = bootstrap(Kind.NODE, "docs", "docs-1", NOW_MS, source="s" * 16, prefix="mine")
    assert least.grants == Grants(publish=("mine.v1.identity.token.docs",), subscribe=("_I.docs.>",))
    assert (least.label, least.expires_ms) == (f"node:docs:docs-1:{'s' * 16}::", NOW_MS + BOOTSTRAP_MS)
    assert "resp" not in least.grants.permissions()
    for name in ("*", "a.b", ">"):
        with pytest.raises(InvalidName):
            bootstrap(Kind.NODE, name, None, NOW_MS)


def test_whoever_is_refused_is_told_what_to_do_and_a_guesser_nothing() -> None:
    for reason in Reason:
        assert ":" in advice(reason)
    alike = {Reason.UNKNOWN_CREDENTIAL, Reason.WRONG_SECRET, Reason.UNKNOWN_IDENTITY, Reason.MALFORMED}
    assert len({advice(reason) for reason in alike}) == 1
    assert len({str(reason) for reason in Reason}) == len(Reason)


@pytest.mark.parametrize("record", [IDENTITY, FAMILY, KEY, INVITE], ids=lambda record: type(record).__name__)
def test_records_are_read_as_written_with_fields_of_a_later_version(record: Record) -> None:
    text = record.model_dump_json()
    assert type(record).model_validate_json(text) == record
    assert type(record).model_validate_json(text[:-1] + ', "later": {"x": 1}}') == record
    with pytest.raises(ValueError, match="frozen"):
        record.id = "x"  # type: ignore[attr-defined]  # that is what is tried


@pytest.mark.parametrize(
    ("record", "changed"),
    [
        (IDENTITY, {"name": "*"}),
        (IDENTITY, {"name": "a.b"}),
        (IDENTITY, {"kind": "root"}),
        (IDENTITY, {"groups": ("a b",)}),
        (IDENTITY, {"groups": tuple(f"g{at}" for at in range(33))}),
        (IDENTITY, {"instances_max": 0}),
        (FAMILY, {"id": "../x"}),
        (FAMILY, {"nkey": "U"}),
        (FAMILY, {"current": "A" * 64}),
        (KEY, {"mac": "plain"}),
        (INVITE, {"instances_left": -1}),
    ],
    ids=str,
)
def test_records_are_bounded(record: Record, changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        but(record, **changed)


def test_the_keys_of_the_bucket() -> None:
    assert [IDENTITY.key, FAMILY.key, KEY.key, INVITE.key] == [
        "id.docs",
        "family." + "f" * 16,
        "key." + "k" * 16,
        "invite." + "i" * 16,
    ]
    assert {status.value for status in Standing} == {"active", "suspended"}


def test_who_is_suspended_or_out_of_time_is_told_what_to_do() -> None:
    assert "identity resume" in advice(Reason.SUSPENDED)
    assert "NTP" in advice(Reason.WRONG_CLOCK)
