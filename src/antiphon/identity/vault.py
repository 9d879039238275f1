"""The vault: the secrets that make this fabric this one, in `DATA/keys/`, made once and never changed by a start.

The folder is made whole under another name and then renamed, so that it is there with all its files or not at all,
and of two processes that make it at once one wins and both have its keys. From then on it is only read: a missing or
damaged file is an error and not a reason for a new one, because everything that was signed by the old one would be
worth nothing. Masters on other machines get a copy of the folder.
"""

from __future__ import annotations

import base64
import hmac
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from antiphon.bus.home import prepare
from antiphon.errors import Malformed, SecretsUnusable
from antiphon.identity.keypair import KeyPair, Role
from antiphon.identity.private import check_private, create_private, read_private, sync_folder
from antiphon.identity.xkey import CurvePair

FOLDER: Final = "keys"
PEPPER: Final = "pepper"
PEPPER_BYTES: Final = 32
ROLES: Final = {"issuer": Role.ACCOUNT, "callout": Role.USER, "master": Role.USER, "system": Role.USER}
XKEY: Final = "xkey"


@dataclass(frozen=True, slots=True)
class PublicNames:
    """The public halves of the vault: what the server's configuration says.

    Attributes:
        issuer: the account key (`A...`) that signs the callout's answers and the key set. Its seed is root.
        callout: the user (`U...`) that answers the server's authorization requests, in the account `AUTH`.
        master: the user of the masters, in the account `APP`.
        system: the user that ends connections, in the account `SYS`.
        store: the user that keeps the masters' buckets, in the account `STORE`, which nobody else can reach.
        xkey: the curve key (`X...`) that requests are sealed for.
    """

    issuer: str
    callout: str
    master: str
    system: str
    store: str
    xkey: str


@dataclass(frozen=True, slots=True)
class Vault:
    """The secrets; their text form shows the public halves alone."""

    issuer: KeyPair
    callout: KeyPair
    master: KeyPair
    system: KeyPair
    xkey: CurvePair
    pepper: bytes = field(repr=False)

    @classmethod
    def open(cls, data: Path) -> Vault:
        """Return the secrets of a data directory, made now if it has none.

        Raises `InvalidSetting` for a directory that cannot be used, and `SecretsUnusable` for a folder or file that is
        open to others, missing or damaged.
        """
        return cls.at(prepare(data) / FOLDER)

    @classmethod
    def at(cls, folder: Path) -> Vault:
        """Return the secrets in a folder, made now if there is no such folder; raises what `open` does."""
        folder = prepare(folder.absolute().parent) / folder.name
        if not folder.is_dir():
            try:
                _make(folder)
            except OSError as error:
                raise SecretsUnusable(f"{folder} cannot be made: {error}") from error
        return cls.load(folder)

    @classmethod
    def load(cls, folder: Path) -> Vault:
        """Return the secrets in a folder; raise `SecretsUnusable` as `open` does, and where there is no folder."""
        try:
            check_private(folder, folder.stat().st_mode, "700")
            pairs = {name: KeyPair.load(_read(folder / f"{name}.seed"), role) for name, role in ROLES.items()}
            xkey = CurvePair.load(_read(folder / f"{XKEY}.seed"))
            pepper = base64.b64decode(_read(folder / PEPPER), validate=True)
        except FileNotFoundError as error:
            text = f"{error.filename} is missing: put it back from a copy; without it a new fabric has to be made"
            raise SecretsUnusable(text) from error
        except (Malformed, ValueError) as error:
            raise SecretsUnusable(f"a file in {folder} was damaged, put it back from a copy: {error}") from error
        except OSError as error:
            raise SecretsUnusable(f"{folder} cannot be read: {error}") from error
        if len(pepper) != PEPPER_BYTES:
            raise SecretsUnusable(f"{folder / PEPPER} was damaged: it has {len(pepper)} bytes, not {PEPPER_BYTES}")
        return cls(**pairs, xkey=xkey, pepper=pepper)

    @property
    def store(self) -> KeyPair:
        """The user that keeps the masters' buckets; it follows from the pepper."""
        return KeyPair(Role.USER, hmac.digest(self.pepper, b"antiphon store key", "sha256"))

    @property
    def public(self) -> PublicNames:
        """The public halves."""
        return PublicNames(
            issuer=self.issuer.public,
            callout=self.callout.public,
            master=self.master.public,
            system=self.system.public,
            store=self.store.public,
            xkey=self.xkey.public,
        )


def _make(folder: Path) -> None:
    """Make the folder whole, or leave the one that another process made in the same moment."""
    fresh = Path(tempfile.mkdtemp(prefix=f".{FOLDER}.", suffix=".new", dir=folder.parent))  # mode 0700
    try:
        for name, role in ROLES.items():
            create_private(fresh / f"{name}.seed", KeyPair.make(role).seed() + "\n")
        create_private(fresh / f"{XKEY}.seed", CurvePair.make().seed() + "\n")
        create_private(fresh / PEPPER, base64.b64encode(os.urandom(PEPPER_BYTES)).decode("ascii") + "\n")
        sync_folder(fresh)
        try:
            fresh.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
            # theirs is there already: a folder with files in it is not replaced
        else:
            sync_folder(folder.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _read(path: Path) -> str:
    return read_private(path).strip()
