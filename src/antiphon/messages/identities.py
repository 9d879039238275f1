"""The conversation of operators about identities: who there is, their keys and invites, and taking them away."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from antiphon.messages.base import Acknowledged, Count, Fact, Kind, Label, Message, Name, Request, Route
from antiphon.messages.facts import READERS
from antiphon.messages.tokens import MASTERS, Groups, Nkey, Secret, Serial
from antiphon.subjects import Template

OPERATORS = (Kind.OPERATOR,)
PAGE_MAX = 500
"""Identities in one listing."""
INSTANCES_MAX = 256
"""Instances of one node, as in the registry."""
CREDENTIALS_MAX = 1_000
"""Families, keys and invites that are shown of one identity."""


def _route(verb: str, *, idempotent: bool = True) -> Route:
    template = Template(f"identity.{verb}.<caller>")
    return Route(template, sent_by=OPERATORS, read_by=MASTERS, queue="identity", idempotent=idempotent)


class IdentityEntry(Message):
    """One identity."""

    name: Name
    kind: Kind
    groups: Groups = ()
    is_delegate: bool = False
    status: Literal["active", "suspended"] = "active"
    created_ms: Count = 0
    not_before_ms: Count = Field(default=0, description="what was issued before is refused")
    instances_max: Count = INSTANCES_MAX
    families: Count = Field(default=0, description="lines of refresh tokens that live: one an instance")
    keys: Count = Field(default=0, description="API keys that are good")


class FamilyLine(Message):
    """One instance's line of refresh tokens."""

    id: Serial
    instance: Name | None = None
    nkey: Nkey
    created_ms: Count = 0
    rotated_ms: Count = 0
    expires_ms: Count
    revoked: Label | None = None


class KeyLine(Message):
    """One API key, without its secret."""

    id: Serial
    identity: Name
    label: Label = ""
    created_ms: Count = 0
    expires_ms: Count | None = None
    is_revoked: bool = False


class InviteLine(Message):
    """One join token, without its secret."""

    id: Serial
    node: Name
    instances_left: Count
    expires_ms: Count
    is_revoked: bool = False


class IdentityDetail(Message):
    """One identity with its credentials."""

    size_max: ClassVar[int] = 1024 * 1024
    identity: IdentityEntry
    families: Annotated[tuple[FamilyLine, ...], Field(max_length=CREDENTIALS_MAX)] = ()
    keys: Annotated[tuple[KeyLine, ...], Field(max_length=CREDENTIALS_MAX)] = ()
    invites: Annotated[tuple[InviteLine, ...], Field(max_length=CREDENTIALS_MAX)] = ()


class IdentityListing(Message):
    """Identities by name."""

    size_max: ClassVar[int] = 1024 * 1024
    identities: tuple[IdentityEntry, ...]
    next: Name | None = Field(default=None, description="ask again with `after` set to this for more")


class IdentityList(Request[IdentityListing]):
    """List identities."""

    route = _route("list")

    kind: Kind | None = None
    after: Name | None = None


class IdentityGet(Request[IdentityDetail]):
    """Get one identity with its credentials."""

    route = _route("get")

    name: Name


class IdentityCreate(Request[IdentityEntry]):
    """Make an identity; making the same again is the same as once."""

    route = _route("create")

    name: Name
    kind: Kind
    groups: Groups = ()
    is_delegate: bool = False
    instances_max: int = Field(default=INSTANCES_MAX, ge=1, le=INSTANCES_MAX)


class IdentityUpdate(Request[IdentityEntry]):
    """Change what an identity belongs to and may do; what is not given stays."""

    route = _route("update")

    name: Name
    groups: Groups | None = None
    is_delegate: bool | None = None
    instances_max: int | None = Field(default=None, ge=1, le=INSTANCES_MAX)


class IdentityOrder(Request[IdentityEntry]):
    """Suspend an identity, let it in again, or revoke everything that it holds; live connections are ended."""

    route = _route("order")

    name: Name
    order: Literal["suspend", "resume", "revoke"]


class CredentialRevoke(Request[Acknowledged]):
    """Revoke one access token (its `jti`), family, API key or invite; connections that live by it are ended."""

    route = _route("revoke")

    what: Literal["token", "family", "key", "invite"]
    id: Label


class KeyCreated(Message):
    """A new API key; it is shown this once."""

    id: Serial
    key: Secret
    identity: Name
    expires_ms: Count | None = None


class KeyCreate(Request[KeyCreated]):
    """Make an API key for an identity that there is."""

    route = _route("key", idempotent=False)

    identity: Name
    label: Label = ""
    keep_ms: int | None = Field(default=None, ge=1, description="how long it is good; None: until it is revoked")
    nkey: Nkey | None = Field(default=None, description="the only nkey that may use it")


class NodeInvited(Message):
    """A new join token; it is shown this once."""

    id: Serial
    token: Secret
    node: Name
    instances: Count
    expires_ms: Count


class NodeInvite(Request[NodeInvited]):
    """Make a join token for so many new instances of a node."""

    route = _route("invite", idempotent=False)

    node: Name
    instances: int = Field(default=1, ge=1, le=INSTANCES_MAX)
    keep_ms: int = Field(default=86_400_000, ge=1, description="how long it is good")


class RingView(Message):
    """The ids of the keys that sign tokens."""

    next: Label
    active: Label
    retiring: tuple[Label, ...] = ()


class KeysRotate(Request[RingView]):
    """Let the next key sign from now on; or expel one that has leaked, whose tokens die at once."""

    route = _route("rotate", idempotent=False)

    order: Literal["rotate"] = Field(description="required: what says nothing must not pass for an order")
    expel: Label | None = Field(default=None, description="the id of a key that has leaked")


class IdentityAudited(Fact):
    """Something happened to an identity or a credential, or was refused: who, what, why, where."""

    route = Route(Template("fact.identity.audited.<writer>"), sent_by=(Kind.MASTER,), read_by=READERS)

    at_ms: Count
    what: Literal[
        "connected", "granted", "refused", "created", "changed", "suspended", "resumed", "revoked", "kicked",
        "rotated", "invited", "violated", "doubled",
    ]  # fmt: skip
    who: Label = Field(description="the name that was given; of a refusal it is a claim")
    kind: Label | None = None
    instance: Label | None = None
    why: Label = Field(default="", description="a stable reason, e.g. `wrong_key`")
    where: Label = Field(default="", description="address and server of the connection, or the request's subject")
    by: Label | None = Field(default=None, description="the operator or master that did it")
    credential: Label | None = Field(default=None, description="id of the token, family, key or invite; never a secret")
