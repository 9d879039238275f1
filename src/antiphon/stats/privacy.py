"""What is stored of a query's text: all of it, a keyed hash, or nothing.

The hash is keyed with a secret of the record's folder, so that equal queries stay equal and nobody can try out a list
of words without it (BLAKE2b, RFC 7693).
"""

from __future__ import annotations

import hashlib
import re
import secrets
from pathlib import Path
from typing import Final, Literal

from antiphon.bus.home import write_private
from antiphon.decide.record_rows import Hide, as_is
from antiphon.errors import InvalidSetting
from antiphon.stats.files import KEY

Keep = Literal["plain", "hashed", "none"]
DIGEST_BYTES: Final = 16
KEY_BYTES: Final = 32
_KEY: Final = re.compile(f"[0-9a-f]{{{2 * KEY_BYTES}}}")


def hidden(keep: Keep, folder: Path) -> Hide:
    """Return what makes the stored text of a query; a hash's key is made at the first use."""
    if keep == "plain":
        return as_is
    if keep == "none":
        return _nothing
    path = folder / KEY
    if not path.exists():
        write_private(path, secrets.token_hex(KEY_BYTES))
    key = _read(path)

    def digest(query: str) -> str:
        return hashlib.blake2b(query.encode("utf-8", "replace"), key=key, digest_size=DIGEST_BYTES).hexdigest()

    return digest


def _read(path: Path) -> bytes:
    """Return the key; raises `InvalidSetting` for a file that holds none, which would be no secret."""
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    if not _KEY.fullmatch(text):
        raise InvalidSetting(
            f"{path} holds no key of hashed queries: put it back, or remove it to begin with a new one"
        )
    return bytes.fromhex(text)


def _nothing(_query: str) -> str | None:
    return None
