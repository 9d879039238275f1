"""The credential file: what one process keeps of who it is, `DATA/credentials/<name>[.<instance>].json`.

It holds the process's own key and the tokens that go with it, for this user alone (0600). A refresh token is good
once, so whoever renews holds the lock beside the file from reading the old one to writing its successor: two
processes on one file take turns instead of looking like a thief and its victim. `DATA/operator.json` has the same
form, with an API key in place of a refresh token, so that many short commands can use it at once.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Final, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from antiphon.bus.home import prepare
from antiphon.errors import InvalidSetting, Malformed, NotAuthenticated, SecretsUnusable
from antiphon.identity.keypair import KeyPair, Role
from antiphon.identity.private import check_private, lock_of, locked, read_private, replace_private
from antiphon.messages.base import Count, Kind, Name
from antiphon.messages.tokens import Nkey
from antiphon.subjects import token

FOLDER: Final = "credentials"
OPERATOR: Final = "operator.json"
LOCK_WAIT_MS: Final = 15_000
"""Longer than another process's renewal takes, which ends with its own request's budget."""

Secret = Annotated[str, Field(min_length=1, max_length=4_096)]


class Credential(BaseModel):
    """Who a process is, and how it proves it; secrets stay out of its text form."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    name: Name
    kind: Kind
    instance: Name | None = None
    seed: Secret = Field(repr=False)
    """The process's own user nkey (`SU...`)."""
    access: Secret | None = Field(default=None, repr=False)
    access_expires_ms: Count = 0
    """Wall clock; 0 = there is no access token yet."""
    access_life_ms: Count = 3_600_000
    """How long it lives as a whole, by which it is judged when it is due."""
    refresh: Secret | None = Field(default=None, repr=False)
    api_key: Secret | None = Field(default=None, repr=False)
    issuer: Nkey | None = None
    """The fabric's issuer (`A...`), by which key sets are checked; None before the first exchange."""
    is_open: bool = False
    """Whether it was made on a server that asks nobody: only then is it ever shown on one."""
    keys: Annotated[str, Field(max_length=8_192)] | None = None
    """The key set that came with the access token (`jwks.py`): what verifies the tokens of others."""

    @field_validator("seed")
    @classmethod
    def _is_a_seed(cls, seed: str) -> str:
        try:
            KeyPair.load(seed, Role.USER)
        except Malformed as error:
            raise ValueError(error.text) from error
        return seed

    @property
    def keypair(self) -> KeyPair:
        """The process's own key."""
        return KeyPair.load(self.seed, Role.USER)

    @property
    def has_token(self) -> bool:
        """Whether there is anything to log in with; one that was never joined holds a key alone."""
        return any((self.access, self.refresh, self.api_key))

    def bearer(self, now_ms: int) -> str | None:
        """Return what to connect with: the access token while it is good, else what buys a new one, None without."""
        if self.access is not None and now_ms < self.access_expires_ms:
            return self.access
        return self.refresh or self.api_key


def fabric_of(token: str) -> str | None:
    """Return the fabric that an access token says it is for, unchecked: for a word to people, not for a verdict."""
    body = token.split(".")[1:2]
    try:
        said: object = json.loads(base64.urlsafe_b64decode(body[0] + "=" * (-len(body[0]) % 4))) if body else None
    except ValueError:
        return None
    return str(cast("dict[str, object]", said).get("aud")) if isinstance(said, dict) else None


def path_of(data: Path, name: str, instance: str | None = None) -> Path:
    """Return where the credential of an identity lies; raise `InvalidName` for a name that would lie elsewhere."""
    parts = [token(name), *([token(instance)] if instance is not None else [])]
    return data / FOLDER / f"{'.'.join(parts)}.json"


def read(path: Path) -> Credential:
    """Return the credential in a file.

    Raises `NotAuthenticated` where there is none, and `SecretsUnusable` for one that is damaged or open to others.
    """
    try:
        text = read_private(path)
    except FileNotFoundError as error:
        raise NotAuthenticated(f"there is no credential at {path}: get one with `antiphon login`") from error
    try:
        return Credential.model_validate_json(text)
    except ValidationError as error:
        wrong = ", ".join(".".join(map(str, one["loc"])) or one["type"] for one in error.errors(include_input=False))
        advice = "`antiphon up` makes a new one" if path.name == OPERATOR else "log in again with `antiphon login`"
        raise SecretsUnusable(f"{path} is no credential, or was damaged ({wrong}): delete it, and {advice}") from None


def find(path: Path) -> Credential | None:
    """Return the credential in a file, None where there is no file; raises what `read` does for a damaged one."""
    return read(path) if path.exists() else None


def write(path: Path, credential: Credential) -> None:
    """Write a credential in one step, for this user alone; make the folder that it lies in, for this user alone.

    Raises `SecretsUnusable` for a folder that is open to others, and `InvalidSetting` where nothing can be written.
    """
    try:
        if path.parent.name == FOLDER:
            prepare(path.parent.parent)
        if not path.parent.is_dir():
            path.parent.mkdir(mode=0o700, exist_ok=True)
        if path.parent.name == FOLDER:
            check_private(path.parent, path.parent.stat().st_mode, "700")
        replace_private(path, credential.model_dump_json(indent=2, exclude_none=True) + "\n")
    except OSError as error:
        raise InvalidSetting(f"the credential {path} cannot be written: {error.strerror}") from error


def discard(path: Path) -> None:
    """Delete a credential, with the file that it was locked by."""
    for one in (path, lock_of(path)):
        one.unlink(missing_ok=True)


class Held:
    """A credential while its lock is held."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.credential = read(path)
        """As it is now: another process may have renewed it while this one waited for the lock."""

    def replace(self, credential: Credential) -> None:
        """Write what was bought with the old one; do it before anything else that may fail."""
        write(self.path, credential)
        self.credential = credential


@asynccontextmanager
async def held(path: Path, wait_ms: int = LOCK_WAIT_MS) -> AsyncGenerator[Held]:
    """Hold a credential alone while it is renewed.

    Raises what `read` does, and `OutOfBudget` when another process holds it for longer than `wait_ms`.
    """
    read(path)  # says at once that there is none: the lock would need its folder
    async with locked(path, wait_ms):
        yield Held(path)
