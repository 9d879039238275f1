"""What masters keep of identities: one record a key of the identity bucket, and the reasons for refusing somebody.

Records are JSON, written by compare-and-set by masters only, and read by every master. None of them holds a secret that
would let its reader in: refresh tokens stand as SHA-256, API keys and join tokens as an HMAC under a pepper that is not
in the bucket. Times are wall-clock milliseconds since 1970. Readers ignore unknown fields; every field has a bound.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from antiphon.messages.base import Count, Kind, Label, Name
from antiphon.messages.identities import INSTANCES_MAX
from antiphon.messages.tokens import Groups, Nkey, Serial

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256 or HMAC-SHA-256, in hexadecimal."""


class Standing(StrEnum):
    """Whether an identity may come in."""

    ACTIVE = "active"
    SUSPENDED = "suspended"


class Reason(StrEnum):
    """Why somebody is not let in. Stable: audit facts, alerts and tests go by it."""

    MISSING = "missing"
    MALFORMED = "malformed"
    OVERSIZE = "oversize"
    WRONG_ALGORITHM = "wrong_algorithm"
    WRONG_TYPE = "wrong_type"
    UNKNOWN_KEY_ID = "unknown_key_id"
    BAD_SIGNATURE = "bad_signature"
    WRONG_ISSUER = "wrong_issuer"
    WRONG_AUDIENCE = "wrong_audience"
    NOT_YET_VALID = "not_yet_valid"
    EXPIRED = "expired"
    ISSUED_BEFORE = "issued_before"
    NO_PROOF = "no_proof"
    WRONG_CLOCK = "wrong_clock"
    REPLAYED = "replayed"
    WRONG_KEY = "wrong_key"
    WRONG_NAME = "wrong_name"
    WRONG_KIND = "wrong_kind"
    WRONG_INSTANCE = "wrong_instance"
    UNKNOWN_IDENTITY = "unknown_identity"
    UNKNOWN_CREDENTIAL = "unknown_credential"
    WRONG_SECRET = "wrong_secret"  # noqa: S105 - the name of a reason
    SUSPENDED = "suspended"
    REVOKED_TOKEN = "revoked_token"  # noqa: S105 - the name of a reason
    REVOKED_FAMILY = "revoked_family"
    REVOKED_KEY = "revoked_key"
    REVOKED_INVITE = "revoked_invite"
    REUSED = "reused"
    USED_UP = "used_up"
    INSTANCE_TAKEN = "instance_taken"
    TOO_MANY_INSTANCES = "too_many_instances"
    NOT_A_DELEGATE = "not_a_delegate"
    TOO_OFTEN = "too_often"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    WRONG_CONNECTION = "wrong_connection"


class Record(BaseModel):
    """The root of all records: frozen, and written anew as a whole."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    area: ClassVar[str]
    """First token of the record's key in the bucket."""


class IdentityRecord(Record):
    """Who somebody is; `id.<name>`. Names are unique over all kinds."""

    area: ClassVar[str] = "id"

    name: Name
    kind: Kind
    groups: Groups = ()
    is_delegate: bool = False
    """Whether it may speak for others: an HTTP gateway, an assistant."""
    status: Standing = Standing.ACTIVE
    created_ms: Count = 0
    not_before_ms: Count = 0
    """Every access token, refresh family and API key from before this moment is refused: the identity was revoked."""
    instances_max: int = Field(default=INSTANCES_MAX, ge=1, le=INSTANCES_MAX)

    @property
    def key(self) -> str:
        """The record's key in the bucket."""
        return f"{self.area}.{self.name}"


class FamilyRecord(Record):
    """The line of refresh tokens of one instance and its key, each the successor of the one before; `family.<id>`."""

    area: ClassVar[str] = "family"

    id: Serial
    identity: Name
    instance: Name | None = None
    nkey: Nkey
    current: Digest
    previous: Digest | None = None
    created_ms: Count = 0
    rotated_ms: Count = 0
    is_used: bool = False
    """Whether an access token was used since the newest rotation: what was handed out then has arrived."""
    expires_ms: Count
    idle_ms: Count | None = None
    """How long it lives without use; None: as long as families do. Shorter for what can begin anew at any time."""
    revoked: Label | None = None
    """Why it was revoked, None while it lives."""

    @property
    def key(self) -> str:
        """The record's key in the bucket."""
        return f"{self.area}.{self.id}"


class ApiKeyRecord(Record):
    """A credential for those that cannot keep a refresh token; `key.<id>`. It buys access tokens and nothing else."""

    area: ClassVar[str] = "key"

    id: Serial
    identity: Name
    mac: Digest
    label: Label = ""
    nkey: Nkey | None = None
    """The only nkey that may use it, None = any."""
    created_ms: Count = 0
    expires_ms: Count | None = None
    is_revoked: bool = False

    @property
    def key(self) -> str:
        """The record's key in the bucket."""
        return f"{self.area}.{self.id}"


class InviteRecord(Record):
    """A join token: the right to be so many new instances of one node; `invite.<id>`."""

    area: ClassVar[str] = "invite"

    id: Serial
    node: Name
    mac: Digest
    instances_left: int = Field(default=1, ge=0, le=INSTANCES_MAX)
    created_ms: Count = 0
    expires_ms: Count
    is_revoked: bool = False

    @property
    def key(self) -> str:
        """The record's key in the bucket."""
        return f"{self.area}.{self.id}"
