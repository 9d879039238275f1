"""The conversation of everybody with the identity actor: a credential for tokens, and the keys that verify them.

Whoever holds an API key, a join token or a refresh token asks for an access token, and proves with it that the nkey is
its own. Secrets travel in the body, encrypted by TLS where there is a network, and never in a subject or a header.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from antiphon.messages.base import ANYONE, Count, Kind, Label, Message, Name, Request, Route
from antiphon.messages.lane import GROUPS_MAX
from antiphon.subjects import Template

Document = Annotated[str, StringConstraints(min_length=1, max_length=8_192)]
Secret = Annotated[str, StringConstraints(min_length=1, max_length=4_000)]
Nkey = Annotated[str, StringConstraints(pattern=r"^[A-Z2-7]{56}$")]
"""A public nkey."""
Groups = Annotated[tuple[Name, ...], Field(max_length=GROUPS_MAX)]
Serial = Annotated[str, StringConstraints(pattern=r"^[a-z2-7]{16}$")]
"""The id of a family, an API key or an invite: 80 random bits, which may be shown; the secret is another part."""
Proof = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{86}$")]
"""An Ed25519 signature in base64url."""
Nonce = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]

MASTERS = (Kind.MASTER,)


class KeyDocument(Message):
    """The keys whose tokens are believed now."""

    document: Document = Field(description="a JWK Set signed by the issuer: a JWS of type `jwk-set+jwt`, good for 2 h")


class KeysAsk(Request[KeyDocument]):
    """Ask for the keys that verify tokens."""

    route = Route(Template("identity.keys.<caller>"), sent_by=ANYONE, read_by=MASTERS, queue="identity")


class TokenGrant(Message):
    """An access token and what it says; the refresh token is good once."""

    access: Secret
    expires_in_ms: Count
    refresh: Secret | None = None
    name: Name
    kind: Kind
    instance: Name | None = None
    groups: Groups = ()
    issuer: Nkey
    keys: Document = Field(description="as in `KeyDocument`: what verifies the tokens of others")


class TokenAsk(Request[TokenGrant]):
    """Ask for an access token with an API key, a join token or a refresh token.

    The proof is the nkey's signature over `<nonce>.<at_ms>.<SHA-256 of the credential in hexadecimal>`.
    """

    route = Route(
        Template("identity.token.<caller>"), sent_by=ANYONE, read_by=MASTERS, queue="identity", idempotent=False
    )

    credential: Secret
    nkey: Nkey
    nonce: Nonce = Field(description="drawn for this request; one that was used is refused")
    at_ms: Count = Field(description="the asker's wall clock; five minutes from the masters' is too far")
    proof: Proof
    instance: Name | None = Field(default=None, description="with a join token: which instance it wants to be")


class Enrol(Request[TokenGrant]):
    """An operator vouches for a process of his own machine, so that it needs no join token or key.

    The identity is made where there is none; one that is there has to be of that kind.
    """

    route = Route(
        Template("identity.enrol.<caller>"),
        sent_by=(Kind.OPERATOR,),
        read_by=MASTERS,
        queue="identity",
        idempotent=False,
    )

    name: Name
    kind: Kind
    instance: Name | None = None
    nkey: Nkey


class BehalfGrant(Message):
    """A token with which a delegate asks for somebody else; it is attached to each of those requests."""

    token: Secret
    expires_in_ms: Count


class BehalfAsk(Request[BehalfGrant]):
    """A delegate asks to speak for a principal whom it has authenticated by means of its own."""

    route = Route(
        Template("identity.behalf.<caller>"), sent_by=ANYONE, read_by=MASTERS, queue="identity", idempotent=False
    )

    principal: Name


class WhoIs(Message):
    """Whom the masters take the asker for."""

    name: Name
    kind: Kind | None = Field(default=None, description="None where no identity is known: the fabric is open")
    groups: Groups = ()
    is_delegate: bool = False
    is_suspended: bool = False
    mode: Label = Field(description="`callout`: the server checks; `header`: responders check; `open`: nobody does")
    master: Name
    wall_ms: Count = Field(description="the master's wall clock, for whoever wants to compare it")
    version: Label = Field(default="", description="the master's version of Antiphon")


class WhoAmI(Request[WhoIs]):
    """Ask the masters whom they take the asker for."""

    route = Route(Template("identity.whoami.<caller>"), sent_by=ANYONE, read_by=MASTERS, queue="identity")
