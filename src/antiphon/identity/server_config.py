"""What the nats-server's configuration says of identity: accounts, limits, and who answers for everybody else (ADR-26).

Four accounts: `SYS` sees the whole server and ends connections; `AUTH` holds nobody but the callout, which may hear
authorization requests and answer each once; `APP` is the fabric; `STORE` holds nobody but masters and has their
buckets. For the server checks no reply subject, and its own answers (that a stream has stored a message, or what it
holds) go wherever an asker aims them, and are stored there: whoever may write or read any stream of an account can
write every bucket of that account. Static users are nkeys whose seeds are in the vault. Everybody else is put into
`APP` with the permissions that the callout says, or refused: there is no anonymous user. Text, from public keys alone,
so it may be printed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from antiphon.identity.vault import PublicNames

SYSTEM_ACCOUNT: Final = "SYS"
CALLOUT_ACCOUNT: Final = "AUTH"
APP_ACCOUNT: Final = "APP"
"""The one account that the callout puts anybody into; hard-coded, because the issuer's key could sign for any."""
STORE_ACCOUNT: Final = "STORE"
"""Where the masters' buckets are; nothing that a client says reaches it."""
ASK: Final = "$SYS.REQ.USER.AUTH"
"""Where the server asks the callout."""
ANSWER_MS_MAX: Final = 2_000
"""How long the server waits for a client's first line, and then for the callout."""


@dataclass(frozen=True, slots=True)
class AccountLimits:
    """What one account may use of a server.

    The rights of single users cannot hold these: the server ignores them in a callout's answer (nats-facts.md).

    Attributes:
        connections: of `APP`, the masters' included, so the callout lets in fewer (`decide/headcount.py`). Each costs
            the server 42 KB.
        subscriptions: of each connection in `APP`; the server reads an account's bound as one of every connection.
            A master has about a hundred. What is more is refused.
        payload_bytes: of one message.
        streams: JetStream's, of `APP` and of `STORE` each.
        consumers: JetStream's, likewise.
    """

    connections: int = 20_000
    subscriptions: int = 1_000
    payload_bytes: int = 1_048_576
    streams: int = 100
    consumers: int = 10_000


def configuration(public: PublicNames, limits: AccountLimits | None = None) -> str:
    """Return the lines of a server's configuration that make it ask the callout; for `Options.more`, or an include."""
    most = limits or AccountLimits()
    static = f"{public.callout}, {public.master}, {public.system}, {public.store}"
    jetstream = f"jetstream: {{ max_streams: {most.streams}, max_consumers: {most.consumers} }}"
    return f"""\
accounts {{
  {SYSTEM_ACCOUNT}: {{ users: [ {{ nkey: {public.system} }} ] }}
  {CALLOUT_ACCOUNT}: {{
    users: [
      {{
        nkey: {public.callout}
        permissions: {{
          subscribe: ["{ASK}"]
          publish: {{ deny: [">"] }}
          allow_responses: {{ max: 1, expires: "5s" }}
        }}
      }}
    ]
  }}
  {APP_ACCOUNT}: {{
    {jetstream}
    limits: {{
      max_connections: {most.connections}
      max_subscriptions: {most.subscriptions}
      max_payload: {most.payload_bytes}
    }}
    users: [ {{ nkey: {public.master} }} ]
  }}
  {STORE_ACCOUNT}: {{
    {jetstream}
    users: [ {{ nkey: {public.store} }} ]
  }}
}}
system_account: {SYSTEM_ACCOUNT}
authorization {{
  timeout: {ANSWER_MS_MAX / 1_000:g}
  auth_callout {{
    issuer: {public.issuer}
    account: {CALLOUT_ACCOUNT}
    auth_users: [ {static} ]
    xkey: {public.xkey}
  }}
}}"""


def production(public: PublicNames, limits: AccountLimits | None = None) -> str:
    """Return the same with what to do with it, for a server that Antiphon does not start."""
    return f"""\
# Include this in the configuration of every server of the cluster (nats-server 2.14.3 or newer). It has no secrets.
#   - A change of `authorization` needs a rolling restart; a reload drops every connection that the callout let in.
#   - The masters need the folder `keys` that these keys are from, with mode 0700; whoever has it is the fabric.
#   - Add `tls {{ ... }}`, because tokens travel in a client's first line, and `jetstream {{ store_dir: ... }}`.
#   - Leave `no_auth_user` out: it would let everybody in.
#   - Sockets that have not logged in count as connections until two seconds have passed; hence the room below.
ping_interval: "5s"
ping_max: 2
max_connections: {(limits or AccountLimits()).connections * 2}
{configuration(public, limits)}
"""
